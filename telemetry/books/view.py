"""What a tool sees of a ledger that may be in use, killed in mid-commit, or damaged.

Rules:
- it changes nothing on disk: the database is opened read-only. Where a writer was
  killed in the middle of a commit, one who may not write cannot roll its journal back:
  then a private copy is rolled back and read, and removed;
- it sees what the flusher would: the same rows, by the same checks.

Takes no lock that a flusher waits for longer than reading a few pages takes.

What must be true of a ledger's files before anything in them is believed.

Rules:
- what is no regular file, or is reached through a symlink, is no ledger, and none of
  it is opened; neither is a write-ahead log, which no ledger here ever has;
- a journal that names a further journal is refused, for to roll it back would delete
  whatever file it names;
- the header's fixed fields hold: one flipped bit there makes SQLite call the file
  read-only, or of a future format, for ever;
- pages, trees and indexes are sound (a check of some 0.3 ms);
- of errors, only those that speak of the file's content make it malformed. One that
  speaks of access (permission, lock, space, device) leaves it alone.

Knows SQLite's files, not what a ledger keeps in them, and not diskcache.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from telemetry.books.entries import Snapshot
from telemetry.books.rows import read_rows
from telemetry.errors import LedgerError, LedgerMalformedError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DB_NAME = "cache.db"
JOURNAL_SUFFIX = "-journal"

# A ledger is some tens of kilobytes: a row of about 300 bytes for each segment, of
# which the spool's bound allows some dozens. What is a thousand times as large was
# not written here, and checking it would take longer than a flush may last.
LEDGER_BYTES_MAX = 64 * 1024 * 1024

# https://www.sqlite.org/fileformat2.html#the_rollback_journal: a journal starts with
# these bytes when it is hot, and ends with them when it names a super-journal.
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_JOURNAL_HEADER_MIN = 512

# https://www.sqlite.org/fileformat2.html#the_database_header: fields that are the same
# in every ledger, by offset: the magic; "rollback journal" for writing and reading; no
# auto-vacuum and text in UTF-8; no incremental vacuum.
_HEADER_BYTES = 100
_HEADER_FIXED = (
    (0, b"SQLite format 3\0"),
    (18, b"\x01\x01"),
    (52, b"\x00\x00\x00\x00\x00\x00\x00\x01"),
    (64, b"\x00\x00\x00\x00"),
)

# What SQLite says under its general SQLITE_ERROR of a file whose content is at fault.
_MALFORMED_WORDS = ("unsupported file format", "no such table", "no such column")


def fault(path: str, error: BaseException) -> LedgerError:
    """The error of ours that says what `error` means for the ledger at `path`.

    Of SQLite's result codes, only SQLITE_CORRUPT and SQLITE_NOTADB (and two that no
    statement here can meet) arrive as DatabaseError itself; every other one that a
    file can cause has a subclass. Before Python 3.11 the code cannot be asked for,
    and where the message quotes damaged text, there may be none, or no way to decode
    it.
    """
    text = str(error) or type(error).__name__
    if type(error) in (sqlite3.DatabaseError, UnicodeDecodeError) or (
        isinstance(error, sqlite3.OperationalError)
        and any(word in text for word in _MALFORMED_WORDS)
    ):
        return LedgerMalformedError(path, f"{text}; it is no ledger any more")
    return LedgerError(
        path, f"{text}; it was left as it is, the next flush tries again"
    )


# What may come of a statement, or of a look at a file.
FAULTS = (sqlite3.Error, OSError, UnicodeDecodeError)


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Whatever SQLite or the system says of `path` leaves as a LedgerError."""
    try:
        yield
    except FAULTS as error:
        raise fault(path, error) from error


def standing(directory: str) -> bool:
    """Whether a database stands in `directory`; an empty file is none.

    Raises LedgerMalformedError for what is not of the kind it should be (a symlink, a
    FIFO, a directory, a write-ahead log, a size no ledger has) without opening it,
    and OSError where one may not look.
    """
    if not _is_kind(directory, stat.S_ISDIR, "directory"):
        return False
    path = os.path.join(directory, DB_NAME)
    for suffix in ("-wal", "-shm"):
        if os.path.lexists(path + suffix):
            raise LedgerMalformedError(path + suffix, "no ledger has such a file")
    if _is_kind(path + JOURNAL_SUFFIX, stat.S_ISREG, "regular file"):
        _refuse_super_journal(path + JOURNAL_SUFFIX)
    if not _is_kind(path, stat.S_ISREG, "regular file"):
        return False
    size_bytes = os.lstat(path).st_size
    if size_bytes > LEDGER_BYTES_MAX:
        raise LedgerMalformedError(path, f"a ledger never has {size_bytes} bytes")
    return size_bytes > 0


def _is_kind(path: str, is_kind: Callable[[int], bool], kind: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not is_kind(mode):
        raise LedgerMalformedError(path, f"it is no {kind} and was not opened")
    return True


def _refuse_super_journal(journal: str) -> None:
    with opened(journal, os.O_RDONLY) as descriptor:
        end = os.fstat(descriptor).st_size
        if end < _JOURNAL_HEADER_MIN:
            return
        last = os.pread(descriptor, len(_JOURNAL_MAGIC), end - len(_JOURNAL_MAGIC))
    if last == _JOURNAL_MAGIC:
        raise LedgerMalformedError(journal, "it names another file to be deleted")


@contextlib.contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """A descriptor of the file at `path` itself, made with mode 0600 if it is made.

    Not for a database that a connection of this process has open: closing any
    descriptor of a file gives up the process's POSIX locks on it.
    """
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | safe, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_hot(path: str) -> bool:
    """Whether the journal beside the database at `path` has something to roll back.

    So it has while a commit is under way, and after its writer was killed there.
    """
    try:
        with opened(path + JOURNAL_SUFFIX, os.O_RDONLY) as descriptor:
            return os.pread(descriptor, 1, 0) not in (b"", b"\0")
    except FileNotFoundError:
        return False


def connect(path: str, *, mode: str, busy_s: float) -> sqlite3.Connection:
    """A connection that trusts the file's content as little as SQLite can.

    `mode` is SQLite's: "ro", or "rw", which makes no file. `busy_s` is how long a
    statement waits for another connection's lock. One thread at a time may use it.
    """
    # After two slashes comes an empty host: a path may start with two of its own.
    connection = sqlite3.connect(
        f"file://{quote(os.fsencode(path))}?mode={mode}",
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    # Damaged text must not stop the reading of the rows around it.
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    try:
        # https://www.sqlite.org/security.html, on database files that are not trusted
        for pragma in ("trusted_schema = 0", "cell_size_check = 1", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def recover(path: str, *, busy_s: float) -> None:
    """Roll back what a killed writer left in the journal, and keep the journal.

    On a full disk there would be no room for a new one. SQLite deletes it in the
    journal mode that a connection starts in, and no other can be set before the first
    read, which rolls back. Only in the exclusive locking mode it keeps the file until
    the connection closes, and by then the mode is one that keeps it.
    """
    with contextlib.closing(connect(path, mode="rw", busy_s=busy_s)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        connection.execute("PRAGMA journal_mode = PERSIST").fetchall()


def check_header(path: str) -> None:
    """LedgerMalformedError if a fixed field of the header is not what it always is."""
    with opened(path, os.O_RDONLY) as descriptor:
        header = os.pread(descriptor, _HEADER_BYTES, 0)
    for offset, fixed in _HEADER_FIXED:
        if header[offset : offset + len(fixed)] != fixed:
            raise LedgerMalformedError(path, f"its header is damaged at byte {offset}")


def check_structure(connection: sqlite3.Connection, path: str) -> None:
    """LedgerMalformedError if a page, a tree or an index is damaged."""
    for (finding,) in connection.execute("PRAGMA integrity_check(1)").fetchall():
        if finding != "ok":
            raise LedgerMalformedError(path, f"damaged: {finding}")


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
