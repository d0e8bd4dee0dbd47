"""`status`: what is kept, what was sent, when the next flush is, and why.

Counts records without their checksums, so it answers at once also for a million
events; `verify` checks each one. Changes nothing. Exit codes: 0 fine, 1 the books
do not balance or something cannot be read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time

import msgspec

from spool_tools import explain
from spool_tools.holder import flush_lock_holder
from spool_tools.output import Screen
from spool_tools.reading import Spool
from spool_tools.sizes import quarantined, sizes
from spool_tools.status_text import Status, told
from spool_tools.target import add_target, target_home
from telemetry.books.entries import Totals
from telemetry.consent import consent
from telemetry.delivery import schedule
from telemetry.delivery.census import Census, take_census
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names


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
