"""What is posted at once, and what an answer to it names. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import msgspec


class Request(NamedTuple):
    """What is posted: the body before content coding, its key, and its SHA-256.

    The key is made from the body, so the same bytes always travel under the
    same key, even if the ledger that knew it was lost. `spool_range` says which
    records of which segment the body holds.
    """

    body: bytes
    key: str
    digest: str
    spool_range: str = ""


class Rejection(msgspec.Struct, frozen=True):
    """One event that an accepting reply named as refused for good.

    Without an `event_id` it is `count` events of the batch that were not named.
    """

    event_id: str
    reason: str
    count: int = 1


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


def request_of(body: bytes, spool_range: str = "") -> Request:
    """The request that posts `body`."""
    digest = sha256(body).hexdigest()
    return Request(body, digest[:32], digest, spool_range)


def printable(text: str, length_max: int) -> str:
    """The text on one line of bounded length, without what a terminal would obey."""
    line = " ".join(text[: 4 * length_max].split())
    return "".join(c if c.isprintable() else "�" for c in line[:length_max])
