"""The codec of OTLP's messages, against bytes worked out by hand from the format."""

from __future__ import annotations

from typing import Any

import pytest

from telemetry.wire.formats.protobuf import decode, encode


LONG = "x" * 300
PAIR: dict[str, Any] = {"key": "k", "value": {"stringValue": "v"}}
PAIR_BYTES = b"\x0a\x01k\x12\x03\x0a\x01v"
# tag = number << 3 | wire type, then what it holds.
KNOWN: list[tuple[str, dict[str, Any], bytes]] = [
    ("Scope", {"name": "a"}, b"\x0a\x01a"),
    ("Scope", {"name": "a", "version": "é"}, b"\x0a\x01a\x12\x02\xc3\xa9"),
    # 300 is 0b10_0101100: seven bits a byte, the lowest first.
    ("Scope", {"name": LONG}, b"\x0a\xac\x02" + b"x" * 300),
    ("Scope", {"name": "x" * 128}, b"\x0a\x80\x01" + b"x" * 128),
    ("KeyValue", PAIR, PAIR_BYTES),
    ("AnyValue", {"boolValue": True}, b"\x10\x01"),
    ("AnyValue", {"boolValue": False}, b"\x10\x00"),
    ("AnyValue", {"intValue": 0}, b"\x18\x00"),
    ("AnyValue", {"intValue": -1}, b"\x18" + b"\xff" * 9 + b"\x01"),
    ("AnyValue", {"doubleValue": 1.0}, b"\x21\0\0\0\0\0\0\xf0\x3f"),
    (
        "AnyValue",
        {"arrayValue": {"values": [{"stringValue": "a"}]}},
        b"\x2a\x05\x0a\x03\x0a\x01a",
    ),
    (
        "AnyValue",
        {"kvlistValue": {"values": [PAIR]}},
        b"\x32\x0a\x0a\x08" + PAIR_BYTES,
    ),
    ("AnyValue", {"bytesValue": "YWI="}, b"\x3a\x02ab"),
    (
        "LogRecord",
        {
            "attributes": [PAIR, {"key": "k", "value": {"intValue": 5}}],
            "observedTimeUnixNano": 2,
        },
        b"\x32\x08" + PAIR_BYTES + b"\x32\x07\x0a\x01k\x12\x02\x18\x05"
        b"\x59\x02\0\0\0\0\0\0\0",
    ),
    (
        "Request",
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": [PAIR]},
                    "scopeLogs": [
                        {"scope": {"name": "a"}, "logRecords": [{"eventName": "e"}]}
                    ],
                }
            ]
        },
        b"\x0a\x18\x0a\x0a\x0a\x08" + PAIR_BYTES + b"\x12\x0a"
        b"\x0a\x03\x0a\x01a\x12\x03\x62\x01e",
    ),
    (
        "Response",
        {"partialSuccess": {"rejectedLogRecords": 2, "errorMessage": "no"}},
        b"\x0a\x06\x08\x02\x12\x02no",
    ),
    ("Status", {"code": 3, "message": "no"}, b"\x08\x03\x12\x02no"),
    # A byte of seven bits is the last one, all of which are set here.
    ("Status", {"code": 127 << 7}, b"\x08\x80\x7f"),
    (
        "LogRecord",
        {"timeUnixNano": 1, "severityNumber": 9, "eventName": "e"},
        b"\x09\x01\0\0\0\0\0\0\0\x10\x09\x62\x01e",
    ),
]


def test_a_message_is_the_bytes_that_the_format_says() -> None:
    """And is read from them again."""
    for kind, message, content in KNOWN:
        assert encode(kind, message) == content, message
        assert decode(kind, content) == message, content


def test_what_says_nothing_is_left_out_but_of_a_choice() -> None:
    """As generated encoders do; the member of a `oneof` says which one it is."""
    said = {"rejectedLogRecords": 0, "errorMessage": ""}
    assert encode("PartialSuccess", said) == b""
    assert encode("AnyValue", {"stringValue": ""}) == b"\x0a\x00"


def test_a_number_has_64_bits() -> None:
    """What stands above them in its last byte is dropped, as parsers do."""
    content = b"\x08" + b"\x80" * 9 + b"\x02"
    assert decode("Status", content) == {"code": 0}


def test_a_field_that_is_not_known_is_passed_over() -> None:
    """A later version of the protocol has more of them, of every wire type."""
    unknown = b"\xf8\x01\x96\x01" + b"\xf9\x01" + bytes(8) + b"\xfa\x01\x02ab"
    unknown += b"\xfd\x01" + bytes(4)
    assert decode("Scope", unknown + b"\x0a\x01a" + unknown) == {"name": "a"}


def test_what_is_cut_is_no_message() -> None:
    """Half an answer acknowledges nothing."""
    # The last one is text of a wire type that holds numbers.
    for wrong in (b"\x0a\x05a", b"\x0a", b"\x0a\xff", b"\x0b\x01a", b"\x08\x01"):
        with pytest.raises(ValueError):
            decode("Scope", wrong)
