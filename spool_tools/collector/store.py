"""What the collector keeps: one SQLite file, written in one transaction a request.

Rules: when `record` returns, the rows survive a kill and a power loss (WAL,
`synchronous=FULL`); when it raises, none of them is there. An event stored once is
never changed but for its counts. A file that something else made is not touched.

Two tables, `events` and `requests` (`RequestRow`), to be looked at with sqlite3: times
read as `datetime(received_ms / 1000, 'unixepoch')`. It parses no event and answers no
request.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from telemetry.errors import TelemetryError


# "splc" in ASCII: tells our file from others (SQLite's file header, offset 68).
APPLICATION_ID = 0x73706C63
SCHEMA_VERSION = 4
_EVENTS = """CREATE TABLE events(
    id INTEGER PRIMARY KEY, -- 1, 2, 3 ... in the order of arrival
    event_id TEXT NOT NULL UNIQUE,
    event TEXT NOT NULL,
    event_timestamp INTEGER NOT NULL, -- milliseconds since 1970, as in the event
    source TEXT NOT NULL,
    json TEXT NOT NULL, -- the event's text as it arrived
    received_ms INTEGER NOT NULL, -- when it first arrived
    request INTEGER NOT NULL REFERENCES requests(id), -- the first that brought it
    copies INTEGER NOT NULL DEFAULT 1, -- how many times it arrived
    changed INTEGER NOT NULL DEFAULT 0 -- how many of these had another text
)"""
_ADD_EVENT = """
INSERT INTO events(event_id, event, event_timestamp, source, json, received_ms, request)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(event_id) DO UPDATE SET
    copies = copies + 1, changed = changed + (json IS NOT excluded.json)
"""
# Another process may look on, or collect into the same file.
_BUSY_TIMEOUT_S = 10.0


class Row(msgspec.Struct, frozen=True, gc=False):
    """One event as it is stored: `json` as it came, the names safe to print.

    Out of the garbage collector's sight: it holds no other object, and batches of
    hundreds would set the collector off again and again.
    """

    event_id: str
    event: str
    event_timestamp: int
    source: str
    json: str


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `requests`: one that could be read.

    wire_bytes, body_bytes: of the body with and without its content coding
    sha256: of the body without its content coding, hex
    records: events that it held, of which it brought so many for the first time
        (`accepted`) and again (`duplicates`); the `rejected` were not stored
    status: answered, None: no answer; the client may not have it
    fault: the fault on request that it met
    reason: why it, or its first rejected event, was refused
    """

    id: int = 0
    received_ms: int
    method: str
    path: str
    idempotency_key: str = ""
    user_agent: str = ""
    coding: str = ""
    wire_bytes: int = 0
    body_bytes: int = 0
    sha256: str = ""
    records: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    status: int | None = None
    fault: str = ""
    reason: str = ""
    format: str = ""


_NAMES = RequestRow.__struct_fields__
# Names of fields, not input.
_REQUESTS = f"CREATE TABLE requests({', '.join(_NAMES)}, PRIMARY KEY (id))"
_ADD_REQUEST = f"INSERT INTO requests VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608
_RANGES = "CREATE TABLE ranges(request_id, segment, first_seq, last_seq, records)"
_ADD_RANGE = "INSERT INTO ranges VALUES (?, ?, ?, ?, ?)"
_READ_RANGES = """
SELECT segment, first_seq, last_seq, last_seq - first_seq + 1 - max(records)
FROM ranges GROUP BY segment, first_seq, last_seq ORDER BY segment, first_seq, last_seq
"""


class Gaps(msgspec.Struct):
    """What never arrived of a segment, by the numbers of its records.

    last: the highest number that arrived; what follows it is not known here
    gaps: first and last number of each stretch that no stored request covered
    short: numbers that a request covered without their events: records that were
        damaged where they were kept, or refused
    """

    segment: str
    last: int
    gaps: list[tuple[int, int]]
    short: int = 0


class StoreError(TelemetryError):
    """The file cannot be used now. What was being written is not there, all else is."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class Store:
    """One open file. Any thread may call; one writes at a time.

    `path` may be `:memory:`, which is gone at `close`. A file is made with mode 0600
    where there is none; where there is one, its events count. Raises `StoreError`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._mutex = threading.Lock()
        try:
            if path != ":memory:":
                # SQLite gives its -wal and -shm files the mode of the file itself.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(
                path,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as exc:
            raise StoreError(path, getattr(exc, "strerror", "") or str(exc)) from exc
        try:
            self._prepare()
        except StoreError:
            self._db.close()
            raise

    def record(
        self,
        request: RequestRow,
        rows: Sequence[Row],
        ranges: Sequence[tuple[str, int, int]] = (),
    ) -> RequestRow:
        """The request as it is stored, with its id and the numbers of its events.

        `ranges` say where the sender keeps them, as segment, first and last number;
        without events they say nothing. Raises
        `StoreError`; then neither the request nor any of its events is stored.
        """
        with self._transaction():
            # Nothing is ever deleted, so the highest id counts the rows: for a whole
            # batch that is cheaper than asking each insertion what it did.
            request_id = self._highest("requests") + 1
            before = self._highest("events")
            more = (request.received_ms, request_id)
            self._db.executemany(
                _ADD_EVENT, ((*msgspec.structs.astuple(row), *more) for row in rows)
            )
            accepted = self._highest("events") - before
            counts = {"accepted": accepted, "duplicates": len(rows) - accepted}
            stored = msgspec.structs.replace(request, id=request_id, **counts)
            self._db.execute(_ADD_REQUEST, msgspec.structs.astuple(stored))
            records = request.records
            for segment, first, last in ranges if records else ():
                held = min(last - first + 1, records)
                row = (request_id, segment, first, last, held)
                self._db.execute(_ADD_RANGE, row)
                records -= held
        return stored

    def count(self) -> int:
        """How many distinct events are stored."""
        return int(self._read("SELECT count(*) FROM events")[0][0])

    def texts(self) -> list[bytes]:
        """The exact bytes of every event, in the order of arrival."""
        rows = self._read("SELECT json FROM events ORDER BY id")
        return [text.encode() for (text,) in rows]

    def copies(self) -> dict[str, int]:
        """How many times each event arrived, by `event_id`."""
        return dict(self._read("SELECT event_id, copies FROM events ORDER BY id"))

    def requests(self) -> list[RequestRow]:
        """Every request, in the order in which they were stored."""
        rows = self._read("SELECT * FROM requests ORDER BY id")
        return [RequestRow(**dict(zip(_NAMES, row, strict=True))) for row in rows]

    def gaps(self) -> list[Gaps]:
        """What is missing of each segment that a stored request named."""
        found: list[Gaps] = []
        for segment, first, last, short in self._read(_READ_RANGES):
            if not found or found[-1].segment != segment:
                found.append(Gaps(segment, -1, []))
            known = found[-1]
            if first > known.last + 1:
                known.gaps.append((known.last + 1, first - 1))
            known.last = max(known.last, last)
            known.short += max(0, short)
        return found

    def close(self) -> None:
        """Closes the file; what was recorded stays. Twice is fine."""
        with self._mutex:
            self._db.close()

    def _prepare(self) -> None:
        """Makes the schema in an empty file, refuses what another program made."""
        with self._using():
            self._is_new()  # first: to set the journal's mode is to write
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA fullfsync=ON")  # macOS: only F_FULLFSYNC is a sync
        with self._transaction():
            if self._is_new():
                self._db.execute(_REQUESTS)
                self._db.execute(_EVENTS)
                self._db.execute(_RANGES)
                self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _is_new(self) -> bool:
        questions = (
            "SELECT count(*) FROM sqlite_master",
            "PRAGMA application_id",
            "PRAGMA user_version",
        )
        found = [self._db.execute(each).fetchone()[0] for each in questions]
        if found[1:] != [APPLICATION_ID, SCHEMA_VERSION] and found != [0, 0, 0]:
            problem = (
                "is a database that no collector of this version made; it is as it "
            )
            raise StoreError(self.path, f"{problem}was; name another file")
        return found == [0, 0, 0]

    def _highest(self, table: str) -> int:
        # The two tables' names are ours.
        found = self._db.execute(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608
        return int(found[0] or 0)

    def _read(self, statement: str) -> list[Any]:
        with self._using():
            return self._db.execute(statement).fetchall()

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._mutex:
            try:
                yield
            except sqlite3.Error as exc:
                raise StoreError(self.path, str(exc)) from exc

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._using(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield
