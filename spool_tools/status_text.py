"""What `status` says, and how it says it to a person. Pure; opens nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from spool_tools.output import Part
from spool_tools.text import many
from telemetry.delivery import schedule


Line = tuple[Part, ...]


class Status(msgspec.Struct, kw_only=True):
    """Sizes are bytes, ages seconds, times milliseconds since 1970.

    flusher: `none`, `running` or `unknown`
    foreign: names in `spool/` that are of another version, or not ours
    unreadable: what stands in the place of ours and cannot be read, and why
    """

    home: str
    telemetry: str
    rule: str
    reason: str
    recorded: int
    pending: int
    delivered: int
    dead: int
    damaged: int
    purged: int
    balanced: bool
    refused: dict[str, int]
    segments: int
    spool_bytes: int
    dead_bytes: int
    quarantine_files: int
    quarantine_bytes: int
    oldest_event_age_s: float | None
    last_success_ms: int | None
    last_error: str | None
    last_error_ms: int | None
    failures: int
    requests: int
    last_flush: str | None
    next_flush_ms: int | None
    flusher: str
    flusher_pid: int | None
    foreign: list[str]
    unreadable: list[str]


def told(status: Status, now: float) -> Iterator[Line]:
    """The lines for a person. `now` is seconds since 1970."""
    yield ((status.home, "bold"),)
    style = "green" if status.telemetry == "on" else "yellow"
    yield "telemetry is ", (status.telemetry, style), f": {status.reason}"
    yield ()
    yield from _equation(status, now)
    yield ()
    yield from _rest(status, now)


def _equation(status: Status, now: float) -> Iterator[Line]:
    """The conservation equation, one side below the other."""
    width = len(f"{status.recorded:,}")
    oldest = status.oldest_event_age_s
    kept = f"{many(status.segments, 'segment')}, {size(status.spool_bytes)}"
    notes = {
        "pending": kept + (f", oldest {age(oldest)} old" if oldest else ""),
        "delivered": f"last {ago(status.last_success_ms, now)}",
        "dead": "`dead list` says why, `dead retry` sends them again",
        "damaged": "`dump --state damaged` says where its bytes are",
        "purged": "",
    }
    styles = {"dead": "yellow", "damaged": "red"}
    yield f"  {status.recorded:>{width},}  ", ("recorded", "bold")
    for sign, name in zip("=++++", notes, strict=True):
        count: int = getattr(status, name)
        style = styles.get(name, "") if count else "dim"
        note = notes[name] if count else ""
        number = (f"{sign} {count:>{width},}  {name}", style)
        yield (number, (" " * (11 - len(name)) + note, "dim")) if note else (number,)
    if not status.balanced:
        problem = "something went missing, or came from elsewhere; run verify"
        yield ((f"  THE BOOKS DO NOT BALANCE: {problem}", "bold red"),)


def _rest(status: Status, now: float) -> Iterator[Line]:
    if status.refused:
        reasons = ", ".join(f"{v:,} {k}" for k, v in sorted(status.refused.items()))
        yield _named("not recorded", reasons, "yellow")
    if status.last_error:
        when = ago(status.last_error_ms, now)
        yield _named("last error", f"{when}: {status.last_error}", "")
    last = f"{status.last_flush}, {many(status.requests, 'request')} so far"
    yield _named("last flush", last if status.last_flush else "none so far", "")
    yield _named("next flush", next_flush(status, now), "")
    at_work = {"none": "none is at work", "running": "at work", "unknown": "unknown"}
    process = f": process {status.flusher_pid}" if status.flusher_pid else ""
    yield _named("flusher", at_work[status.flusher] + process, "")
    if status.quarantine_files:
        count = many(status.quarantine_files, "file")
        kept = f"{count}, {size(status.quarantine_bytes)}: {status.home}/quarantine"
        yield _named("quarantine", kept, "")
    for name in status.foreign:
        yield _named("not ours", f"spool/{name}, it is left alone", "")
    for problem in status.unreadable:
        yield _named("unreadable", problem, "red")


def _named(name: str, value: str, style: str) -> Line:
    return ((f"{name:<14}", "bold"), (value, style))


def size(count: int) -> str:
    """Bytes in a unit that leaves few digits."""
    if count < 1024:
        return f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024 / 1024:.1f} MiB"


def age(seconds: float) -> str:
    """A time span in a unit that leaves few digits."""
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        # What is about two of them is told in them.
        if seconds > 1.95 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(milliseconds: int | None, now: float) -> str:
    """How long ago a time was, in milliseconds since 1970."""
    if milliseconds is None:
        return "never"
    # A letter that was edited by hand may say any number.
    if milliseconds > now * 1000:
        return f"at {moment(milliseconds)}"
    past_s = now - max(milliseconds, 0) / 1000
    return f"{age(past_s)} ago"


def moment(milliseconds: int) -> str:
    """A time as a person reads it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(milliseconds // 1000))
    except (OverflowError, ValueError, OSError):
        return "a time beyond the calendar"


def next_flush(status: Status, now: float) -> str:
    """When the next flush begins by itself."""
    if status.telemetry == "off":
        return "none while telemetry is off"
    ahead_s = (status.next_flush_ms or 0) / 1000 - now
    if ahead_s <= 0 or ahead_s > schedule.HORIZON_S:
        return "at the next launch of the program"
    text = f"at the first launch after {age(ahead_s)}"
    if status.failures:
        text += f" ({status.failures} in a row failed)"
    return f"{text}, sooner if endpoint or key change"
