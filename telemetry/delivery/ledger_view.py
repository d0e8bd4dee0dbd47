"""What a tool sees of a ledger that may be in use, killed in mid-commit, or damaged.

Rules:
- it changes nothing on disk: the database is opened read-only. Where a writer was
  killed in the middle of a commit, one who may not write cannot roll its journal back:
  then a private copy is rolled back and read, and removed;
- it sees what the flusher would: the same rows, by the same checks.

Takes no lock that a flusher waits for longer than reading a few pages takes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time

from telemetry.delivery.books import Snapshot
from telemetry.delivery.ledger_file import (
    DB_NAME,
    JOURNAL_SUFFIX,
    check_structure,
    connect,
    is_hot,
    opened,
    recover,
    standing,
    translated,
)
from telemetry.delivery.ledger_rows import read_rows
from telemetry.errors import LedgerError


# How long to wait for commits under way. One takes milliseconds, but a flusher that
# commits without pause leaves SQLite's readers few moments between two.
BUSY_S = 5.0

# A sound ledger is read in about a millisecond. What takes longer than this is made to
# keep its reader busy: a view without end, say, in the place of a table.
READ_S_MAX = 5.0

# How many of SQLite's steps pass between two looks at the clock: some 0.1 ms.
_STEPS = 10_000

# Tries to copy a ledger that changes meanwhile, because a flusher is repairing it.
_TRIES = 3


def read_snapshot(directory: str, *, busy_s: float = BUSY_S) -> Snapshot:
    """Everything the ledger in `directory` says now; an empty one where none stands.

    Raises LedgerMalformedError where the next flusher would set it aside, LedgerError
    where it cannot be read now (locked for `busy_s`, no permission).
    """
    directory = os.path.abspath(directory)
    path = os.path.join(directory, DB_NAME)
    with translated(path):
        for _ in range(_TRIES):
            if not standing(directory):
                return Snapshot()
            try:
                return _read(path, mode="ro", busy_s=busy_s)
            except sqlite3.OperationalError as error:
                # "readonly", then: the journal is hot, and its writer dead.
                if "locked" in str(error) or not is_hot(path):
                    raise
            with tempfile.TemporaryDirectory(prefix="ledger-") as private:
                copy = _copied(path, into=private)
                if copy is not None:
                    recover(copy, busy_s=0)
                    return _read(copy, mode="rw", busy_s=0)
    raise LedgerError(path, "it keeps changing while it is being read; try again")


def _read(path: str, *, mode: str, busy_s: float) -> Snapshot:
    until = time.monotonic() + READ_S_MAX
    with contextlib.closing(connect(path, mode=mode, busy_s=busy_s)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        check_structure(connection, path)
        snapshot, _ = read_rows(connection)
    return snapshot


def _copied(path: str, *, into: str) -> str | None:
    """A copy of database and journal as they were at one moment, or None.

    To close the database here gives up POSIX locks that this process may have on it.
    None is held: a hot journal means that its writer is dead, and the one flusher of
    this process, if there is one, has not opened the ledger yet or it would be cold.
    """
    copy = os.path.join(into, DB_NAME)
    before = _stamps(path)
    for suffix in (JOURNAL_SUFFIX, ""):
        with (
            opened(path + suffix, os.O_RDONLY) as source,
            open(source, "rb", closefd=False) as reading,
            open(copy + suffix, "xb") as writing,
        ):
            shutil.copyfileobj(reading, writing)
    return copy if is_hot(path) and _stamps(path) == before else None


def _stamps(path: str) -> list[tuple[int, int, int]]:
    files = (os.lstat(path + suffix) for suffix in (JOURNAL_SUFFIX, ""))
    return [(file.st_ino, file.st_size, file.st_mtime_ns) for file in files]
