"""`status`: what is kept, what was sent, when the next flush is, and why.

Counts records without their checksums, so it answers at once also for a million
events; `verify` checks each one. Changes nothing: the flush lock is looked at by
taking it for some microseconds, in which a program that is started finds it taken and
leaves the flush to the next one. Exit codes: 0 fine, 1 the books do not balance or
something cannot be read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import NamedTuple

import msgspec

from spool_tools import explain
from spool_tools.reading import Spool, quarantined, sizes
from spool_tools.screen import Part, Screen, age, ago, many, size
from spool_tools.target import NoSuchSpoolError, add_target, target_home
from spool_tools.why import Facts, why
from telemetry.books.entries import Totals
from telemetry.build_values import build_values
from telemetry.config import resolve
from telemetry.consent import consent
from telemetry.delivery import schedule
from telemetry.delivery.census import Census, take_census
from telemetry.errors import ConfigError
from telemetry.files import names_in, open_regular
from telemetry.locks import try_lock
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names
from telemetry.wire.endpoint import check_endpoint


# Beside a flusher, the ledger and the files may be of different moments. Most looks
# are of one; where segments come and go by the hundred a second, one in three is.
_LOOKS = 20
Line = tuple[Part, ...]


class Status(msgspec.Struct, kw_only=True):
    """Sizes are bytes, ages seconds, times milliseconds since 1970.

    why: what is wrong now, or what happens next; why_code: the same as a word
    flusher: `none`, `running` or `unknown`
    ledgers_set_aside: damaged ledgers, beside the one that took their place
    foreign: names in `spool/` that are of another version, or not ours
    unreadable: what stands in the place of ours and cannot be read, and why
    """

    home: str
    telemetry: str
    rule: str
    reason: str
    why: str
    why_code: str
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
    endpoint: str | None
    last_success_ms: int | None
    last_error: str | None
    last_error_ms: int | None
    failures: int
    requests: int
    last_flush: str | None
    next_flush_ms: int | None
    flusher: str
    flusher_pid: int | None
    ledgers_set_aside: list[str]
    foreign: list[str]
    unreadable: list[str]


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
    try:
        home = target_home(args, must_exist=not args.explain)
    except NoSuchSpoolError as error:
        decision = consent(None, os.environ)
        if decision.on:
            raise
        off = f"{error}; telemetry is off: {decision.reason}"
        raise NoSuchSpoolError(off) from None
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
    facts = _facts(spool, census, holder, "" if decision.on else decision.reason)
    code, sentence = why(facts)
    return Status(
        home=home.root,
        telemetry="on" if decision.on else "off",
        rule=decision.rule,
        reason=decision.reason,
        why=sentence,
        why_code=code,
        **msgspec.structs.asdict(census),
        balanced=census.holds(),
        refused=_refused(home, spool.snapshot.totals),
        segments=len(segment_names(home)),
        spool_bytes=sum(sizes(home.spool).values()),
        dead_bytes=sum(sizes(home.dead).values()),
        quarantine_files=len(stretches),
        quarantine_bytes=sum(size for _, size in stretches),
        oldest_event_age_s=_oldest_age_s(spool),
        endpoint=state.endpoint or None,
        last_success_ms=state.last_success_ms or None,
        last_error=state.last_error or None,
        last_error_ms=state.last_error_ms or None,
        failures=state.failures,
        requests=state.requests,
        last_flush=state.stopped or None,
        next_flush_ms=(
            None if facts.next_flush is None else int(facts.next_flush * 1000)
        ),
        flusher=holder.state,
        flusher_pid=holder.pid,
        ledgers_set_aside=list(facts.ledgers_aside),
        foreign=spool.foreign(),
        unreadable=_unreadable(spool),
    )


def _facts(spool: Spool, census: Census, holder: Holder, off: str) -> Facts:
    home = spool.home
    endpoint, key, problem = _destination(os.environ)
    aside = [
        each
        for entry in spool.snapshot.segments.values()
        for each in entry.announced
        if each.reason
    ]
    ledger = os.path.basename(home.ledger)
    return Facts(
        now=time.time(),
        state=spool.snapshot.state,
        off=off,
        pending=census.pending,
        is_flushing=holder.state == "running",
        next_flush=schedule.read(home.next_flush),
        unfinished=schedule.unfinished_starts(home.next_flush),
        set_aside=sum(each.count for each in aside),
        set_aside_reason=aside[0].reason if aside else "",
        ledgers_aside=tuple(
            sorted(
                name
                for name in names_in(home.root)
                if name.startswith(f"{ledger}.malformed-")
            )
        ),
        is_ledger_unreadable=not spool.has_ledger,
        has_sqlite=find_spec("_sqlite3") is not None,
        endpoint=endpoint,
        key=key,
        mode=os.environ.get("TELEMETRY_FLUSH", "").strip().lower(),
        problem=problem,
    )


def _destination(environment: Mapping[str, str]) -> tuple[str, bool, str]:
    """Endpoint, whether there is a key or none is needed, and what cannot be used."""
    built = build_values()
    try:
        config = resolve(
            {"app": "status"},
            environment=environment,
            build={name: built[name] for name in ("endpoint", "api_key", "header")},
        )
        if config.endpoint:
            check_endpoint(config.endpoint)
    except ConfigError as error:
        return "", False, str(error)
    for problem in config.problems():
        if problem.field in {"endpoint", "api_key", "header"}:
            return "", False, str(problem)
    return config.endpoint, bool(config.api_key or not config.header), ""


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


class Holder(NamedTuple):
    """Who flushes now: `none`, `running` or `unknown`; its process, where it is known."""

    state: str
    pid: int | None = None


def flush_lock_holder(home: Home) -> Holder:
    """Whether the flush lock is held, and on Linux by which process."""
    try:
        descriptor = open_regular(home.flush_lock, os.O_RDONLY)
    except FileNotFoundError:
        return Holder("none")
    except OSError:
        return Holder("unknown")
    try:
        if try_lock(descriptor):
            return Holder("none")
    except OSError:
        return Holder("unknown")
    finally:
        os.close(descriptor)
    return Holder("running", _holding_process(os.path.realpath(home.flush_lock)))


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


def told(status: Status, now: float) -> Iterator[Line]:
    """The lines for a person. `now` is seconds since 1970."""
    yield ((status.home, "bold"),)
    style = "green" if status.telemetry == "on" else "yellow"
    yield "telemetry is ", (status.telemetry, style), f": {status.reason}"
    if status.telemetry == "on":
        yield (status.why,)
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
    at_work = {"none": "none is at work", "running": "at work", "unknown": "unknown"}
    process = f": process {status.flusher_pid}" if status.flusher_pid else ""
    yield _named("flusher", at_work[status.flusher] + process, "")
    for name in status.ledgers_set_aside:
        yield _named("set aside", f"{status.home}/{name}, a damaged ledger", "yellow")
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
