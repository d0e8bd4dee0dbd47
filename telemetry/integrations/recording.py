"""One run of a command, from its start to the one event that is recorded of it.

What counts as success is what the shell sees: an exception is a failure, and so
is an exit with any status but 0 (none, or False, is 0; a text is 1). The error
recorded is the name of the exception's class: its message may hold what the user
typed, and is never read.

It knows no framework, and decides nothing about what may be recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from telemetry.commands import NAMES_ONLY, Reading, permitted
from telemetry.config import CommandPolicy, Config
from telemetry.events import CommandEvent, StructuredEvent


_Result = TypeVar("_Result")

_NS_PER_MS = 1_000_000


class Tracker(Protocol):
    """Takes events: a `telemetry.Client`, or anything else with `track`."""

    def track(self, event: StructuredEvent) -> bool:
        """Record `event`; False where it was not recorded."""
        ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How runs of one program are recorded.

    `client` takes the events; None stands for the process-wide one, looked up when a
    run ends. `policy` says what may be recorded; None stands for the client's own.
    `name` is the action of a run without a sub-command; None stands for the client's
    app.
    """

    client: Tracker | None = None
    policy: CommandPolicy | None = None
    name: str | None = None


class Stopwatch:
    """A run that has begun. Its time is that of a clock which never steps back."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started_ns = time.monotonic_ns()

    def record(self, reading: Reading, *, error: str) -> bool:
        """Whether the event was recorded. An empty `error` is success."""
        duration_ns = time.monotonic_ns() - self._started_ns
        client, policy = self._settings.client, self._settings.policy
        from telemetry.api import DEFAULT_APP, get_global_telemetry_client

        if client is None:
            client = get_global_telemetry_client()
        config: Config | None = getattr(client, "config", None)  # none of a tracker
        if policy is None:
            policy = NAMES_ONLY if config is None else config.policy
        name = None
        if not reading.path:
            app = "" if config is None else config.app
            # An app that nobody named has the default's name.
            is_named = app not in ("", DEFAULT_APP) or not reading.program
            name = self._settings.name or (app if is_named else None)
        info = permitted(reading, name, policy)
        event = CommandEvent(
            action=info.action,
            args=info.args,
            success=not error,
            error=error,
            flags=info.flags,
            duration_ms=duration_ns // _NS_PER_MS,
        )
        return client.track(event)


def quietly(call: Callable[[], _Result], *, otherwise: _Result) -> _Result:
    """What `call` returns, or `otherwise` where it fails.

    The one place where the integrations swallow: whatever fails while a command
    is read or recorded, a parser of an unforeseen make or a client that raises,
    the program wrapped must end as it would have ended. What asks the process to
    stop (KeyboardInterrupt, SystemExit) was meant for the program and passes.
    """
    try:
        return call()
    except Exception:  # noqa: BLE001
        return otherwise


def long_name(names: Sequence[str]) -> str:
    """The first `--long` one of a flag's declared names, else the first of them."""
    return max(names, key=lambda name: (name[:2] == name[:1] * 2, len(name) > 2))


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
