"""A session that began and never ended is told once, as `session` with `unfinished`.

It is known from a segment that is about to be deleted: its lock is free, so the process
that wrote it is over or has closed its client. Why is not known, and it is never called
a crash. Rules:

- The event has the start's fields, the time of the session's last event, and an id that
  is derived from the start's (UUIDv5, RFC 9562 §5.5). So it is told once after
  deduplication, also if this process is killed before the segment is deleted.
- A segment that its writer may have left because it was full says nothing: the session
  may go on in the next one.
- An `end` of the same session may still follow, from a client that was closed in between.
- What cannot be written is not told, and holds back nothing.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from telemetry.errors import TelemetryError
from telemetry.paths import Home, segment_name
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader
from telemetry.spool.segment import create


_SESSION = b'{"event":"session",'
_WITH_ID = b'"session_id":"'


class SessionUnfinishedPayload(msgspec.Struct, frozen=True):
    """A session began, and its process is over without an end of it.

    action: always `unfinished`
    agent_name: the agent that the session ran
    duration_ms: from its start to its last event, whole milliseconds
    session_id: the session's id
    """

    action: str
    agent_name: str
    duration_ms: int
    session_id: str


def tell_unfinished(home: Home, reader: SegmentReader) -> None:
    """The sessions that a segment leaves unfinished are in the spool, if there are any.

    The segment's lock is held, and all of it is settled.
    """
    try:
        if not reader.mentions(_SESSION):
            return
        events = unfinished(
            item.event
            for item in reader.items()
            if isinstance(item, Record) and _WITH_ID in item.text
        )
        if not events:
            return
        path = home.segment(segment_name(time.time_ns(), os.urandom(4)))
        segment = create(path)
        if segment is not None:
            try:
                for event in events:
                    segment.append(msgspec.json.encode(event, order="sorted"))
            finally:
                segment.close()
    except (OSError, TelemetryError):
        pass  # a full disk, for example: the segment's space is needed


def unfinished(events: Iterator[bytes]) -> list[dict[str, Any]]:
    """The event of each session that begins among these events and does not end. Pure."""
    # By session and process: another process may use the same id.
    begun: dict[tuple[object, object], list[dict[str, Any]]] = {}
    last: dict[tuple[object, object], int] = {}
    for text in events:
        try:
            event = msgspec.json.decode(text)
            properties = event["properties"]
            key = (properties["session_id"], properties.get("invocation_id"))
            last[key] = int(event["event_timestamp"])
            action = properties["action"] if event["event"] == "session" else ""
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            continue  # of a program's own, or edited by hand
        if action == "start":
            begun.setdefault(key, []).append(event)
        elif action == "end" and begun.get(key):
            begun[key].pop()
    return [
        _told(start, last[key]) for key, starts in begun.items() for start in starts
    ]


def _told(start: dict[str, Any], last_ms: int) -> dict[str, Any]:
    properties = start["properties"]
    duration_ms = max(last_ms - int(start["event_timestamp"]), 0)
    try:
        namespace = uuid.UUID(str(properties.get("event_id")))
    except ValueError:
        namespace = uuid.NAMESPACE_OID
    changed = {
        "action": "unfinished",
        "duration_ms": duration_ms,
        "event_id": str(uuid.uuid5(namespace, "unfinished")),
    }
    return {
        "event": "session",
        "event_timestamp": last_ms,
        "source": start["source"],
        "properties": {**properties, **changed},
    }
