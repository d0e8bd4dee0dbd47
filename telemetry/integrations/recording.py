"""One run of a command, from its start to the one event that is recorded of it.

What counts as success is what the shell sees: an exception is a failure, and so
is an exit with any status but 0 (none, or False, is 0; a text is 1). The error
recorded is the name of a class: of the exception that ended the run, or of the one that
was being handled when the program chose to exit. An exception's message may hold what
the user typed, and is never read. A reader of the output that has seen enough (`| head`)
is no failure.

A run that SIGTERM or SIGHUP ends is recorded, and ends as it would have:
- Only where the host left the signal to the system: a handler of its own, or an ignored
  signal (`nohup`), stays. So does the process that init runs as, which no such signal
  ends.
- Having recorded, the process ends by the same signal, so its parent sees the same. No
  `finally` and no exit handler runs, as none would have run.
- Python runs a handler between two steps of its own: a program deep in foreign code (a
  long query, a window's event loop) ends when that returns. Such a program says
  `signals=False`.
- A forked child ends by the signal and records nothing.

It knows no framework.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from telemetry.commands import NAMES_ONLY, Reading, permitted
from telemetry.config import CommandPolicy, Config
from telemetry.light_events import CommandEvent


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.events import StructuredEvent

_Result = TypeVar("_Result")

_NS_PER_MS = 1_000_000
_DEADLY = {
    getattr(signal, name): name
    for name in ("SIGTERM", "SIGHUP")
    if os.name == "posix" and hasattr(signal, name)
}


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
    app. `signals` says whether SIGTERM and SIGHUP are watched; see above.
    """

    client: Tracker | None = None
    policy: CommandPolicy | None = None
    name: str | None = None
    signals: bool = True


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended. An empty `error` is success; `exit_code` None is not known."""

    error: str = ""
    exit_code: int | None = 0


class OwnCommandDone(SystemExit):
    """A command of `telemetry_commands` ended: that is no run of the program."""


class Stopwatch:
    """A run that has begun. Its time is that of a clock which never steps back.

    `read` answers what the command line named, or raises; `name` the program's name.
    """

    def __init__(
        self, settings: Settings, read: Callable[[], Reading], name: Callable[[], str]
    ) -> None:
        self._settings, self._read, self._name = settings, read, name
        self._started_ns = time.monotonic_ns()
        # What the host was handling before the run is no error of the run.
        self._older = sys.exc_info()[1]
        self._watch: Watch | None = None
        if settings.signals:
            self._watch = quietly(lambda: Watch(self._record))

    def stop(self) -> None:
        """The run is over: no signal is watched any more."""
        if self._watch is not None:
            quietly(self._watch.close)
        self._watch = self._older = None

    def outcome(
        self, failure: BaseException | None, *, interrupted: int = 130
    ) -> Outcome:
        """How the run ended. `interrupted` is the exit code of Ctrl-C."""
        return outcome_of(failure, self._older, interrupted=interrupted)

    def record(self, outcome: Outcome) -> None:
        """The run is over, and this came of it."""
        self.stop()
        self._record(outcome)

    def _record(self, outcome: Outcome) -> None:
        duration_ns = time.monotonic_ns() - self._started_ns
        reading = quietly(self._read) or Reading(program=self._name())
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
            # An app without a name of its own has the default's.
            is_named = app not in ("", DEFAULT_APP) or not reading.program
            name = self._settings.name or (app if is_named else None)
        info = permitted(reading, name, policy)
        event = CommandEvent(
            action=info.action,
            args=info.args,
            success=not outcome.error,
            error=outcome.error,
            flags=info.flags,
            duration_ms=duration_ns // _NS_PER_MS,
            exit_code=outcome.exit_code,
        )
        client.track(event)


class Watch:
    """While it is open, `record` is called with what such a signal makes of the run."""

    def __init__(self, record: Callable[[Outcome], object]) -> None:
        self._record: Callable[[Outcome], object] | None = record
        self._pid = os.getpid()
        self._watched: list[int] = []
        # One bound method: it is compared by identity.
        self._handler: Callable[[int, object], None] | None = self._end
        for number in _DEADLY if self._pid != 1 else ():
            if signal.getsignal(number) == signal.SIG_DFL:
                try:
                    signal.signal(number, self._handler)
                except ValueError:
                    return  # a thread other than the first: Python does not let it
                self._watched.append(number)

    def close(self) -> None:
        """The signals are the system's again, where they are still ours."""
        for number in self._watched:
            if signal.getsignal(number) is self._handler:
                signal.signal(number, signal.SIG_DFL)
        # Nothing of the program's lives on with us.
        self._watched, self._handler, self._record = [], None, None

    def _end(self, number: int, _frame: object) -> None:
        try:
            record = self._record
            if os.getpid() == self._pid and record is not None:
                quietly(lambda: record(Outcome(_DEADLY[number], 128 + number)))
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def quietly(call: Callable[[], _Result]) -> _Result | None:
    """What `call` returns, or None where it fails.

    The one place where the integrations swallow: whatever fails while a command is read
    or recorded, the program must end as it would have ended. KeyboardInterrupt and
    SystemExit were meant for the program and pass.
    """
    try:
        return call()
    except Exception:  # noqa: BLE001
        return None


def long_name(names: Sequence[str]) -> str:
    """The first `--long` one of a flag's declared names, else the first of them."""
    return max(names, key=lambda name: (name[:2] == name[:1] * 2, len(name) > 2))


def outcome_of(
    failure: BaseException | None,
    older: BaseException | None = None,
    *,
    interrupted: int = 130,
) -> Outcome:
    """What a run comes to that `failure` ended; an exception `older` was there before."""
    if failure is None:
        return Outcome()
    status = _status_of(failure)
    code = interrupted if isinstance(failure, KeyboardInterrupt) else _code_of(status)
    if code == 0 and status is not failure:
        return Outcome()
    cause = failure.__cause__ or failure.__context__
    if status is failure or cause is None or cause is older:
        cause = failure
    if isinstance(cause, BrokenPipeError) and _is_output_closed():
        return Outcome(exit_code=None)
    return Outcome(type(cause).__name__, code)


def _status_of(failure: BaseException) -> object:
    """What the program wants to exit with; the exception itself if it wants nothing."""
    if isinstance(failure, SystemExit):
        return failure.code
    # click and typer have an `Exit` of their own, with the status in `exit_code`.
    if any(kind.__name__ == "Exit" for kind in type(failure).__mro__):
        return getattr(failure, "exit_code", 1)
    return failure


def _code_of(status: object) -> int:
    """What the shell sees of `sys.exit(status)`, or of an exception."""
    if status is None:
        return 0
    if isinstance(status, int):
        return int(status) & 0xFF if os.name == "posix" else int(status)
    # click's errors say what they exit with.
    code = getattr(status, "exit_code", 1)
    return code if isinstance(code, int) and code else 1


def _is_output_closed() -> bool:
    """Whether standard output is a pipe without a reader."""
    try:
        import select

        poll = select.poll()
        poll.register(1, 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            return True
        # Where it was met before us (by rich, the recipe of Python's manual), /dev/null
        # is in its place. That could be sought in from the start, a pipe not.
        is_null = os.path.samestat(os.fstat(1), os.stat(os.devnull))
        return is_null and sys.__stdout__ is not None and not sys.__stdout__.seekable()
    except (ImportError, AttributeError, OSError) as error:
        return getattr(error, "errno", None) != errno.EBADF


def outcome_of_status(status: object) -> Outcome:
    """What `sys.exit(status)` comes to, said by a program that returns its status."""
    code = _code_of(status)
    return Outcome(SystemExit.__name__ if code else "", code)


def leave_no_frame(failure: BaseException) -> None:
    """Take the caller's frame, the outermost, out of the traceback.

    For a handler that is about to re-raise with a bare `raise`. Python 3.10 re-raises
    with the traceback it had, so there the frame stays.
    """
    traceback = failure.__traceback__
    if traceback is not None:
        failure.__traceback__ = traceback.tb_next
