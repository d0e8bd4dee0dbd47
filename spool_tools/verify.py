"""`verify`: checks every record of a spool, and says where damage is.

Off a terminal it prints one JSON object a finding and one at the end. It
changes nothing: mending is the flusher's affair, which quarantines what it
passes. Exit codes: 0 all is whole, 1 something is damaged.

What `verify` says, and how it says it to a person. Pure; opens nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import msgspec

from spool_tools.reading import Spool, quarantined
from spool_tools.screen import Bar, Screen, many, problem_of, size
from spool_tools.status import Line
from spool_tools.target import add_target, target_home
from telemetry.books.entries import SegmentEntry
from telemetry.delivery.census import known_entry, torn_tail
from telemetry.delivery.dead_letters import read_letters
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.reader import SegmentReader, segment_names


class Finding(msgspec.Struct, kw_only=True):
    """One damaged place. Offsets are bytes in the segment.

    segment: the segment, or what else it is that cannot be read
    """

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
    foreign_files: int = 0
    findings: int = 0


def sentence(finding: Finding, *, at_a_byte: bool) -> Line:
    """One finding; `at_a_byte` where it is at an offset of a segment."""
    where = f" at byte {finding.offset:,}" if at_a_byte else ""
    where += f", {size(finding.bytes)}" if finding.bytes else ""
    return (finding.segment, "cyan"), f"{where}: ", (finding.problem, "red")


def summary(tally: Tally, quarantine: str, *, is_read: bool) -> Iterator[Line]:
    """The end of the report; `is_read` says that nothing else stood in the way."""
    yield (
        (
            f"{many(tally.records, 'record')} in {many(tally.segments, 'segment')} "
            f"checked, {size(tally.bytes)}"
        ),
    )
    if tally.quarantined_files:
        yield (
            (
                f"in quarantine: {many(tally.quarantined_files, 'file')}, "
                f"{size(tally.quarantined_bytes)}, in {quarantine}"
            ),
        )
    if tally.foreign_files:
        yield (
            (
                f"left alone: {many(tally.foreign_files, 'file')} in spool/, of "
                "another version or not ours"
            ),
        )
    if tally.findings:
        yield (
            (f"DAMAGED: {many(tally.findings, 'place')}", "bold red"),
            (
                f", {size(tally.damaged_bytes)}, "
                f"{many(tally.missing_records, 'record')} missing; the others are whole"
            ),
        )
    elif not is_read:
        yield ("NOT ALL COULD BE READ", "bold red"), ", see above"
    else:
        yield (("all is whole", "green"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.description = (
        "Check every record of the spool by its checksum and number. It changes "
        "nothing: the next flush puts what is damaged into quarantine/ and goes on."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools verify --app frobnicate\n"
        "  spool-tools verify --app frobnicate | jq 'select(.problem)'\n"
        "exit codes: 0 all is whole; 1 something is damaged; 2 wrong usage; "
        "3 no such spool\n"
    )
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Check; the exit code."""
    spool = Spool(target_home(args), "verify")
    screen = Screen()
    check = _Check(spool, screen)
    check.surroundings()
    with Bar(screen, "verify", total=lambda: _expected(spool), unit="events") as bar:
        for name in segment_names(spool.home):
            check.segment(name)
            bar.at(check.tally.records)
    check.told()
    return 1 if check.tally.findings or spool.problems else 0


class _Check:
    """Checks, tells what it finds, and counts."""

    def __init__(self, spool: Spool, screen: Screen) -> None:
        self.tally = Tally()
        self._spool = spool
        self._screen = screen

    def surroundings(self) -> None:
        """Everything but the records: places, letters, what is in quarantine."""
        for _, size_bytes in quarantined(self._spool.home):
            self.tally.quarantined_files += 1
            self.tally.quarantined_bytes += size_bytes
        self.tally.foreign_files = len(self._spool.foreign())
        for each in self._spool.unreadable():
            name, _, problem = each.partition(": ")
            self._find(name, 0, 0, problem, at_a_byte=False)
        for file, letter in read_letters(self._spool.home, self._spool.snapshot):
            if letter is None:
                problem = "a letter is damaged"
                self._find(f"dead/{file}", 0, 0, problem, at_a_byte=False)

    def segment(self, name: str) -> None:
        """Every record of one segment."""
        try:
            reader = SegmentReader(self._spool.home, name)
        except SpoolError:
            return  # told already, or deleted meanwhile
        try:
            # A file that was shortened, or replaced, has its torn end elsewhere.
            entry = known_entry(reader, self._spool.snapshot.segments.get(name))
            self._records(reader, entry)
        except (SpoolError, OSError) as error:
            self._find(name, 0, 0, problem_of(error), at_a_byte=False)
        finally:
            reader.close()

    def told(self) -> None:
        """The end of the report."""
        if not self._screen.is_terminal:
            self._screen.object(self.tally)
            return
        is_read = not self._spool.problems
        for line in summary(self.tally, self._spool.home.quarantine, is_read=is_read):
            self._screen.say(*line, indent=2)

    def _records(self, reader: SegmentReader, entry: SegmentEntry) -> None:
        checked = reader.check()
        self.tally.segments += 1
        self.tally.records += checked.records
        self.tally.bytes += checked.end
        gaps = dict(checked.gaps)
        self.tally.missing_records += sum(gaps.values())
        for start, end in checked.damage:
            lost = gaps.pop(end, 0)
            problem = f"no whole record, {many(lost, 'number')} missing"
            where = _quarantine(self._spool.home, reader.name, start)
            self._find(reader.name, start, end - start, problem + where)
        for start, lost in gaps.items():
            self._find(reader.name, start, 0, f"{many(lost, 'record')} missing before")
        for start in checked.repeated:
            self._find(
                reader.name, start, 0, "a record with a number that was there before"
            )
        tail = torn_tail(reader, max(checked.end, entry.offset + entry.tail))
        if tail:
            problem = "a torn record at the end, whose writer is gone"
            self._find(reader.name, reader.size() - tail, tail, problem)

    def _find(
        self,
        segment: str,
        offset: int,
        length: int,
        problem: str,
        *,
        at_a_byte: bool = True,
    ) -> None:
        finding = Finding(segment=segment, offset=offset, bytes=length, problem=problem)
        self.tally.findings += 1
        self.tally.damaged_bytes += length
        if self._screen.is_terminal:
            self._screen.say(*sentence(finding, at_a_byte=at_a_byte), indent=2)
        else:
            self._screen.object(finding)


def _quarantine(home: Home, segment: str, offset: int) -> str:
    """What to add of a stretch that the flusher has passed already."""
    kept = os.path.lexists(f"{home.quarantine}/{segment}-{offset}")
    return "; in quarantine" if kept else ""


def _expected(spool: Spool) -> int:
    """About how many records there are: by the numbers of each segment's last one."""
    count = 0
    for reader, _ in spool.opened():
        try:
            last = reader.last(reader.size())
        except OSError:
            continue
        count += last.seq + 1 if last else 0
    return count
