"""What a format makes of events, and what it reads in an answer."""

from __future__ import annotations

import json

import pytest

from telemetry.spool.frame import Damage, Record, encode
from telemetry.wire.batch import Rejection, event_id_of, request_of
from telemetry.wire.formats import FORMATS, batch_of, format_of
from telemetry.wire.formats.records import body_of, refusals


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


def record(start: int, event: bytes) -> Record:
    """A record that stands at `start` of its segment."""
    text = encode(0, event)[1:]
    return Record(start, start + 10, 0, text)


def test_a_batch_knows_its_range_and_carries_its_records() -> None:
    """Damage between records is settled with them, and is not posted."""
    first, last = record(0, b'{"n":1}'), record(20, b'{"n":2}')
    batch = batch_of([first, Damage(10, 20), last])
    assert (batch.start, batch.end, batch.records) == (0, 30, [first, last])
    assert batch.request.body == b'{"records":[{"n":1},{"n":2}]}'


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


def rejected(value: object) -> bytes:
    return json.dumps({"accepted": 3, "rejected": value}).encode()


REFUSED = [
    ([{"event_id": "a", "reason": "no"}], (Rejection("a", "no"),)),
    ([{"event_id": "a"}], (Rejection("a", ""),)),
    ([{"event_id": "a", "reason": 7}], (Rejection("a", ""),)),
    ([{"event_id": "a", "reason": "b\x1b[2J\nc"}], (Rejection("a", "b�[2J c"),)),
    ([{"event_id": "a", "reason": "1"}, {"event_id": "a", "reason": "2"}],
        (Rejection("a", "1"),)),
    ([ID, OTHER], (Rejection(ID, ""), Rejection(OTHER, ""))),
    ({ID: "no", OTHER: 7}, (Rejection(ID, "no"), Rejection(OTHER, ""))),
    (None, ()),
    (0, ()),
    (False, ()),
    ([], ()),
    ({}, ()),
    # These mean events that they do not name: all would count as delivered.
    (3, None),
    (True, None),
    ("all", None),
    ([{"event_id": ""}], None),
    ([{"event_id": 3}], None),
    ([{"event_id": "x" * 300}], None),
    ([{"event_id": "caf\ufffd"}], None),
    ([{"event_id": "half \ud83d"}], None),
    ([{"id": "x"}], None),
    ([{"event_id": "a"}, 5], None),
    ([None], None),
    ([[]], None),
    (["the schema is wrong"], None),
    ({"event_id": "a"}, None),
    ({"count": 3}, None),
]  # fmt: skip


def test_refused_events_are_named_or_nothing_is_acknowledged() -> None:
    """Only a named event is dead, and all others of the batch are delivered."""
    for value, expected in REFUSED:
        assert refusals(rejected(value)) == expected, value
        # Wherever it stands, and beside others.
        assert refusals(b'{"data":[%b]}' % rejected(value)) == expected, value
        assert refusals(b'{"ok":1}\n%b' % rejected(value)) == expected, value


def test_json_is_read_leniently() -> None:
    """What spoils a strict parser must not turn a refusal into a delivery."""
    entry = b'{"rejected":[{"event_id":"a","reason":"%b"}]}'
    for name, body in (
        ("half an emoji", entry % rb"tool \ud83d"),
        ("Latin-1", entry % b"caf\xe9"),
        ("a line end in a text", entry % b"a\nb"),
        ("byte order mark", b"\xef\xbb\xbf" + entry % b"x"),
        ("UTF-16", (entry % b"x").decode().encode("utf-16")),
        ("NaN", b'{"took":NaN,"rejected":[{"event_id":"a"}]}'),
        ("two lines", entry % b"x" + b'\n{"took":1}\n'),
        ("a name twice", b'{"rejected":[{"event_id":"a"}],"rejected":[]}'),
        ("500 long reasons", entry % (b"x" * 2_000_000)),
    ):
        found = refusals(body)
        assert found is not None, name
        assert [each.event_id for each in found] == ["a"], name


def test_a_cut_list_acknowledges_nothing_wherever_it_is_cut() -> None:
    """The events whose names are missing would count as delivered."""
    whole = rejected([{"event_id": ID, "reason": "é"}, {"event_id": OTHER}])
    for end in range(1, len(whole)):
        assert refusals(whole[:end]) is None, whole[:end]


ACKNOWLEDGED = [b"", b" ", b"{}", b"[]", b"null", b'"<html>"', b"OK", b"queued 3 < 5",
    b"x" * 1024, "völlig".encode(), b'{"ok":"%b"}' % (b"x" * 5000)]  # fmt: skip
NOT_ACKNOWLEDGED = [b"<h2>Log in</h2>", b"<FORM action=/>", b"<!-- c -->", b"<?xml?>",
    b" " * 2000 + b"<html>", b" " * 2000, b"x" * 1025, b"a &lt; b", b"\xff\xfe<\0b\0>\0",
    "<b>".encode("utf-16-be"), "<b>".encode("utf-32"), b"caf\xe9", b"\0", b"a\x1b[2J",
    b'{"ok":1,}', b"[" * 100_000, b"{login}", b'{"n":' + b"9" * 5000 + b"}"]  # fmt: skip


def test_only_json_or_a_short_plain_text_acknowledges() -> None:
    """A login page says 200, too; the list is of what proves, not of what disproves."""
    for body in ACKNOWLEDGED:
        assert refusals(body) == (), body[:80]
    for body in NOT_ACKNOWLEDGED:
        assert refusals(body) is None, body[:80]
