"""The codec of OTLP's messages, against bytes worked out by hand from the format."""

from __future__ import annotations

from typing import Any

import pytest

from telemetry.wire.formats.protobuf import decode, encode


LONG = "x" * 300
# tag = number << 3 | wire type, then what it holds.
KNOWN: list[tuple[str, dict[str, Any], bytes]] = [
    ("Scope", {"name": "a"}, b"\x0a\x01a"),
    ("Scope", {"name": "a", "version": "é"}, b"\x0a\x01a\x12\x02\xc3\xa9"),
    # 300 is 0b10_0101100: seven bits a byte, the lowest first.
    ("Scope", {"name": LONG}, b"\x0a\xac\x02" + b"x" * 300),
    (
        "KeyValue",
        {"key": "k", "value": {"stringValue": "v"}},
        b"\x0a\x01k\x12\x03\x0a\x01v",
    ),
    ("AnyValue", {"boolValue": True}, b"\x10\x01"),
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


def test_a_field_that_is_not_known_is_passed_over() -> None:
    """A later version of the protocol has more of them, of every wire type."""
    unknown = b"\xf8\x01\x96\x01" + b"\xf9\x01" + bytes(8) + b"\xfa\x01\x02ab"
    unknown += b"\xfd\x01" + bytes(4)
    assert decode("Scope", unknown + b"\x0a\x01a" + unknown) == {"name": "a"}


def test_what_is_cut_is_no_message() -> None:
    """Half an answer acknowledges nothing."""
    for wrong in (b"\x0a\x05a", b"\x0a", b"\x0a\xff", b"\x0b\x01a"):
        with pytest.raises(ValueError):
            decode("Scope", wrong)
