"""The flush lock and the books: who flushes now, and what commands that change hold."""

from __future__ import annotations

import argparse
import contextlib
import errno
import glob
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from spool_tools.screen import complain, problem_of
from spool_tools.target import seconds
from telemetry.delivery.opt_out import finish_opt_out
from telemetry.delivery.schedule import flush_lock
from telemetry.errors import TelemetryError
from telemetry.files import open_regular, try_lock
from telemetry.paths import Home


if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemetry.books.books import Books

# A flusher that was launched lives for a minute, and one that learns that it is to
# stop ends with its request, which takes 15 s at most.
WAIT_S = 65.0
_PAUSE_S = 0.05
# A person who waits longer wants to know what for.
_SILENT_S = 1.0


class Holder(NamedTuple):
    """`none`, `running` or `unknown`; its process, where it is known.

    problem: why the file system cannot lock; empty: it can, or that is not known
    is_stopped: whether that process was stopped by a signal, and keeps the lock
    age_s: how long that process has run; 0.0: unknown
    """

    state: str
    pid: int | None = None
    problem: str = ""
    is_stopped: bool = False
    age_s: float = 0.0


def flush_lock_holder(home: Home) -> Holder:
    """Whether the flush lock is held, and on Linux by which process.

    It is taken for microseconds. A program that is launched in them finds it taken, and
    leaves the flush to the next one.
    """
    try:
        try:
            # Where locks are those of records (NFS), a file is locked as it is opened.
            descriptor = open_regular(home.flush_lock, os.O_RDWR)
        except PermissionError:
            descriptor = open_regular(home.flush_lock, os.O_RDONLY)
    except FileNotFoundError:
        return Holder("none")
    except OSError:
        return Holder("unknown")
    try:
        if try_lock(descriptor):
            return Holder("none")
    except OSError as error:
        is_told = error.errno != errno.EBADF  # it could only be read
        problem = (error.strerror or str(error)) if is_told else ""
        return Holder("unknown", problem=problem)
    finally:
        os.close(descriptor)
    pid = _holding_process(os.path.realpath(home.flush_lock))
    state, age_s = ("", 0.0) if pid is None else _state_and_age_s(pid)
    # Suspended by Ctrl-Z or SIGSTOP.
    return Holder("running", pid, is_stopped=state == "T", age_s=age_s)


def _holding_process(path: str) -> int | None:
    """The process that has the locked file open, as far as /proc tells.

    /proc/locks would name the one that took the lock, which is the program that
    started the flusher and may have ended long ago.
    """
    if not sys.platform.startswith("linux"):
        return None
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            if os.readlink(link) != path:
                continue
            with open(link.replace("/fd/", "/fdinfo/"), encoding="ascii") as lines:
                if any(line.startswith("lock:") for line in lines):
                    return int(link.split("/")[2])
    return None


def _state_and_age_s(pid: int) -> tuple[str, float]:
    """The state of a process as Linux writes it, and the seconds since its start."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # Behind the name, which is in parentheses and may hold anything.
            fields = file.read().rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return fields[0], time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, ValueError, IndexError):
        return "", 0.0  # it has ended


def add_wait(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "how long to wait for a flusher that is at work (default: %(default)s)"
    add("--wait", type=seconds, default=WAIT_S, metavar="SECONDS", help=text)


class BusyError(TelemetryError):
    """A flusher is at work and did not end in time. Nothing was changed."""


@contextlib.contextmanager
def failing_with(state: str) -> Iterator[None]:
    """What fails within ends the command: why, and the `state` things are left in."""
    try:
        yield
    except (TelemetryError, OSError) as error:
        raise TelemetryError(f"{problem_of(error)}; {state}") from error


@contextlib.contextmanager
def flush_lock_held(home: Home, command: str, *, wait_s: float) -> Iterator[None]:
    """No flusher runs within, and no opt-out is left unfinished.

    Raises BusyError, and OSError.
    """
    began = time.monotonic()
    has_said = False
    while (lock := flush_lock(home)) is None:
        waited_s = time.monotonic() - began
        if waited_s > wait_s:
            raise BusyError(
                "a flusher is at work and does not end; nothing was removed, "
                "try again later (`status` names its process)"
            )
        if waited_s > _SILENT_S and not has_said:
            has_said = True
            complain(command, f"a flusher is at work; waiting {wait_s:.0f} s at most")
        time.sleep(_PAUSE_S)
    try:
        finish_opt_out(home, lock=lock)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def open_books(home: Home) -> Iterator[Books]:
    """The books of a home whose flush lock is held. Raises LedgerError."""
    # Loaded only where books are written: they bring all that a flush needs.
    from telemetry.books.books import Books
    from telemetry.delivery.upkeep import is_full, relieve

    books = Books(
        home.ledger, relieve=lambda: relieve(home), is_full=lambda: is_full(home.root)
    )
    try:
        yield books
    finally:
        books.close()
