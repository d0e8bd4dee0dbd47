"""The ledger on disk: one flusher's connection to it. The only user of diskcache.

Rules:
- one commit is one transaction: on return it survives a kill, with `power` a power
  loss too; if it fails, nothing of it is there;
- a row holds bytes: no pickle and no file, in either direction;
- every setting is named; nothing is evicted; nothing retries without end;
- a ledger is checked before diskcache meets it (`view`). Rows that cannot be believed
  are deleted: one left there could stop the commit that replaces it;
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
import time
from typing import TYPE_CHECKING

import diskcache
import msgspec
from diskcache.core import MODE_RAW, UNKNOWN

from telemetry.books import view
from telemetry.books.entries import NOTHING, Snapshot
from telemetry.errors import LedgerError, LedgerMalformedError
from telemetry.files import make_directory, open_regular, sync_directory


if TYPE_CHECKING:
    from collections.abc import Mapping

    from telemetry.books.entries import DeadFile, DeliveryState, SegmentEntry, Totals

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
    "sqlite_journal_size_limit": -1,  # no build shrinks the journal (Apple's does)
    "sqlite_temp_store": 2,  # in memory: nothing in a shared temporary directory
    "sqlite_trusted_schema": 0,  # no SQL in the schema calls what has side effects
}
_COUNTERS = ("count", "size", "hits", "misses")

# How long a commit waits for a tool that reads. Flushing at exit has 1 s in all.
BUSY_S = 1.0

# Free pages, and a journal for as many, that a new ledger gets: what its commits need
# on a full disk. A commit changes about six pages of 4 KiB.
_RESERVE_BYTES = 64 * 1024
_RESERVE_KEY = b"reserve"

# Ledgers that were set aside hold no event; these are kept for a person to look at.
_ASIDE_MAX = 2

# The last error is text from outside; more of it would only be copied with each commit.
_LAST_ERROR_MAX = 500


class _RowsOnly(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes in, bytes out. A file's name in a row is planted: neither opened nor removed."""

    def put(self, key: object) -> object:
        _refuse_unless(type(key) is bytes)
        return super().put(key)

    def get(self, key: object, raw: object) -> object:
        _refuse_unless(type(key) is bytes and raw)
        return key

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> object:
        _refuse_unless(type(value) is bytes and not read)
        return 0, MODE_RAW, None, value

    def fetch(self, mode: int, filename: object, value: object, read: bool) -> object:
        is_plain = (mode, filename, read) == (MODE_RAW, None, False)
        _refuse_unless(is_plain and type(value) is bytes)
        return value

    def filename(self, key: object = UNKNOWN, value: object = UNKNOWN) -> None:
        _refuse_unless(False)

    def remove(self, file_path: object) -> None:
        pass


def _refuse_unless(is_bytes: object) -> None:
    if not is_bytes:
        raise LedgerError(view.DB_NAME, "a row with a pickle or a file is refused")


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
    """One open ledger, and the snapshot that it was opened with.

    Any thread may use it, one at a time. A fault closes it: open it anew.
    """

    def __init__(
        self, directory: str, *, busy_s: float = BUSY_S, power: bool = True
    ) -> None:
        """Open the ledger in `directory`, or make one there, whole or not at all.

        `busy_s`: how many seconds to wait for another's lock, per call. `power`:
        whether a commit survives a power loss, besides a kill. Raises
        LedgerMalformedError for malformed content (`open_ledger` sets it aside), and
        LedgerError for every other fault; the ledger is as it was then.
        """
        directory = os.path.abspath(directory)
        self._path = f"{directory}/{view.DB_NAME}"
        with view.translated(self._path), contextlib.ExitStack() as opened:
            is_new = not view.is_standing(directory)
            _make_private(directory, is_new=is_new)
            connection = opened.enter_context(
                view.connected(self._path, mode="rw", busy_s=busy_s)
            )
            settings = {**SETTINGS, "sqlite_synchronous": 2 if power else 0}
            for key, value in settings.items():
                if key.startswith("sqlite_"):
                    connection.execute(f"PRAGMA {key[7:]} = {value}").fetchall()
            self.snapshot, unbelieved = Snapshot(), list[int]()
            if not is_new:
                self.snapshot, unbelieved = view.read_rows(connection, self._path)
                if _schema(connection) != _known_schema(settings):
                    problem = "its tables are not those of a ledger"
                    raise LedgerMalformedError(self._path, problem)
            connection.execute("BEGIN IMMEDIATE")
            if not is_new:
                _clean(connection, unbelieved)
            self._cache = _Cache(connection, settings)
            connection.execute("COMMIT")
            if os.stat(self._path + view.JOURNAL_SUFFIX).st_size < _RESERVE_BYTES:
                self._reserve()
            if is_new and power:
                sync_directory(os.path.dirname(directory))
            self._opened = opened.pop_all()

    def commit(
        self,
        *,
        segments: Mapping[str, SegmentEntry | None] = NOTHING,
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_files: Mapping[str, DeadFile | None] = NOTHING,
    ) -> None:
        """Write all of it or nothing; on return it survives what was asked for.

        None in a mapping removes, elsewhere it keeps. Raises LedgerError: then nothing
        of it was written. (If the device failed at the very last sync, all of it may
        be; values are absolute, so committing again is right.)
        """
        values: dict[str, msgspec.Struct | None] = {
            **{f"segment/{name}": entry for name, entry in segments.items()},
            **{f"dead/{name}": mark for name, mark in dead_files.items()},
        }
        if totals is not None:
            values["totals"] = totals
        if state is not None:
            values["state"] = _storable(state)
        with view.translated(self._path):
            try:
                with self._cache.transact(retry=False):
                    for key, value in values.items():
                        self._write(os.fsencode(key), value)
            except (sqlite3.Error, diskcache.Timeout) as error:
                self.close()
                raise _cause(error) from error

    def close(self) -> None:
        """Close the files. What was committed stays. Calling it twice is fine."""
        with contextlib.suppress(sqlite3.Error):
            self._opened.close()

    def _write(self, key: bytes, value: msgspec.Struct | msgspec.Raw | None) -> None:
        if value is None:
            self._cache.delete(key, retry=False)
            return
        text = msgspec.json.encode(value)
        row = view.row_crc(key, text) + text
        self._cache.set(key, row, expire=None, read=False, tag=None, retry=False)

    def _reserve(self) -> None:
        """Free pages and a large journal are there, if the disk has room for them."""
        with contextlib.suppress(sqlite3.Error, diskcache.Timeout):
            for _ in range(2):  # the second goes through the journal
                self._write(_RESERVE_KEY, msgspec.Raw(b"0".ljust(_RESERVE_BYTES)))
            self._write(_RESERVE_KEY, None)


def open_ledger(
    directory: str, *, busy_s: float = BUSY_S, power: bool = True
) -> Ledger:
    """A usable ledger; a malformed one is set aside, which costs duplicates and totals.

    Raises LedgerError for any fault but malformed content.
    """
    # SQLite calls it malformed as well where the device fails one read: look twice.
    for _ in range(2):
        with contextlib.suppress(LedgerMalformedError):
            return Ledger(directory, busy_s=busy_s, power=power)
    _set_aside(directory)
    return Ledger(directory, busy_s=busy_s, power=power)


def _set_aside(directory: str) -> None:
    """Rename whatever stands at `directory`, also a symlink; keep the newest two."""
    directory = os.path.abspath(directory)
    parent = os.path.dirname(directory)
    with view.translated(directory):
        os.rename(directory, f"{directory}{view.ASIDE_INFIX}{time.time_ns()}")
        for older in view.set_aside_names(directory)[:-_ASIDE_MAX]:
            shutil.rmtree(f"{parent}/{older}", ignore_errors=True)
            with contextlib.suppress(OSError):  # a file or a link was in its place
                os.unlink(f"{parent}/{older}")


def _make_private(directory: str, *, is_new: bool) -> None:
    """Directory and file exist, and are their owner's alone, as is the journal."""
    path = f"{directory}/{view.DB_NAME}"
    if is_new:
        make_directory(directory)
        os.close(open_regular(path, os.O_RDWR | os.O_CREAT))
    # SQLite gives a journal the mode of its database; a restored one may have another.
    modes = {directory: 0o700, path: 0o600, path + view.JOURNAL_SUFFIX: 0o600}
    for name, mode in modes.items():
        with contextlib.suppress(OSError):  # a file system may have no modes
            if os.lstat(name).st_mode & 0o777 != mode:
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


def _clean(connection: sqlite3.Connection, unbelieved: list[int]) -> None:
    """Delete rows by number, and settings that are not ours: diskcache obeys them."""
    for rowid in unbelieved:
        connection.execute("DELETE FROM Cache WHERE rowid = ?", (rowid,))
    found = connection.execute("SELECT rowid, key FROM Settings").fetchall()
    for rowid, key in found:
        if key not in {*SETTINGS, *_COUNTERS}:
            connection.execute("DELETE FROM Settings WHERE rowid = ?", (rowid,))


def _storable(state: DeliveryState) -> DeliveryState:
    """`state` with a last error that JSON can hold, cut to 500 characters.

    A path with bytes that are not UTF-8 arrives in it as lone surrogates, which JSON
    has no form for; no error message is worth a commit.
    """
    text = state.last_error[:_LAST_ERROR_MAX]
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return msgspec.structs.replace(state, last_error=text)


def _cause(error: BaseException) -> BaseException:
    """The fault itself, where diskcache shows only what came of it.

    It turns whatever stops a transaction from beginning into a bare Timeout. And
    where SQLite has rolled back already, its own rollback fails.
    """
    if isinstance(error, diskcache.Timeout) or "cannot rollback" in str(error):
        return error.__context__ or error
    return error
