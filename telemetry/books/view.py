"""What a ledger says, read without changing it, whatever state its files are in.

A ledger is a directory with a SQLite database, as diskcache makes it, and its rollback
journal. A row is `<crc> <json>` under a key such as `segment/<name>`, both as bytes, so
that `sqlite3 cache.db 'select key, value from Cache'` shows them to a person:

    segment/1767225600000000000-1f0c.v1.jseq | 5b1e0a3c {"offset":4096,"seq":11,…}

Rules:
- only a regular file in a real directory is opened, and read-only. If a writer was
  killed in the middle of a commit, its journal is rolled back in a private copy;
- the header's fixed fields, pages, trees and indexes are checked first (0.3 ms);
- the CRC-32 covers key and value: SQLite notices few flipped bits, and an entry must
  not turn up under another segment's name;
- one row that cannot be believed (damaged, a pickle, a file) makes the ledger malformed:
  the rows count each other's events, and without one of them the sums are wrong for good;
- an error that speaks of the content is LedgerMalformedError; one that speaks of
  access (permission, lock, space, device) is LedgerError.

A Python without `sqlite3` imports this file; reading raises LedgerError there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from binascii import crc32
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from telemetry.books.entries import (
    Day,
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
)
from telemetry.errors import LedgerError, LedgerMalformedError
from telemetry.files import names_in, read_small


if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
else:
    try:
        import sqlite3
    except ImportError:  # built without it
        sqlite3 = None

DB_NAME = "cache.db"
JOURNAL_SUFFIX = "-journal"
ASIDE_INFIX = ".malformed-"

# How long a tool waits for commits under way. One takes milliseconds, but a flusher
# that commits without pause leaves SQLite's readers few moments in between.
_BUSY_S = 5.0
# How long it is looked whether another program goes on holding the ledger: other tools
# read it for milliseconds. Nothing is held between two tries.
_TRIES, _PAUSE_S = 20, 0.05

# https://www.sqlite.org/fileformat2.html#the_database_header: what is the same in every
# ledger, by offset: the magic; "rollback journal" for writing and reading; no
# auto-vacuum and text in UTF-8. With one bit of these flipped, SQLite calls the file
# read-only, or of a future format, for ever.
_HEADER_BYTES = 100
_HEADER = (
    (0, b"SQLite format 3\0"),
    (18, b"\x01\x01"),
    (52, b"\x00\x00\x00\x00\x00\x00\x00\x01"),
)
# A journal starts with these bytes while it has something to roll back, and ends with
# them if it names a super-journal, which SQLite then deletes: any file.
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

NO_SQLITE = (
    "this Python has no sqlite3 (the module _sqlite3 is missing); "
    "events are recorded and kept, not delivered"
)
# What SQLite says under its general SQLITE_ERROR of a file whose content is at fault.
_MALFORMED_WORDS = ("unsupported file format", "no such ")

# diskcache's mode of a row that holds its value itself, unpickled.
_MODE_RAW = 1
_SELECT = "SELECT key, raw, mode, filename, expire_time, value FROM Cache"
# The key is shown to a person: enough to tell which row.
_SHOWN_MAX = 200

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "segment": msgspec.json.Decoder(SegmentEntry),
    "dead": msgspec.json.Decoder(DeadFile),
    "totals": msgspec.json.Decoder(Totals),
    "state": msgspec.json.Decoder(DeliveryState),
    "day": msgspec.json.Decoder(Day),
}
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def read_snapshot(directory: str, *, busy_s: float = _BUSY_S) -> Snapshot:
    """Everything the ledger in `directory` says now; an empty snapshot without one.

    Raises LedgerMalformedError where the next flusher would set it aside, LedgerError
    where it cannot be read now (locked for `busy_s`, no permission, no SQLite).
    """
    path = f"{os.path.abspath(directory)}/{DB_NAME}"
    with translated(path):
        for _ in range(3):  # a flusher may be repairing it
            if not is_standing(directory):
                return Snapshot()
            try:
                with connected(path, mode="ro", busy_s=busy_s) as connection:
                    return read_rows(connection, path)
            except sqlite3.OperationalError as error:
                # "readonly", then: the journal is hot, and its writer dead. Or it was not
                # hot yet when SQLite looked for a writer, and is not any more.
                if "locked" in str(error):
                    raise
                if not is_hot(path):
                    if "readonly" in str(error):
                        continue
                    raise
            with contextlib.suppress(FileNotFoundError):  # it is gone: repaired
                snapshot = _read_copy(path)
                if snapshot is not None:
                    return snapshot
    raise LedgerError(path, "it keeps changing while it is being read; try again")


def set_aside_names(directory: str) -> list[str]:
    """The ledgers that were set aside, oldest first: `<name>.malformed-<ns>`.

    They are siblings of `directory`; the number is the time, in ns since 1970. Each
    cost duplicates and began the totals anew. Raises OSError.
    """
    parent, name = os.path.split(os.path.abspath(directory))
    return sorted(
        each for each in names_in(parent) if each.startswith(name + ASIDE_INFIX)
    )


def row_crc(key: bytes, text: bytes) -> bytes:
    """What a row's value starts with."""
    return b"%08x " % crc32(text, crc32(key))


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Whatever SQLite or the system says of `path` leaves as a LedgerError.

    Before Python 3.11 there is no result code to ask for. SQLITE_CORRUPT and
    SQLITE_NOTADB arrive as DatabaseError itself, the others as a subclass. A message
    that quotes damaged text may be impossible to decode.
    """
    if sqlite3 is None:
        raise LedgerError(path, NO_SQLITE)
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        text = str(error) or type(error).__name__
        if type(error) in (sqlite3.DatabaseError, UnicodeDecodeError) or (
            isinstance(error, sqlite3.OperationalError)
            and any(words in text for words in _MALFORMED_WORDS)
        ):
            raise LedgerMalformedError(path, text) from error
        problem = f"{text}; it was left as it is, the next flush tries again"
        raise LedgerError(path, problem) from error


def is_standing(directory: str) -> bool:
    """Whether a database stands in `directory`; an empty file does not count.

    Raises LedgerMalformedError for a symlink, or anything else of the wrong kind,
    without opening it; OSError where it is not permitted to look.
    """
    path = f"{directory}/{DB_NAME}"
    journal = path + JOURNAL_SUFFIX
    sizes = {path: 0, journal: 0}
    for name, is_kind, kind in (
        (directory, stat.S_ISDIR, "directory"),
        (journal, stat.S_ISREG, "regular file"),
        (path, stat.S_ISREG, "regular file"),
    ):
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(name)
            if not is_kind(found.st_mode):
                raise LedgerMalformedError(name, f"it is no {kind}, and was not opened")
            sizes[name] = found.st_size
    if (read_small(journal, sizes[journal]) or b"").endswith(_JOURNAL_MAGIC):
        raise LedgerMalformedError(path, "its journal names another file to be deleted")
    return sizes[path] > 0


def is_hot(path: str) -> bool:
    """Whether the journal of the database at `path` has something to roll back.

    So it has while a commit is under way, and after its writer was killed there.
    """
    return read_small(path + JOURNAL_SUFFIX, 1) not in (None, b"", b"\0")


@contextlib.contextmanager
def connected(path: str, *, mode: str, busy_s: float) -> Iterator[sqlite3.Connection]:
    """A connection that trusts the file's content as little as SQLite can.

    `mode` is SQLite's: "ro", or "rw", which makes no file. `busy_s` is how long a
    statement waits for another connection's lock. One thread at a time may use it.
    """
    # After two slashes comes an empty host: a path may start with two of its own. On
    # Windows a slash stands before the drive.
    name = quote(os.fsencode(path.replace(os.sep, "/")))
    connection = sqlite3.connect(
        f"file://{name if name[0] == '/' else '/' + name}?mode={mode}",
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    with contextlib.closing(connection):
        # Damaged text must decode: the error names its row.
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        # https://www.sqlite.org/security.html, on database files that are not trusted
        for pragma in ("trusted_schema = 0", "cell_size_check = 1", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        yield connection


def lock_problem(directory: str) -> str:
    """Why no flush can lock the ledger just now, in SQLite's words; empty if one can.

    It is locked for a moment, and nothing is written. One whose journal is hot, or whose
    header says another kind of journal, is left alone: SQLite would write to it.
    """
    if sqlite3 is None:
        return ""
    problem = ""
    for _ in range(_TRIES):
        problem = _lock_problem(directory)
        if "locked" not in problem:
            break
        time.sleep(_PAUSE_S)
    return problem


def _lock_problem(directory: str) -> str:
    path = f"{os.path.abspath(directory)}/{DB_NAME}"
    try:
        header = read_small(path, _HEADER_BYTES) if is_standing(directory) else b""
        if not _damaged_at(header or b"") and not is_hot(path):
            with connected(path, mode="rw", busy_s=0) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        problem = str(error)
        return problem if "locked" in problem or "I/O" in problem else ""
    except (OSError, LedgerError, sqlite3.Error):
        pass  # that it cannot be read is told elsewhere
    return ""


def _damaged_at(header: bytes) -> list[int]:
    """Where the beginning of a database is not what that of each ledger is."""
    return [
        offset
        for offset, fixed in _HEADER
        if header[offset : offset + len(fixed)] != fixed
    ]


def read_rows(connection: sqlite3.Connection, path: str) -> Snapshot:
    """What the rows say, at one moment: one statement reads them.

    Raises LedgerMalformedError, and what SQLite and the system raise.
    """
    # First, because it rolls a hot journal back: only then the header is to be trusted.
    ((finding,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    # To close the file again releases this process's POSIX locks on it, and no
    # connection holds one now.
    header = read_small(path, _HEADER_BYTES)
    if not header:  # a birth that was killed is rolled back to nothing
        return Snapshot()
    damaged = _damaged_at(header)
    if damaged:
        finding = f"its header is damaged at byte {damaged[-1]}"
    if finding != "ok":
        raise LedgerMalformedError(path, finding)
    values: dict[str, dict[str, Any]] = {kind: {} for kind in _DECODERS}
    for key, raw, mode, filename, expires, row in connection.execute(_SELECT):
        is_plain = (raw, mode, filename, expires) == (1, _MODE_RAW, None, None)
        try:
            kind, name, value = _believed(key, row, is_plain)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            problem = f"its row {_shown(key)} is damaged"
            raise LedgerMalformedError(path, problem) from error
        values.setdefault(kind, {})[name] = value
    return Snapshot(
        segments=values["segment"],
        totals=values["totals"].get("", Totals()),
        state=values["state"].get("", DeliveryState()),
        dead_files=values["dead"],
        days=values["day"],
    )


def _believed(key: object, row: object, is_plain: bool) -> tuple[str, str, Any]:
    """What a row is about, and its value; a key of a later version is fine as well."""
    if not is_plain or type(key) is not bytes or type(row) is not bytes:
        raise ValueError("not a plain row of bytes")
    if row[:9] != row_crc(key, row[9:]):
        raise ValueError("the checksum disagrees")
    kind, _, name = os.fsdecode(key).partition("/")
    return kind, name, _DECODERS.get(kind, _ANY).decode(row[9:])


def _shown(key: object) -> str:
    """A key that may be anything, as a line that is safe on a terminal."""
    text = key.decode("utf-8", "backslashreplace") if type(key) is bytes else repr(key)
    return ascii(text[:_SHOWN_MAX])[1:-1]


def _read_copy(path: str) -> Snapshot | None:
    """What a copy says after the rollback; None if a flusher does that just now.

    While the journal stays the same, the pages that were restored meanwhile are those
    that it restores in the copy, too.
    """
    journal = path + JOURNAL_SUFFIX
    with tempfile.TemporaryDirectory(prefix="ledger-") as private:
        copy = f"{private}/{DB_NAME}"
        before = os.stat(journal)
        shutil.copyfile(journal, copy + JOURNAL_SUFFIX)
        shutil.copyfile(path, copy)
        after = os.stat(journal)
        if (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):
            return None
        with connected(copy, mode="rw", busy_s=0) as connection:
            return read_rows(connection, copy)
