"""The formats of a request's body, each as the receiver it is made for takes it. Pure.

A format makes events of a body, in the form of `records`: so one check and one table
serve them all. It answers as its real receiver does:

    records        {"accepted":n,"duplicates":m,"rejected":[{"event_id","reason","index"}]}
    ndjson         the same
    otlp-json      partialSuccess counts what was rejected, and names it in its message
    otlp-protobuf  the same as protobuf
    posthog        `{"status":"Ok"}`; an event that is none refuses the batch
    clickhouse     an empty 200; an event that is none refuses the batch, its code stands in
                   X-ClickHouse-Exception-Code

Which of them a request is in, its path, query and Content-Type say.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from spool_tools.collector.body import Batch
from spool_tools.collector.server import Answer, Refusal, Request
from spool_tools.collector.store import RequestRow
from telemetry.wire.formats import protobuf


_PROTOBUF = "application/x-protobuf"
_INSERT = re.compile(
    r"\s*INSERT\s+INTO\s+\S+(?:\s*\([^)]*\))?\s+FORMAT\s+(JSONEachRow|JSONAsString)\s*",
    re.IGNORECASE,
)
# What is said to PostHog, and is no property of the event.
_POSTHOG_S = {"$app_name", "$geoip_disable", "$lib", "$process_person_profile"}
# What ClickHouse calls CANNOT_PARSE_INPUT_ASSERTION_FAILED, AUTHENTICATION_FAILED.
_CODE, _CODE_OF_KEY = 27, 516
# The codes of gRPC that OTLP's errors carry; 2 is UNKNOWN.
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 503: 14}


class Format(NamedTuple):
    """How one kind of body is read and answered.

    events_of: raises `Refusal` for what is no such body as a whole
    answer: to a batch that is stored
    refused: to one that is not
    key_header: where the key may stand besides the collector's own header
    is_whole: one event that is refused refuses the batch
    """

    name: str
    events_of: Callable[[bytes], list[bytes]]
    answer: Callable[[RequestRow, Batch], Answer]
    refused: Callable[[Refusal], Answer]
    key_header: str = ""
    is_whole: bool = False


class _Body(msgspec.Struct):
    records: list[msgspec.Raw]


class _Captured(msgspec.Struct):
    event: str
    uuid: str
    timestamp: datetime
    distinct_id: str
    properties: dict[str, Any]


class _Capture(msgspec.Struct):
    batch: list[msgspec.Raw]
    api_key: str = ""


_BODY = msgspec.json.Decoder(_Body)
_LINE = msgspec.json.Decoder(msgspec.Raw)
_CAPTURE = msgspec.json.Decoder(_Capture)
_CAPTURED = msgspec.json.Decoder(_Captured)


def format_of(request: Request) -> Format:
    path, _, query = request.target.partition("?")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if path.endswith("/v1/logs"):
        return OTLP_PROTOBUF if kind == _PROTOBUF else OTLP_JSON
    if path.rstrip("/").endswith("/batch"):
        return POSTHOG
    if (statement := parse_qs(query).get("query")) is not None:
        return _clickhouse(statement[0])
    return NDJSON if "ndjson" in kind else RECORDS


def key_in(body: bytes) -> str:
    """The key that a readable body of PostHog's carries."""
    return _CAPTURE.decode(body).api_key


def records(body: bytes) -> list[bytes]:
    """The events of `{"records":[event, ...]}`, one JSON text in UTF-8 (RFC 8259 §8.1)."""
    with _refusing('no {"records":[...]} of JSON'):
        body.decode("utf-8")
        return [bytes(raw) for raw in _BODY.decode(body).records]


def _lines(body: bytes) -> list[bytes]:
    """The events, one a line. Empty lines are passed over."""
    with _refusing("no lines of JSON"):
        body.decode("utf-8")
        return [bytes(raw) for raw in _LINE.decode_lines(body)]


def _logs_in_json(body: bytes) -> list[bytes]:
    with _refusing("no logs of OTLP in JSON"):
        return _of_logs(msgspec.json.decode(body))


def _logs_in_protobuf(body: bytes) -> list[bytes]:
    with _refusing("no logs of OTLP in protobuf"):
        return _of_logs(protobuf.decode("Request", body))


def _of_logs(tree: Mapping[str, Any]) -> list[bytes]:
    """The events of an ExportLogsServiceRequest, as its JSON is.

    The event name of a log record, less the `service.name` of its resource in front, is
    the event; its attributes are the properties. All else is passed over.
    """
    return [
        msgspec.json.encode(_of_log(resource, record))
        for resource in tree.get("resourceLogs", ())
        for scope in resource.get("scopeLogs", ())
        for record in scope.get("logRecords", ())
    ]


def _of_log(resource: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    of_resource = _attributes(resource.get("resource", {}).get("attributes", ()))
    service = str(of_resource.get("service.name", ""))
    name = record.get("eventName", "").removeprefix(f"{service}.")
    return {
        "event": name,
        "event_timestamp": int(record.get("timeUnixNano", 0)) // 1_000_000,
        "source": service,
        "properties": _attributes(record.get("attributes", ())),
    }


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair.get("key", ""): _value(pair.get("value", {})) for pair in pairs}


def _value(value: Mapping[str, Any]) -> Any:
    """What an AnyValue holds; null where it is empty. int64 may come as text."""
    for kind, held in value.items():
        if kind == "intValue":
            return int(held)
        if kind == "arrayValue":
            return [_value(each) for each in held.get("values", ())]
        if kind == "kvlistValue":
            return _attributes(held.get("values", ()))
        return held
    return None


def _captured(body: bytes) -> list[bytes]:
    """The events of a batch of PostHog's; `uuid` is the event's id."""
    with _refusing("no batch of PostHog's"):
        return [_of_captured(bytes(raw)) for raw in _CAPTURE.decode(body).batch]


@contextlib.contextmanager
def _refusing(problem: str) -> Iterator[None]:
    """What cannot be read is refused as a whole, with the reason."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise Refusal(400, f"{problem}: {exc}") from exc


def _of_captured(raw: bytes) -> bytes:
    event = _CAPTURED.decode(raw)
    at = event.timestamp.replace(tzinfo=event.timestamp.tzinfo or timezone.utc)
    ids = {"user_uuid": event.distinct_id, "event_id": event.uuid}
    theirs = {k: v for k, v in event.properties.items() if k not in _POSTHOG_S}
    record = {
        "event": event.event,
        "event_timestamp": round(at.timestamp() * 1000),
        "source": event.properties.get("$app_name", ""),
        "properties": ids | theirs,
    }
    return msgspec.json.encode(record)


def _clickhouse(statement: str) -> Format:
    found = _INSERT.fullmatch(statement)
    if found is None:
        return CLICKHOUSE._replace(events_of=_no_insert)
    # One String a row: our own table takes a whole body so.
    is_row = found[1].lower() == "jsoneachrow"
    return CLICKHOUSE._replace(events_of=_lines if is_row else records)


def _no_insert(_body: bytes) -> list[bytes]:
    needed = "INSERT INTO table FORMAT JSONEachRow"
    raise Refusal(400, f"Syntax error: asked for is {needed}")


def _counts(row: RequestRow, batch: Batch) -> Answer:
    counts = {"accepted": row.accepted, "duplicates": row.duplicates}
    return Answer(body=msgspec.json.encode({**counts, "rejected": batch.rejected}))


def _error(refusal: Refusal) -> Answer:
    body = msgspec.json.encode({"error": refusal.reason})
    return Answer(status=refusal.status, body=body)


def _partial(batch: Batch) -> dict[str, str]:
    """How many events were rejected, and which: OTLP leaves the text to the server."""
    if not batch.rejected:
        return {}
    named = msgspec.json.encode({"rejected": batch.rejected}).decode()
    return {"rejectedLogRecords": str(len(batch.rejected)), "errorMessage": named}


def _otlp(
    name: str,
    content_type: str,
    events_of: Callable[[bytes], list[bytes]],
    encode: Callable[[str, dict[str, Any]], bytes],
) -> Format:
    """One of the two forms of OTLP's logs: its answers are in the same form."""

    def answer(_row: RequestRow, batch: Batch) -> Answer:
        body = encode("Response", {"partialSuccess": _partial(batch)})
        return Answer(body=body, content_type=content_type)

    def refused(refusal: Refusal) -> Answer:
        status = {"code": _GRPC.get(refusal.status, 2), "message": refusal.reason}
        body = encode("Status", status)
        return Answer(status=refusal.status, body=body, content_type=content_type)

    return Format(name, events_of, answer, refused)


def _ok(_row: RequestRow, _batch: Batch) -> Answer:
    return Answer(body=b'{"status":"Ok"}')


def _not_ok(refusal: Refusal) -> Answer:
    is_key = refusal.status == 401
    error = {
        "type": "authentication_error" if is_key else "validation_error",
        "code": "invalid_api_key" if is_key else "invalid_payload",
        "detail": refusal.reason,
        "attr": None,
    }
    return Answer(status=refusal.status, body=msgspec.json.encode(error))


def _inserted(row: RequestRow, _batch: Batch) -> Answer:
    summary = f'{{"written_rows":"{row.accepted}"}}'
    headers = (("X-ClickHouse-Summary", summary),)
    return Answer(content_type="text/plain; charset=UTF-8", headers=headers)


def _exception(refusal: Refusal) -> Answer:
    code = _CODE_OF_KEY if refusal.status == 401 else _CODE
    return Answer(
        status=refusal.status,
        content_type="text/plain; charset=UTF-8",
        headers=(("X-ClickHouse-Exception-Code", str(code)),),
        body=f"Code: {code}. DB::Exception: {refusal.reason}\n".encode(),
    )


RECORDS = Format("records", records, _counts, _error)
NDJSON = Format("ndjson", _lines, _counts, _error)
OTLP_JSON = _otlp(
    "otlp-json",
    "application/json",
    _logs_in_json,
    lambda _kind, message: msgspec.json.encode(message),
)
OTLP_PROTOBUF = _otlp("otlp-protobuf", _PROTOBUF, _logs_in_protobuf, protobuf.encode)
POSTHOG = Format("posthog", _captured, _ok, _not_ok, is_whole=True)
CLICKHOUSE = Format(
    "clickhouse", _lines, _inserted, _exception, "x-clickhouse-key", is_whole=True
)
