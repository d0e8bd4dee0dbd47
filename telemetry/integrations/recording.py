"""One run of a command, from its start to the one event that tells of it.

What counts as success is what the shell sees: an exception is a failure, and so
is an exit with any status but 0 (none, or False, is 0; a text is 1). The error
told is the name of the exception's class: its message may hold what the user
typed, and is never read.

It knows no framework, decides nothing about what may be told, and swallows
nothing: its callers do (see `command.quietly`).
"""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from telemetry.events import CommandEvent, StructuredEvent
from telemetry.integrations.command import (
    NAMES_ONLY,
    CommandPolicy,
    Reading,
    tell,
)


_NS_PER_MS = 1_000_000


class Tracker(Protocol):
    """Takes events: a `telemetry.Client`, or anything else with `track`."""

    def track(self, event: StructuredEvent) -> bool:
        """Record `event`; False where it was not recorded."""
        ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How runs of one program are recorded.

    `client` takes the events; None stands for the process-wide one, looked up
    when a run ends. `name` is the action of a run without a sub-command; None
    stands for the program's own name, as its usage line shows it.
    """

    client: Tracker | None = None
    policy: CommandPolicy = NAMES_ONLY
    name: str | None = None


class Stopwatch:
    """A run that has begun. Its time is that of a clock which never steps back."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started_ns = time.monotonic_ns()

    def record(self, reading: Reading, *, error: str) -> bool:
        """Whether the event was recorded. An empty `error` is success."""
        duration_ns = time.monotonic_ns() - self._started_ns
        settings = self._settings
        base_name = None if reading.path else settings.name
        info = tell(reading, base_name, settings.policy)
        event = CommandEvent(
            action=info.action,
            args=info.args,
            success=not error,
            error=error,
            flags=info.flags,
            duration_ms=duration_ns // _NS_PER_MS,
        )
        if settings.client is not None:
            return settings.client.track(event)
        from telemetry.api import track

        return track(event)


def error_of(failure: BaseException | None) -> str:
    """The class name of what ended the run; empty where it ended well."""
    return "" if failure is None or exits_well(failure) else type(failure).__name__


def exits_well(failure: BaseException) -> bool:
    """Whether this exception ends the process with status 0."""
    if isinstance(failure, SystemExit):
        return means_success(failure.code)
    # click and typer have an `Exit` of their own, with the status in `exit_code`.
    # Their other errors carry one too, but are errors whatever it says.
    if any(kind.__name__ == "Exit" for kind in type(failure).__mro__):
        return means_success(getattr(failure, "exit_code", 1))
    return False


def means_success(status: object) -> bool:
    """Whether `sys.exit(status)` makes the shell see 0."""
    return status is None or (isinstance(status, int) and status == 0)


def leave_no_frame(failure: BaseException) -> None:
    """Take the caller's frame, the outermost, out of the traceback.

    For a handler that is about to re-raise with a bare `raise`: the user sees
    the traceback of an unwrapped program. Python 3.10 re-raises with the
    traceback it had, so there the frame stays.
    """
    traceback = failure.__traceback__
    if traceback is not None:
        failure.__traceback__ = traceback.tb_next
