"""The page as text. Pure: it is given every fact, and escapes every text."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spool_tools.dump import details_of, shown
from spool_tools.events import Entry
from spool_tools.status import Status, rest
from spool_tools.wording import ago, many, moment, printable, size
from telemetry.books.entries import Day


# As many as a person reads; `dump` shows them all.
EVENTS_SHOWN = 100
# Where events arrive, or will by themselves; what `why` says else is a warning.
_HARMLESS = {"nothing_pending", "scheduled", "due", "flushing"}
_TERMS = {
    "pending": "wait to be sent",
    "delivered": "the server accepted them",
    "dead": "the server refused them for good",
    "damaged": "lost to damage",
    "purged": "removed on request",
}


def page_of(
    status: Status,
    *,
    name: str,
    now: float,
    since: float | None,
    events: Sequence[Mapping[str, Any]],
    days: Mapping[str, Day],
    waiting: Mapping[str, int],
    has_all_days: bool,
    catalogue: Iterable[Entry],
    form_token: str,
    done: str,
) -> str:
    """The page. Times are seconds since 1970.

    `since` is when this installation began to record, or None if it has not; `events`
    are the first pending ones, decoded; `days` is what became of events, by date, and
    `waiting` counts those that are pending, all of them if it `has_all_days`; `done` is
    what a button did, empty if none was pressed.
    """
    said = done and f'<p class="done" role="status">{_text(done)}</p>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Telemetry of {_text(name)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="uPlot.min.css"><link rel="stylesheet" href="page.css">
</head><body><header><h1>Telemetry of {_text(name)}</h1>{said}
<p class="state {status.telemetry}"><b>{status.telemetry}</b> {_text(status.reason)}</p>
{_why(status)}
{_buttons(status, form_token)}</header><main>
<section><h2>What became of the events</h2>{_equation(status)}</section>
<section><h2>Where they go</h2>{_details(status, now, since)}</section>
<section><h2>By day</h2>{_days(days, waiting, has_all_days=has_all_days)}</section>
<section><h2>What waits to be sent</h2>{_events(events, status.pending, catalogue)}</section>
</main><script src="uPlot.min.js"></script><script src="page.js"></script>
</body></html>
"""


def _text(value: object) -> str:
    return html.escape(printable(str(value)))


def _why(status: Status) -> str:
    if status.telemetry == "off":
        return ""
    # A sentence that begins with an address keeps it as it is.
    first = status.why[:1] if status.why.startswith("http") else status.why[:1].upper()
    kind = "" if status.why_code in _HARMLESS else ' class="bad"'
    wrong = (f"Set up wrongly: {mistake}" for mistake in status.mistakes)
    said = "".join(f'<p class="bad">{_text(each)}.</p>' for each in wrong)
    return f"<p{kind}>{_text(first + status.why[1:])}.</p>{said}"


def _buttons(status: Status, form_token: str) -> str:
    token = f'<input type="hidden" name="token" value="{_text(form_token)}">'

    def form(action: str, label: str) -> str:
        button = f'<button name="do" value="{action}">{label}</button>'
        return f'<form method="post" action="{action}">{token}{button}</form>'

    def asked(title: str, sentence: str, action: str, label: str) -> str:
        content = f"<p>{sentence}</p>{form(action, label)}"
        return f"<details><summary>{title}</summary>{content}</details>"

    if status.telemetry == "off":
        return f'<div class="buttons">{form("on", "Turn on")}</div>'
    off = "Nothing more is recorded or sent. What waits is removed, and so are the "
    off += "counts and this installation's id."
    new = "This installation gets another random id. What waits keeps the one it was "
    new += "recorded under."
    choice = asked("Turn off …", off, "off", "Turn off and remove")
    return f'<div class="buttons">{choice}{asked("New id …", new, "reset", "Get a new id")}</div>'


def _equation(status: Status) -> str:
    terms = "".join(
        f'<div class="term {name if getattr(status, name) else "zero"}">'
        f"<span>{sign}</span><b>{getattr(status, name):,}</b>"
        f"<strong>{name}</strong><small>{meaning}</small></div>"
        for sign, (name, meaning) in zip("=++++", _TERMS.items(), strict=True)
    )
    recorded = f'<div class="term recorded"><b>{status.recorded:,}</b>'
    recorded += "<strong>recorded</strong><small>on this machine</small></div>"
    said = ""
    if not status.balanced:
        said = '<p class="bad">The books do not balance: run verify.</p>'
    if status.dead:
        said += "<p><code>spool-tools dead list</code> says why they are dead.</p>"
    return f'<div class="equation">{recorded}{terms}</div>{said}'


def _details(status: Status, now: float, since: float | None) -> str:
    kept = f"{many(status.segments, 'segment')}, {size(status.spool_bytes)}"
    rows = (
        ("recorded since", moment(int(since * 1000)) if since else "", ""),
        ("kept in", f"{status.home} ({kept})", ""),
        ("last accepted", ago(status.last_success_ms, now), ""),
        *rest(status, now),
    )
    texts = (
        f"<dt>{name}</dt><dd{' class=bad' if style else ''}>{_text(value)}</dd>"
        for name, value, style in rows
        if value
    )
    return f"<dl>{''.join(texts)}</dl>"


def _days(
    days: Mapping[str, Day], waiting: Mapping[str, int], *, has_all_days: bool
) -> str:
    dates = sorted({*days, *waiting}, reverse=True)
    if not dates:
        return '<p class="none">Nothing was sent yet, and nothing waits.</p>'
    rows = []
    for date in dates:
        day = days.get(date, Day())
        counts = Counter(day.delivered) + Counter(day.dead)
        numbers = [sum(each.values()) for each in (day.delivered, day.dead)]
        numbers.append(waiting.get(date, 0))
        cells = "".join(f"<td>{number:,}</td>" for number in numbers)
        names = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
        rows.append(f"<tr><th>{_text(date)}</th>{cells}<td>{_text(names)}</td></tr>")
    head = "<th>day (UTC)</th><th>delivered</th><th>dead</th><th>waiting</th><th>by name</th>"
    counted = "<p>The oldest events that wait are counted.</p>"
    first = "" if has_all_days else counted
    return (
        f'<div id="plot"></div>{first}<details open><summary>As a table</summary>'
        f'<div class="wide"><table id="days"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _events(
    events: Sequence[Mapping[str, Any]], pending: int, catalogue: Iterable[Entry]
) -> str:
    if not events:
        return '<p class="none">Nothing waits.</p>'
    meanings = {
        (entry.event, entry.action): {f.name: f.meaning for f in entry.fields}
        for entry in catalogue
    }
    texts = [_event(event, meanings) for event in events]
    if (more := pending - len(events)) > 0:
        texts.append(f"<p>{more:,} more: <code>spool-tools dump</code>.</p>")
    return "".join(texts)


def _event(
    event: Mapping[str, Any], meanings: Mapping[tuple[str, str], dict[str, str]]
) -> str:
    name, at_ms = str(event.get("event", "?")), event.get("event_timestamp")
    found = event.get("properties")
    fields = found if isinstance(found, dict) else {}
    action = str(fields.get("action", ""))
    known = meanings.get((name, action)) or meanings.get((name, ""), {})
    known = meanings.get(("every event", ""), {}) | known
    rows = "".join(
        f"<tr><th>{_text(field)}</th><td>{_text(shown(value))}</td>"
        f"<td>{_meaning(known.get(field))}</td></tr>"
        for field, value in fields.items()
    )
    when = moment(at_ms) if isinstance(at_ms, int) else "at an unknown time"
    head = "<tr><th>field</th><th>value</th><th>meaning</th></tr>"
    return (
        f"<details><summary><b>{_text(name)}</b> <time>{when}</time> "
        f"<small>{_text(details_of(event))}</small></summary>"
        f'<div class="wide"><table class="fields"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        "</details>"
    )


def _meaning(text: str | None) -> str:
    said = _text(text or "an event of the program's own")
    return re.sub("`([^`]+)`", r"<code>\1</code>", said)
