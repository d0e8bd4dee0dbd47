"""What a flush that ended means for the next one. Pure.

drained    the next launches leave the network alone for the flush interval
deadline   with something delivered: the next may go on at once, unless it was spent on
           what had been set aside, or the server asked for time
waiting    what the server asked for, spread over 1 to 2 times that; else backoff
           that doubles with each flush that delivered nothing, to six hours
           on what was set aside alone: the same, to ten minutes
paused     six hours, or until endpoint, key, header, format or gzip change; by a refusal
           (400, 413, 422), which is about what was sent: as for waiting, to six hours
disk       backoff, as for waiting
off        nothing changes

A flush that delivered nothing is followed by none for at least `retry_first_s`,
so the tries of one flush are all that a server sees within that window.
"""

from __future__ import annotations

from collections.abc import Callable

from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.delivery.schedule import HORIZON_S
from telemetry.wire.verdict import Action, Verdict


# A server that refuses the key will not take it a minute later; a person who
# corrects it changes the destination, which ends the pause.
PAUSE_S = 6 * 3600.0
# What was set aside may fail for ever, and a new event must not wait for it.
SET_ASIDE_S = 600.0


def backoff_s(
    failures: int, *, first_s: float, max_s: float, random: Callable[[], float]
) -> float:
    """Seconds to the next flush after `failures` in a row, 1 or more.

    `first_s`, and full jitter on top: uniform between zero and a window that doubles
    from `first_s` to `max_s` (AWS Architecture Blog). `random` gives 0 to 1.
    """
    window = min(max_s, first_s * 2.0 ** min(failures - 1, 62))
    return first_s + random() * window


def conclude(
    before: DeliveryState,
    *,
    stopped: str,
    verdict: Verdict | None,
    delivered: int,
    requests: int,
    identity: str,
    failures: int,
    now: float,
    config: Config,
    says_nothing: bool = False,
    random: Callable[[], float],
) -> DeliveryState:
    """The state after a flush; `next_attempt_ms` is when the next may begin.

    `failures` is how many flushes to this destination delivered nothing in a row,
    before this one; `now` is seconds since 1970. `says_nothing`: it ended on what had
    been set aside while others were accepted.
    """
    wait_s = 0.0
    asked_s = verdict.retry_after_s if verdict is not None else None
    is_refused = verdict is not None and verdict.action is Action.SPLIT
    backs_off = stopped in {"waiting", "disk"} or (stopped == "paused" and is_refused)
    if delivered:
        failures = 0
    if stopped == "drained":
        failures, wait_s = 0, config.flush_interval_s
    elif stopped == "paused" and not is_refused:
        failures, wait_s = failures + 1, PAUSE_S
    elif backs_off or (
        stopped == "deadline" and (says_nothing or asked_s or not delivered)
    ):
        failures += 1
        first_s, max_s = config.retry_first_s, config.retry_max_s
        if says_nothing:
            max_s = min(max_s, SET_ASIDE_S)
        wait_s = backoff_s(failures, first_s=first_s, max_s=max_s, random=random)
    is_asked = False
    if asked_s is not None and (backs_off or stopped == "deadline"):
        # Spread, or all who were asked at once come back at once. Never less than our
        # own: `Retry-After: 0` must not start a flusher a launch.
        spread_s = asked_s * (1.0 + random())
        is_asked, wait_s = spread_s > wait_s, max(wait_s, spread_s)
    now_ms = int(now * 1000)
    error, error_ms = before.last_error, before.last_error_ms
    if verdict is not None:
        detail = f": {verdict.detail}" if verdict.detail else ""
        error, error_ms = f"{verdict.reason}{detail}", now_ms
    return DeliveryState(
        failures=failures,
        last_success_ms=now_ms if delivered else before.last_success_ms,
        accepted=identity if delivered else before.accepted,
        last_error=error,
        last_error_ms=error_ms,
        next_attempt_ms=int((now + min(wait_s, HORIZON_S)) * 1000),
        is_asked=is_asked,
        stopped=stopped,
        identity=identity,
        requests=before.requests + requests,
    )
