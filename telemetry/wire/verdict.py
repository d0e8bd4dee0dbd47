"""What an answer, or the lack of one, means for the batch it is about. Pure.

Only proof of acceptance settles a batch. The list says what proves, not what disproves:

    accepted  a complete 2xx, without a redirect, to a request that was sent to its last
              byte, whose body is empty, or JSON, or at most 1 KiB of text without
              markup. What names refused events has to be readable whole
    split     413 by size; 400 and 422 by count
    pause     3xx, an answer by way of a redirect, 401, 402, 403, 404, 405, 407, 410,
              451: a change of endpoint or key is likely to be needed
    wait      everything else: no answer, 408, 425, 429, 5xx, a 2xx that proves nothing
              and every status not named

`narrow` says that the outcome may be about what was posted, so that a smaller batch or
another one may fare better.

Retry-After is seconds or a date (RFC 9110 §10.2.3). A date is compared with the reply's
own Date, so that a wrong clock here does not matter.

Everything in a reply was written by someone else: nothing here raises on any of it, and
what is taken over into text is printable and of bounded length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Literal

import msgspec

from telemetry.wire.endpoint import redact


# A server that asks for more than a day has a clock or a unit wrong.
RETRY_AFTER_MAX_S = 24 * 3600.0

# More digits than this are above the bound, and int() refuses very many.
_DIGITS_MAX = 9


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds a reply asks for, 0 to 24 h; None if nothing usable is there.

    `headers` has names in lower case, `now` is seconds since the epoch.
    """
    value = headers.get("retry-after", "").strip(" \t")
    if re.fullmatch("[0-9]+", value):
        digits = value.lstrip("0") or "0"
        asked_s = float(digits) if len(digits) <= _DIGITS_MAX else RETRY_AFTER_MAX_S
        return min(asked_s, RETRY_AFTER_MAX_S)
    until = _http_date(value)
    if until is None:
        return None
    date = _http_date(headers.get("date", ""))
    asked_s = until - (now if date is None else date)
    return min(asked_s, RETRY_AFTER_MAX_S) if asked_s > 0 else 0.0


def _http_date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date (RFC 9110 §5.6.7); None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
        # An HTTP date is in GMT; the form of asctime does not say so.
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


Stopped = Literal["drained", "deadline", "waiting", "paused", "busy", "off", "disk"]


KINDS = frozenset(
    {"name", "refused", "unreachable", "tls", "timeout"}
    | {"reset", "protocol", "proxy", "other"}
)

_PAUSES = frozenset({401, 402, 403, 404, 405, 407, 410, 451})
# A firewall refuses a word with any status, or closes the connection.
_CONTENT_KINDS = frozenset({"reset", "protocol", "timeout", "other"})
# Answers to a key that the server, or a proxy, refused.
_KEY_REFUSED = frozenset({401, 403, 407})
_NO_BODY = frozenset({204, 205})
_DETAIL_MAX = 200
# A reason is kept in a dead letter; an id longer than this is not one of ours.
_REASON_MAX = 500
_EVENT_ID_MAX = 200

# Text longer than this is a document, not an acknowledgement.
_TEXT_BYTES_MAX = 1024
# How a tag, a comment or a declaration begins, and what no plain text holds.
_NO_PLAIN_TEXT = re.compile(r"<[a-z!/?]|[\x00-\x08\x0e-\x1f\ufffd]", re.IGNORECASE)
_JSON = json.JSONDecoder()
# What a list of refused events may look like that refuses none.
_NONE_REFUSED = (None, False, 0)


class Reply(msgspec.Struct, frozen=True):
    """The server answered.

    headers: names in lower case; several of one name joined by `, `
    body: what was read of it, content coding removed where it is known
    complete: the body arrived whole as far as it was read
    truncated: the body is longer than what was read
    redirected: the answer came by way of a redirect
    is_sent: the request was handed to the system to its last byte
    is_decoded: the body is free of content coding
    """

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    truncated: bool = False
    redirected: bool = False
    is_sent: bool = True
    is_decoded: bool = True


class Failure(msgspec.Struct, frozen=True):
    """There was no usable answer; `kind` is one of KINDS, `detail` for a person."""

    kind: str
    detail: str


Outcome = Reply | Failure


class Action(str, Enum):
    """What happens to the batch."""

    ACCEPTED = "accepted"
    WAIT = "wait"
    PAUSE = "pause"
    SPLIT = "split"


class Rejection(msgspec.Struct, frozen=True):
    """One event that a 2xx reply named as refused for good."""

    event_id: str
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """What an outcome means.

    reason: a status, a kind of failure, or `redirect`, or why a 2xx proves nothing:
        `unsent`, `unlisted`, `incomplete`, `html`, `truncated`, `coding`, `unreadable`
    detail: one line for a person
    retry_after_s: what the server asked for, 0 to 24 h; None if nothing usable
    by_size: a split halves the bytes, not the events
    server_error: a 5xx
    narrow: it may be about what was posted: another batch may fare better
    rejected: the events a 2xx named; all others of the batch are delivered
    """

    action: Action
    reason: str
    detail: str = ""
    retry_after_s: float | None = None
    by_size: bool = False
    server_error: bool = False
    narrow: bool = False
    rejected: tuple[Rejection, ...] = ()


def judge(
    outcome: Outcome, *, now: float, accept_statuses: tuple[int, ...] = ()
) -> Verdict:
    """What to do with the batch that drew this outcome. Never raises.

    `now` is seconds since the epoch; it counts only for a date in Retry-After of a
    reply that has no Date of its own. An empty `accept_statuses` lists every 2xx.
    """
    if isinstance(outcome, Failure):
        reason = outcome.kind if outcome.kind in KINDS else "other"
        return Verdict(
            Action.WAIT,
            reason,
            printable(outcome.detail, _DETAIL_MAX),
            narrow=reason in _CONTENT_KINDS,
        )
    action, reason, rejected = _sort(outcome, accept_statuses)
    if action is Action.ACCEPTED:
        return Verdict(action, reason, rejected=rejected)
    asked_s = retry_after_s(outcome.headers, now=now)
    return Verdict(
        action,
        reason,
        _detail(outcome),
        retry_after_s=asked_s,
        by_size=outcome.status == 413 and action is Action.SPLIT,
        server_error=500 <= outcome.status <= 599 and action is Action.WAIT,
        # One that says when to come again speaks of itself.
        narrow=not asked_s,
    )


def printable(text: str, length_max: int) -> str:
    """The text on one line, without what a terminal would obey."""
    line = " ".join(text[: 4 * length_max].split())
    return "".join(c if c.isprintable() else "�" for c in line[:length_max])


def _sort(
    reply: Reply, accept_statuses: tuple[int, ...]
) -> tuple[Action, str, tuple[Rejection, ...]]:
    status = reply.status
    if reply.redirected or 300 <= status <= 399:
        return Action.PAUSE, "redirect", ()
    if 200 <= status <= 299:
        proof = _proof(reply, accept_statuses)
        if isinstance(proof, str):
            return Action.WAIT, proof, ()
        return Action.ACCEPTED, str(status), proof
    if status in (400, 413, 422):
        return Action.SPLIT, str(status), ()
    action = Action.PAUSE if status in _PAUSES else Action.WAIT
    return action, str(status), ()


def _proof(
    reply: Reply, accept_statuses: tuple[int, ...]
) -> str | tuple[Rejection, ...]:
    """The events that an accepting 2xx refused, or the reason why it proves nothing."""
    if not reply.is_sent:
        return "unsent"
    if accept_statuses and reply.status not in accept_statuses:
        return "unlisted"
    if reply.status in _NO_BODY:
        return ()
    if not reply.complete:
        return "incomplete"
    if "html" in reply.headers.get("content-type", "").lower():
        return "html"
    if reply.truncated:
        return "truncated"
    if not reply.is_decoded:
        return "coding"
    return _acknowledgement(reply.body)


def _acknowledgement(body: bytes) -> str | tuple[Rejection, ...]:
    """The refused events in a whole body, or the reason why it is no acknowledgement.

    One is empty, JSON, or a short text without markup. JSON is read leniently: several
    values in a row, a byte order mark and bytes that are not UTF-8 spoil nothing.
    """
    text = body.decode("utf-8-sig", "replace")
    try:
        values = list(_json_values(text))
    except (ValueError, RecursionError):
        begins_like_json = text.lstrip()[:1] in {"{", "["}
        if begins_like_json or len(body) > _TEXT_BYTES_MAX:
            return "unreadable"
        return "html" if _NO_PLAIN_TEXT.search(text) else ()
    found: dict[str, Rejection] = {}
    for value in values:
        if isinstance(value, dict) and "rejected" in value:
            refused = _refused(value["rejected"])
            if refused is None:
                return "unreadable"
            for each in refused:
                found.setdefault(each.event_id, each)
    return tuple(found.values())


def _json_values(text: str) -> Iterator[Any]:
    """The JSON values in a text, white space between them. Raises ValueError."""
    at, size = 0, len(text)
    while True:
        while at < size and text[at] in " \t\r\n":
            at += 1
        if at == size:
            return
        value, at = _JSON.raw_decode(text, at)
        yield value


def _refused(named: Any) -> list[Rejection] | None:
    """The events that `rejected` names; None if one of them cannot be told.

    A list of `{"event_id": …, "reason": …}`, a list of ids, or an object of reasons by
    id. A number of events without their ids tells none of them.
    """
    if named in _NONE_REFUSED:
        return []
    if isinstance(named, dict):
        named = [{"event_id": name, "reason": why} for name, why in named.items()]
    if not isinstance(named, list):
        return None
    found = []
    for entry in named:
        each = {"event_id": entry} if isinstance(entry, str) else entry
        event_id = each.get("event_id") if isinstance(each, dict) else None
        if not isinstance(event_id, str) or not 0 < len(event_id) <= _EVENT_ID_MAX:
            return None
        reason = each.get("reason", "")
        text = printable(reason, _REASON_MAX) if isinstance(reason, str) else ""
        found.append(Rejection(event_id, text))
    return found


def _detail(reply: Reply) -> str:
    """`HTTP 503: upstream is down`, or where a redirect points to."""
    status = printable(str(reply.status), 20)
    if reply.status in _KEY_REFUSED:
        # Such an answer may repeat the key, in any spelling.
        return f"HTTP {status}"
    if reply.redirected:
        return f"HTTP {status} by way of a redirect"
    if 300 <= reply.status <= 399 and "location" in reply.headers:
        return f"HTTP {status} to {printable(redact(reply.headers['location']), 200)}"
    start = reply.body[: 4 * _DETAIL_MAX].decode("utf-8", "replace")
    text = printable(start, _DETAIL_MAX)
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"
