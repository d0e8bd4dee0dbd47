"""How a flusher is started: a process of its own that outlives the host.

Rules:

- One flusher at a time: whoever holds `flush.lock` is the flusher. The host
  takes it without waiting, and the started process inherits the descriptor, so
  there is no moment in which nobody or somebody else has it.
- The time of the next flush is moved one minute ahead before the start: a
  flusher that is killed at once costs one window, and fifty launches at once
  start one process.
- Nothing of the host's is inherited but the lock, so `$(command)` returns when
  the command does, and nothing is run from the working directory.
- The host is never left with a child: a shell puts the flusher in the
  background and ends, and is reaped here. The flusher belongs to init.

It is loaded in the host, where `due.py` says that a flush is due, so it loads
nothing heavy; what the flusher needs is loaded in its own process (`detached.py`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping

import msgspec

from telemetry.config import Config
from telemetry.delivery.schedule import SHELL
from telemetry.errors import LaunchError
from telemetry.paths import Home


# One variable of the environment, because argv can be read by every user.
VARIABLE = "TELEMETRY_FLUSHER"
# The shell needs about a millisecond to fork; more is not worth a command's time.
_REAP_TRIES = 40
_REAP_PAUSE_S = 0.000_25

# Runs in the flusher before anything of ours can be found. `-I` has kept the
# working directory, PYTHONPATH and user packages off the path; the path of the
# host, without the working directory, takes its place.
BOOT = f"""
import json, os, signal, sys
told = json.loads(os.environ.pop({VARIABLE!r}))
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.alarm(told["lifetime_s"])
signal.pthread_sigmask(signal.SIG_SETMASK, [])
lock = told["lock"]
os.closerange(3, lock)
os.closerange(lock + 1, max(os.sysconf("SC_OPEN_MAX"), 1 << 16))
try:
    os.setsid()
except OSError:
    pass
os.umask(0o077)
os.chdir(told["home"])
sys.path[:] = told["path"]
from telemetry.delivery.detached import main
main(told)
"""


class Told(msgspec.Struct):
    """What a detached flusher is told."""

    config: Config
    home: str
    lock: int
    lifetime_s: int
    path: list[str]


def spawn(
    config: Config, home: Home, lock: int, environment: Mapping[str, str]
) -> None:
    """A flusher of its own runs on return and has the lock; ours is closed.

    Raises LaunchError; the lock is free then, and the next window tries again.
    """
    # Another number than ours, so that it is inherited there and only there.
    theirs = 3 if lock != 3 else 4
    told = Told(
        # Of the notice only that there is one: it decides whether it may go on.
        config=msgspec.structs.replace(
            config, notice="shown" if config.notice else None, home=home.root
        ),
        home=home.root,
        lock=theirs,
        lifetime_s=max(int(config.flusher_lifetime_s), 1),
        path=import_path(sys.path, os.getcwd, _origin()),
    )
    variables = {**environment, VARIABLE: msgspec.json.encode(told).decode()}
    arguments = [SHELL, "-c", '"$0" "$@" &', sys.executable, "-I", "-c", BOOT]
    try:
        shell = os.posix_spawn(
            SHELL,
            arguments,
            variables,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, lock, theirs),
            ],
            setsigmask=[],
            setsigdef=[signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        )
    except (OSError, ValueError) as error:
        raise LaunchError(f"no flusher was started: {error}") from error
    finally:
        os.close(lock)
    _reap(shell)


def import_path(path: list[str], working_directory: object, origin: str) -> list[str]:
    """The host's import path without what the working directory could slip in.

    `working_directory` is called for its name; `origin` is where this package
    was loaded from. If that is the working directory itself, it stays.
    """
    try:
        here = (
            os.path.realpath(working_directory()) if callable(working_directory) else ""
        )
    except OSError:
        here = ""  # it was deleted, so nothing can be loaded from it
    return [
        entry
        for entry in path
        if os.path.isabs(entry)
        and (os.path.realpath(entry) != here or here == os.path.realpath(origin))
    ]


def _origin() -> str:
    """The directory that holds this package."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _reap(child: int) -> None:
    """Take the shell's exit status, so that a `wait` of the host's never meets it."""
    try:
        for _ in range(_REAP_TRIES):
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            time.sleep(_REAP_PAUSE_S)
    except ChildProcessError:
        pass  # the host ignores its children, or was quicker
