"""Which sessions began and never ended, from the events of one segment alone."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from telemetry.delivery.unfinished import unfinished


START = str(uuid.UUID(int=7, version=7 if hasattr(uuid, "uuid7") else 4))


def event(action: str, at_ms: int, /, name: str = "session", **others: Any) -> bytes:
    properties = {"action": action, "agent_name": "root", "session_id": "s1"}
    told = {
        "event": name,
        "event_timestamp": at_ms,
        "source": "app",
        "properties": {**properties, "event_id": START, "user_uuid": "u", **others},
    }
    return msgspec.json.encode(told)


def test_a_session_without_an_end_is_told_with_what_is_known_of_it() -> None:
    """How many sessions are cut off says more than how many end well."""
    call = event("call", 3500, name="tool", event_id="another")
    (told,) = unfinished(iter([event("start", 1000, channel="beta"), call]))
    assert told["event"] == "session"
    assert told["event_timestamp"] == 3500
    properties = told["properties"]
    assert properties["action"] == "unfinished"
    assert properties["duration_ms"] == 2500
    assert (properties["session_id"], properties["agent_name"]) == ("s1", "root")
    assert (properties["user_uuid"], properties["channel"]) == ("u", "beta")
    assert properties["event_id"] == str(uuid.uuid5(uuid.UUID(START), "unfinished"))
    assert "crash" not in str(told)


def test_each_start_needs_an_end_of_its_own_process() -> None:
    """Two processes may call their sessions the same, and one may begin anew."""
    start, end = event("start", 1), event("end", 2)
    assert unfinished(iter([start, end])) == []
    assert len(unfinished(iter([start, start, end]))) == 1
    ours = event("start", 1, invocation_id="a"), event("end", 2, invocation_id="a")
    theirs = event("start", 1, invocation_id="b")
    (told,) = unfinished(iter([*ours, theirs]))
    assert told["properties"]["invocation_id"] == "b"


def test_what_is_no_session_of_ours_is_passed_over() -> None:
    """A program may have events of its own that look like these."""
    others = [
        b"{no json",
        b"[]",
        b'{"event":"session","event_timestamp":1}',
        b'{"event":"session","event_timestamp":"x","properties":{"session_id":"s"}}',
        event("start", 1, name="game"),
        event("start", 1, session_id=None),
    ]
    assert len(unfinished(iter(others))) <= 1
    (told,) = unfinished(iter([*others[:5], event("start", 1, event_id=5)]))
    assert uuid.UUID(told["properties"]["event_id"]).version == 5
