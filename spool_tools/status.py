"""`status`: what is kept, what was sent, when the next flush is, and why.

Counts records without their checksums, so it answers at once also for a million
events; `verify` checks each one. Changes nothing. Exit codes: 0 fine, 1 the books
do not balance or something cannot be read.

What `status` says, and how it says it to a person. Pure; opens nothing.

Who holds the flush lock: nobody, or a flusher, and on Linux which process.

The lock is looked at by taking it for some microseconds. A program that is started
in just these finds it taken, and leaves the flush to the next one. The file is
not made here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from spool_tools import explain
from spool_tools.reading import Spool, quarantined, sizes
from spool_tools.screen import Part, Screen, age, ago, many, size
from spool_tools.target import add_target, target_home
from telemetry.books.entries import Totals
from telemetry.consent import consent
from telemetry.delivery import schedule
from telemetry.delivery.census import Census, take_census
from telemetry.files import open_regular
from telemetry.locks import try_lock
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names


class Holder(NamedTuple):
    """`state` is `none`, `running` or `unknown`; `told` is a sentence about it.

    `pid` is that of the process, where the system tells.
    """

    state: str
    told: str
    pid: int | None = None


def flush_lock_holder(home: Home) -> Holder:
    """Who flushes now."""
    try:
        descriptor = open_regular(home.flush_lock, os.O_RDONLY)
    except FileNotFoundError:
        return Holder("none", "none is at work")
    except OSError as error:
        return Holder("unknown", f"unknown: {error.strerror or error}")
    try:
        if try_lock(descriptor):
            return Holder("none", "none is at work")
    except OSError as error:
        return Holder("unknown", f"unknown: {error.strerror}")
    finally:
        os.close(descriptor)
    pid = _holding_process(os.path.realpath(home.flush_lock))
    if pid is None:
        return Holder("running", "at work")
    return Holder("running", f"at work: process {pid}", pid)


def _holding_process(path: str) -> int | None:
    """The process that has the locked file open, as far as /proc tells.

    /proc/locks would name the one that took the lock, which is the program that
    started the flusher and may have ended long ago.
    """
    if not sys.platform.startswith("linux"):
        return None
    for name in filter(str.isdecimal, _names("/proc")):
        for number in _names(f"/proc/{name}/fd"):
            try:
                if os.readlink(f"/proc/{name}/fd/{number}") != path:
                    continue
                with open(f"/proc/{name}/fdinfo/{number}", encoding="ascii") as lines:
                    if any(line.startswith("lock:") for line in lines):
                        return int(name)
            except OSError:
                continue  # it has ended, or is not ours to look at
    return None


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


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


# Beside a flusher, the ledger and the files may be of different moments. Most looks
# are of one; where segments come and go by the hundred a second, one in three is.
_LOOKS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `status`."""
    parser.description = "Say what is kept, what was sent, and when the next flush is."
    parser.epilog = (
        "examples:\n"
        "  spool-tools status --app frobnicate\n"
        "  spool-tools status --app frobnicate --explain    # why it is on or off\n"
        "  spool-tools status --app frobnicate --json | jq .pending\n"
        "exit codes: 0 fine; 1 the books do not balance, or something cannot be "
        "read;\n2 wrong usage; 3 no such spool\n"
    )
    add_target(parser)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object, on a terminal too"
    )
    parser.add_argument(
        "--explain", action="store_true", help="say which rule decided on or off"
    )


def run(args: argparse.Namespace) -> int:
    """Tell; the exit code."""
    # Why it is on can be asked before there is a spool.
    home = target_home(args, must_exist=not args.explain)
    screen = Screen()
    if args.explain:
        explanation = explain.explain(home, os.environ)
        if args.json:
            screen.object(explanation)
        else:
            explain.tell(screen, explanation)
        return 0
    status = status_of(home)
    if args.json or not screen.is_terminal:
        screen.object(status)
    else:
        for line in told(status, time.time()):
            screen.say(*line, indent=14)
    return 0 if status.balanced and not status.unreadable else 1


def status_of(home: Home) -> Status:
    """Everything there is to say of a spool."""
    spool = Spool(home)
    census = _census(spool)
    decision = consent(home, os.environ)
    state = spool.snapshot.state
    stretches = quarantined(home)
    holder = flush_lock_holder(home)
    segments = segment_names(home)
    files = sizes(home.spool)
    return Status(
        home=home.root,
        telemetry="on" if decision.on else "off",
        rule=decision.rule,
        reason=decision.reason,
        **msgspec.structs.asdict(census),
        balanced=census.holds(),
        refused=_refused(home, spool.snapshot.totals),
        segments=len(segments),
        spool_bytes=sum(files.values()),
        dead_bytes=sum(sizes(home.dead).values()),
        quarantine_files=len(stretches),
        quarantine_bytes=sum(size for _, size in stretches),
        oldest_event_age_s=_oldest_age_s(spool),
        last_success_ms=state.last_success_ms or None,
        last_error=state.last_error or None,
        last_error_ms=state.last_error_ms or None,
        failures=state.failures,
        requests=state.requests,
        last_flush=state.stopped or None,
        next_flush_ms=_milliseconds(schedule.read(home.next_flush)),
        flusher=holder.state,
        flusher_pid=holder.pid,
        foreign=spool.foreign(),
        unreadable=_unreadable(spool),
    )


def _census(spool: Spool) -> Census:
    """The numbers of one moment, as far as there is one.

    Taken again where a segment vanished meanwhile, or where the sides differ although
    something was settled meanwhile: a difference that was there while the ledger stood
    still is one.
    """
    balanced = None
    for _ in range(_LOOKS):
        before, snapshot = segment_names(spool.home), spool.snapshot
        census = take_census(spool.home, snapshot, quickly=True)
        if census.holds():
            balanced = census
            if set(before) <= set(segment_names(spool.home)):
                break
        spool.look_again()
        if not census.holds() and spool.snapshot == snapshot:
            return census
    return balanced or census


def _unreadable(spool: Spool) -> list[str]:
    """What could not be read, each thing once."""
    found = spool.unreadable()
    places = [f"/{each.partition(': ')[0]} at byte " for each in found]
    others = (
        each for each in spool.problems if not any(place in each for place in places)
    )
    return [*found, *others]


def _refused(home: Home, totals: Totals) -> dict[str, int]:
    """Refusals by reason: those in the ledger, and those counted since."""
    counts = dict(totals.refused)
    for reason, count in refusals.read(home.refused).items():
        mark = totals.refused_marks.get(reason, 0)
        # A count below its mark belongs to a new file: all of it is new.
        since = count - mark if count >= mark else count
        counts[reason] = counts.get(reason, 0) + since
    return counts


class _Event(msgspec.Struct):
    event_timestamp: int = 0


def _oldest_age_s(spool: Spool) -> float | None:
    """How long the event waits that is sent next; None where none waits."""
    with contextlib.closing(spool.pending()) as events:
        oldest = next(events, None)
    if oldest is None:
        return None
    try:
        recorded_ms = msgspec.json.decode(oldest, type=_Event).event_timestamp
        return max(time.time() - recorded_ms / 1000, 0.0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        return None


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
