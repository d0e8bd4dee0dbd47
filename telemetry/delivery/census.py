"""Counting what a spool holds, by reading it. Changes nothing.

    recorded = pending + delivered + dead + damaged + purged

`recorded` comes from the numbers of the records: those that are there, those that are
missing, and unclean tails. `pending` and `dead` are counted where they stand, in
segments and letters. What is gone from the disk comes from the ledger. So the two
sides are counted apart, and if they are equal nothing went missing between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress

import msgspec

from telemetry.books.entries import SegmentEntry, Snapshot
from telemetry.delivery.dead_letters import moved_segments, read_letters
from telemetry.delivery.opt_out import directories_set_aside
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


# A quick census reads so much, which takes some 50 ms: all of a spool within the
# bound that it has by default. What is beyond is counted by first and last number.
QUICK_BYTES = 64 * 1024 * 1024


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
    """What one segment adds to what the ledger says of it.

    recorded: announced records; those and missing numbers behind the offset; its tail
    pending: records that are not settled, before the offset or behind it
    damaged: those of them that are not there any more, missing numbers, the tail
    tail: bytes behind its last whole record that are not being written
    """

    recorded: int = 0
    pending: int = 0
    damaged: int = 0
    tail: int = 0


def take_census(home: Home, snapshot: Snapshot, *, quickly: bool = False) -> Census:
    """The numbers of a spool whose ledger says `snapshot`.

    Exact while no process writes; beside writers and a flusher the parts are of
    slightly different moments. A segment that cannot be read is left out.
    With `quickly` no checksum is looked at: a damaged record whose mark is left,
    or whose number lies between those of others, counts as pending then.
    """
    totals = snapshot.totals
    recorded, delivered = totals.recorded, totals.delivered
    damaged, purged, pending = totals.damaged, totals.purged, 0
    # At once after the ledger was read: a flusher writes letters all the time.
    dead = 0
    for file, letter in read_letters(home, snapshot):
        dead += letter is not None
        damaged += letter is None
        # The totals began anew: the letter's own segment was folded into the old ones.
        recorded += not totals.recorded and file not in snapshot.dead_files
    for entry in snapshot.segments.values():
        # Its announced events are counted where they stand, if its file still does.
        recorded += entry.recorded - sum(each.count for each in entry.announced)
        delivered += entry.delivered
        damaged += entry.damaged
        purged += entry.purged
    for each in _counts(home, snapshot, quickly=quickly, bytes_max=QUICK_BYTES):
        recorded += each.recorded
        pending += each.pending
        damaged += each.damaged
    for directory in directories_set_aside(home):
        # A purge was killed: what it has set aside is purged from then on.
        for name in segment_names(home, directory):
            with (
                suppress(SpoolError, OSError),
                closing(SegmentReader(home, name, directory)) as reader,
            ):
                each = count(reader, snapshot.segments.get(name))
                recorded += each.recorded
                purged += each.pending
                damaged += each.damaged
    return Census(
        recorded=recorded,
        pending=pending,
        delivered=delivered,
        dead=dead,
        damaged=damaged,
        purged=purged,
    )


def count_pending_quickly(
    home: Home, snapshot: Snapshot, *, bytes_max: int = QUICK_BYTES
) -> int:
    """Events that wait, counted without a look at their checksums.

    Exact but for damage, which it counts as if it were whole.
    """
    counts = _counts(home, snapshot, quickly=True, bytes_max=bytes_max)
    return sum(each.pending for each in counts)


def _counts(
    home: Home, snapshot: Snapshot, *, quickly: bool, bytes_max: int
) -> Iterator[SegmentCount]:
    left = bytes_max
    for name, file in files_of(home, snapshot):
        entry = snapshot.segments.get(name)
        with (
            suppress(SpoolError, OSError),
            closing(SegmentReader(home, file)) as reader,
        ):
            if not quickly:
                yield count(reader, entry)
                continue
            left -= reader.size() - (entry.offset if entry else 0)
            yield count_quickly(reader, entry, by_marks=left >= 0)


def files_of(home: Home, snapshot: Snapshot) -> list[tuple[str, str]]:
    """The segments that hold what is pending, each with the name of its file."""
    names = {name: name for name in segment_names(home)}
    return sorted((moved_segments(home, snapshot) | names).items())


def segment_records(home: Home) -> Iterator[Record]:
    """Every whole record that stands in a spool, sent or not, oldest segment first."""
    for name in segment_names(home):
        with closing(SegmentReader(home, name)) as reader:
            yield from (item for item in reader.items() if isinstance(item, Record))


def count(reader: SegmentReader, entry: SegmentEntry | None) -> SegmentCount:
    """What one segment holds that is not settled. Raises SpoolError, OSError."""
    entry = known_entry(reader, entry)
    waiting = listed = 0
    for each in entry.announced:
        listed += each.count
        reader.start_at(each.start)
        items = reader.take(each.count, until=each.end)
        waiting += sum(isinstance(item, Record) for item in items)
    pending = missing = 0
    seq, end = entry.seq, entry.offset
    for item in reader.items(entry.offset):
        if isinstance(item, Record):
            pending += 1
            missing += max(item.seq - seq - 1, 0)
            seq, end = item.seq, item.end
    tail = torn_tail(reader, max(end, entry.offset + entry.tail))
    damaged = missing + (1 if tail else 0)
    return SegmentCount(
        recorded=listed + pending + damaged - _retried_behind(entry, seq),
        pending=waiting + pending,
        damaged=damaged + listed - waiting + _retried_missing(entry, seq),
        tail=tail,
    )


def count_quickly(
    reader: SegmentReader, entry: SegmentEntry | None, *, by_marks: bool
) -> SegmentCount:
    """The same by where records seem to begin, or by the number of the last one alone.

    Raises OSError.
    """
    entry = known_entry(reader, entry)
    waiting = sum(each.count for each in entry.announced)
    settled = entry.offset + entry.tail
    last = reader.last(reader.size())
    numbers = marks = 0
    end = settled
    if last is not None and last.end > settled:
        end = last.end
        numbers = max(last.seq - entry.seq, 0)
        marks = reader.count_marks(settled, end) if by_marks else numbers
    # Else there is at most one record that is being written, or a torn one.
    tail = torn_tail(reader, end)
    damaged = max(numbers - marks, 0) + (1 if tail else 0)
    return SegmentCount(
        recorded=waiting
        + marks
        + damaged
        - _retried_behind(entry, entry.seq + numbers),
        pending=waiting + marks,
        damaged=damaged + _retried_missing(entry, entry.seq + numbers),
        tail=tail,
    )


def _retried_missing(entry: SegmentEntry, seq: int) -> int:
    """How many retried letters are gone behind record `seq`, the last one there is.

    They were recorded before. `fold` counts them as damaged, too.
    """
    return max(entry.retried - max(seq, entry.seq) - 1, 0)


def _retried_behind(entry: SegmentEntry, seq: int) -> int:
    """How many of the records behind the offset, up to number `seq`, were recorded
    before, as letters that are retried."""
    return min(seq + 1, entry.retried) - min(entry.seq + 1, entry.retried)


def known_entry(reader: SegmentReader, entry: SegmentEntry | None) -> SegmentEntry:
    """What is known of a segment if its file agrees; else nothing is.

    A power loss may have shortened it, and another file may have its name.
    Raises OSError.
    """
    entry = entry or SegmentEntry(offset=0)
    if reader.size() >= entry.offset + entry.tail and reader.holds(
        entry.offset, entry.seq, entry.crc
    ):
        return entry
    return SegmentEntry(offset=0)


def torn_tail(reader: SegmentReader, end: int) -> int:
    """Bytes behind `end`, where the last whole record ends, that are not being written.

    Raises OSError.
    """
    if reader.size() <= end or not reader.lock():
        return 0
    # Its writer may have finished between our look and our lock.
    size = reader.size()
    last = reader.last(size)
    return size - max(end, last.end if last else 0)
