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
        self.ends_s = ends_s
        self.answers: list[tuple[float, Outcome]] = []
        self.poster = Poster(
            self,
            request_timeout_s=30.0,
            accept_statuses=(),
            allowed=lambda: True,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            sleep=self.pause,
            ends=lambda: self.ends_s,
        )

    def start(
        self, body: bytes, *, key: str, timeout_s: float, spool_range: str
    ) -> Callable[[], Outcome]:
        took_s, outcome = self.answers.pop(0)

        def answer() -> Outcome:
            self.now += min(took_s, timeout_s)
            return outcome if took_s < timeout_s else LATE

        return answer

    def pause(self, seconds: float) -> None:
        """Time stands still."""


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


class Limited(Server):
    """Takes `burst` requests, and one more each `every_s`; an answer takes a millisecond."""

    def __init__(self, *, burst: int, every_s: float, ends_s: float = 60.0) -> None:
        super().__init__(ends_s)
        self.at_once = 4
        self.left, self.every_s, self.burst = float(burst), every_s, burst
        self.pauses: list[float] = []
        self.paused_at = -1.0
        self.asked = 0
        self.headers: dict[str, str] = {}

    def start(
        self, body: bytes, *, key: str, timeout_s: float, spool_range: str
    ) -> Callable[[], Outcome]:
        self.asked += 1
        self.now += 0.001
        self.left = min(self.left + 0.001 / self.every_s, self.burst)
        if self.left < 1:
            return lambda: Reply(429, self.headers, b"", complete=True)
        self.left -= 1
        return lambda: OK

    def pause(self, seconds: float) -> None:
        """What follows another one without a request between belongs to it."""
        so_far = self.pauses.pop() if self.paused_at == self.now else 0.0
        self.pauses.append(so_far + seconds)
        self.now += seconds
        self.paused_at = self.now
        self.left = min(self.left + seconds / self.every_s, self.burst)


@pytest.mark.parametrize("every_s", [0.02, 0.1, 0.5, 1.0, 2.0])
def test_a_server_that_limits_requests_gets_about_as_many_as_it_takes(
    every_s: float,
) -> None:
    """Not all at once, of which it takes one; and not one in two seconds where it takes ten."""
    server = Limited(burst=3, every_s=every_s)
    accepted = 0
    while server.now < 20.0:
        accepted += server.poster.post(REQUEST).action is Action.ACCEPTED
    assert accepted >= min(20.0 / every_s, 200.0) / 3
    assert server.asked <= 2 * accepted


def test_no_pause_is_kept_that_takes_more_than_a_tenth_of_what_is_left() -> None:
    """A flush at the end of a program has a second."""
    server = Limited(burst=1, every_s=100.0, ends_s=1.0)
    for _ in range(5):
        server.poster.post(REQUEST)
    assert server.pauses == []
    server = Limited(burst=1, every_s=100.0, ends_s=12.0)
    for _ in range(6):
        server.poster.post(REQUEST)
    assert server.pauses == pytest.approx([0.5, 1.0])


def test_requests_under_way_at_once_meet_one_limit() -> None:
    """They are answered with 429 because of one another: one pause is what that tells."""
    server = Limited(burst=4, every_s=100.0)
    assert server.poster.at_once == 1
    for _ in range(4):
        server.poster.post(REQUEST)
    assert server.poster.at_once == 4
    for sent in [server.poster.send(REQUEST) for _ in range(4)]:
        server.poster.answer(sent)
    assert server.poster.at_once == 1
    server.poster.send(REQUEST)
    assert server.pauses == pytest.approx([0.5])


def test_a_pause_is_as_long_as_the_server_asks_for_within_a_bound() -> None:
    """What it asks beyond that ends a flush, and holds until the next one."""
    for asked, pause_s in ("1", 1.0), ("90", 2.0):
        server = Limited(burst=1, every_s=100.0)
        server.headers = {"retry-after": asked}
        for _ in range(3):
            server.poster.post(REQUEST)
        assert server.pauses == pytest.approx([pause_s])


def test_a_server_that_never_accepted_is_given_no_pauses_here() -> None:
    """How many requests such a server sees is what the drain bounds."""
    server = Limited(burst=0, every_s=100.0)
    for _ in range(4):
        server.poster.post(REQUEST)
    assert (server.pauses, server.poster.at_once) == ([], 1)


class Ending(Limited):
    """Its flush is brought to its end while it pauses."""

    def pause(self, seconds: float) -> None:
        super().pause(seconds)
        self.ends_s = 0.1


def test_a_pause_ends_with_its_flush() -> None:
    """The program ends meanwhile: what came of the flush has to be written down."""
    server = Ending(burst=1, every_s=100.0)
    for _ in range(2):
        server.poster.post(REQUEST)
    with pytest.raises(Halted, match="deadline"):
        server.poster.post(REQUEST)
    assert server.pauses == pytest.approx([0.1])


def test_what_was_under_way_says_nothing_of_the_pause_that_follows() -> None:
    """It was sent before: three acceptances left no pause behind a limit."""
    server = Limited(burst=20, every_s=100.0)
    for _ in range(4):
        server.poster.post(REQUEST)
    sent = [server.poster.send(REQUEST) for _ in range(4)]
    sent[0] = sent[0]._replace(outcome=lambda: Reply(429, {}, b"", complete=True))
    for each in sent:
        server.poster.answer(each)
    server.poster.send(REQUEST)
    assert server.pauses == pytest.approx([0.5])
