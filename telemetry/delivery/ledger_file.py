"""What must be true of a ledger's files before anything in them is believed.

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
import sqlite3
import stat
from typing import TYPE_CHECKING
from urllib.parse import quote

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
