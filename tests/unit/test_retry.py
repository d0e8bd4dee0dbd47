"""The requests of one flush: when none begins any more, and whose time was up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from telemetry.wire.batch import Request
from telemetry.wire.retry import FAIR, Halted, Poster
from telemetry.wire.verdict import Action, Failure, Outcome, Reply


OK = Reply(200, {}, b"{}", complete=True)
LATE = Failure("timeout", "no answer in time")
REQUEST = Request(body=b"{}", digest="", key="", spool_range="")


class Server:
    """Each answer takes so many seconds of a clock that stands still otherwise."""

    at_once = 1

    def __init__(self, ends_s: float) -> None:
        self.now = 0.0
        self.answers: list[tuple[float, Outcome]] = []
        self.poster = Poster(
            self,
            request_timeout_s=30.0,
            accept_statuses=(),
            allowed=lambda: True,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            sleep=lambda _: None,
            ends=lambda: ends_s,
        )

    def start(
        self, body: bytes, *, key: str, timeout_s: float, spool_range: str
    ) -> Callable[[], Outcome]:
        took_s, outcome = self.answers.pop(0)

        def answer() -> Outcome:
            self.now += min(took_s, timeout_s)
            return outcome if took_s < timeout_s else LATE

        return answer


def test_no_request_begins_that_would_not_end() -> None:
    """The server would store it and get it again: that is no way to end a flush."""
    server = Server(ends_s=1.0)
    server.answers = [(0.3, OK)] * 3
    for _ in range(2):
        assert server.poster.post(REQUEST).action is Action.ACCEPTED
    with pytest.raises(Halted, match="deadline") as halted:
        server.poster.post(REQUEST)
    assert halted.value.verdict is None, "nothing was begun, and nothing cut"
    assert (len(server.answers), server.now) == (1, 0.6)


def test_a_slow_server_has_each_request_that_the_flush_has_time_for() -> None:
    """An answer takes nearly all the time that a request may have."""
    server = Server(ends_s=200.0)
    server.answers = [(25.0, OK)] * 8
    for _ in range(7):
        assert server.poster.post(REQUEST).action is Action.ACCEPTED
    with pytest.raises(Halted, match="deadline"):
        server.poster.post(REQUEST)


def test_the_first_request_of_a_flush_begins_however_short_it_is() -> None:
    """How long an answer takes is not known yet."""
    server = Server(ends_s=0.01)
    server.answers = [(0.005, OK)]
    assert server.poster.post(REQUEST).action is Action.ACCEPTED
    with pytest.raises(Halted, match="deadline"):
        server.poster.send(REQUEST)


@pytest.mark.parametrize(("answered_s", "is_fair"), [(0.1, True), (0.35, False)])
def test_a_request_that_its_flush_cut_is_held_against_it_only_if_it_had_time(
    answered_s: float, is_fair: bool
) -> None:
    """Three times as long as another one was answered in."""
    server = Server(ends_s=1.0)
    server.answers = [(answered_s, OK), (5.0, OK)]
    server.poster.post(REQUEST)
    with pytest.raises(Halted) as halted:
        server.poster.post(REQUEST)
    assert halted.value.verdict is not None
    assert halted.value.verdict.narrow is is_fair
    assert is_fair == (1.0 - answered_s >= FAIR * answered_s)
