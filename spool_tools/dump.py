"""`dump`: every pending event as one JSON line, as it will be sent.

Reads the spool and the ledger and changes neither. On a live spool it shows
what was whole at the moment of reading.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

import msgspec

from spool_tools.follow import follow
from spool_tools.output import is_terminal, print_json, print_table
from spool_tools.reading import pending, quarantined, snapshot_of
from spool_tools.requests import as_sent
from spool_tools.target import add_target, target_home
from telemetry.delivery import dead_letters
from telemetry.delivery.books import Snapshot
from telemetry.paths import Home


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Columns of a table leave room for the rest of a line.
_DETAIL_CHARACTERS = 100
_SYSTEM = frozenset({"event_id", "os", "os_language", "user_uuid", "version"})


class Shown(NamedTuple):
    """One line of a dump: its state, and its JSON."""

    state: str
    text: bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dump`."""
    parser.description = (
        "Print every pending event as one JSON line, as it will be sent."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools dump --app frobnicate | jq .event\n"
        "  spool-tools dump --app frobnicate --event tool --since 2h\n"
        "  spool-tools dump --app frobnicate --follow\n"
    )
    add_target(parser)
    parser.add_argument(
        "--format",
        choices=("jsonl", "table"),
        help="how events are printed (default: table on a terminal, else jsonl)",
    )
    parser.add_argument("--event", metavar="NAME", help="only events of this name")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=_since,
        help="only events recorded since: 90s, 5m, 2h, 3d ago, or 2026-01-31T12:00",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="at most N of them")
    parser.add_argument(
        "--follow", action="store_true", help="go on with events as they are recorded"
    )
    parser.add_argument(
        "--state",
        choices=("pending", "dead", "damaged", "all"),
        default="pending",
        help="what to show (default: pending)",
    )
    parser.add_argument(
        "--as-sent", action="store_true", help="print whole request bodies, as planned"
    )


def run(args: argparse.Namespace) -> int:
    """Print; the exit code."""
    home = target_home(args)
    snapshot = snapshot_of(home, "dump")
    if args.as_sent:
        for body in itertools.islice(as_sent(home, snapshot), args.limit):
            print_json(body)
        return 0
    lines: Iterator[Shown]
    if args.follow:
        lines = (Shown("pending", event) for event in follow(home, snapshot))
    else:
        lines = _lines(home, snapshot, args.state)
    chosen = (line for line in lines if _is_wanted(line, args))
    shown = itertools.islice(chosen, args.limit)
    form = args.format or ("table" if is_terminal() else "jsonl")
    if form == "table" and not args.follow:
        print_table(("time (UTC)", "state", "event", "properties"), map(_row, shown))
        return 0
    for line in shown:
        print_json(_wrapped(line) if args.state == "all" else line.text)
        if args.follow:
            sys.stdout.flush()
    return 0


def _lines(home: Home, snapshot: Snapshot, state: str) -> Iterator[Shown]:
    if state in {"pending", "all"}:
        for _, record in pending(home, snapshot):
            yield Shown("pending", record.event)
        for name in dead_letters.names(home.dead):
            letter = dead_letters.read(home.dead, name)
            if letter is not None and name.endswith(dead_letters.RETRY):
                yield Shown("pending", bytes(letter.event))
    if state in {"dead", "all"}:
        for name in dead_letters.names(home.dead):
            letter = dead_letters.read(home.dead, name)
            if letter is not None and not name.endswith(dead_letters.RETRY):
                yield Shown("dead", bytes(letter.event))
    if state in {"damaged", "all"}:
        for name, size in quarantined(home):
            told = {"stretch": name, "bytes": size, "file": f"{home.quarantine}/{name}"}
            yield Shown("damaged", msgspec.json.encode(told))


def _is_wanted(line: Shown, args: argparse.Namespace) -> bool:
    if args.event is None and args.since is None:
        return True
    event = _decoded(line.text)
    if args.event is not None and event.get("event") != args.event:
        return False
    recorded_ms = event.get("event_timestamp")
    if args.since is None:
        return True
    return isinstance(recorded_ms, int) and recorded_ms >= args.since * 1000


def _wrapped(line: Shown) -> bytes:
    return b'{"state":"%b","event":%b}' % (line.state.encode(), line.text)


def _row(line: Shown) -> tuple[str, str, str, str]:
    event = _decoded(line.text)
    recorded_ms = event.get("event_timestamp")
    moment = ""
    if isinstance(recorded_ms, int) and 0 <= recorded_ms < 1 << 47:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(recorded_ms // 1000))
    properties = event.get("properties", event)
    if not isinstance(properties, dict):
        properties = {}
    pairs = (f"{k}={v}" for k, v in properties.items() if k not in _SYSTEM)
    return (
        moment,
        line.state,
        str(event.get("event", "")),
        " ".join(pairs)[:_DETAIL_CHARACTERS],
    )


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _since(text: str) -> float:
    """Seconds since 1970 of a moment, or of so long ago."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found:
        return time.time() - int(found[1]) * _UNITS_S[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a moment (2026-01-31T12:00) nor a time (5m, 2h, 3d)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)
