"""The flusher's own process: it flushes, and ends.

It has nothing of the program's that started it but the flush lock, and in debug mode
standard error, where it says what servers answer. It ends itself a little before its
lifetime, and an alarm that was set before anything was loaded ends it at the latest.
What it waits for, it waits for without the flush lock: after a failure before it
begins, and once a server has named a time, for that time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from telemetry.consent import consent
from telemetry.delivery import schedule
from telemetry.delivery.launch import FlusherArguments
from telemetry.logs import quiet_logger
from telemetry.paths import Home


# For the last request to end and the books to be written.
_MARGIN_S = 5.0
# How long it comes back when a server asks for it. A program that is launched by the
# hour would bring its events an hour later; an idle process costs some megabytes.
PATIENCE_S = 600.0


def main(values: dict[str, Any], end_after: Callable[[int], object]) -> None:
    """Flush as `FlusherArguments` says. Never returns: the process ends here.

    `end_after` sets the seconds from now after which the process is ended.
    """
    _be_killed_before_the_host()
    arguments = msgspec.convert(values, FlusherArguments)
    home = Home(arguments.home)
    lock = arguments.lock if arguments.lock >= 0 else None
    patience_ends = time.monotonic() + arguments.wait_s + PATIENCE_S
    if lock is None:
        time.sleep(arguments.wait_s)
        lock = _lock_after_wait(home, arguments.next_flush)
    while lock is not None:
        end_after(arguments.lifetime_s)
        next_attempt, is_finished = _flush(arguments, home, lock)
        if is_finished:
            schedule.note_finished(home)
        wait_s = max((next_attempt or 0.0) - time.time(), 0.0)
        if next_attempt is None or time.monotonic() + wait_s > patience_ends:
            break
        end_after(int(wait_s) + arguments.lifetime_s)
        time.sleep(wait_s)
        claimed = schedule.claim(
            arguments.config,
            home,
            time.time(),
            is_start=True,
            asks=not consent(home, os.environ, arguments.config).on,
        )
        lock = None if claimed is None else claimed.detach()
    sys.exit(0)


def _be_killed_before_the_host() -> None:
    """Where memory runs out, Linux ends this process and not the program beside it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _lock_after_wait(home: Home, next_flush: float) -> int | None:
    """The flush lock; None where another process flushed meanwhile or does so now."""
    lock = schedule.flush_lock(home)
    at = schedule.load(home.next_flush).at
    return lock if abs(at - next_flush) <= schedule.SAME_TIME_S else None


def _flush(
    arguments: FlusherArguments, home: Home, lock: int
) -> tuple[float | None, bool]:
    """One flush: the time to come back at, if the server has asked for one.

    And whether it came to an end of its own. One that could not write what came of it
    (no descriptor is left, a limit of file sizes) did not: `status` says so.
    """
    # After the wait: until then it is a small process.
    from telemetry.delivery.flush import flush
    from telemetry.delivery.report import Progress

    def allowed() -> bool:
        return consent(home, os.environ, arguments.config).on

    lifetime_s = float(arguments.lifetime_s)
    progress = Progress()
    report = flush(
        arguments.config,
        home,
        timeout_s=max(lifetime_s - _MARGIN_S, lifetime_s / 2),
        environment=os.environ,
        allowed=allowed,
        logger=quiet_logger(debug=True) if arguments.config.debug else None,
        lock=lock,
        progress=progress,
    )
    verdict = progress.verdict
    asked = verdict is not None and verdict.retry_after_s is not None
    comes_back = asked and report.stopped == "waiting"
    is_finished = progress.is_finished(report, home, allowed)
    return report.next_attempt if comes_back else None, is_finished
