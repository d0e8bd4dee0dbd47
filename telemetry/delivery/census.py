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
from typing import Literal

import msgspec

from telemetry.books.entries import SegmentEntry, Snapshot
from telemetry.delivery import dead_letters
from telemetry.delivery.opt_out import directories_set_aside
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


# Records taken at once while counting: bounds memory, not the count.
_AT_ONCE = 1000
_NO_BOUND = 1 << 62
# A quick census reads so much, which takes some 50 ms: all of a spool within the
# bound that it has by default. What is beyond is counted by first and last number.
QUICK_BYTES = 64 * 1024 * 1024

Standing = Literal["dead", "retried", "early", "done"]
"""What a letter counts as: dead, pending again, or nothing. `early`: its event is
not settled yet, and its segment still has it. `done`: the ledger has counted it."""


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
    With `quickly` no checksum is looked at: a damaged record whose mark is left,
    or whose number lies between those of others, counts as pending then.
    """
    totals = snapshot.totals
    recorded, delivered = totals.recorded, totals.delivered
    damaged, purged, pending = totals.damaged, totals.purged, 0
    # At once after the ledger was read: a flusher writes letters all the time.
    dead, retried = count_letters(home, snapshot)
    names = segment_names(home)
    for entry in snapshot.segments.values():
        recorded += entry.recorded
        delivered += entry.delivered
        damaged += entry.damaged
        purged += entry.purged
    for each in _counts(home, names, snapshot, quickly=quickly, bytes_max=QUICK_BYTES):
        broken = each.missing + (1 if each.tail else 0)
        recorded += each.pending + broken
        pending += each.pending
        damaged += broken
    for directory in directories_set_aside(home):
        # A purge was killed: what it has set aside is purged from then on.
        for name in segment_names(home, directory):
            known = snapshot.segments.get(name)
            each = _count_set_aside(home, name, directory, known)
            broken = each.missing + (1 if each.tail else 0)
            recorded += each.pending + broken
            purged += each.pending
            damaged += broken
    return Census(
        recorded=recorded,
        pending=pending + retried,
        delivered=delivered,
        dead=dead,
        damaged=damaged,
        purged=purged,
    )


def _count_set_aside(
    home: Home, name: str, directory: str, entry: SegmentEntry | None
) -> SegmentCount:
    try:
        reader = SegmentReader(home, name, directory)
        try:
            return count(reader, entry)
        finally:
            reader.close()
    except (SpoolError, OSError):
        return SegmentCount(pending=0, missing=0, tail=0)


def _counts(
    home: Home,
    names: list[str],
    snapshot: Snapshot,
    *,
    quickly: bool,
    bytes_max: int = QUICK_BYTES,
) -> Iterator[SegmentCount]:
    left = bytes_max
    for name in names:
        entry = snapshot.segments.get(name)
        try:
            reader = SegmentReader(home, name)
        except SpoolError:
            continue
        try:
            if quickly:
                left -= reader.size() - (entry.offset if entry else 0)
                yield count_quickly(reader, entry, by_marks=left >= 0)
            else:
                yield count(reader, entry)
        except (SpoolError, OSError):
            continue
        finally:
            reader.close()


def segment_records(home: Home) -> Iterator[Record]:
    """Every whole record that stands in a spool, sent or not, oldest segment first."""
    for name in segment_names(home):
        reader = SegmentReader(home, name)
        try:
            reader.start_at(0)
            while items := reader.take(_AT_ONCE, _NO_BOUND):
                yield from (item for item in items if isinstance(item, Record))
        finally:
            reader.close()


def count(reader: SegmentReader, entry: SegmentEntry | None) -> SegmentCount:
    """What one segment holds behind what is settled of it. Raises SpoolError, OSError."""
    entry = borne_out(reader, entry)
    reader.start_at(entry.offset)
    pending = missing = 0
    seq, end = entry.seq, entry.offset
    while items := reader.take(_AT_ONCE, _NO_BOUND):
        for item in items:
            if isinstance(item, Record):
                pending += 1
                missing += max(item.seq - seq - 1, 0)
                seq = item.seq
        end = items[-1].end
    tail = torn_tail(reader, max(end, entry.offset + entry.tail))
    return SegmentCount(pending=pending, missing=missing, tail=tail)


def count_quickly(
    reader: SegmentReader, entry: SegmentEntry | None, *, by_marks: bool
) -> SegmentCount:
    """The same by where records seem to begin, or by the number of the last one alone.

    Raises OSError.
    """
    entry = borne_out(reader, entry)
    settled = entry.offset + entry.tail
    size = reader.size()
    last = reader.last(size)
    if last is None or last.end <= settled:
        # At most one record that is being written, or a torn one.
        return SegmentCount(pending=0, missing=0, tail=torn_tail(reader, settled))
    numbers = max(last.seq - entry.seq, 0)
    marks = reader.count_marks(settled, last.end) if by_marks else numbers
    return SegmentCount(
        pending=marks,
        missing=max(numbers - marks, 0),
        tail=torn_tail(reader, last.end),
    )


def borne_out(reader: SegmentReader, entry: SegmentEntry | None) -> SegmentEntry:
    """What is settled of a segment, if its file bears it out; else nothing is.

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
    """Bytes behind `end`, where the last whole record ends, that nobody is writing.

    Raises OSError.
    """
    if reader.size() <= end or not reader.lock():
        return 0
    # Its writer may have finished between our look and our lock.
    size = reader.size()
    last = reader.last(size)
    return size - max(end, last.end if last else 0)


def letters(home: Home, snapshot: Snapshot) -> dict[str, Standing]:
    """Every letter by name, oldest first, with what it counts as."""
    present = set(segment_names(home))
    found: dict[str, Standing] = {}
    for name in dead_letters.names(home.dead):
        segment, offset = dead_letters.origin_of(name) or ("", 0)
        entry = snapshot.segments.get(segment)
        settled = entry.offset if entry else 0
        if name.removesuffix(dead_letters.RETRY) in snapshot.dead_marks:
            found[name] = "done"
        elif segment in present and offset >= settled:
            found[name] = "early"
        else:
            found[name] = "retried" if name.endswith(dead_letters.RETRY) else "dead"
    return found


def count_letters(home: Home, snapshot: Snapshot) -> tuple[int, int]:
    """How many letters are dead, and how many wait to be sent again."""
    standings = list(letters(home, snapshot).values())
    return standings.count("dead"), standings.count("retried")


def count_pending_quickly(
    home: Home, snapshot: Snapshot, *, bytes_max: int = QUICK_BYTES
) -> int:
    """Events that wait, counted without a look at their checksums.

    Exact but for damage, which it counts as if it were whole.
    """
    names = segment_names(home)
    waiting = _counts(home, names, snapshot, quickly=True, bytes_max=bytes_max)
    return sum(each.pending for each in waiting) + count_letters(home, snapshot)[1]
