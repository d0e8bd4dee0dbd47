"""What the collector keeps: one SQLite file, written in one transaction a request.

Rules: when `record` returns, the rows survive a kill and a power loss (WAL,
`synchronous=FULL`); when it raises, none of them is there. An event stored once is
never changed but for its counts. A file that something else made is not touched.

Schema (version 2), to be looked at with `sqlite3 collected.db`:

    events      one row for each event_id ever stored, in the order of arrival
      id               1, 2, 3 ...
      event_id         unique
      event, source    as in the event
      event_timestamp  milliseconds since 1970, as in the event
      received_ms      when it first arrived, milliseconds since 1970
      request          the id of the request that brought it first
      copies           how many times it arrived; above 1 were duplicates
      changed          how many of these differed from the first in their text
      json             the event's text as it arrived
    requests    one row for each request that could be read
      id, received_ms, method, path, idempotency_key, user_agent, coding
      wire_bytes       of the body as it was sent
      body_bytes       of the body without its content coding
      sha256           of the body without its content coding, hex
      records, accepted, duplicates, rejected   numbers of events
      status           answered; null where no answer was given. It is written with
                       the events, before the answer leaves: the client may not have it
      fault            the fault on request that it met, or empty
      reason           why it, or the first event rejected, was refused, or empty

Times read as `datetime(received_ms / 1000, 'unixepoch')`. It parses no event and
answers no request.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.errors import TelemetryError


if TYPE_CHECKING:
    from spool_tools.collector.body import Batch


# "splc" in ASCII: tells our file from others (SQLite's file header, offset 68).
APPLICATION_ID = 0x73706C63
SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE requests(
    id INTEGER PRIMARY KEY, received_ms INTEGER NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, idempotency_key TEXT NOT NULL, user_agent TEXT NOT NULL,
    coding TEXT NOT NULL, wire_bytes INTEGER NOT NULL, body_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, records INTEGER NOT NULL, accepted INTEGER NOT NULL,
    duplicates INTEGER NOT NULL, rejected INTEGER NOT NULL, status INTEGER,
    fault TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE events(
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, event TEXT NOT NULL,
    source TEXT NOT NULL, event_timestamp INTEGER NOT NULL,
    received_ms INTEGER NOT NULL, request INTEGER NOT NULL REFERENCES requests(id),
    copies INTEGER NOT NULL DEFAULT 1, changed INTEGER NOT NULL DEFAULT 0,
    json TEXT NOT NULL);
"""
ADD_EVENT = """
INSERT INTO events(event_id, event, source, event_timestamp, json, received_ms, request)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(event_id) DO UPDATE SET
    copies = copies + 1, changed = changed + (json IS NOT excluded.json)
"""


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `requests`; the module's docstring says what each field holds."""

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


COLUMNS = ", ".join(RequestRow.__struct_fields__)
ADD_REQUEST = (
    f"INSERT INTO requests({COLUMNS}) "  # noqa: S608 - names of fields, not input
    f"VALUES ({', '.join('?' * len(RequestRow.__struct_fields__))})"
)
READ_REQUESTS = f"SELECT {COLUMNS} FROM requests ORDER BY id"  # noqa: S608 - as above


# Another process may look on, or collect into the same file.
_BUSY_TIMEOUT_S = 10.0


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
        if path != ":memory:":
            try:
                # SQLite gives its -wal and -shm files the mode of the file itself.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            except OSError as exc:
                raise StoreError(path, exc.strerror or str(exc)) from exc
        try:
            self._db = sqlite3.connect(
                database=path,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as exc:
            raise StoreError(path, str(exc)) from exc
        try:
            self._prepare()
        except sqlite3.Error as exc:
            self._db.close()
            raise StoreError(path, str(exc)) from exc
        except StoreError:
            self._db.close()
            raise

    def record(self, request: RequestRow, batch: Batch) -> RequestRow:
        """The request as it is stored, with its id and the numbers of its events.

        Raises `StoreError`; then neither the request nor any of its events is stored.
        """
        with self._mutex:
            try:
                return self._transact(request, batch)
            except sqlite3.Error as exc:
                raise StoreError(self.path, str(exc)) from exc

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
        rows = self._read(READ_REQUESTS)
        names = RequestRow.__struct_fields__
        return [RequestRow(**dict(zip(names, row, strict=True))) for row in rows]

    def close(self) -> None:
        """Closes the file; what was recorded stays. Twice is fine."""
        with self._mutex:
            self._db.close()

    def _prepare(self) -> None:
        """Makes the schema in an empty file, refuses what another program made."""
        self._is_new()  # first: to set the journal's mode is to write
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA fullfsync=ON")  # macOS: only F_FULLFSYNC is a sync
        self._db.execute("BEGIN IMMEDIATE")
        if self._is_new():
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._db.execute("COMMIT")

    def _is_new(self) -> bool:
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        marks = [
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        ]
        if tables == 0 and marks == [0, 0]:
            return True
        if marks != [APPLICATION_ID, SCHEMA_VERSION]:
            raise StoreError(
                self.path,
                "is a database that no collector of this version made; "
                "it is as it was; name another file",
            )
        return False

    def _transact(self, request: RequestRow, batch: Batch) -> RequestRow:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            row = self._add(request, batch)
            self._db.execute("COMMIT")
        except BaseException:
            # SQLite has undone some failures itself; an open transaction would make
            # the next request part of this one.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        return row

    def _add(self, request: RequestRow, batch: Batch) -> RequestRow:
        """Inside a transaction: the events, then the request."""
        # Nothing is ever deleted, so the highest id counts the rows: for a whole
        # batch that is cheaper than asking each insertion what it did.
        request_id = self._highest("requests") + 1
        before = self._highest("events")
        self._db.executemany(
            ADD_EVENT,
            (
                (
                    row.event_id,
                    row.event,
                    row.source,
                    row.event_timestamp,
                    row.json,
                    request.received_ms,
                    request_id,
                )
                for row in batch.rows
            ),
        )
        accepted = self._highest("events") - before
        stored = msgspec.structs.replace(
            request,
            id=request_id,
            accepted=accepted,
            duplicates=len(batch.rows) - accepted,
        )
        self._db.execute(ADD_REQUEST, msgspec.structs.astuple(stored))
        return stored

    def _highest(self, table: str) -> int:
        # The two tables' names are ours.
        found = self._db.execute(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608
        return int(found[0] or 0)

    def _read(self, statement: str) -> list[Any]:
        with self._mutex:
            try:
                return self._db.execute(statement).fetchall()
            except sqlite3.Error as exc:
                raise StoreError(self.path, str(exc)) from exc
