"""A request's body in, events that can be stored out. Pure: bytes and values only.

Rules:
- An event is an object of exactly `event`, `event_timestamp` (milliseconds, 0 to
  2^63 - 1), `source` and `properties`, whose `event_id` is 1 to 128 visible ASCII
  characters. One that is not is refused alone, with its reason.
- An event's text is kept as it came.

It answers nothing and stores nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from spool_tools.collector.server import REASON_CHARACTERS_MAX, Refusal
from spool_tools.wording import printable


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
    """One event that is not stored, the `index`-th of its request from 0.

    `event_id` is empty where it cannot be named.
    """

    event_id: str
    reason: str
    index: int


class Batch(msgspec.Struct, frozen=True):
    rows: tuple[Row, ...] = ()
    rejected: tuple[Rejected, ...] = ()


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    event: str
    event_timestamp: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    source: str
    properties: dict[str, Any]


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
    whole = b""
    try:
        for _member in range(_GZIP_MEMBERS_MAX):
            stream = zlib.decompressobj(wbits=31)  # 31: a gzip header is demanded
            # One byte beyond the bound tells "too much" from "just enough".
            whole += stream.decompress(body, bytes_max - len(whole) + 1)
            if len(whole) > bytes_max:
                raise Refusal(413, f"the inflated body is above {bytes_max} bytes")
            if not stream.eof:
                raise Refusal(400, "the gzip stream is cut short")
            body = stream.unused_data
            if not body:
                return whole
    except zlib.error as exc:
        raise Refusal(400, f"the gzip stream is damaged: {exc}") from exc
    raise Refusal(400, f"the gzip stream has more than {_GZIP_MEMBERS_MAX} members")


def checked(events: Iterable[bytes], *, reject: tuple[str, ...] = ()) -> Batch:
    """The events that can be stored, and those that cannot or are of a type in `reject`."""
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for index, text in enumerate(events):
        event_id = ""
        try:
            tree = msgspec.json.decode(text)
            event_id = _event_id(tree)
            rows.append(_row(text, tree, event_id, reject))
        except (ValueError, RecursionError) as exc:
            reason = printable(str(exc))[:REASON_CHARACTERS_MAX]
            rejected.append(Rejected(event_id, reason, index))
    return Batch(tuple(rows), tuple(rejected))


def _event_id(tree: Any) -> str:
    """The id of an event; empty if it has none that can be repeated."""
    properties = tree.get("properties") if isinstance(tree, dict) else None
    found = properties.get("event_id") if isinstance(properties, dict) else None
    return found if isinstance(found, str) and _EVENT_ID.fullmatch(found) else ""


def _row(text: bytes, tree: Any, event_id: str, reject: tuple[str, ...]) -> Row:
    """The event as it is stored. Raises ValueError with the reason why it is none."""
    event = msgspec.convert(tree, _Event)
    if not event_id:
        raise ValueError("properties.event_id is no 1 to 128 visible ASCII characters")
    if event.event in reject:
        raise ValueError("refused on request (reject)")
    # Escapes put into a name what a terminal obeys, even where the text has none.
    name, source = printable(event.event), printable(event.source)
    return Row(event_id, name, event.event_timestamp, source, text.decode("utf-8"))
