"""Check every record of the spool by its checksum and number. It changes nothing: the
next flush puts what is damaged into quarantine/ and goes on.

examples:
  spool-tools verify --app frobnicate
  spool-tools verify --app frobnicate | jq 'select(.problem)'
exit codes: 0 all is whole; 1 something is damaged; 2 wrong usage; 3 no such spool
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, suppress

import msgspec

from spool_tools.reading import Spool, quarantined
from spool_tools.screen import Bar, Screen, problem_of
from spool_tools.target import add_target, target_home
from spool_tools.wording import many, size
from telemetry.delivery.census import known_entry, torn_tail
from telemetry.delivery.dead_letters import read_letters
from telemetry.errors import SpoolError
from telemetry.spool.reader import SegmentReader, segment_names


Finding = tuple[str, int | None, int, str]
"""A damaged place: its segment, or what else cannot be read; where it begins there, None
for a whole file; its bytes; the problem."""


class Tally(msgspec.Struct, kw_only=True):
    segments: int = 0
    records: int = 0
    bytes: int = 0
    damaged_bytes: int = 0
    missing_records: int = 0
    quarantined_files: int = 0
    quarantined_bytes: int = 0
    foreign_files: int = 0
    findings: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    spool = Spool(target_home(args), "verify")
    screen = Screen()
    kept = quarantined(spool.home)
    tally = Tally(
        foreign_files=len(spool.foreign()),
        quarantined_files=len(kept),
        quarantined_bytes=sum(size_bytes for _, size_bytes in kept),
    )
    _tell(screen, tally, _outside_of_segments(spool))
    with Bar(screen, "verify", total=lambda: _expected(spool)) as bar:
        for name in segment_names(spool.home):
            _tell(screen, tally, _in_segment(spool, name, tally))
            bar.at(tally.records)
    if screen.is_terminal:
        _say(screen, tally, spool)
    else:
        screen.object(tally)
    return 1 if tally.findings or spool.problems else 0


def _tell(screen: Screen, tally: Tally, findings: Iterator[Finding]) -> None:
    for segment, offset, size_bytes, problem in findings:
        tally.findings += 1
        tally.damaged_bytes += size_bytes
        if screen.is_terminal:
            where = "" if offset is None else f" at byte {offset:,}"
            where += f", {size(size_bytes)}" if size_bytes else ""
            screen.say((segment, "cyan"), f"{where}: ", (problem, "red"), indent=2)
        else:
            place = {"segment": segment, "offset": offset, "bytes": size_bytes}
            screen.object({**place, "problem": problem})


def _outside_of_segments(spool: Spool) -> Iterator[Finding]:
    """Places that cannot be read, and letters."""
    for each in spool.unreadable():
        name, _, problem = each.partition(": ")
        yield name, None, 0, problem
    for file, letter in read_letters(spool.home, spool.snapshot):
        if letter is None:
            yield f"dead/{file}", None, 0, "a letter is damaged"


def _in_segment(spool: Spool, name: str, tally: Tally) -> Iterator[Finding]:
    """What is damaged in one segment; the others are counted in `tally`."""
    try:
        reader = SegmentReader(spool.home, name)
    except SpoolError:
        return  # reported already, or deleted meanwhile
    with closing(reader):
        try:
            yield from _damage(spool, reader, tally)
        except (SpoolError, OSError) as error:
            yield name, None, 0, problem_of(error)


def _damage(spool: Spool, reader: SegmentReader, tally: Tally) -> Iterator[Finding]:
    # A file that was shortened, or replaced, has its torn end elsewhere.
    entry = known_entry(reader, spool.snapshot.segments.get(reader.name))
    checked = reader.check()
    gaps = dict(checked.gaps)
    tally.segments += 1
    tally.records += checked.records
    tally.bytes += checked.end
    tally.missing_records += sum(gaps.values())
    for start, end in checked.damage:
        problem = f"no whole record, {many(gaps.pop(end, 0), 'number')} missing"
        if os.path.lexists(f"{spool.home.quarantine}/{reader.name}-{start}"):
            problem += "; in quarantine"
        yield reader.name, start, end - start, problem
    for start in sorted({*gaps, *checked.repeated}):
        problem = "a record with a number that was there before"
        if start not in checked.repeated:
            problem = f"{many(gaps[start], 'record')} missing before"
        yield reader.name, start, 0, problem
    if tail := torn_tail(reader, max(checked.end, entry.offset + entry.tail)):
        problem = "a torn record at the end, whose writer is gone"
        yield reader.name, reader.size() - tail, tail, problem


def _say(screen: Screen, tally: Tally, spool: Spool) -> None:
    checked = f"{many(tally.records, 'record')} in {many(tally.segments, 'segment')}"
    screen.say(f"{checked} checked, {size(tally.bytes)}")
    if tally.quarantined_files:
        kept = many(tally.quarantined_files, "file")
        kept += f", {size(tally.quarantined_bytes)}, in {spool.home.quarantine}"
        screen.say(f"in quarantine: {kept}", indent=2)
    if tally.foreign_files:
        foreign = f"left alone: {many(tally.foreign_files, 'file')} in spool/, of "
        screen.say(f"{foreign}another version or not ours", indent=2)
    if tally.findings:
        missing = f"{many(tally.missing_records, 'record')} missing"
        screen.say(
            (f"DAMAGED: {many(tally.findings, 'place')}", "bold red"),
            f", {size(tally.damaged_bytes)}, {missing}; the others are whole",
            indent=2,
        )
    elif spool.problems:
        screen.say(("NOT ALL COULD BE READ", "bold red"), ", see above")
    else:
        screen.say(("all is whole", "green"))


def _expected(spool: Spool) -> int:
    """About how many records there are: by the numbers of each segment's last one."""
    count = 0
    for reader, _ in spool.opened():
        with suppress(OSError):
            last = reader.last(reader.size())
            count += last.seq + 1 if last else 0
    return count
