"""What an answer, or the lack of one, means for the batch it is about. Pure.

Only proof of acceptance settles a batch. The list says what proves, not what disproves:

    accepted  a complete 2xx, without a redirect, to a request that was sent to its last
              byte, whose body is empty, or JSON, or at most 1 KiB of text without
              markup. What names refused events has to be readable whole
    split     400, 413, 422
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

import re
from collections.abc import Callable, Mapping
from datetime import timezone
from enum import Enum
from typing import Literal

import msgspec

from telemetry.wire.batch import Rejection, printable
from telemetry.wire.endpoint import redact
from telemetry.wire.formats import RECORDS, Format


# A server that asks for more than a day has a clock or a unit wrong.
RETRY_AFTER_MAX_S = 24 * 3600.0


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds a reply asks for, 0 to 24 h; None if nothing usable is there.

    `headers` has names in lower case, `now` is seconds since the epoch.
    """
    value = headers.get("retry-after", "").strip(" \t")
    numbers = [each.strip(" \t") for each in value.split(",")]
    if all(re.fullmatch("[0-9]+", each) for each in numbers):
        asked_s = max(map(float, numbers))  # of several headers the longest
    else:
        until = _http_date(value)
        if until is None:
            return None
        date = _http_date(headers.get("date", ""))
        asked_s = until - (now if date is None else date)
    # In this order: `now` may be no number.
    return min(max(0.0, asked_s), RETRY_AFTER_MAX_S)


def _http_date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date (RFC 9110 §5.6.7); None if it is none."""
    # Loads a tenth of what `status` loads, and hardly a server names a date.
    from email.utils import parsedate_to_datetime

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

# Why a 2xx proves nothing, as a person is told.
_DOUBTS = {
    "unsent": "it came before the request was sent to its end",
    "unlisted": "accept_statuses does not list it",
    "incomplete": "the answer was cut short",
    "truncated": "the answer is too long to be read",
    "coding": "the answer's content coding is unknown or broken",
    "html": "the answer is a web page, or is called one (Content-Type), as of a login or "
    "a proxy: check the endpoint",
    "unreadable": "the answer does not say which events were accepted",
}
# Why a flush ended that had no time to wait longer for an answer.
SLOW = "slow"
_PAUSES = frozenset({401, 402, 403, 404, 405, 407, 410, 451})
# A firewall refuses a word with any status, or closes the connection.
_CONTENT_KINDS = frozenset({"reset", "protocol", "timeout", "other"})
# Answers to a refused key: they often repeat it, in a spelling of their own.
_KEY_REFUSED = frozenset({401, 403, 407})
_SPLITS = frozenset({400, 413, 422})
# The reasons by which a server has read what it refuses.
REFUSALS = frozenset(map(str, _SPLITS))
# The reasons by which a server refuses whoever asks, whatever was posted.
ABOUT_WHO_ASKS = frozenset({"401", "402", "407"})
# The reasons by which a server may limit how many requests it takes in a time.
LIMITS = frozenset({"429", "503"})
# How the id of an event stands in a body, in JSON, in OTLP's JSON and in its messages.
_EVENT_ID = re.compile(
    rb'event_id(?:":"|","value":\{"stringValue":")([0-9a-fA-F-]{36})"'
    rb"|event_id\x12&\n\$([0-9a-fA-F-]{36})"
)
# Only for the reason that is told: what looks like it is refused without this as well.
_MARKUP = re.compile(rb"[\s\0\xef\xbb\xbf\xff\xfe]*<")
_DETAIL_MAX = 200
# With what stands before it.
_TOLD_MAX = 240


class Reply(msgspec.Struct, frozen=True):
    """The server answered.

    headers: names in lower case; several of one name joined by `, `
    body: what was read of it, content coding removed where it is known
    complete: the body arrived whole as far as it was read
    truncated: the body is longer than what was read
    redirected: the answer came by way of a redirect
    is_sent: the request was handed to the system to its last byte
    is_decoded: the body is free of content coding
    tells_key: the answer repeats the key or a part of it: no text of it is kept
    """

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    truncated: bool = False
    redirected: bool = False
    is_sent: bool = True
    is_decoded: bool = True
    tells_key: bool = False


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


class Verdict(msgspec.Struct, frozen=True):
    """What an outcome means.

    reason: a status, a kind of failure, or `redirect`, or why a 2xx proves nothing:
        `unsent`, `unlisted`, `incomplete`, `html`, `truncated`, `coding`, `unreadable`
    detail: one line for a person
    retry_after_s: what the server asked for, 0 to 24 h; None if nothing usable
    narrow: it may be about what was posted: another batch may fare better
    rejected: the events a 2xx named; all others of the batch are delivered
    """

    action: Action
    reason: str
    detail: str = ""
    retry_after_s: float | None = None
    narrow: bool = False
    rejected: tuple[Rejection, ...] = ()

    def changed(self, change: Callable[[str], str]) -> Verdict:
        """The verdict with each text that somebody else wrote as `change` has it."""
        rejected = tuple(
            msgspec.structs.replace(each, reason=change(each.reason))
            for each in self.rejected
        )
        detail = change(self.detail)
        return msgspec.structs.replace(self, detail=detail, rejected=rejected)


def judge(
    outcome: Outcome,
    *,
    now: float,
    accept_statuses: tuple[int, ...] = (),
    form: Format = RECORDS,
    posted: bytes | None = None,
) -> Verdict:
    """What to do with the batch that drew this outcome. Never raises.

    `now` is seconds since 1970; it counts only for a date in Retry-After of a reply that
    has no Date of its own. An empty `accept_statuses` lists every 2xx. `form` is the
    format that the batch was posted in, and `posted` its body: a refused event whose id
    no event in it has is a name that was damaged, or the server's own.
    """
    if isinstance(outcome, Failure):
        reason = outcome.kind if outcome.kind in KINDS else "other"
        detail = printable(outcome.detail, _DETAIL_MAX)
        narrow = reason in _CONTENT_KINDS
        return Verdict(Action.WAIT, reason, detail, narrow=narrow)
    action, reason = Action.WAIT, str(outcome.status)
    if outcome.redirected or outcome.status // 100 == 3:
        action, reason = Action.PAUSE, "redirect"
    elif outcome.status // 100 == 2:
        proof = _proof(outcome, accept_statuses, form, posted)
        if isinstance(proof, tuple):
            return Verdict(Action.ACCEPTED, reason, rejected=proof)
        reason = proof
    elif outcome.status in _SPLITS:
        action = Action.SPLIT
    elif outcome.status in _PAUSES:
        action = Action.PAUSE
    asked_s = retry_after_s(outcome.headers, now=now)
    return Verdict(
        action,
        reason,
        _detail(outcome, reason, form),
        retry_after_s=asked_s,
        narrow=True,
    )


def _proof(
    reply: Reply, accept_statuses: tuple[int, ...], form: Format, posted: bytes | None
) -> tuple[Rejection, ...] | str:
    """The events that an accepting 2xx refused, or the reason why it proves nothing."""
    doubts = {
        "unsent": not reply.is_sent,
        "unlisted": bool(accept_statuses) and reply.status not in accept_statuses,
    }
    # Nothing may follow a 204 or a 205; where something does, it counts.
    has_none = reply.status in {204, 205} and not reply.body
    if not has_none:
        doubts |= {
            "incomplete": not reply.complete,
            "truncated": reply.truncated,
            "coding": not reply.is_decoded,
            "html": _is_page(reply),
        }
    for doubt, holds in doubts.items():
        if holds:
            return doubt
    if has_none:
        return ()
    refused = form.refusals(reply.body, reply.headers)
    if refused is None:
        return "html" if _MARKUP.match(reply.body) else "unreadable"
    if refused and posted is not None:
        # One without a name is counted instead.
        ids = {b"", *(each[0] or each[1] for each in _EVENT_ID.findall(posted))}
        if not ids.issuperset(each.event_id.encode() for each in refused):
            return "unreadable"
    if reply.tells_key:
        refused = tuple(msgspec.structs.replace(each, reason="") for each in refused)
    return refused


def _is_page(reply: Reply) -> bool:
    """Whether the answer calls itself a page, or sends its reader to another one.

    Frameworks call everything a page that is not said to be something else: JSON is none,
    nor is an empty body, if the answer says where it ends. Else it may be the beginning
    of a page.
    """
    start = reply.body.lstrip()[:1]
    kind = reply.headers.get("content-type", "").lower()
    ends = {"content-length", "transfer-encoding"} & reply.headers.keys()
    others = (b"", b"{", b"[") if ends else (b"{", b"[")
    return "refresh" in reply.headers or ("html" in kind and start not in others)


def _detail(reply: Reply, doubt: str, form: Format) -> str:
    """`HTTP 503: upstream is down`, or where a redirect points to."""
    said = f"HTTP {str(reply.status)[:_DETAIL_MAX]}"
    if doubt in _DOUBTS:
        said = f"{said}, but {_DOUBTS[doubt]}"
    if reply.tells_key or reply.status in _KEY_REFUSED:
        return said
    if reply.redirected:
        return f"{said} by way of a redirect"
    if reply.status // 100 == 3 and "location" in reply.headers:
        return f"{said} to {printable(redact(reply.headers['location']), _DETAIL_MAX)}"
    body = form.said(reply.body, reply.headers)
    text = printable(body.decode("utf-8", "replace"), _DETAIL_MAX)
    return f"{said}: {text}"[:_TOLD_MAX] if text else said
