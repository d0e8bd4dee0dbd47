"""`status`: what is kept, what was sent, when the next flush is, and why.

Counts records by their marks at the speed of reading, so it answers at once
also for a million events; `verify` checks each one. Changes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import msgspec

from spool_tools.output import is_terminal, print_json, printable
from spool_tools.reading import pending, snapshot_of, unreadable
from spool_tools.target import add_target, target_home
from telemetry.build_values import build_values
from telemetry.consent import decide, read_choice
from telemetry.delivery import schedule
from telemetry.delivery.census import take_census
from telemetry.delivery.launch import flush_lock
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names
from telemetry.spool.writer import size_of
from telemetry.switches import Decision


class Status(msgspec.Struct, kw_only=True):
    """Sizes are bytes, ages seconds, times milliseconds since 1970."""

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
    unreadable: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `status`."""
    parser.description = "Say what is kept, what was sent, and when the next flush is."
    parser.epilog = (
        "examples:\n"
        "  spool-tools status --app frobnicate\n"
        "  spool-tools status --app frobnicate --explain   # why it is on or off\n"
    )
    add_target(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--explain", action="store_true", help="say which rule decided on or off"
    )


def run(args: argparse.Namespace) -> int:
    """Tell; the exit code."""
    home = target_home(args, must_exist=not args.explain)
    decision = decide(
        environment=os.environ,
        enabled=True,
        choice=read_choice(home.consent),
        build=build_values()["enabled"],
    )
    if args.explain:
        word = "on" if decision.on else "off"
        print(f"telemetry is {word}: {decision.rule}: {printable(decision.reason)}")
        return 0
    status = _status(home, decision)
    if args.json or not is_terminal():
        print_json(msgspec.json.encode(status))
    else:
        for line in _told(status):
            print(printable(line))
    return 0 if status.balanced and not status.unreadable else 1


def _status(home: Home, decision: Decision) -> Status:
    snapshot = snapshot_of(home, "status")
    census = take_census(home, snapshot, quickly=True)
    state = snapshot.state
    oldest = next(pending(home, snapshot), None)
    return Status(
        home=home.root,
        telemetry="on" if decision.on else "off",
        rule=decision.rule,
        reason=decision.reason,
        **msgspec.structs.asdict(census),
        balanced=census.holds(),
        refused=_refused(home, snapshot.totals.refused, snapshot.totals.refused_marks),
        segments=len(segment_names(home)),
        spool_bytes=size_of(home.spool),
        dead_bytes=size_of(home.dead),
        quarantine_bytes=size_of(home.quarantine),
        oldest_event_age_s=_age_s(oldest[1].event) if oldest else None,
        last_success_ms=state.last_success_ms or None,
        last_error=state.last_error or None,
        last_error_ms=state.last_error_ms or None,
        failures=state.failures,
        requests=state.requests,
        last_flush=state.stopped or None,
        next_flush_ms=_milliseconds(schedule.read(home.next_flush)),
        flusher=_flusher(home),
        unreadable=[f"{name}: {problem}" for name, problem in unreadable(home)],
    )


def _refused(
    home: Home, folded: dict[str, int], marks: dict[str, int]
) -> dict[str, int]:
    """Refusals by reason: those in the ledger, and those counted since."""
    counts = dict(folded)
    for reason, count in refusals.read(home.refused).items():
        mark = marks.get(reason, 0)
        counts[reason] = counts.get(reason, 0) + (
            count - mark if count >= mark else count
        )
    return counts


class _Event(msgspec.Struct):
    event_timestamp: int = 0


def _age_s(event: bytes) -> float | None:
    try:
        recorded_ms = msgspec.json.decode(event, type=_Event).event_timestamp
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return max(time.time() - recorded_ms / 1000, 0.0)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _flusher(home: Home) -> str:
    """Who holds the flush lock, as far as the system tells."""
    try:
        if not os.path.exists(home.flush_lock):
            return "none"
        lock = flush_lock(home)
    except OSError as error:
        return f"unknown: {error.strerror}"
    if lock is not None:
        os.close(lock)
        return "none"
    return _holder(home.flush_lock)


def _holder(path: str) -> str:
    """The process that holds the lock, by Linux's /proc; else just `running`."""
    if not sys.platform.startswith("linux"):
        return "running"
    found = os.stat(path)
    mark = f":{found.st_ino} "
    try:
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                if " FLOCK " in line and mark in line:
                    return f"running as process {line.split()[4]}"
    except OSError:
        pass
    return "running"


def _told(status: Status) -> list[str]:
    """The lines for a person."""
    lines = [
        f"{status.home}",
        f"telemetry is {status.telemetry} ({status.rule}: {status.reason})",
        "",
        f"recorded {status.recorded} = pending {status.pending}"
        f" + delivered {status.delivered} + dead {status.dead}"
        f" + damaged {status.damaged} + purged {status.purged}"
        + ("" if status.balanced else "   NOT BALANCED: run verify"),
    ]
    if status.refused:
        reasons = ", ".join(f"{k} {v}" for k, v in sorted(status.refused.items()))
        lines.append(f"refused: {reasons}")
    lines += [
        "",
        f"segments      {status.segments}, {_size(status.spool_bytes)}",
        f"dead letters  {_size(status.dead_bytes)}",
        f"quarantine    {_size(status.quarantine_bytes)}",
        f"oldest event  {_age(status.oldest_event_age_s)}",
        f"last success  {_moment(status.last_success_ms)}",
        f"last error    {_moment(status.last_error_ms)}  {status.last_error or ''}".rstrip(),
        f"last flush    {status.last_flush or 'never'}, {status.requests} requests so far",
        f"next flush    {_next(status.next_flush_ms)}",
        f"flusher       {status.flusher}",
    ]
    return lines + [f"cannot be read: {each}" for each in status.unreadable]


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024 / 1024:.1f} MiB"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit} old"
    return f"{seconds:.0f} seconds old"


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(milliseconds / 1000))


def _next(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "at the next launch"
    ahead_s = milliseconds / 1000 - time.time()
    if ahead_s <= 0 or ahead_s > schedule.HORIZON_S:
        return "at the next launch"
    return f"{_moment(milliseconds)}, in {ahead_s:.0f} s, or when the endpoint or key change"
