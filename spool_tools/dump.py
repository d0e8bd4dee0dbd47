"""`dump`: every pending event as one JSON line, as it will be sent.

Reads the spool and the ledger and changes neither. On a live spool it shows
what was whole at the moment of reading.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from spool_tools.target import NO_SUCH_SPOOL, NoSuchSpoolError, add_target, target_home
from telemetry.delivery.books import SegmentEntry, Snapshot
from telemetry.delivery.ledger_view import read_snapshot
from telemetry.errors import LedgerError, SpoolError
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


# Records taken at once: bounds memory.
_AT_ONCE = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dump`."""
    parser.description = (
        "Print every pending event as one JSON line, as it will be sent."
    )
    parser.epilog = "example:\n  spool-tools dump --app frobnicate | jq .event\n"
    add_target(parser)
    parser.add_argument(
        "--format", choices=("jsonl",), default="jsonl", help="how events are printed"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="print at most N events")


def run(args: argparse.Namespace) -> int:
    """Print; the exit code."""
    try:
        home = target_home(args)
    except NoSuchSpoolError as error:
        print(f"spool-tools dump: {error}", file=sys.stderr)
        return NO_SUCH_SPOOL
    try:
        snapshot = read_snapshot(home.ledger)
    except LedgerError as error:
        print(
            f"spool-tools dump: {error}; showing everything, sent or not",
            file=sys.stderr,
        )
        snapshot = Snapshot()
    for shown, record in enumerate(pending_records(home, snapshot)):
        if args.limit is not None and shown >= args.limit:
            break
        sys.stdout.buffer.write(record.event + b"\n")
    return 0


def pending_records(home: Home, snapshot: Snapshot) -> Iterator[Record]:
    """The records behind what is settled, oldest segment first."""
    for name in segment_names(home):
        entry = snapshot.segments.get(name) or SegmentEntry(offset=0)
        try:
            reader = SegmentReader(home, name)
        except SpoolError:
            continue  # deleted meanwhile, or nothing that can be read
        try:
            known = reader.holds(entry.offset, entry.seq, entry.crc)
            reader.start_at(entry.offset if known else 0)
            while items := reader.take(_AT_ONCE, 1 << 62):
                yield from (item for item in items if isinstance(item, Record))
        finally:
            reader.close()
