"""How a detached flusher is started on Windows.

The rules are those of `launch.py`, but for two:

- A lock is not inherited: the host, which has moved `next-flush`, closes it, and the
  flusher takes it itself or leaves.
- Nothing signals a process after a time: a thread ends it.

A program that runs in a job object takes its flusher with it when it ends, where the
job does not let it go. Then no flusher finishes, and programs flush at exit instead.
"""

from __future__ import annotations

import sys


assert sys.platform == "win32"

import _winapi
import os
from collections.abc import Mapping

from telemetry.config import Config
from telemetry.delivery.launch import (
    FIND,
    VARIABLE,
    arguments_of,
    interpreter_options,
)
from telemetry.delivery.schedule import FlushLock
from telemetry.errors import LaunchError
from telemetry.paths import Home


# No double quote may be in it: it is one argument of a command line.
BOOT = f"""
import sys
standard = sys.path[:] = [entry for entry in sys.path if entry]
import ast, os, time, _thread
values = ast.literal_eval(os.environ.pop({VARIABLE!r}))
ends = [0.0]
def end_after(seconds):
    ends[0] = time.monotonic() + seconds
def watch():
    while time.monotonic() < ends[0]:
        time.sleep(1.0)
    os._exit(0)
end_after(values['lifetime_s'] + int(values['wait_s']) + 1)
_thread.start_new_thread(watch, ())
{FIND}
from telemetry.delivery.detached import main
main(values, end_after)
"""

_DETACHED, _OWN_GROUP, _OUT_OF_THE_JOB = 0x8, 0x200, 0x1000000


class _StartupInfo:
    """What CreateProcess is given of windows and streams: nothing."""

    dwFlags = wShowWindow = 0  # noqa: N815 - the system's names
    hStdInput = hStdOutput = hStdError = None  # noqa: N815
    lpAttributeList = None  # noqa: N815


def spawn(
    config: Config, home: Home, lock: FlushLock, environment: Mapping[str, str]
) -> None:
    """A flusher of its own runs on return; the lock is free.

    Raises LaunchError.
    """
    lock.close()
    try:
        text = arguments_of(config, home, lock, -1)
        options, variables = interpreter_options(environment)
        command = " ".join(map(_quoted, [sys.executable, *options, "-c", BOOT]))
        variables[VARIABLE] = text
        try:
            _create(command, _DETACHED | _OWN_GROUP | _OUT_OF_THE_JOB, variables)
        except PermissionError:
            _create(command, _DETACHED | _OWN_GROUP, variables)
    except (OSError, TypeError, ValueError) as error:
        raise LaunchError(f"no flusher was started: {error}") from error


def _create(command: str, flags: int, variables: dict[str, str]) -> None:
    # A process keeps its working directory from being removed: not the user's.
    place = os.path.dirname(sys.executable)
    handles = _winapi.CreateProcess(
        sys.executable,
        command,
        None,
        None,
        False,
        flags,
        variables,
        place,
        _StartupInfo,
    )
    for handle in handles[:2]:
        _winapi.CloseHandle(handle)


def _quoted(argument: str) -> str:
    """The argument as the C library reads it; it holds no double quote.

    Backslashes before a quote would escape it.
    """
    tail = len(argument) - len(argument.rstrip("\\"))
    return f'"{argument}{tail * chr(92)}"'


def check_surroundings() -> None:
    """Raise LaunchError where the start would fail."""
    if not os.access(sys.executable, os.X_OK):
        raise LaunchError(f"{sys.executable} cannot be run")
