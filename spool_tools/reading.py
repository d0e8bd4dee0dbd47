"""What the inspecting commands read: records, letters, damage. Changes nothing.

Everything is a generator over one record at a time, so a spool of a million
events takes no more memory than one of ten. What cannot be read is said once,
left out, and remembered in `problems`; the rest is read all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from spool_tools.screen import complain
from telemetry.books.entries import SegmentEntry, Snapshot
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import (
    count_pending_quickly,
    files_of,
    known_entry,
    torn_tail,
)
from telemetry.delivery.dead_letters import DeadLetter, read_letters
from telemetry.errors import LedgerError, SpoolError
from telemetry.files import TEMPORARY, names_in
from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader, segment_names


def quarantined(home: Home) -> list[tuple[str, int]]:
    """Name and size in bytes of every quarantined stretch."""
    found = sizes(home.quarantine).items()
    return [(name, size) for name, size in found if TEMPORARY not in name]


def sizes(directory: str) -> dict[str, int]:
    """The files of a directory of ours by name, with their sizes in bytes.

    None where it cannot be read (`Spool.unreadable`).
    """
    found: dict[str, int] = {}
    with contextlib.suppress(PermissionError):
        for name in sorted(names_in(directory)):
            with contextlib.suppress(OSError):  # it is gone by now
                found[name] = os.lstat(f"{directory}/{name}").st_size
    return found


def decoded(text: bytes) -> dict[str, Any]:
    """An event's members; none where it is no JSON object."""
    try:
        event = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


class Spool:
    """One spool as it is being looked at, with what its ledger says.

    `command` names the command that looks, for complaints; without one they stand in
    `problems` alone.
    """

    def __init__(self, home: Home, command: str = "") -> None:
        self.home = home
        self.problems: list[str] = []
        self._command = command
        self.snapshot = Snapshot()
        self.look_again()

    def look_again(self) -> None:
        """Read the ledger; without one that can be read, nothing has been sent."""
        try:
            self.snapshot, self.has_ledger = read_snapshot(self.home.ledger), True
        except LedgerError as error:
            self.has_ledger = False
            self.note(f"{error}; going on as if nothing had been sent yet")

    def opened(self) -> Iterator[tuple[SegmentReader, SegmentEntry]]:
        """Each segment, oldest first, and what is settled of it."""
        for name, file in files_of(self.home, self.snapshot):
            opened = self.open(name, file)
            if opened is not None:
                try:
                    yield opened
                finally:
                    opened[0].close()

    def open(
        self, name: str, file: str = ""
    ) -> tuple[SegmentReader, SegmentEntry] | None:
        """A reader of a segment, and its entry; None if it cannot be read."""
        try:
            reader = SegmentReader(self.home, file or name)
        except SpoolError as error:
            # A flusher may have deleted it meanwhile.
            if os.path.lexists(error.path):
                self.note(str(error))
            return None
        return reader, known_entry(reader, self.snapshot.segments.get(name))

    def waiting(self, reader: SegmentReader, entry: SegmentEntry) -> Iterator[bytes]:
        """The events before the entry's offset that are announced and not settled."""
        for each in entry.announced:
            reader.start_at(each.start)
            for item in reader.take(each.count, until=each.end):
                if isinstance(item, Record):
                    yield item.event

    def items(self, reader: SegmentReader, start: int) -> Iterator[Record | Damage]:
        """Records and the damage between them, from `start` on."""
        try:
            yield from reader.items(start)
        except SpoolError as error:
            self.note(f"{error}; what follows in this segment is left out")

    def pending(self) -> Generator[bytes]:
        """Every pending event, in the order of sending."""
        for reader, entry in self.opened():
            yield from self.waiting(reader, entry)
            for item in self.items(reader, entry.offset):
                if isinstance(item, Record):
                    yield item.event

    def count_pending(self) -> int:
        """About how many events those are, at the cost of a look at each segment."""
        return count_pending_quickly(self.home, self.snapshot, bytes_max=0)

    def letters(self) -> Iterator[DeadLetter]:
        """The dead letters, oldest first. Those that are damaged are noted."""
        for file, letter in read_letters(self.home, self.snapshot):
            if letter is None:
                self.note(f"a letter in dead/{file} is damaged; it counts as damaged")
            else:
                yield letter

    def damaged(self) -> Iterator[dict[str, object]]:
        """Every damaged stretch: those in quarantine, then those still in place.

        `file` is where its bytes are now.
        """
        for name, size in quarantined(self.home):
            segment, _, offset = name.rpartition("-")
            yield {
                "segment": segment,
                "offset": int(offset) if offset.isdecimal() else 0,
                "bytes": size,
                "quarantined": True,
                "file": f"{self.home.quarantine}/{name}",
            }
        for reader, entry in self.opened():
            end, places = entry.offset, []
            for item in self.items(reader, entry.offset):
                if isinstance(item, Damage):
                    places.append((item.start, item.end))
                end = item.end
            if tail := torn_tail(reader, max(end, entry.offset + entry.tail)):
                places.append((reader.size() - tail, reader.size()))
            for start, end in places:
                yield {
                    "segment": reader.name,
                    "offset": start,
                    "bytes": end - start,
                    "quarantined": False,
                    "file": reader.path,
                }

    def unreadable(self) -> list[str]:
        """What stands in the place of ours and cannot be read, and why."""
        home = self.home
        found = []
        for path in (home.spool, home.dead, home.quarantine):
            if os.path.islink(path):
                found.append(f"{os.path.basename(path)}: is a link, it is not followed")
            elif os.path.lexists(path) and not os.path.isdir(path):
                found.append(f"{os.path.basename(path)}: is no directory")
            elif os.path.lexists(path) and not os.access(path, os.R_OK | os.X_OK):
                found.append(f"{os.path.basename(path)}: cannot be read")
        problems = ((name, _problem_of(home, name)) for name in segment_names(home))
        return found + [f"{name}: {problem}" for name, problem in problems if problem]

    def foreign(self) -> list[str]:
        """Files in `spool/` that are of another version, or not ours."""
        segments = set(segment_names(self.home))
        return sorted(set(names_in(self.home.spool)) - segments)

    def note(self, problem: str) -> None:
        """Say what could not be read, once."""
        if problem not in self.problems:
            self.problems.append(problem)
            if self._command:
                complain(self._command, problem)


def _problem_of(home: Home, name: str) -> str:
    """Why a segment cannot be read; empty if it can, or is gone."""
    try:
        SegmentReader(home, name).close()
    except SpoolError as error:
        return error.problem if os.path.lexists(error.path) else ""
    return ""
