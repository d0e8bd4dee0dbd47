"""What an answer, or the lack of one, means for the batch it is about. Pure.

Only proof of acceptance settles a batch:

    accepted  2xx, whole, no HTML, not by way of a redirect, and listed where the
              config lists statuses (204 and 205 have no body to look at)
    split     413 by size; 400 and 422 by count
    pause     3xx, whatever came by way of a redirect, 401, 402, 403, 404, 405,
              407, 410, 451: nothing but a change of endpoint or key will help
    wait      everything else: no answer, 408, 425, 429, 5xx, a 2xx that proves
              nothing, and every status not named

HTML is what captive portals and login pages answer with, status 200 included.
A body that was read no further than the bound counts as whole, as what matters
of it was read; but where it has begun to name rejected events, and the rest of
the names was cut off, it proves nothing.

Everything in a reply was written by someone else: nothing here raises on any of
it, and what is taken over into text is printable and of bounded length.

How long a server asks to be left alone (RFC 9110 §10.2.3). Pure.

Retry-After is seconds, or a date. A date is compared with the reply's own Date,
so that a wrong clock here does not matter; only a reply without one is compared
with `now`. Dates are read by hand: `strptime` knows months by the host's locale.

It never raises, and never answers more than a day, or less than nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Literal

import msgspec

from telemetry.wire.endpoint import redact


# A server that asks for more than a day has a clock or a unit wrong.
RETRY_AFTER_MAX_S = 24 * 3600.0

# More digits than this are above the bound, and int() refuses very many.
_DIGITS_MAX = 9

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTH = rf"(?P<month>{_MONTHS})"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# The three forms of an HTTP date (RFC 9110 §5.6.7): Sun, 06 Nov 1994 08:49:37 GMT;
# Sunday, 06-Nov-94 08:49:37 GMT; Sun Nov  6 08:49:37 1994.
_DATES = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT",
        rf"[A-Z][a-z]+, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT",
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",
    )
)


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds a reply asks for, 0 to 24 h; None if nothing usable is there.

    `headers` has names in lower case, `now` is seconds since the epoch.
    """
    value = headers.get("retry-after", "").strip(" \t")
    if re.fullmatch("[0-9]+", value):
        digits = value.lstrip("0") or "0"
        asked_s = float(digits) if len(digits) <= _DIGITS_MAX else RETRY_AFTER_MAX_S
        return min(asked_s, RETRY_AFTER_MAX_S)
    until = _http_date(value, now)
    if until is None:
        return None
    date = _http_date(headers.get("date", "").strip(" \t"), now)
    asked_s = until - (now if date is None else date)
    return min(asked_s, RETRY_AFTER_MAX_S) if asked_s > 0 else 0.0


def _http_date(text: str, now: float) -> float | None:
    """Seconds since the epoch of an HTTP date; None if it is none."""
    found = next((match for form in _DATES if (match := form.fullmatch(text))), None)
    if found is None:
        return None
    year = int(found["year"])
    try:
        if len(found["year"]) == 2:
            year = _full_year(year, now)
        moment = datetime(
            year,
            _MONTHS.index(found["month"]) // 4 + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            # Python's calendar has no leap seconds; the one before is near enough.
            min(int(found["second"]), 59),
            tzinfo=timezone.utc,
        )
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _full_year(two_digits: int, now: float) -> int:
    """The year meant by two digits: not more than 50 ahead (RFC 9110 §5.6.7)."""
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    this_year = (epoch + timedelta(seconds=now)).year
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + 50 else year


Stopped = Literal["drained", "deadline", "waiting", "paused", "busy", "off", "disk"]


KINDS = frozenset(
    {"name", "refused", "unreachable", "tls", "timeout"}
    | {"reset", "protocol", "proxy", "other"}
)

_PAUSES = frozenset({401, 402, 403, 404, 405, 407, 410, 451})
# A firewall refuses a word with any status, or closes the connection.
_CONTENT_KINDS = frozenset({"reset", "protocol", "timeout", "other"})
_NO_BODY = frozenset({204, 205})
_DETAIL_MAX = 200
# A reason is kept in a dead letter; an id longer than this is not one of ours.
_REASON_MAX = 500
_EVENT_ID_MAX = 200

# Ways for a document to start that no JSON has (WHATWG MIME Sniffing §7.1).
_HTML = re.compile(
    rb"(?:<!--|<!doctype\s+html|<\?xml.{0,400}?<(?:!doctype\s+)?html"
    rb"|<(?:html|head|body|title|script|style|meta|iframe|table|div|h1|p|a|br)[\s/>])",
    re.IGNORECASE | re.DOTALL,
)
_HTML_LOOK = 1024


class Reply(msgspec.Struct, frozen=True):
    """The server answered.

    headers: names in lower case; several of one name joined by `, `
    body: what was read of it, content coding removed where it is known
    complete: the body arrived whole as far as it was read
    truncated: the body is longer than what was read
    redirected: the answer came by way of a redirect
    """

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    truncated: bool = False
    redirected: bool = False


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

    reason: a status, a kind of failure, or `incomplete`, `html`, `unlisted`,
        `truncated`, `redirect`
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


class _Rejections(msgspec.Struct):
    rejected: list[Any] = []


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
    action, reason = _sort(outcome, accept_statuses)
    if action is Action.ACCEPTED:
        return Verdict(action, reason, rejected=_rejected(outcome))
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


def _sort(reply: Reply, accept_statuses: tuple[int, ...]) -> tuple[Action, str]:
    status = reply.status
    if reply.redirected or 300 <= status <= 399:
        return Action.PAUSE, "redirect"
    if 200 <= status <= 299:
        doubt = _doubt(reply, accept_statuses)
        return (Action.WAIT, doubt) if doubt else (Action.ACCEPTED, str(status))
    if status in (400, 413, 422):
        return Action.SPLIT, str(status)
    return (Action.PAUSE if status in _PAUSES else Action.WAIT), str(status)


def _doubt(reply: Reply, accept_statuses: tuple[int, ...]) -> str:
    """Why a 2xx proves nothing; empty if it does."""
    if reply.status not in _NO_BODY:
        if not reply.complete:
            return "incomplete"
        if _is_html(reply):
            return "html"
        if reply.truncated and b'"rejected"' in reply.body:
            return "truncated"
    if accept_statuses and reply.status not in accept_statuses:
        return "unlisted"
    return ""


def _is_html(reply: Reply) -> bool:
    media_type = reply.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type in ("text/html", "application/xhtml+xml"):
        return True
    # A page in UTF-16 is one, too: without its zeros it reads like the others.
    start = reply.body[:_HTML_LOOK].replace(b"\0", b"")
    start = start.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\f\v")
    return _HTML.match(start) is not None


def _rejected(reply: Reply) -> tuple[Rejection, ...]:
    """The events a reply names: {"rejected":[{"event_id":…,"reason":…}]}.

    What has another form names nothing. Of two reasons for one event the first
    is kept.
    """
    if reply.status in _NO_BODY:
        return ()
    try:
        entries = msgspec.json.decode(reply.body, type=_Rejections).rejected
    except (ValueError, RecursionError):
        return ()
    found: dict[str, Rejection] = {}
    for entry in entries:
        event_id = entry.get("event_id") if isinstance(entry, dict) else None
        if isinstance(event_id, str) and 0 < len(event_id) <= _EVENT_ID_MAX:
            reason = entry.get("reason", "")
            text = printable(reason, _REASON_MAX) if isinstance(reason, str) else ""
            found.setdefault(event_id, Rejection(event_id, text))
    return tuple(found.values())


def _detail(reply: Reply) -> str:
    """`HTTP 503: upstream is down`, or where a redirect points to."""
    status = printable(str(reply.status), 20)
    if reply.redirected:
        return f"HTTP {status} by way of a redirect"
    if 300 <= reply.status <= 399 and "location" in reply.headers:
        return f"HTTP {status} to {printable(redact(reply.headers['location']), 200)}"
    start = reply.body[: 4 * _DETAIL_MAX].decode("utf-8", "replace")
    text = printable(start, _DETAIL_MAX)
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"
