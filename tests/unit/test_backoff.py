"""What a flush that ended means for the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.delivery.backoff import PAUSE_S, conclude
from telemetry.delivery.schedule import HORIZON_S
from telemetry.wire.verdict import Action, Verdict


NOW = 1_900_000_000.0
CONFIG = Config(
    app="frobnicate", flush_interval_s=60.0, retry_first_s=60.0, retry_max_s=6 * 3600.0
)
LEAST: Callable[[], float] = lambda: 0.0  # noqa: E731 - two ends of a random number
MOST: Callable[[], float] = lambda: 1.0  # noqa: E731


def after(stopped: str, **changes: Any) -> tuple[int, float]:
    """Failures in a row after a flush, and the seconds until the next one."""
    values: dict[str, Any] = {
        "verdict": None,
        "delivered": 0,
        "requests": 1,
        "identity": "0a1b2c3d",
        "failures": 0,
        "now": NOW,
        "config": CONFIG,
        "random": LEAST,
    }
    state = conclude(DeliveryState(), stopped=stopped, **{**values, **changes})
    return state.failures, state.next_attempt_ms / 1000 - NOW


def test_time_that_was_spent_on_what_had_been_set_aside_counts_as_a_failure() -> None:
    """Else each launch would spend its second at exit on an event without an answer."""
    assert after("deadline", delivered=5, says_nothing=True) == (1, 60.0)


@pytest.mark.parametrize("delivered", [0, 5])
def test_a_flush_that_time_ended_obeys_what_the_server_asked_for(
    delivered: int,
) -> None:
    """The next one may not begin at once, whatever was delivered before."""
    failures, wait_s = after("deadline", delivered=delivered, verdict=asked(300))
    assert wait_s == 300.0
    # A program that flushes at exit asks whether the last flush failed.
    assert failures > 0


def asked(seconds: float) -> Verdict:
    return Verdict(Action.WAIT, "503", retry_after_s=seconds)


@pytest.mark.parametrize(
    ("stopped", "delivered", "expected"),
    [
        ("drained", 5, (0, 60.0)),
        ("drained", 0, (0, 60.0)),
        ("deadline", 5, (0, 0.0)),
        ("deadline", 0, (3, 60.0)),
        ("waiting", 0, (3, 60.0)),
        ("waiting", 5, (1, 60.0)),
        ("disk", 0, (3, 60.0)),
        ("paused", 0, (3, PAUSE_S)),
        ("paused", 5, (1, PAUSE_S)),
    ],
)
def test_each_end_has_its_wait(
    stopped: str, delivered: int, expected: tuple[int, float]
) -> None:
    """One table, so that a new reason is a line and not a branch."""
    assert after(stopped, delivered=delivered, failures=2) == expected


def test_a_refusal_of_what_was_sent_is_no_pause_of_six_hours() -> None:
    """The next four events may be others, of which one is accepted."""
    refused = Verdict(Action.SPLIT, "400")
    assert after("paused", failures=2, verdict=refused) == (3, 60.0)
    # A time that it names for events that are too large (RFC 9110, 15.5.14) holds.
    asks = Verdict(Action.SPLIT, "413", retry_after_s=3600.0)
    assert after("paused", verdict=asks) == (1, 3600.0)
    assert (
        after("paused", failures=2, verdict=Verdict(Action.PAUSE, "401"))[1] == PAUSE_S
    )


def test_a_destination_that_accepted_is_remembered_beside_the_one_of_the_last_flush() -> (
    None
):
    """Another one is not taken for a server that takes some."""

    def state(before: DeliveryState, identity: str, delivered: int) -> DeliveryState:
        return conclude(
            before,
            stopped="waiting",
            verdict=None,
            delivered=delivered,
            requests=1,
            identity=identity,
            failures=0,
            now=NOW,
            config=CONFIG,
            random=LEAST,
        )

    first = state(DeliveryState(), "0000000a", 1)
    then = state(first, "0000000b", 0)
    assert (first.accepted, then.accepted, then.identity) == (
        *("0000000a", "0000000a"),
        "0000000b",
    )


def test_backoff_doubles_to_six_hours_and_is_never_below_a_window() -> None:
    """A server that is down sees the tries of one flush within a window, and no more."""
    windows = []
    for failures in range(20):
        least = after("waiting", failures=failures)[1]
        most = after("waiting", failures=failures, random=MOST)[1]
        assert least == 60.0
        windows.append(most - least)
    assert windows[:4] == [60.0, 120.0, 240.0, 480.0]
    assert windows[-1] == 6 * 3600.0
    assert windows == sorted(windows)


def test_retry_after_is_spread_over_once_to_twice_and_at_most_a_day() -> None:
    """All who were sent away at once must not come back at once."""
    assert after("waiting", verdict=asked(3600.0))[1] == 3600.0
    assert after("waiting", verdict=asked(3600.0), random=MOST)[1] == 7200.0
    assert after("waiting", verdict=asked(HORIZON_S), random=MOST)[1] == HORIZON_S
    # Never less than our own.
    assert after("waiting", verdict=asked(0.0))[1] == 60.0


@pytest.mark.parametrize(
    ("asked_s", "stopped", "is_asked"),
    [
        (3600.0, "waiting", True),
        (3600.0, "deadline", True),
        (3600.0, "paused", False),
        (59.0, "waiting", False),
        (None, "waiting", False),
    ],
)
def test_a_wait_is_the_servers_where_it_is_longer_than_our_own(
    asked_s: float | None, stopped: str, is_asked: bool
) -> None:
    """`status` says whose it is."""
    verdict = Verdict(Action.WAIT, "503", retry_after_s=asked_s)
    values: dict[str, Any] = {"identity": "", "failures": 0, "now": NOW}
    values |= {"config": CONFIG, "random": LEAST, "requests": 1, "delivered": 0}
    state = conclude(DeliveryState(), stopped=stopped, verdict=verdict, **values)
    assert state.is_asked == is_asked


def test_what_is_remembered_of_an_error_and_of_a_success() -> None:
    """`status` says what went wrong last, also after it went well again."""
    before = DeliveryState(last_error="dns: no such host", last_error_ms=5, requests=7)
    values: dict[str, Any] = {"identity": "", "failures": 0, "now": NOW}
    values |= {"config": CONFIG, "random": LEAST, "requests": 2}
    well = conclude(before, stopped="drained", verdict=None, delivered=3, **values)
    assert (well.last_error, well.last_error_ms) == ("dns: no such host", 5)
    assert (well.last_success_ms, well.requests) == (NOW * 1000, 9)
    verdict = Verdict(Action.WAIT, "503", "try later")
    failed = conclude(well, stopped="waiting", verdict=verdict, delivered=0, **values)
    assert (failed.last_error, failed.last_error_ms) == ("503: try later", NOW * 1000)
    assert failed.last_success_ms == NOW * 1000
