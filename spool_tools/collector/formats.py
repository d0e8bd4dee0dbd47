"""A request's body in, events that can be stored out, and its answer. Pure.

A format makes events of a body, in the form of `records`: so one check and one table
serve them all. Which format a request is in, its path, query and Content-Type say. It is
answered as the receiver that the format is made for does:

    records        {"accepted":n,"duplicates":m,"rejected":[{"event_id","reason","index"}]}
    ndjson         the same
    otlp-json      partialSuccess counts what was rejected, and names it in its message
    otlp-protobuf  the same as protobuf
    posthog        `{"status":"Ok"}`; an event that is none refuses the batch
    clickhouse     an empty 200; an event that is none refuses the batch, its code stands in
                   X-ClickHouse-Exception-Code

An event is an object of exactly `event`, `event_timestamp` (milliseconds, 0 to 2^63 - 1),
`source` and `properties`, whose `event_id` is 1 to 128 visible ASCII characters. One that
is not is refused alone, with its reason. An event's text is kept as it came.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from spool_tools.collector.store import RequestRow, Row
from spool_tools.server import REASON_CHARACTERS_MAX, Answer, Refusal, Request
from spool_tools.wording import printable
from telemetry.wire.batch import event_id_of
from telemetry.wire.formats import protobuf


_EVENT_ID = re.compile(r"[!-~]{1,128}")
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


class Rejected(msgspec.Struct, frozen=True):
    """One event that is not stored, the `index`-th of its request from 0.

    `event_id` is empty where it cannot be named.
    """

    event_id: str
    reason: str
    index: int


class Batch(msgspec.Struct, frozen=True):
    rows: tuple[Row, ...] = ()
    rejected: tuple[Rejected, ...] = ()


class Format(NamedTuple):
    """How one kind of body is read and answered.

    read: its events; raises some error for what is no such body as a whole
    answer: to a batch that is stored
    refused: to one that is not
    key_header: where the key may stand besides the collector's own header
    is_whole: one event that is refused refuses the batch
    """

    name: str
    read: Callable[[bytes], Iterable[bytes]]
    answer: Callable[[RequestRow, Batch], Answer]
    refused: Callable[[Refusal], Answer]
    key_header: str = ""
    is_whole: bool = False

    def events_of(self, body: bytes) -> list[bytes]:
        """The events of a body. Raises `Refusal` for what is none of this format."""
        try:
            return list(self.read(body))
        except (ValueError, TypeError, AttributeError, RecursionError) as exc:
            raise Refusal(400, f"no body of {self.name}: {exc}") from exc


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    event: str
    event_timestamp: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    source: str
    properties: dict[str, Any]


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


_EVENT = msgspec.json.Decoder(_Event)
_READ_BYTES = 64 * 1024
_LINE = msgspec.json.Decoder(msgspec.Raw)
_CAPTURE = msgspec.json.Decoder(_Capture)


def inflate(body: bytes, coding: str, *, bytes_max: int) -> bytes:
    """The body without its content coding: `gzip` (RFC 1952, members included) or none.

    Raises `Refusal`: 413 above `bytes_max`, before more than that is inflated; 415 for
    a coding it does not know; 400 for a stream that is damaged or cut.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise Refusal(415, f"Content-Encoding {coding}: only gzip is understood")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            whole = bytearray()
            # To ask for all at once would take as much memory as the bound.
            while len(whole) <= bytes_max and (piece := stream.read(_READ_BYTES)):
                whole += piece
    except (OSError, EOFError, zlib.error) as exc:
        raise Refusal(400, f"the gzip stream is damaged: {exc}") from exc
    if not body:
        raise Refusal(400, "the gzip stream is cut short")
    if len(whole) > bytes_max:
        raise Refusal(413, f"the inflated body is above {bytes_max} bytes")
    return bytes(whole)


def checked(events: Iterable[bytes], *, reject: tuple[str, ...] = ()) -> Batch:
    """The events that can be stored, and those that cannot or are of a type in `reject`."""
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for index, text in enumerate(events):
        event_id = event_id_of(text)
        if not _EVENT_ID.fullmatch(event_id):
            event_id = ""  # it cannot be repeated in an answer
        try:
            rows.append(_row(text, event_id, reject))
        except (ValueError, RecursionError) as exc:
            reason = printable(str(exc))[:REASON_CHARACTERS_MAX]
            rejected.append(Rejected(event_id, reason, index))
    return Batch(tuple(rows), tuple(rejected))


def _row(text: bytes, event_id: str, reject: tuple[str, ...]) -> Row:
    """The event as it is stored. Raises ValueError with the reason why it is none."""
    event = _EVENT.decode(text)
    if not event_id:
        raise ValueError("properties.event_id is no 1 to 128 visible ASCII characters")
    if event.event in reject:
        raise ValueError("refused on request (reject)")
    # Escapes put into a name what a terminal obeys, even where the text has none.
    name, source = printable(event.event), printable(event.source)
    return Row(event_id, name, event.event_timestamp, source, text.decode("utf-8"))


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
    return _CAPTURE.decode(body).api_key


def _records(body: bytes) -> Iterator[bytes]:
    body.decode("utf-8")  # one JSON text in UTF-8 (RFC 8259 §8.1)
    return map(bytes, msgspec.json.decode(body, type=_Body).records)


def _lines(body: bytes) -> Iterator[bytes]:
    """The events, one a line. Empty lines are passed over."""
    body.decode("utf-8")
    return map(bytes, _LINE.decode_lines(body))


def _of_logs(tree: Mapping[str, Any]) -> Iterator[bytes]:
    """The events of an ExportLogsServiceRequest, as its JSON is.

    The event name of a log record, less the `service.name` of its resource in front, is
    the event; its attributes are the properties. All else is passed over.
    """
    for resource in tree.get("resourceLogs", ()):
        of_resource = _attributes(resource.get("resource", {}).get("attributes", ()))
        service = str(of_resource.get("service.name", ""))
        for scope in resource.get("scopeLogs", ()):
            for record in scope.get("logRecords", ()):
                name = record.get("eventName", "").removeprefix(f"{service}.")
                event = {
                    "event": name,
                    "event_timestamp": int(record.get("timeUnixNano", 0)) // 1_000_000,
                    "source": service,
                    "properties": _attributes(record.get("attributes", ())),
                }
                yield msgspec.json.encode(event)


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


def _captured(body: bytes) -> Iterator[bytes]:
    """The events of a batch of PostHog's; `uuid` is the event's id."""
    for raw in _CAPTURE.decode(body).batch:
        event = msgspec.json.decode(raw, type=_Captured)
        at = event.timestamp.replace(tzinfo=event.timestamp.tzinfo or timezone.utc)
        ids = {"user_uuid": event.distinct_id, "event_id": event.uuid}
        theirs = {k: v for k, v in event.properties.items() if k not in _POSTHOG_S}
        record = {
            "event": event.event,
            "event_timestamp": round(at.timestamp() * 1000),
            "source": event.properties.get("$app_name", ""),
            "properties": ids | theirs,
        }
        yield msgspec.json.encode(record)


def _clickhouse(statement: str) -> Format:
    found = _INSERT.fullmatch(statement)
    if found is None:
        return CLICKHOUSE._replace(read=_no_insert)
    # One String a row: our own table takes a whole body so.
    is_row = found[1].lower() == "jsoneachrow"
    return CLICKHOUSE._replace(read=_lines if is_row else _records)


def _no_insert(_body: bytes) -> list[bytes]:
    needed = "INSERT INTO table FORMAT JSONEachRow"
    raise Refusal(400, f"Syntax error: asked for is {needed}")


def _counts(row: RequestRow, batch: Batch) -> Answer:
    counts = {"accepted": row.accepted, "duplicates": row.duplicates}
    return Answer(body=msgspec.json.encode({**counts, "rejected": batch.rejected}))


def _error(refusal: Refusal) -> Answer:
    body = msgspec.json.encode({"error": refusal.reason})
    return Answer(status=refusal.status, body=body)


def _otlp(
    name: str,
    content_type: str,
    decode: Callable[[str, bytes], Mapping[str, Any]],
    encode: Callable[[str, dict[str, Any]], bytes],
) -> Format:
    """One of the two forms of OTLP's logs: its answers are in the same form."""

    def answer(_row: RequestRow, batch: Batch) -> Answer:
        partial = {}
        if batch.rejected:
            # OTLP leaves the text to the server.
            named = msgspec.json.encode({"rejected": batch.rejected}).decode()
            count = str(len(batch.rejected))
            partial = {"rejectedLogRecords": count, "errorMessage": named}
        body = encode("Response", {"partialSuccess": partial})
        return Answer(body=body, content_type=content_type)

    def refused(refusal: Refusal) -> Answer:
        status = {"code": _GRPC.get(refusal.status, 2), "message": refusal.reason}
        body = encode("Status", status)
        return Answer(status=refusal.status, body=body, content_type=content_type)

    return Format(name, lambda body: _of_logs(decode("Request", body)), answer, refused)


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


RECORDS = Format("records", _records, _counts, _error)
NDJSON = Format("ndjson", _lines, _counts, _error)
OTLP_JSON = _otlp(
    "otlp-json",
    "application/json",
    lambda _kind, body: msgspec.json.decode(body),
    lambda _kind, message: msgspec.json.encode(message),
)
OTLP_PROTOBUF = _otlp("otlp-protobuf", _PROTOBUF, protobuf.decode, protobuf.encode)
_OK = Answer(body=b'{"status":"Ok"}')
POSTHOG = Format("posthog", _captured, lambda *_: _OK, _not_ok, is_whole=True)
CLICKHOUSE = Format(
    "clickhouse", _lines, _inserted, _exception, "x-clickhouse-key", is_whole=True
)
