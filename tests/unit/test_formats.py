"""The table of formats, and what all of them promise."""

from __future__ import annotations

import json
import random

import pytest

from telemetry.config import Config
from telemetry.wire.batch import event_id_of, request_of
from telemetry.wire.formats import FORMATS, format_of, ndjson
from telemetry.wire.formats.records import body_of
from tests.support.any_event import UNREADABLE, events_at_random


ID = "01900000-0000-7000-8000-00000000000a"
OTHER = "01900000-0000-7000-8000-00000000000b"


def test_a_body_holds_the_events_as_they_are() -> None:
    """What is posted is what was recorded, byte for byte."""
    assert body_of([b'{"a": 1}', b"{}"]) == b'{"records":[{"a": 1},{}]}'
    assert body_of([]) == b'{"records":[]}'


def test_the_same_body_has_the_same_key() -> None:
    """A retry is recognised by its key, even if the ledger that knew it was lost."""
    assert request_of(b"x") == request_of(b"x")
    assert request_of(b"x").key != request_of(b"y").key
    assert request_of(b"x").digest.startswith(request_of(b"x").key)


def test_the_id_of_an_event() -> None:
    """It is what rejections name."""
    assert event_id_of(b'{"properties":{"event_id":"a"}}') == "a"
    for broken in (b"", b"{}", b'{"properties":{"event_id":7}}', b"\xff", b"[" * 9999):
        assert event_id_of(broken) in ("", None), broken


def test_a_format_is_found_by_its_name() -> None:
    """`Config(format=…)` is text."""
    assert {name for name in FORMATS if format_of(name) is FORMATS[name]} == set(
        FORMATS
    )
    with pytest.raises(KeyError):
        format_of("no such format")
    for name in FORMATS:
        assert not Config(app="a", format=name).problems(), name
    unknown = Config(app="a", format="csv")  # type: ignore[arg-type]
    assert [error.field for error in unknown.problems()] == ["format"]


def test_lines_are_the_events_as_they_are() -> None:
    """Any reader of lines can take them in."""
    assert ndjson.body_of([b'{"a":1}', b"{}"]) == b'{"a":1}\n{}\n'
    assert ndjson.body_of([]) == b""


PINNED = (
    (
        b'{"event":"tool","event_timestamp":1795827625731,"source":"app","properties":'
        b'{"cost":0.5,"count":3,"deep":{"list":[1,null,"\xc3\xa9"]},"error":null,'
        b'"event_id":"01900000-0000-7000-8000-00000000000a","is_success":false,'
        b'"user_uuid":"u","version":"1.2"}}'
    ),
    (
        b'{"event":"tool","event_timestamp":1,"source":"app","properties":'
        b'{"event_id":"01900000-0000-7000-8000-00000000000b","user_uuid":"u","version":"1.3"}}'
    ),
)


def test_other_bytes_are_another_version() -> None:
    """A batch in flight is retried as it was posted, also by a later release.

    Who changes what an encoder writes counts its VERSION up, and pins it here anew.
    """
    assert {
        form.label: form.request(PINNED).digest[:16] for form in FORMATS.values()
    } == {
        "records/1": "4699e72c9d95326d",
        "ndjson/1": "69ea29e40a3ba706",
        "otlp-json/1": "507d91b988970d81",
        "otlp-protobuf/1": "2c29df1cedd58e7e",
        "posthog/1": "5009813c259464f0",
        "clickhouse/1": "69ea29e40a3ba706",
    }


def test_no_event_is_beyond_a_format() -> None:
    """A flush that meets one would end, and all behind it would wait."""
    events = [*events_at_random(random.Random(1), 100), *UNREADABLE]
    for form in FORMATS.values():
        for event in events:
            body = form.body_of([event, event])
            assert body == form.body_of([event, event]), (form.name, event[:80])
        whole = form.body_of(events)
        ids = [each for event in events if (each := event_id_of(event))]
        # What a reply names as refused is looked for in the body.
        assert all(each.encode() in whole for each in ids), form.name
    for name in ("otlp-json", "posthog"):
        body = format_of(name).body_of(UNREADABLE)
        assert body.count(b"01900000-0000-7000-8000-00000000000a"), name
        json.loads(body)
