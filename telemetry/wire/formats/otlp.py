"""The format `otlp-json`, of which `otlp-protobuf` is made: logs over OTLP/HTTP. Pure.

A batch is an ExportLogsServiceRequest (opentelemetry-proto 1.x). Runs of events of one
program and version share a resource; an event is a log record whose attributes are its
properties, `event_id` and `user_uuid` among them.

- int64 and times are text, as protobuf's JSON has them.
- What has no value has no attribute. Within a list null is its text: strict receivers
  refuse a value that is none (rotel), and what follows keeps its place.
- A whole number beyond int64 is text, and so is what is nested deeper than receivers read:
  protobuf's parsers end at 100 messages, of which a level takes three.

An answer may refuse some of a batch by their number alone:

    {"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"…"}}

They count as refused, whichever they are. `rejected` beside it, or in an `errorMessage`
that is JSON itself, names them. An error's body (google.rpc.Status) acknowledges nothing,
whatever status it came with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec

from telemetry.wire.batch import Rejection, printable
from telemetry.wire.formats import answer
from telemetry.wire.formats.event import Event, read


VERSION = 1

_SCOPE = {"name": "spooled-telemetry", "version": str(VERSION)}
# Longer texts are seldom the same in two events.
_REMEMBERED_CHARS_MAX = 100
_INFO = 9  # SeverityNumber
_DEPTH_MAX = 16
_INT64 = range(-(2**63), 2**63)
# google.rpc.Code, less OK.
_ERROR_CODES = range(1, 17)


def body_of(events: Sequence[bytes]) -> bytes:
    """The body that carries these events."""
    return msgspec.json.encode(request_of(events))


def request_of(events: Sequence[bytes]) -> dict[str, Any]:
    """The request that carries these events, as its JSON is.

    The fields of each message stand in the order of their numbers.
    """
    runs = groupby(map(read, events), key=lambda e: (e.source, e.text("version")))
    return {
        "resourceLogs": [
            {
                "resource": {
                    "attributes": _attributes(
                        {"service.name": source, "service.version": version or None}
                    )
                },
                "scopeLogs": [
                    {"scope": _SCOPE, "logRecords": [_log(event) for event in run]}
                ],
            }
            for (source, version), run in runs
        ]
    }


def _log(event: Event) -> dict[str, Any]:
    nanoseconds = str(event.event_timestamp * 1_000_000)
    return {
        "timeUnixNano": nanoseconds,
        "severityNumber": _INFO,
        "attributes": _attributes(event.properties),
        "observedTimeUnixNano": nanoseconds,
        "eventName": f"{event.source}.{event.event}",
    }


def _attributes(values: dict[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    if "" in values:
        # A key is neither empty nor there twice (OpenTelemetry specification, "Attribute").
        free = "_"
        while free in values:
            free += "_"
        values = {name or free: value for name, value in values.items()}
    return [
        _text(name, value)
        if isinstance(value, str) and len(name) + len(value) <= _REMEMBERED_CHARS_MAX
        else {"key": name, "value": _any_value(value, depth)}
        for name, value in values.items()
        if value is not None
    ]


@lru_cache(maxsize=1024)
def _text(name: str, text: str) -> dict[str, Any]:
    """An attribute that is text. Most of them stand in every event of a batch."""
    return {"key": name, "value": {"stringValue": text}}


def _any_value(value: Any, depth: int) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue" if value in _INT64 else "stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if value is None:
        return {"stringValue": "null"}
    if depth == _DEPTH_MAX:
        return {"stringValue": msgspec.json.encode(value).decode()}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes(value, depth + 1)}}
    return {"arrayValue": {"values": [_any_value(each, depth + 1) for each in value]}}


def refusals(body: bytes, headers: Mapping[str, str]) -> tuple[Rejection, ...] | None:
    """The events that a complete 2xx refused; None if it acknowledges nothing."""
    fields = answer.read(body)
    return None if fields is None else refusals_in(fields)


def refusals_in(fields: answer.Fields) -> tuple[Rejection, ...] | None:
    """The events that an answer with these fields refused; None if that is not told."""
    named = answer.rejections(fields.get("rejected", ()))
    if not named and any(each in _ERROR_CODES for each in fields.get("code", ())):
        return None
    for partial in fields.get("partialSuccess", []) + fields.get("partial_success", []):
        if named is not None and partial:
            named = _partial(named, partial)
    return named


def _partial(
    named: tuple[Rejection, ...], partial: Any
) -> tuple[Rejection, ...] | None:
    if not isinstance(partial, dict):
        return None
    names = ("rejectedLogRecords", "rejected_log_records")
    count = _count(next((partial[name] for name in names if partial.get(name)), 0))
    if count is None:
        return None
    names = ("errorMessage", "error_message")
    message = str(next((partial[name] for name in names if partial.get(name)), ""))
    if message.startswith("{") and not named:
        fields = answer.read(message.encode()) or {}
        named = answer.rejections(fields.get("rejected", ())) or ()
    unnamed = count - len(named)
    reason = printable(message, answer.REASON_MAX)
    return (*named, Rejection("", reason, unnamed)) if unnamed > 0 else named


def _count(value: Any) -> int | None:
    """A count in any spelling that protobuf's JSON has: 3, 3.0, 3e0, each also as text."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    is_count = number.is_integer() and 0 <= number < 2**63
    return int(number) if is_count else None
