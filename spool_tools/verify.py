"""`verify`: checks every record of a spool, and says where damage is.

Off a terminal it prints one JSON object a finding and one at the end. It
changes nothing: mending is the flusher's affair, which quarantines what it
passes. Exit codes: 0 all is whole, 1 something is damaged.
"""

from __future__ import annotations

import argparse

import msgspec

from spool_tools.output import is_terminal, print_json
from spool_tools.progress import Bar
from spool_tools.reading import quarantined, snapshot_of, unreadable
from spool_tools.target import add_target, target_home
from telemetry.delivery.books import SegmentEntry
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.reader import SegmentReader, segment_names


class Finding(msgspec.Struct, kw_only=True):
    """One damaged stretch. Offsets are bytes in the segment."""

    segment: str
    offset: int
    bytes: int
    problem: str


class Tally(msgspec.Struct, kw_only=True):
    """What was checked."""

    segments: int = 0
    records: int = 0
    bytes: int = 0
    damaged_bytes: int = 0
    missing_records: int = 0
    quarantined_files: int = 0
    quarantined_bytes: int = 0
    findings: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.description = (
        "Check every record of the spool; exit code 1 where one is damaged."
    )
    parser.epilog = "example:\n  spool-tools verify --app frobnicate\n"
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Check; the exit code."""
    home = target_home(args)
    snapshot = snapshot_of(home, "verify")
    tally = Tally()
    for name, size in quarantined(home):
        tally.quarantined_files += 1
        tally.quarantined_bytes += size
        del name
    for name, problem in unreadable(home):
        _tell(tally, Finding(segment=name, offset=0, bytes=0, problem=problem))
    names = segment_names(home)
    with Bar("verify", total=len(names), unit="segments") as bar:
        for name in names:
            entry = snapshot.segments.get(name) or SegmentEntry(offset=0)
            _check(home, name, entry, tally)
            bar.advance(1)
    if is_terminal():
        print(
            f"{tally.records} records in {tally.segments} segments checked; "
            f"{tally.findings} findings, {tally.damaged_bytes} damaged bytes, "
            f"{tally.missing_records} records missing; "
            f"{tally.quarantined_files} stretches in quarantine"
        )
    else:
        print_json(msgspec.json.encode(tally))
    return 1 if tally.findings else 0


def _check(home: Home, name: str, entry: SegmentEntry, tally: Tally) -> None:
    try:
        reader = SegmentReader(home, name)
    except SpoolError:
        return  # told already, or deleted meanwhile
    try:
        checked = reader.check()
        tally.segments += 1
        tally.records += checked.records
        tally.bytes += reader.size()
        tally.missing_records += checked.missing
        for start, end in checked.damage:
            _tell(
                tally,
                Finding(
                    segment=name,
                    offset=start,
                    bytes=end - start,
                    problem="holds no whole record",
                ),
            )
        tail = reader.size() - checked.end
        if tail > 0 and entry.tail == 0 and reader.lock():
            _tell(
                tally,
                Finding(
                    segment=name,
                    offset=checked.end,
                    bytes=tail,
                    problem="ends in a torn record; nobody is writing it any more",
                ),
            )
    except (SpoolError, OSError) as error:
        _tell(tally, Finding(segment=name, offset=0, bytes=0, problem=str(error)))
    finally:
        reader.close()


def _tell(tally: Tally, finding: Finding) -> None:
    tally.findings += 1
    tally.damaged_bytes += finding.bytes
    if is_terminal():
        print(f"{finding.segment} at byte {finding.offset}: {finding.problem}")
    else:
        print_json(msgspec.json.encode(finding))
