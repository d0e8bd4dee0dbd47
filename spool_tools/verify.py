"""`verify`: checks every record of a spool, and says where damage is.

Off a terminal it prints one JSON object a finding and one at the end. It
changes nothing: mending is the flusher's affair, which quarantines what it
passes. Exit codes: 0 all is whole, 1 something is damaged.
"""

from __future__ import annotations

import argparse
import os

from spool_tools.output import Screen
from spool_tools.progress import Bar
from spool_tools.reading import Spool
from spool_tools.sizes import quarantined, size_of
from spool_tools.target import add_target, target_home
from spool_tools.text import many, problem_of
from spool_tools.verify_text import Finding, Tally, sentence, summary
from telemetry.books.entries import SegmentEntry
from telemetry.delivery import dead_letters
from telemetry.delivery.census import borne_out, torn_tail
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.reader import SegmentReader, segment_names


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
        directory = self._spool.home.dead
        for name in dead_letters.names(directory):
            if dead_letters.read(directory, name) is None:
                length = size_of(f"{directory}/{name}")
                if length is not None:
                    problem = "cannot be read"
                    self._find(f"dead/{name}", 0, length, problem, at_a_byte=False)

    def segment(self, name: str) -> None:
        """Every record of one segment."""
        try:
            reader = SegmentReader(self._spool.home, name)
        except SpoolError:
            return  # told already, or deleted meanwhile
        try:
            # A file that was shortened, or replaced, has its torn end elsewhere.
            entry = borne_out(reader, self._spool.snapshot.segments.get(name))
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
