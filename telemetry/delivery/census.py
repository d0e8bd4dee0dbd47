"""Counting what a spool holds, by reading it. Changes nothing.

    recorded = pending + delivered + dead + damaged + purged

`recorded` comes from the numbers of the records: those that are there, those
that are missing, and unclean tails. `pending` and `dead` are counted where they
stand, in segments and letters. What of the past is gone from the disk comes
from the ledger. So the two sides are counted apart, and that they are equal
says that nothing went missing between them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from telemetry.delivery import dead_letters
from telemetry.delivery.books import SegmentEntry, Snapshot
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


# Records taken at once while counting: bounds memory, not the count.
_AT_ONCE = 1000


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """The conservation equation in numbers of events, since the ledger's birth."""

    recorded: int
    pending: int
    delivered: int
    dead: int
    damaged: int
    purged: int

    def holds(self) -> bool:
        """Whether both sides are equal."""
        return self.recorded == (
            self.pending + self.delivered + self.dead + self.damaged + self.purged
        )


class SegmentCount(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind the settled offset of one segment.

    tail: bytes behind its last whole record that nobody is writing
    """

    pending: int
    missing: int
    tail: int


def take_census(home: Home, snapshot: Snapshot, *, quickly: bool = False) -> Census:
    """The numbers of a spool whose ledger says `snapshot`.

    Exact while nobody writes; beside writers and a flusher the parts are of
    slightly different moments. A segment that cannot be read is left out.
    With `quickly` records are counted by their marks, at the speed of reading:
    a record whose damage left its mark alone counts as pending then.
    """
    count_one = count_segment_quickly if quickly else count_segment
    totals = snapshot.totals
    recorded, delivered = totals.recorded, totals.delivered
    damaged, purged, pending = totals.damaged, totals.purged, 0
    names = segment_names(home)
    for name in {*names, *snapshot.segments}:
        entry = snapshot.segments.get(name) or SegmentEntry(offset=0)
        recorded += entry.recorded
        delivered += entry.delivered
        damaged += entry.damaged
        purged += entry.purged
    for name in names:
        try:
            count = count_one(home, name, snapshot.segments.get(name))
        except (SpoolError, OSError):
            continue
        broken = count.missing + (1 if count.tail else 0)
        recorded += count.pending + broken
        pending += count.pending
        damaged += broken
    dead, retried = count_letters(home, snapshot)
    return Census(
        recorded=recorded,
        pending=pending + retried,
        delivered=delivered,
        dead=dead,
        damaged=damaged,
        purged=purged,
    )


def segment_records(home: Home) -> Iterator[Record]:
    """Every whole record that stands in a spool, sent or not, oldest segment first."""
    for name in segment_names(home):
        reader = SegmentReader(home, name)
        try:
            reader.start_at(0)
            while items := reader.take(_AT_ONCE, 1 << 62):
                yield from (item for item in items if isinstance(item, Record))
        finally:
            reader.close()


def count_segment(home: Home, name: str, entry: SegmentEntry | None) -> SegmentCount:
    """What one segment holds behind what is settled of it. Raises SpoolError, OSError."""
    reader = SegmentReader(home, name)
    try:
        entry = _borne_out(reader, entry)
        reader.start_at(entry.offset)
        pending = missing = 0
        seq, end = entry.seq, entry.offset
        while items := reader.take(_AT_ONCE, 1 << 62):
            for item in items:
                if isinstance(item, Record):
                    pending += 1
                    missing += max(item.seq - seq - 1, 0)
                    seq = item.seq
            end = items[-1].end
        tail = _tail(reader, max(end, entry.offset + entry.tail))
        return SegmentCount(pending=pending, missing=missing, tail=tail)
    finally:
        reader.close()


def count_segment_quickly(
    home: Home, name: str, entry: SegmentEntry | None
) -> SegmentCount:
    """The same by the marks of records and the number of the last one."""
    reader = SegmentReader(home, name)
    try:
        entry = _borne_out(reader, entry)
        settled = entry.offset + entry.tail
        marks = reader.count_marks(settled)
        last = reader.last()
        if last is None or last.end <= settled:
            # At most one record that is being written, or a torn one.
            return SegmentCount(pending=0, missing=0, tail=_tail(reader, settled))
        tail = _tail(reader, last.end)
        torn = 1 if reader.size() > last.end and marks > 1 else 0
        expected = last.seq - entry.seq
        return SegmentCount(
            pending=marks - torn, missing=max(expected - (marks - torn), 0), tail=tail
        )
    finally:
        reader.close()


def _borne_out(reader: SegmentReader, entry: SegmentEntry | None) -> SegmentEntry:
    """What is settled of a segment, if its file bears it out; else nothing is."""
    entry = entry or SegmentEntry(offset=0)
    if reader.size() >= entry.offset + entry.tail and reader.holds(
        entry.offset, entry.seq, entry.crc
    ):
        return entry
    return SegmentEntry(offset=0)


def _tail(reader: SegmentReader, end: int) -> int:
    """Bytes behind `end` that nobody is writing."""
    tail = reader.size() - end
    return tail if tail > 0 and reader.lock() else 0


def count_letters(home: Home, snapshot: Snapshot) -> tuple[int, int]:
    """How many letters are dead, and how many wait to be sent again.

    A letter counts once its event is settled: before, its segment still has it.
    One that the ledger has marked is accounted for already.
    """
    dead = retried = 0
    present = set(segment_names(home))
    for name in dead_letters.names(home.dead):
        origin = dead_letters.origin_of(name)
        if (
            origin is None
            or name.removesuffix(dead_letters.RETRY) in snapshot.dead_marks
        ):
            continue
        entry = snapshot.segments.get(origin[0])
        settled = entry.offset if entry else 0
        if origin[0] in present and origin[1] >= settled:
            continue
        if name.endswith(dead_letters.RETRY):
            retried += 1
        else:
            dead += 1
    return dead, retried


def count_pending_quickly(home: Home, snapshot: Snapshot) -> int:
    """Events that wait, counted by their marks at the speed of reading.

    Exact but for damage, which it counts as if it were whole.
    """
    count = len(
        [name for name in dead_letters.names(home.dead) if name.endswith(".retry")]
    )
    for name in segment_names(home):
        entry = snapshot.segments.get(name)
        try:
            reader = SegmentReader(home, name)
        except SpoolError:
            continue
        try:
            count += reader.count_marks(entry.offset + entry.tail if entry else 0)
        except OSError:
            pass  # it is gone
        finally:
            reader.close()
    return count
