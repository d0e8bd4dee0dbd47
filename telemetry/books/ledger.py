"""The ledger on disk: one flusher's connection to it. The only user of diskcache.

Rules:
- one commit is one transaction: on return it survives a kill, with `power` a power
  loss too; if it fails, nothing of it is there;
- a row holds bytes, never a pickle or a file's name. diskcache writes; `view` reads;
- every setting is named; nothing is evicted; nothing retries without end;
- a ledger is checked before diskcache meets it (`view`);
- only a malformed ledger is set aside. Every other fault waits.

Its user holds the flush lock, so there is one writer. SQL that the owner of the home
put into the schema is not run: a ledger with other tables, indexes or triggers than
diskcache makes is malformed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import time
from typing import NoReturn

import diskcache
import msgspec
from diskcache.core import MODE_RAW

from telemetry.books import view
from telemetry.books.entries import Snapshot
from telemetry.errors import LedgerError, LedgerMalformedError
from telemetry.files import (
    make_directory,
    make_empty,
    move_directory,
    sync_directory,
)


# Every one of diskcache's settings, then the pragmas that it would leave to the build.
SETTINGS: dict[str, str | int] = {
    "statistics": 0,  # no write for a read
    "tag_index": 0,  # no tags
    "eviction_policy": "none",  # the default forgets the oldest rows
    "size_limit": 2**62,  # the default starts to forget at 1 GiB
    "cull_limit": 0,  # never look for rows to forget
    "sqlite_auto_vacuum": 0,  # keep freed pages: on a full disk they are the room
    "sqlite_cache_size": 512,  # pages, 2 MiB: more than a ledger has
    "sqlite_journal_mode": "persist",  # a full disk has room for no new journal
    "sqlite_mmap_size": 0,  # a read error is an error, not SIGBUS
    "sqlite_synchronous": 2,  # FULL; without `power` OFF, 0
    "disk_min_file_size": 2**62,  # bytes from which a value would become a file
    "disk_pickle_protocol": 0,  # nothing is pickled
    "sqlite_cell_size_check": 1,  # notice damage when a page is read
    "sqlite_secure_delete": 1,  # freed pages are journaled too: that is room (`_reserve`)
    "sqlite_journal_size_limit": -1,  # no build shrinks the journal (Apple's does)
    "sqlite_temp_store": 2,  # in memory: nothing in a shared temporary directory
    "sqlite_trusted_schema": 0,  # no SQL in the schema calls what has side effects
}
# diskcache obeys the settings that it finds, and writes ours anew. It counts in these.
_FORGET_SETTINGS = (
    "DELETE FROM Settings WHERE key NOT IN ('count', 'size', 'hits', 'misses')"
)

# How long a commit waits for a tool that reads. Flushing at exit has 1 s in all.
BUSY_S = 1.0

# Free pages, and a journal for as many, that a new ledger gets: what its commits need
# on a full disk. A commit changes about six pages of 4 KiB.
_RESERVE_BYTES = 64 * 1024
_RESERVE_KEY = b"reserve"

# Ledgers that were set aside hold no event; these are kept for a person to look at.
_ASIDE_MAX = 2


class _RowsOnly(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Rows hold bytes. Nothing is pickled or unpickled, and no file is made or opened."""

    def put(self, key: bytes) -> tuple[bytes, bool]:
        return key, True

    def store(
        self, value: bytes, read: bool, key: object
    ) -> tuple[int, int, None, bytes]:
        return 0, MODE_RAW, None, value

    def remove(self, file_path: object) -> None:
        """A file's name in a row is planted: diskcache would delete that file."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise LedgerError(view.DB_NAME, "diskcache reads no row")

    get = fetch = filename = _refuse


class _Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """diskcache's Cache on a connection that was opened and checked here.

    On its own, the constructor writes each setting in a transaction (80 syncs for a
    ledger that has them all), waits a minute for a reader's lock, and executes what
    the database says before anything is checked. Here it writes within the caller's
    transaction. It gets no directory, because it would expand `$NAME` in it, and needs
    none, because rows have no files.
    """

    _con: sqlite3.Connection | None = None

    def __init__(
        self, connection: sqlite3.Connection, settings: dict[str, str | int]
    ) -> None:
        self._con = connection
        super().__init__(directory=os.sep, timeout=0, disk=_RowsOnly, **settings)


class Ledger:
    """One open ledger, and the snapshot that it says.

    Any thread may use it, one at a time. A fault closes it: open it anew.
    """

    def __init__(self, directory: str, *, power: bool = True) -> None:
        """Open the ledger in `directory`, or make one there, whole or not at all.

        `power`: whether a commit survives a power loss, besides a kill. Raises
        LedgerMalformedError for malformed content (`open_ledger` sets it aside), and
        LedgerError for every other fault; the ledger is as it was then.
        """
        directory = os.path.abspath(directory)
        self._path = f"{directory}/{view.DB_NAME}"
        with view.translated(self._path), contextlib.ExitStack() as opened:
            is_new = not view.is_standing(directory)
            _make_private(directory, is_new=is_new)
            connection = opened.enter_context(
                view.connected(self._path, mode="rw", busy_s=BUSY_S)
            )
            settings = {**SETTINGS, "sqlite_synchronous": 2 if power else 0}
            for key, value in settings.items():
                if key.startswith("sqlite_"):
                    connection.execute(f"PRAGMA {key[7:]} = {value}").fetchall()
            self.snapshot = Snapshot()
            if not is_new:
                self.snapshot = view.read_rows(connection, self._path)
                if _schema(connection) != _known_schema(settings):
                    problem = "its tables are not those of a ledger"
                    raise LedgerMalformedError(self._path, problem)
            connection.execute("BEGIN IMMEDIATE")
            if not is_new:
                connection.execute(_FORGET_SETTINGS)
                # Killed while it reserved room, the row that takes the room stays.
                connection.execute("DELETE FROM Cache WHERE key = ?", (_RESERVE_KEY,))
            self._cache = _Cache(connection, settings)
            connection.execute("COMMIT")
            if os.stat(self._path + view.JOURNAL_SUFFIX).st_size < _RESERVE_BYTES:
                self._reserve()
            if is_new and power:
                sync_directory(os.path.dirname(directory))
            self._opened = opened.pop_all()

    def commit(self, snapshot: Snapshot) -> None:
        """It says `snapshot` on return, and that survives what was asked for.

        Writes the rows that differ. Raises LedgerError: then nothing was written. (If
        the device failed at the very last sync, all of it may be; rows are absolute,
        so committing again is right.)
        """
        changes = _changes(self.snapshot, snapshot)
        with view.translated(self._path):
            try:
                with self._cache.transact(retry=False):
                    for key, value in changes.items():
                        self._write(os.fsencode(key), value)
            except (sqlite3.Error, diskcache.Timeout) as error:
                self.close()
                raise _cause(error) from error
        self.snapshot = snapshot

    def close(self) -> None:
        """Close the files. What was committed stays. Calling it twice is fine."""
        with contextlib.suppress(sqlite3.Error):
            self._opened.close()

    def _write(self, key: bytes, value: msgspec.Struct | str | None) -> None:
        if value is None:
            self._cache.delete(key, retry=False)
            return
        text = msgspec.json.encode(value)
        row = view.row_crc(key, text) + text
        self._cache.set(key, row, expire=None, read=False, tag=None, retry=False)

    def _reserve(self) -> None:
        """Free pages and a large journal are there, if the disk has room for them."""
        with contextlib.suppress(sqlite3.Error, diskcache.Timeout):
            # The second goes through the journal, if each page of it has changed.
            for letter in "ab":
                self._write(_RESERVE_KEY, letter * _RESERVE_BYTES)
            self._write(_RESERVE_KEY, None)


def open_ledger(directory: str, *, power: bool = True) -> Ledger:
    """A usable ledger; a malformed one is set aside, which costs duplicates and totals.

    Raises LedgerError for any fault but malformed content.
    """
    try:
        return _opened(directory, power=power)
    except LedgerError:
        _remove_unborn(f"{directory}/{view.DB_NAME}")
        raise


def _opened(directory: str, *, power: bool) -> Ledger:
    # SQLite calls it malformed as well where the device fails one read: look twice.
    for _ in range(2):
        with contextlib.suppress(LedgerMalformedError):
            return Ledger(directory, power=power)
    _set_aside(directory)
    return Ledger(directory, power=power)


def _remove_unborn(path: str) -> None:
    """What a birth has left that failed: on a full disk an event has room there.

    Killed between the two, a journal without a database is overwritten by the next.
    """
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(path)
            os.unlink(path + view.JOURNAL_SUFFIX)


def _set_aside(directory: str) -> None:
    """Rename whatever stands at `directory`, also a symlink; keep the newest two."""
    directory = os.path.abspath(directory)
    parent = os.path.dirname(directory)
    with view.translated(directory):
        move_directory(directory, f"{directory}{view.ASIDE_INFIX}{time.time_ns()}")
        for older in view.set_aside_names(directory)[:-_ASIDE_MAX]:
            shutil.rmtree(f"{parent}/{older}", ignore_errors=True)
            with contextlib.suppress(OSError):  # a file or a link was in its place
                os.unlink(f"{parent}/{older}")


def _changes(old: Snapshot, new: Snapshot) -> dict[str, msgspec.Struct | None]:
    """What the rows that differ are to say, by their keys; None: they are to go."""
    return {
        kind + name: now.get(name)
        for kind, before, now in (
            ("segment/", old.segments, new.segments),
            ("dead/", old.dead_files, new.dead_files),
            ("day/", old.days, new.days),
            ("totals", {"": old.totals}, {"": new.totals}),
            ("state", {"": old.state}, {"": new.state}),
        )
        for name in {**before, **now}
        if now.get(name) is not before.get(name)
    }


def _make_private(directory: str, *, is_new: bool) -> None:
    """Directory and file exist, and are their owner's alone, as is the journal."""
    path = f"{directory}/{view.DB_NAME}"
    if is_new:
        make_directory(directory)
        make_empty(path)
    # SQLite gives a journal the mode of its database; a restored one may have another.
    modes = {directory: 0o700, path: 0o600, path + view.JOURNAL_SUFFIX: 0o600}
    for name, mode in modes.items():
        with contextlib.suppress(OSError):  # a file system may have no modes
            os.chmod(name, mode)


def _schema(connection: sqlite3.Connection) -> list[object]:
    """All tables, indexes and triggers. A damaged one may drop what is committed."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    return connection.execute(query).fetchall()


def _known_schema(settings: dict[str, str | int]) -> list[object]:
    """The same, as diskcache makes them."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        _Cache(made, settings)
        return _schema(made)


def _cause(error: BaseException) -> BaseException:
    """The fault itself, where diskcache shows only what came of it.

    It turns whatever stops a transaction from beginning into a bare Timeout. And
    where SQLite has rolled back already, its own rollback fails.
    """
    if isinstance(error, diskcache.Timeout) or "cannot rollback" in str(error):
        return error.__context__ or error
    return error
