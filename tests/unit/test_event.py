"""Reading an event that does not go as it stands."""

from __future__ import annotations

from telemetry.wire.formats.event import Event, read


def test_an_event_is_read_by_its_parts() -> None:
    """Times are bounded by what nanoseconds can say; the rest is as it was recorded."""
    for given, expected in ((7, 7), (0, 0), (-1, 0), (10**18, 9_223_372_036_854)):
        content = (
            b'{"event":"e","event_timestamp":%d,"source":"s","properties":{"a":"b"}}'
        )
        assert read(content % given) == Event("e", expected, "s", {"a": "b"})


def test_a_property_is_text_or_none() -> None:
    """Ids are asked for as text; whoever recorded a number there has no id."""
    event = Event("e", 0, "s", {"a": "b", "n": 7})
    assert [event.text(name) for name in ("a", "n", "x")] == ["b", "", ""]


def test_what_cannot_be_read_is_carried_as_text() -> None:
    """Under the ids that are found in it: the server is to judge, and can name it."""
    content = (
        b'{"event":"tool","event_timestamp":15,"properties":{"event_id":"i","n":1e999,'
        b'"user_uuid":"u\xff","version":"1"}}'
    )
    text = content.decode("utf-8", "replace")
    properties = {"event_id": "i", "user_uuid": "u\ufffd", "version": "1"}
    expected = {"unreadable": text, **properties}
    assert read(content) == Event("unreadable", 15, "unreadable", expected)
    bare = Event("unreadable", 0, "unreadable", {"unreadable": "no"})
    assert read(b"no") == bare
