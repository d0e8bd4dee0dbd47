"""The messages of OTLP's logs in protobuf's binary form, written and read. Pure.

A message is what its JSON is: a dict of its fields by their names there, in the order of
their numbers. Whole numbers of 64 bits may be text, as JSON has them; they are read as
numbers. What is written is what every generated encoder writes: fields in the order of
their numbers, scalars that are 0 or empty left out where they are no member of a `oneof`.

A field is a tag and what it holds. The tag is the field's number and a wire type: 0 a
varint, 1 eight bytes, 2 a length and so many bytes, 5 four bytes.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple


# opentelemetry-proto 1.x (`logs.proto`, `common.proto`, `logs_service.proto`) and
# google.rpc.Status: a field's number and type; `*` before it: a list. Other fields are
# passed over when they are read.
MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Request": {"resourceLogs": (1, "*ResourceLogs")},
    "ResourceLogs": {"resource": (1, "Resource"), "scopeLogs": (2, "*ScopeLogs")},
    "Resource": {"attributes": (1, "*KeyValue")},
    "ScopeLogs": {"scope": (1, "Scope"), "logRecords": (2, "*LogRecord")},
    "Scope": {"name": (1, "string"), "version": (2, "string")},
    "LogRecord": {
        "timeUnixNano": (1, "fixed64"),
        "severityNumber": (2, "int64"),
        "attributes": (6, "*KeyValue"),
        "observedTimeUnixNano": (11, "fixed64"),
        "eventName": (12, "string"),
    },
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "AnyValue": {
        "stringValue": (1, "string"),
        "boolValue": (2, "bool"),
        "intValue": (3, "int64"),
        "doubleValue": (4, "double"),
        "arrayValue": (5, "ArrayValue"),
        "kvlistValue": (6, "KeyValueList"),
        "bytesValue": (7, "bytes"),
    },
    "ArrayValue": {"values": (1, "*AnyValue")},
    "KeyValueList": {"values": (1, "*KeyValue")},
    "Response": {"partialSuccess": (1, "PartialSuccess")},
    "PartialSuccess": {
        "rejectedLogRecords": (1, "int64"),
        "errorMessage": (2, "prose"),
    },
    "Status": {"code": (1, "int64"), "message": (2, "prose")},
}
_ONE_OF = "AnyValue"
# Longer texts are seldom the same in two events.
_REMEMBERED_CHARS_MAX = 100


class _Scalar(NamedTuple):
    wire_type: int
    written: Callable[[Any], bytes]
    read: Callable[[Any], Any]


def _varint(number: int) -> bytes:
    """A whole number from 0 on, seven bits a byte, the lowest first."""
    if number < 0x80:
        return _BYTES[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content


# Most numbers are the length of something short.
_BYTES = [bytes((number,)) for number in range(0x80)]
_SCALARS: Mapping[str, _Scalar] = {
    "string": _Scalar(2, lambda text: _sized(text.encode()), bytes.decode),
    # For a person: bytes that are no UTF-8 spoil nothing.
    "prose": _Scalar(
        2,
        lambda text: _sized(text.encode()),
        lambda held: held.decode("utf-8", "replace"),
    ),
    "bytes": _Scalar(
        2,
        lambda text: _sized(base64.b64decode(text)),
        lambda held: base64.b64encode(held).decode(),
    ),
    "bool": _Scalar(0, lambda value: b"\x01" if value else b"\x00", bool),
    "int64": _Scalar(
        0,
        lambda value: _varint(int(value) % 2**64),
        lambda held: held - (held >> 63 << 64),
    ),
    "fixed64": _Scalar(
        1,
        lambda value: int(value).to_bytes(8, "little"),
        lambda held: int.from_bytes(held, "little"),
    ),
    "double": _Scalar(
        1,
        lambda value: struct.pack("<d", value),
        lambda held: struct.unpack("<d", held)[0],
    ),
}


def encode(kind: str, message: Mapping[str, Any]) -> bytes:
    """The bytes of a message. Raises KeyError for a field that is not in MESSAGES."""
    parts = []
    for name, value in message.items():
        tag, of, scalar = _FIELDS[kind][name]
        if scalar is not None:
            content = scalar.written(value)
            if kind == _ONE_OF or content.strip(b"\0"):
                parts.append(tag + content)
        elif of == "*KeyValue":
            parts += [tag + _key_value(each) for each in value]
        elif of[0] == "*":
            parts += [tag + _sized(encode(of[1:], each)) for each in value]
        else:
            parts.append(tag + _sized(encode(of, value)))
    return b"".join(parts)


def _key_value(pair: Mapping[str, Any]) -> bytes:
    key, text = pair["key"], pair["value"].get("stringValue")
    if text is None or len(key) + len(text) > _REMEMBERED_CHARS_MAX:
        return _sized(encode("KeyValue", pair))
    return _text_pair(key, text)


@lru_cache(maxsize=1024)
def _text_pair(key: str, text: str) -> bytes:
    """An attribute that is text. Most of them stand in every event of a batch."""
    pair = {"key": key, "value": {"stringValue": text}}
    return _sized(encode("KeyValue", pair))


# By a field's name its tag, its type and how a scalar is written.
_FIELDS = {
    kind: {
        name: (
            _varint(number << 3 | (_SCALARS[of].wire_type if of in _SCALARS else 2)),
            of,
            _SCALARS.get(of),
        )
        for name, (number, of) in fields.items()
    }
    for kind, fields in MESSAGES.items()
}


def decode(kind: str, content: bytes) -> dict[str, Any]:
    """The message that these bytes are; a field that they do not hold is not there.

    Raises ValueError for bytes that are no such message.
    """
    known = {number: (name, of) for name, (number, of) in MESSAGES[kind].items()}
    found: dict[str, Any] = {}
    for number, wire_type, held in _fields(content):
        name, of = known.get(number, ("", ""))
        if not name:
            continue
        inner = of.removeprefix("*")
        scalar = _SCALARS.get(inner)
        if wire_type != (scalar.wire_type if scalar else 2):
            raise ValueError(f"{name} has the wire type {wire_type}")
        value = scalar.read(held) if scalar else decode(inner, held)
        if of == inner:
            found[name] = value
        else:
            found.setdefault(name, []).append(value)
    return found


def _fields(content: bytes) -> Iterator[tuple[int, int, Any]]:
    """Each field's number, its wire type and what it holds: a number, or bytes."""
    at = 0
    while at < len(content):
        tag, at = _varint_at(content, at)
        number, wire_type = divmod(tag, 8)
        if wire_type == 0:
            held, at = _varint_at(content, at)
            yield number, wire_type, held
            continue
        size = {1: 8, 5: 4}.get(wire_type)
        if wire_type == 2:
            size, at = _varint_at(content, at)
        if size is None:
            raise ValueError(f"there is no wire type {wire_type} (byte {at})")
        if at + size > len(content):
            raise ValueError(f"a field is cut short at byte {at}")
        yield number, wire_type, content[at : at + size]
        at += size


def _varint_at(content: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    number = 0
    for shift in range(0, 64, 7):
        if at >= len(content):
            break
        number |= (content[at] & 0x7F) << shift
        at += 1
        if content[at - 1] < 0x80:
            return number & 2**64 - 1, at
    raise ValueError(f"a number does not end at byte {at}")
