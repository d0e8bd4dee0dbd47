"""What the inspecting commands read: records, letters, damage. Changes nothing.

Everything is a generator over one record at a time, so a spool of a million
events takes no more memory than one of ten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from spool_tools.output import complain
from telemetry.delivery.books import SegmentEntry, Snapshot
from telemetry.delivery.ledger_view import read_snapshot
from telemetry.errors import LedgerError, SpoolError
from telemetry.files import TEMPORARY
from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader, segment_names


# Records taken at once: bounds memory.
AT_ONCE = 500
NO_BOUND = 1 << 62


def snapshot_of(home: Home, command: str) -> Snapshot:
    """What the ledger says; an empty one, with a complaint, where it cannot be read."""
    try:
        return read_snapshot(home.ledger)
    except LedgerError as error:
        complain(command, f"{error}; going on as if nothing had been sent yet")
        return Snapshot()


def open_behind(
    home: Home, name: str, snapshot: Snapshot
) -> tuple[SegmentReader, SegmentEntry] | None:
    """A reader behind what is settled of a segment; None where it cannot be read."""
    entry = snapshot.segments.get(name) or SegmentEntry(offset=0)
    try:
        reader = SegmentReader(home, name)
    except SpoolError:
        return None
    if not reader.holds(entry.offset, entry.seq, entry.crc):
        entry = SegmentEntry(offset=0)
    reader.start_at(entry.offset)
    return reader, entry


def items_of(reader: SegmentReader) -> Iterator[Record | Damage]:
    """Records and the damage between them, from where the reader stands."""
    while items := reader.take(AT_ONCE, NO_BOUND):
        yield from items


def pending(home: Home, snapshot: Snapshot) -> Iterator[tuple[str, Record]]:
    """Every pending record with the name of its segment, oldest segment first."""
    for name in segment_names(home):
        opened = open_behind(home, name, snapshot)
        if opened is None:
            continue
        try:
            for item in items_of(opened[0]):
                if isinstance(item, Record):
                    yield name, item
        except (SpoolError, OSError):
            continue
        finally:
            opened[0].close()


def unreadable(home: Home) -> list[tuple[str, str]]:
    """What stands in `spool/` and is no segment that can be read, and why."""
    found = []
    try:
        names = sorted(os.listdir(home.spool))
    except FileNotFoundError:
        return []
    segments = set(segment_names(home))
    for name in names:
        if name not in segments:
            found.append((name, "is of another version or not ours; it is left alone"))
            continue
        try:
            SegmentReader(home, name).close()
        except SpoolError as error:
            if os.path.lexists(error.path):
                found.append((name, error.problem))
    return found


def quarantined(home: Home) -> list[tuple[str, int]]:
    """Name and size in bytes of every quarantined stretch."""
    try:
        names = sorted(os.listdir(home.quarantine))
    except FileNotFoundError:
        return []
    return [
        (name, os.lstat(f"{home.quarantine}/{name}").st_size)
        for name in names
        if TEMPORARY not in name
    ]
