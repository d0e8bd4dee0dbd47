"""Records become a request's body. Pure; one function a wire format.

An event is a slice of its segment and is copied as it stands: nothing is
decoded, so what is posted is what was recorded, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from telemetry.spool.frame import Damage, Record


class _Properties(msgspec.Struct):
    event_id: str = ""


class _Event(msgspec.Struct):
    properties: _Properties


def event_id_of(event: bytes) -> str:
    """The id of an event; empty where it has none."""
    try:
        return msgspec.json.decode(event, type=_Event).properties.event_id
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""


class Request(NamedTuple):
    """What is posted: the body before content coding, its key, and its SHA-256.

    The key is made from the body, so the same bytes always travel under the
    same key, even if the ledger that knew it was lost.
    """

    body: bytes
    key: str
    digest: str


class Batch(NamedTuple):
    """Records that are posted and settled together, and the request that does it.

    `items` are the records with the damaged stretches before and between them;
    `start` and `end` are its exact range of bytes in its segment.
    """

    items: list[Record | Damage]
    records: list[Record]
    start: int
    end: int
    request: Request


def batch_of(items: list[Record | Damage]) -> Batch:
    """A batch of `items`, of which the last is a record."""
    records = [item for item in items if type(item) is Record]
    request = records_request([record.event for record in records])
    return Batch(items, records, items[0].start, items[-1].end, request)


def records_request(events: Sequence[bytes]) -> Request:
    """The format of the wire: `{"records":[event, …]}`."""
    body = b'{"records":[%b]}' % b",".join(events)
    digest = sha256(body).hexdigest()
    return Request(body, digest[:32], digest)
