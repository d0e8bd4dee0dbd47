"""`verify`: checks every record of a spool, and says where damage is.

Off a terminal it prints one JSON object a finding and one at the end. It
changes nothing: mending is the flusher's affair, which quarantines what it
passes. Exit codes: 0 all is whole, 1 something is damaged.
"""

from __future__ import annotations

import argparse
import os

import msgspec

from spool_tools.output import Screen, many
from spool_tools.progress import Bar
from spool_tools.reading import Spool, quarantined, size_of
from spool_tools.status_text import size
from spool_tools.target import add_target, target_home
from telemetry.delivery import dead_letters
from telemetry.delivery.books import SegmentEntry
from telemetry.delivery.census import torn_tail
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
            self._find(name, 0, 0, problem)
        directory = self._spool.home.dead
        for name in dead_letters.names(directory):
            if dead_letters.read(directory, name) is None:
                length = size_of(f"{directory}/{name}")
                if length is not None:
                    self._find(f"dead/{name}", 0, length, "cannot be read")

    def segment(self, name: str) -> None:
        """Every record of one segment."""
        try:
            reader = SegmentReader(self._spool.home, name)
        except SpoolError:
            return  # told already, or deleted meanwhile
        entry = self._spool.snapshot.segments.get(name) or SegmentEntry(offset=0)
        try:
            self._records(reader, entry)
        except (SpoolError, OSError) as error:
            self._find(name, 0, 0, str(error))
        finally:
            reader.close()

    def told(self) -> None:
        """The end of the report."""
        tally = self.tally
        if not self._screen.is_terminal:
            self._screen.json(msgspec.json.encode(tally))
            return
        self._screen.say(
            f"{many(tally.records, 'record')} in {many(tally.segments, 'segment')} "
            f"checked, {size(tally.bytes)}"
        )
        if tally.quarantined_files:
            self._screen.say(
                f"in quarantine: {many(tally.quarantined_files, 'file')}, "
                f"{size(tally.quarantined_bytes)}, in {self._spool.home.quarantine}",
                indent=2,
            )
        if tally.foreign_files:
            self._screen.say(
                f"left alone: {many(tally.foreign_files, 'file')} in spool/, of "
                "another version or not ours",
                indent=2,
            )
        if tally.findings or self._spool.problems:
            self._screen.say(
                (f"DAMAGED: {many(tally.findings, 'place')}", "bold red"),
                f", {size(tally.damaged_bytes)}, "
                f"{many(tally.missing_records, 'record')} missing; the others are whole",
                indent=2,
            )
        else:
            self._screen.say(("all is whole", "green"))

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

    def _find(self, segment: str, offset: int, length: int, problem: str) -> None:
        finding = Finding(segment=segment, offset=offset, bytes=length, problem=problem)
        self.tally.findings += 1
        self.tally.damaged_bytes += length
        if self._screen.is_terminal:
            length_told = f", {size(length)}" if length else ""
            self._screen.say(
                (segment, "cyan"),
                f" at byte {offset:,}{length_told}: ",
                (problem, "red"),
                indent=2,
            )
        else:
            self._screen.json(msgspec.json.encode(finding))


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
