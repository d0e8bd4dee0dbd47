"""What an answer acknowledges, and which events it refuses."""

from __future__ import annotations

import json

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import answer, records


ID = "01900000-0000-7000-8000-00000000000a"
OTHER = "01900000-0000-7000-8000-00000000000b"


def refusals(body: bytes) -> tuple[Rejection, ...] | None:
    """What `records` reads in the body of a 2xx."""
    return records.refusals(body, {})


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
        ("a million values", b"0 " * 1_000_000 + entry % b"x"),
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
    b" " * 1024, b"x" * 1024, "völlig".encode(), b'{"ok":"%b"}' % (b"x" * 5000)]  # fmt: skip
NOT_ACKNOWLEDGED = [b"<h2>Log in</h2>", b"<FORM action=/>", b"<!-- c -->", b"<?xml?>",
    b" " * 2000 + b"<html>", b" " * 1025, b"x" * 1025, b"a &lt; b", b"\xff\xfe<\0b\0>\0",
    "<b>".encode("utf-16-be"), "<b>".encode("utf-32"), b"caf\xe9", b"\0", b"a\x1b[2J",
    b'{"ok":1,}', b"[" * 100_000, b"{login}", b'{"n":' + b"9" * 5000 + b"}"]  # fmt: skip


def test_only_json_or_a_short_plain_text_acknowledges() -> None:
    """A login page says 200, too; the list is of what proves, not of what disproves."""
    for body in ACKNOWLEDGED:
        assert refusals(body) == (), body[:80]
    for body in NOT_ACKNOWLEDGED:
        assert refusals(body) is None, body[:80]


def test_a_reason_is_cut_at_500_characters() -> None:
    """It is kept in a dead letter, and shown."""
    (named,) = refusals(rejected([{"event_id": ID, "reason": "x" * 600}])) or ()
    assert named.reason == "x" * 500


def test_every_field_is_told_wherever_it_stands() -> None:
    """Other formats look for names of their own."""
    body = b'{"a":1,"in":{"a":[2,{"a":3}]}} {"a":4}'
    assert answer.read(body) == {
        "a": [3, [2, {"a": 3}], 1, 4],
        "in": [{"a": [2, {"a": 3}]}],
    }
    assert answer.read(b"OK") == {}
    assert answer.read(b"<p>") is None
