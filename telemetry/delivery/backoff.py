"""What a flush that ended means for the next one. Pure.

drained    the next launches leave the network alone for the flush interval
deadline   with something delivered: the next may go on at once
waiting    what the server asked for, else backoff that doubles with each
           flush that delivered nothing, from one minute to six hours
paused     six hours, or until endpoint, key or header change
disk       backoff, as for waiting
off        nothing changes
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from telemetry.books.entries import DeliveryState
from telemetry.delivery.schedule import HORIZON_S
from telemetry.wire.verdict import Verdict


def backoff_s(
    failures: int, *, first_s: float, max_s: float, random: Callable[[], float]
) -> float:
    """Seconds to the next flush after `failures` in a row: exponential, full jitter.

    Uniform between zero and the window, which doubles from `first_s` to `max_s`
    (the "full jitter" of the AWS Architecture Blog). `random` gives 0 to 1.
    """
    window = min(max_s, first_s * 2.0 ** min(max(failures - 1, 0), 62))
    return random() * window


# A server that refuses the key will not take it a minute later; a person who
# corrects it changes the identity, which ends the pause at once.
PAUSE_S = 6 * 3600.0


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """The waits that a config sets, in seconds."""

    flush_interval_s: float
    retry_first_s: float
    retry_max_s: float


def conclude(
    before: DeliveryState,
    *,
    stopped: str,
    verdict: Verdict | None,
    delivered: int,
    requests: int,
    identity: str,
    now: float,
    delays: Delays,
    random: Callable[[], float],
) -> DeliveryState:
    """The state after a flush; `next_attempt_ms` is when the next may begin.

    `now` is seconds since 1970. A state that was learnt with another endpoint,
    key or header says nothing about this one.
    """
    same = before.identity == identity
    failures = before.failures if same and not delivered else 0
    wait_s = 0.0
    if stopped == "drained":
        failures, wait_s = 0, delays.flush_interval_s
    elif stopped == "paused":
        failures, wait_s = failures + 1, PAUSE_S
    elif stopped in {"waiting", "disk"} or (stopped == "deadline" and not delivered):
        failures += 1
        wait_s = backoff_s(
            failures,
            first_s=delays.retry_first_s,
            max_s=delays.retry_max_s,
            random=random,
        )
        if verdict is not None and verdict.retry_after_s is not None:
            # Never less than our own: `Retry-After: 0` must not start a flusher a launch.
            wait_s = max(wait_s, verdict.retry_after_s)
    now_ms = int(now * 1000)
    error = verdict is not None
    return DeliveryState(
        failures=failures,
        last_success_ms=now_ms if delivered else before.last_success_ms,
        last_error=_told(verdict) if verdict is not None else before.last_error,
        last_error_ms=now_ms if error else before.last_error_ms,
        next_attempt_ms=int((now + min(wait_s, HORIZON_S)) * 1000),
        stopped=stopped,
        identity=identity,
        requests=before.requests + requests,
    )


def _told(verdict: Verdict) -> str:
    return f"{verdict.reason}: {verdict.detail}" if verdict.detail else verdict.reason
