"""What the commands that change a spool share: its lock and its books."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from typing import TYPE_CHECKING

from spool_tools.screen import complain, problem_of
from spool_tools.target import seconds
from telemetry.delivery.opt_out import finish_opt_out
from telemetry.delivery.schedule import flush_lock
from telemetry.errors import TelemetryError
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


def add_wait(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "how long to wait for a flusher that is at work (default: %(default)s)"
    add("--wait", type=seconds, default=WAIT_S, metavar="SECONDS", help=text)


class ChangeError(TelemetryError):
    """A command could not do all that it does. Says why, and what is left."""


class BusyError(TelemetryError):
    """A flusher is at work and did not end in time. Nothing was changed."""


@contextlib.contextmanager
def failing_with(state: str) -> Iterator[None]:
    """What fails within ends the command: why, and the `state` things are left in."""
    try:
        yield
    except (TelemetryError, OSError) as error:
        raise ChangeError(f"{problem_of(error)}; {state}") from error


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
