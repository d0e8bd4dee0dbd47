"""The ledger: what the flusher knows, kept by diskcache; no other file meets diskcache.

Rules:
- one commit is one transaction: all of it survives a kill on return, with `power` a
  power loss too, or none of it is there;
- rows only, never a pickle and never a file of their own, in either direction;
- every setting is named; nothing is ever evicted; nothing retries without end;
- a ledger is born whole: it is built beside, and put in place by one rename;
- what stands there is used only after `ledger_file` and `ledger_admission` let it in;
- after any fault the connection is thrown away: a commit that failed leaves it inside
  its transaction. The next call opens, and checks, anew;
- only what is malformed is set aside. Every other fault waits.

Whoever opens a ledger holds the flush lock: there is one writer. Refuses to work
across a fork, and keeps no event.

The place of a ledger: how one comes to stand there, and how it is put out of it.

Rules:
- a ledger is born whole. It is built in a directory of its own inside the place, and
  the rename of the database is its birth; a kill before that leaves nothing that
  counts, and the next birth clears it away;
- directories are 0700 and files 0600 whatever the umask, also those that somebody
  copied back in;
- the journal has its size from birth, for a commit on a full disk has no other room;
- what is malformed is renamed to a sibling, `<ledger>.malformed-<ns>`, never removed
  at once. The newest two are kept: they hold no event, and nobody asks for more.

Opens no database: what it is given to build with does that.

Whether the database that stands in a ledger's place is let in.

Rules:
- nothing of it is written, and nothing that it could run is run, before its tables,
  indexes and triggers are seen to be exactly those that diskcache makes: a planted
  trigger or view is SQL of somebody else's;
- then its pages must be sound;
- planted settings are put right, not obeyed;
- rows that cannot be believed are deleted and named: one left there could stop the
  commit that is to replace it.

Knows what tables are right only from those who make them: it is told.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import diskcache
import msgspec
from diskcache.core import METADATA, MODE_RAW, UNKNOWN

from telemetry.books.entries import NOTHING, Snapshot
from telemetry.books.rows import changed_rows, read_rows
from telemetry.books.view import DB_NAME, FAULTS, fault, read_snapshot, standing
from telemetry.errors import LedgerError, LedgerMalformedError


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from telemetry.books.entries import DeadFile, DeliveryState, SegmentEntry, Totals


import shutil
import time
from typing import TYPE_CHECKING

from telemetry.books.view import JOURNAL_SUFFIX, opened


if TYPE_CHECKING:
    from collections.abc import Callable


import hashlib
import tempfile
from typing import TYPE_CHECKING

from telemetry.books.view import check_header, check_structure, connect, is_hot, recover


if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping


def admit(
    directory: str,
    *,
    busy_s: float,
    settings: Mapping[str, object],
    counters: Mapping[str, int],
    schema: str,
    build: Callable[[str], None],
) -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """A connection to the checked database in `directory`, and the keys it lost.

    `settings` and `counters` are what its table of settings holds; `schema` is the
    digest that its tables are known by, and `build` makes the measure where they
    differ. Raises LedgerMalformedError, and what SQLite and the system raise.
    """
    path = os.path.join(directory, DB_NAME)
    make_private(directory)
    if is_hot(path):
        recover(path, busy_s=busy_s)
    check_header(path)
    with contextlib.suppress(OSError):  # no space: most commits need less
        reserve_journal(path)
    connection = connect(path, mode="rw", busy_s=busy_s)
    try:
        _check_schema(connection, path, schema, build)
        check_structure(connection, path)
        for key, value in settings.items():
            if key.startswith("sqlite_"):
                connection.execute(f"PRAGMA {key[7:]} = {value}").fetchall()
        return connection, _put_right(connection, settings, counters)
    except BaseException:
        connection.close()
        raise


def _check_schema(
    connection: sqlite3.Connection,
    path: str,
    schema: str,
    build: Callable[[str], None],
) -> None:
    found = digest(connection)
    # Another diskcache may make other tables: then what it makes is the measure.
    if found != schema and found != measure(build):
        raise LedgerMalformedError(path, "its tables are not those of a ledger")


def digest(connection: sqlite3.Connection) -> str:
    """SHA-256 of all tables, indexes, triggers and views."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return hashlib.sha256(ascii(sorted(rows, key=ascii)).encode()).hexdigest()


def measure(build: Callable[[str], None]) -> str:
    """The digest of the tables that `build` makes."""
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory:
        build(directory)
        path = os.path.join(directory, DB_NAME)
        with contextlib.closing(connect(path, mode="ro", busy_s=0)) as connection:
            return digest(connection)


def _put_right(
    connection: sqlite3.Connection,
    settings: Mapping[str, object],
    counters: Mapping[str, int],
) -> tuple[str, ...]:
    """Rewrite settings that are not ours, delete rows that cannot be believed.

    Returns the keys of those rows.
    """
    found = connection.execute("SELECT key, value FROM Settings").fetchall()
    obeyed = {key: value for key, value in found if key not in counters}
    snapshot, rowids = read_rows(connection)
    if obeyed == settings and not rowids:
        return ()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "DELETE FROM Cache WHERE rowid = ?", [(rowid,) for rowid in rowids]
    )
    connection.execute("DELETE FROM Settings")
    connection.executemany(
        "INSERT INTO Settings VALUES (?, ?)", [*counters.items(), *settings.items()]
    )
    connection.execute(
        "UPDATE Settings SET value = (SELECT count(*) FROM Cache) WHERE key = 'count'"
    )
    connection.execute("COMMIT")
    return snapshot.unreadable


# 31 pages of 4 KiB with their headers, while a commit changes about six.
JOURNAL_BYTES = 128 * 1024

ASIDE_INFIX = ".malformed-"
_ASIDE_MAX = 2

_BIRTH_NAME = "birth"


def bear(directory: str, build: Callable[[str], None]) -> None:
    """Put what `build` makes in an empty directory in place, durably.

    A database that stands there already is replaced. Raises OSError or what `build`
    raises; then none stands there that was not there before.
    """
    with contextlib.suppress(FileExistsError):
        _make_directory(directory)
    birth = os.path.join(directory, _BIRTH_NAME)
    _remove(birth)
    _make_directory(birth)
    try:
        built = os.path.join(birth, DB_NAME)
        # Made here, because SQLite would make it with what the umask leaves.
        with opened(built, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
            os.fchmod(descriptor, 0o600)
        build(birth)
        reserve_journal(built)
        with opened(built, os.O_RDWR) as descriptor:
            os.fsync(descriptor)
        # The journal first: one that an older database left there could be hot, and
        # would be rolled back into this one.
        for name in (DB_NAME + JOURNAL_SUFFIX, DB_NAME):
            os.replace(os.path.join(birth, name), os.path.join(directory, name))
    finally:
        _remove(birth)
    _sync_directory(directory)
    _sync_directory(os.path.dirname(directory))


def reserve_journal(path: str) -> None:
    """Give the journal beside `path` its size, while nothing is in it.

    Raises OSError where there is no space; what could be had is kept.
    """
    with opened(path + JOURNAL_SUFFIX, os.O_RDWR | os.O_CREAT) as descriptor:
        os.fchmod(descriptor, 0o600)
        end = os.fstat(descriptor).st_size
        if end < JOURNAL_BYTES:
            while end < JOURNAL_BYTES:
                end += os.pwrite(descriptor, bytes(JOURNAL_BYTES - end), end)
            os.fsync(descriptor)


def make_private(directory: str) -> None:
    """Take from others whatever access they have to a standing ledger.

    Call it once none of it is known to be a symlink. A file system without modes is
    no reason to stop.
    """
    path = os.path.join(directory, DB_NAME)
    modes = ((directory, 0o700), (path, 0o600), (path + JOURNAL_SUFFIX, 0o600))
    for name, mode in modes:
        with contextlib.suppress(OSError):
            if os.lstat(name).st_mode & 0o077:
                os.chmod(name, mode)


def set_aside(directory: str) -> str:
    """Rename whatever stands at `directory`, a symlink itself too; its new name.

    Raises OSError; then it stands where it stood.
    """
    parent, name = os.path.split(directory)
    moment_ns = time.time_ns()
    while os.path.lexists(f"{directory}{ASIDE_INFIX}{moment_ns}"):
        moment_ns += 1
    aside = f"{name}{ASIDE_INFIX}{moment_ns}"
    os.rename(directory, os.path.join(parent, aside))
    _sync_directory(parent)
    others = sorted(n for n in os.listdir(parent) if n.startswith(name + ASIDE_INFIX))
    for older in others[:-_ASIDE_MAX]:
        _remove(os.path.join(parent, older))
    return aside


def _make_directory(path: str) -> None:
    os.mkdir(path, 0o700)
    os.chmod(path, 0o700)


def _remove(path: str) -> None:
    """Remove a tree, or what stands in its place, as far as one may."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _sync_directory(path: str) -> None:
    # A file system that cannot sync a directory says so; its renames are its own.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


__all__ = ["Ledger", "open_ledger", "read_snapshot"]

# FULL for who asks to survive a power loss, and for a diskcache that was not read;
# OFF for the others, because the five syncs of a commit take longer than the request
# it is for. A power loss may take commits then, or spoil the file: that costs
# duplicates and totals, as any ledger does that is older than its spool or set aside.
_SYNCHRONOUS = 2
_UNSYNCED = 0

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
    "sqlite_synchronous": _SYNCHRONOUS,
    "disk_min_file_size": 2**62,  # bytes from which a value would become a file
    "disk_pickle_protocol": 0,  # nothing is pickled
    "sqlite_cell_size_check": 1,  # notice damage when a page is read
    "sqlite_journal_size_limit": -1,  # no build shrinks the journal (Apple's does)
    "sqlite_temp_store": 2,  # in memory: nothing in a shared temporary directory
    "sqlite_trusted_schema": 0,  # no SQL in the schema calls what has side effects
}

# How long a commit waits for a tool that reads. Flushing at exit has 1 s in all.
BUSY_S = 1.0

# The versions whose constructor was read: `_Rows` opens for them without it.
_READ_VERSIONS = ("5.6.3",)

# SHA-256 of the tables, indexes and triggers that those versions make.
_READ_SCHEMA = "91921ee26f684c33c8e6c083499ba4dc7092cccda47fffe7c5662d8f812dd399"

# Free pages that a ledger is born with, for rows added on a full disk.
_RESERVE_BYTES = 64 * 1024
_RESERVE_KEY = b"reserve"


class _RowsOnly(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes in, bytes out. A file's name in a row is never opened and never removed."""

    def put(self, key: object) -> tuple[object, bool]:
        """The key, if it is bytes."""
        if type(key) is not bytes:
            raise self._refusal("a key that is no bytes")
        return sqlite3.Binary(key), True

    def get(self, key: object, raw: object) -> bytes:
        """The key, if it was stored as bytes."""
        if type(key) is not bytes or not raw:
            raise self._refusal("a pickled key")
        return key

    def store(
        self, value: object, read: bool, key: object = UNKNOWN
    ) -> tuple[int, int, None, object]:
        """The value, if it is bytes."""
        if read or type(value) is not bytes:
            raise self._refusal("a value that is no bytes")
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: object, value: object, read: bool) -> bytes:
        """The value, if it was stored as bytes and in its row."""
        plain = (mode, filename, read) == (MODE_RAW, None, False)
        if not plain or type(value) is not bytes:
            raise self._refusal("a value that is pickled or in a file")
        return value

    def filename(self, key: object = UNKNOWN, value: object = UNKNOWN) -> Any:
        """No row has a file."""
        raise self._refusal("a file for a value")

    def remove(self, file_path: object) -> None:
        """Nothing: no row of ours has a file, so the name is somebody else's."""

    def _refusal(self, what: str) -> LedgerError:
        return LedgerError(self._directory, f"{what} is refused")


class _Literal(str):
    """A path that diskcache takes as it is: its constructor would expand `$NAME`."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def __contains__(self, part: object) -> bool:
        return part != "$" and super().__contains__(part)  # type: ignore[operator]


class _Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """diskcache's Cache by its own constructor, without its connection left behind."""

    def __init__(self, directory: str, *, busy_s: float, synchronous: int) -> None:
        settings = {**SETTINGS, "sqlite_synchronous": synchronous}
        try:
            super().__init__(
                directory=_Literal(directory),
                timeout=busy_s,
                disk=_RowsOnly,
                **settings,
            )
        except BaseException:
            self.close()
            raise


class _Rows(_Cache):
    """diskcache's Cache on a connection that was opened and checked here.

    Its constructor would write each setting in a transaction of its own: 60 syncs,
    which is a second on a slow disk, to say what the file says already. Its
    connecting would obey the pragmas in the file, in the journal mode of the moment.
    Nothing of that is needed for a ledger that stands.
    """

    def __init__(self, directory: str, connection: sqlite3.Connection) -> None:
        self._directory = directory
        self._timeout = 0
        self._local = threading.local()
        self._txn_id = None
        self._connection = connection
        for key, value in SETTINGS.items():
            setattr(self, key, value)
        self._disk = _RowsOnly(
            directory,
            min_file_size=SETTINGS["disk_min_file_size"],
            pickle_protocol=SETTINGS["disk_pickle_protocol"],
        )

    @property
    def _con(self) -> sqlite3.Connection:
        return self._connection


def _build(directory: str) -> None:
    """Have diskcache make its tables, without the 125 syncs: nothing counts yet."""
    cache = _Cache(directory, busy_s=0, synchronous=0)
    try:
        cache.set(_RESERVE_KEY, bytes(_RESERVE_BYTES), retry=False)
        cache.delete(_RESERVE_KEY, retry=False)
        cache.reset("sqlite_synchronous", _SYNCHRONOUS)
    finally:
        cache.close()


class Ledger:
    """One open ledger.

    Any thread may use it, one at a time.
    """

    def __init__(
        self, directory: str, *, busy_s: float = BUSY_S, power: bool = True
    ) -> None:
        """Open the ledger in `directory`, or make one there.

        `busy_s`: how many seconds to wait for another's lock, per call. `power`:
        whether a commit is to survive a power loss, besides a kill. Raises
        LedgerMalformedError for what is no ledger (`open_ledger` sets it aside), and
        LedgerError for every other fault, which leaves it as it was.
        """
        self._directory = os.path.abspath(directory)
        self._path = os.path.join(self._directory, DB_NAME)
        self._busy_s = busy_s
        self._power = power
        self._pid = os.getpid()
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._cache: _Cache | None = None
        self._forgotten: tuple[str, ...] = ()
        with self._guarded():
            if not standing(self._directory):
                bear(self._directory, _build)
            self._ready()

    def read(self) -> Snapshot:
        """Everything that was committed and can be believed.

        `unreadable` also names what was found when the ledger was opened, and deleted.
        Raises LedgerError, or LedgerMalformedError.
        """
        with self._guarded():
            connection, _ = self._ready()
            snapshot, _ = read_rows(connection)
        unreadable = self._forgotten + snapshot.unreadable
        return msgspec.structs.replace(snapshot, unreadable=unreadable)

    def commit(
        self,
        *,
        segments: Mapping[str, SegmentEntry | None] = NOTHING,
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_files: Mapping[str, DeadFile | None] = NOTHING,
    ) -> None:
        """Write all of it or nothing; on return it survives what was asked for.

        None in a mapping removes, elsewhere it keeps. Raises LedgerError: then the
        ledger is as it was (only if the device failed at the very last sync may it
        hold all of it; values are absolute, so that committing again is right in
        either case). LedgerMalformedError: the same, but open it anew.
        """
        rows = changed_rows(segments, totals, state, dead_files)
        if rows:
            with self._guarded():
                _, cache = self._ready()
                with cache.transact(retry=False):
                    for key, row in rows:
                        _write(cache, key, row)

    def close(self) -> None:
        """Let go of the files. What was committed stays. Calling it twice is fine."""
        self._closed = True
        if os.getpid() == self._pid:
            self._drop()

    def _ready(self) -> tuple[sqlite3.Connection, _Cache]:
        """The connection and the cache, opened and checked if they are not.

        A ledger that vanished is not made anew here: its user goes on with what it
        read, and an empty one would hold only what changed since.
        """
        if self._connection is not None and self._cache is not None:
            return self._connection, self._cache
        if not standing(self._directory):
            raise LedgerError(self._path, "it is gone; the next flush makes another")
        self._connection, forgotten = admit(
            self._directory,
            busy_s=self._busy_s,
            settings=SETTINGS,
            counters=METADATA,
            schema=_READ_SCHEMA,
            build=_build,
        )
        self._forgotten += forgotten
        if not self._power:
            self._connection.execute(f"PRAGMA synchronous = {_UNSYNCED}")
        if diskcache.__version__ in _READ_VERSIONS:
            self._cache = _Rows(self._directory, self._connection)
        else:
            self._cache = _Cache(
                self._directory,
                busy_s=self._busy_s,
                synchronous=_SYNCHRONOUS,
            )
        return self._connection, self._cache

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Drop the connection upon any fault, and name the fault in our terms."""
        if self._closed or os.getpid() != self._pid:
            problem = "it is closed" if self._closed else "it was opened before a fork"
            raise LedgerError(self._path, f"{problem}; open it again")
        try:
            yield
        except (*FAULTS, diskcache.Timeout) as error:
            self._drop()
            raise fault(self._path, _first(error)) from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """Close what is open; SQLite rolls back what was under way."""
        for held in (self._cache, self._connection):
            if held is not None:
                with contextlib.suppress(sqlite3.Error):
                    held.close()
        self._cache = self._connection = None


def _write(cache: _Cache, key: bytes, row: bytes | None) -> None:
    if row is None:
        cache.delete(key, retry=False)
    else:
        cache.set(key, row, expire=None, read=False, tag=None, retry=False)


def _first(error: BaseException) -> BaseException:
    """The fault itself, where diskcache shows only what came of it.

    It turns whatever stops a transaction from beginning into a bare Timeout. And
    where SQLite has rolled back already, its own rollback fails.
    """
    if isinstance(error, diskcache.Timeout) or "cannot rollback" in str(error):
        return error.__context__ or error
    return error


def open_ledger(
    directory: str, *, busy_s: float = BUSY_S, power: bool = True
) -> tuple[Ledger, str | None]:
    """A usable ledger, and the name under which a malformed one was set aside.

    The name is that of a sibling of `directory`, None if nothing was set aside. What
    it costs: duplicates, and the totals begin again. Raises LedgerError for any fault
    but malformed content, and where setting aside fails.
    """
    try:
        return Ledger(directory, busy_s=busy_s, power=power), None
    except LedgerMalformedError:
        pass  # SQLite says the same where the device fails one read: look again
    try:
        return Ledger(directory, busy_s=busy_s, power=power), None
    except LedgerMalformedError as error:
        try:
            aside = set_aside(os.path.abspath(directory))
        except OSError as refusal:
            raise LedgerError(error.path, f"{error.problem}; {refusal}") from refusal
    return Ledger(directory, busy_s=busy_s, power=power), aside
