"""What is posted at once: the records of a batch, and the request that carries them. Pure.

An event is a slice of its segment and is copied as it stands: nothing is decoded, so
what is posted is what was recorded, byte for byte.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import msgspec

from telemetry.spool.frame import Damage, Record


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


class Rejection(msgspec.Struct, frozen=True):
    """One event that an accepting reply named as refused for good."""

    event_id: str
    reason: str


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


def request_of(body: bytes) -> Request:
    """The request that posts `body`."""
    digest = sha256(body).hexdigest()
    return Request(body, digest[:32], digest)


def printable(text: str, length_max: int) -> str:
    """The text on one line of bounded length, without what a terminal would obey."""
    line = " ".join(text[: 4 * length_max].split())
    return "".join(c if c.isprintable() else "�" for c in line[:length_max])
