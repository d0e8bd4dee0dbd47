"""A request's body in, events that can be stored out. Pure: bytes and values only.

Rules:
- A body is `{"records":[event, ...]}`, one JSON text in UTF-8 (RFC 8259 §8.1); as
  a whole it is taken or refused (`Refusal`, with a status).
- An event is an object of exactly `event`, `event_timestamp` (milliseconds, 0 to
  2^63 - 1), `source` and `properties`, whose `event_id` is 1 to 128 visible ASCII
  characters. One that is not is refused alone, with its reason.
- An event's text is kept as it came.

It answers nothing and stores nothing.
"""

from __future__ import annotations

import re
import zlib
from typing import Annotated, Any

import msgspec

from spool_tools.collector.server import REASON_CHARACTERS_MAX, Refusal, shown


_EVENT_ID = re.compile(r"[!-~]{1,128}")
# One is what everybody sends. Each further one copies the rest: hundreds of
# thousands of empty members would keep a thread busy for minutes.
_GZIP_MEMBERS_MAX = 16


class Row(msgspec.Struct, frozen=True, gc=False):
    """One event as it is stored: `json` as it came, the names safe to print.

    Out of the garbage collector's sight: it holds no other object, and batches of
    hundreds would set the collector off again and again.
    """

    event_id: str
    event: str
    event_timestamp: int
    source: str
    json: str


class Rejected(msgspec.Struct, frozen=True):
    """One event that is not stored. `event_id` is empty where it cannot be named."""

    event_id: str
    reason: str
    index: int
    """Its place in `records`, from 0."""


class Batch(msgspec.Struct, frozen=True):
    """What one body held."""

    rows: tuple[Row, ...] = ()
    rejected: tuple[Rejected, ...] = ()


class _Body(msgspec.Struct):
    records: list[msgspec.Raw]


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    event: str
    event_timestamp: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    source: str
    # Decoded in full, so that whatever is stored can be decoded again.
    properties: dict[str, Any]


class _Named(msgspec.Struct):
    properties: dict[str, Any]


_BODY = msgspec.json.Decoder(_Body)
_EVENT = msgspec.json.Decoder(_Event)
_NAMED = msgspec.json.Decoder(_Named)


def inflate(body: bytes, coding: str, *, bytes_max: int) -> bytes:
    """The body without its content coding: `gzip` (RFC 1952, members included) or none.

    Raises `Refusal`: 413 above `bytes_max`, before more than that is inflated; 415 for
    a coding it does not know; 400 for a stream that is damaged, cut, or followed by
    something else.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise Refusal(415, f"Content-Encoding {coding}: only gzip is understood")
    parts: list[bytes] = []
    room_bytes = bytes_max
    rest = body
    try:
        for _member in range(_GZIP_MEMBERS_MAX):
            stream = zlib.decompressobj(wbits=31)  # 31: a gzip header is demanded
            # One byte beyond the bound tells "too much" from "just enough".
            part = stream.decompress(rest, room_bytes + 1)
            room_bytes -= len(part)
            if room_bytes < 0:
                raise Refusal(413, f"the inflated body is above {bytes_max} bytes")
            if not stream.eof:
                raise Refusal(400, "the gzip stream is cut short")
            parts.append(part)
            rest = stream.unused_data
            if not rest:
                return b"".join(parts)
    except zlib.error as exc:
        raise Refusal(400, f"the gzip stream is damaged: {exc}") from exc
    raise Refusal(400, f"the gzip stream has more than {_GZIP_MEMBERS_MAX} members")


def read_batch(body: bytes, *, reject: tuple[str, ...] = ()) -> Batch:
    """The events of a body; those of a type in `reject` are named as rejected.

    Raises `Refusal` (400) where the body as a whole is none.
    """
    try:
        records = _BODY.decode(body).records
        body.decode("utf-8")
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Refusal(400, f'no {{"records":[...]}} of JSON: {exc}') from exc
    except UnicodeDecodeError as exc:
        raise Refusal(400, f"the body is not UTF-8: {exc.reason}") from exc
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for index, raw in enumerate(records):
        found = _read_event(bytes(raw), reject=reject)
        if isinstance(found, Row):
            rows.append(found)
        else:
            rejected.append(Rejected(_event_id(raw), found, index))
    return Batch(tuple(rows), tuple(rejected))


def _read_event(text: bytes, *, reject: tuple[str, ...]) -> Row | str:
    """The event, or the reason why it is none."""
    try:
        event = _EVENT.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        return shown(str(exc))[:REASON_CHARACTERS_MAX]
    event_id = event.properties.get("event_id")
    if not isinstance(event_id, str):
        return "properties.event_id is missing, or no string"
    if _EVENT_ID.fullmatch(event_id) is None:
        return "properties.event_id is not 1 to 128 visible ASCII characters"
    if event.event in reject:
        return "refused on request (reject)"
    # Escapes put into a name what a terminal obeys, even where the text has none.
    name, source = shown(event.event), shown(event.source)
    return Row(event_id, name, event.event_timestamp, source, text.decode("utf-8"))


def _event_id(raw: msgspec.Raw) -> str:
    """The id of an event that is refused, if it has one that can be told."""
    try:
        event_id = _NAMED.decode(raw).properties.get("event_id")
    except (msgspec.DecodeError, RecursionError):
        return ""
    if isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id):
        return event_id
    return ""
