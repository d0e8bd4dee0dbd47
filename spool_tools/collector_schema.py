"""The collector's tables: what each column holds, and the statements that fill them.

Schema (version 1), to be looked at with `sqlite3 collected.db`:

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
    originals   event_id, bytes: the exact bytes of the few events in which a
                character that a terminal obeys had to be spelled as an escape in
                `json` (equal as JSON); for all others `json` is exact
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

Every value is text without control characters or a whole number, `originals.bytes`
apart: safe to print. Times read as `datetime(received_ms / 1000, 'unixepoch')`.

It opens no file.
"""

from __future__ import annotations

import msgspec


# "splc" in ASCII: tells our file from others (SQLite's file header, offset 68).
APPLICATION_ID = 0x73706C63
SCHEMA_VERSION = 1
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
CREATE TABLE originals(event_id TEXT PRIMARY KEY, bytes BLOB NOT NULL);
"""
ADD_EVENT = """
INSERT INTO events(event_id, event, source, event_timestamp, json, received_ms, request)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(event_id) DO UPDATE SET
    copies = copies + 1, changed = changed + (json IS NOT excluded.json)
"""
ADD_ORIGINAL = """
INSERT INTO originals SELECT :id, :bytes
WHERE NOT EXISTS (SELECT 1 FROM events WHERE event_id = :id)
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
