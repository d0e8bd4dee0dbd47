"""What an answer to a batch acknowledges, and which events it names as refused. Pure.

An answer acknowledges a batch if it is empty, JSON, or at most 1 KiB of text without
markup. Anywhere in the JSON `rejected` names the events that are refused for good:

    {"rejected":[{"event_id":"…","reason":"…"}, …]}

A list of ids or an object of reasons by id says the same. JSON is read leniently: several
values in a row, a byte order mark, bytes that are not UTF-8 and half an emoji spoil
nothing. But a `rejected` that names no event (a number, an entry without an id)
acknowledges nothing: the events it means would count as delivered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from telemetry.wire.batch import Rejection, printable


# Longer text is a document, not an acknowledgement.
_TEXT_BYTES_MAX = 1024
# How a tag, a comment, a declaration or an entity begins, and what no text holds.
_NOT_TEXT = re.compile(
    r"<[a-z!/?]|&(?:[a-z]+|#[0-9a-fx]+);|[\x00-\x08\x0e-\x1f\x7f\ufffd]", re.IGNORECASE
)
# An id without its name can only be told from a reason if it looks like ours.
_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# One that was cut or damaged on the way would match no event.
_WHOLE_ID = re.compile(r"[!-~]{1,200}")
_NEXT = re.compile(r"[^ \t\r\n]")
# A reason is kept in a dead letter.
REASON_MAX = 500

Fields = dict[str, list[Any]]
"""What stood under each name, wherever that was, what stands innermost first."""


def read(body: bytes) -> Fields | None:
    """The fields of the JSON in a complete 2xx; None if it acknowledges nothing."""
    text = body.decode(json.detect_encoding(body), "replace").strip(" \t\r\n\ufeff")
    if not text:
        return {} if len(body) <= _TEXT_BYTES_MAX else None
    try:
        return _fields(text)
    except (ValueError, RecursionError):
        # What was meant as JSON may have named refused events.
        is_text = len(body) <= _TEXT_BYTES_MAX and text[:1] not in {"{", "["}
        return {} if is_text and not _NOT_TEXT.search(text) else None


def _fields(text: str) -> Fields:
    """Raises ValueError for no JSON."""
    found: Fields = {}

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=object_of, strict=False)
    at = 0
    # Not cut off at each value: a million of them would be a million copies.
    while value := _NEXT.search(text, at):
        _, at = decoder.raw_decode(text, value.start())
    return found


def rejections(values: Iterable[Any]) -> tuple[Rejection, ...] | None:
    """The events that values of `rejected` name; None if one of them cannot be told.

    Of two reasons for one event the first is kept.
    """
    found: dict[str, Rejection] = {}
    for value in values:
        refused = _named(value)
        if refused is None:
            return None
        for each in refused:
            found.setdefault(each.event_id, each)
    return tuple(found.values())


def _named(value: Any) -> list[Rejection] | None:
    if not value:
        return []
    if isinstance(value, dict) and all(map(_id, value)):
        value = [{"event_id": each, "reason": value[each]} for each in value]
    if not isinstance(value, list):
        return None
    found = []
    for entry in value:
        each = {"event_id": entry} if _id(entry) else entry
        event_id = each.get("event_id") if isinstance(each, dict) else None
        if not isinstance(event_id, str) or not _WHOLE_ID.fullmatch(event_id):
            return None
        reason = each.get("reason")
        text = printable(reason, REASON_MAX) if isinstance(reason, str) else ""
        found.append(Rejection(event_id, text))
    return found


def _id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
