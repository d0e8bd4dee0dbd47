"""Compaction: what is left of segments of which all else is settled is one segment.

An event that fails for ever is judged beside others that are accepted, and keeps the room
of its whole segment until then. In a spool that is full of such segments nothing new can
be recorded, so nothing would be accepted any more. In this order:

    write    the events that are left, under a temporary name, synced
    commit   the old segments are settled without them; the new one has their ranges, with
             all that is known of each. They count as recorded where they were
    rename   the new file
    delete   the old ones, as any segment that is settled

Killed before the commit, nothing has changed, and the next flush removes the temporary
file. Killed behind it, the next flush goes on (`finish_moves`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import Announced, SegmentEntry
from telemetry.delivery.census import known_entry
from telemetry.delivery.dead_letters import finish_moves, write_moved
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool import frame
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader


# Segments that are one afterwards, and its ranges, unless one segment has more.
SEGMENTS_MAX = 32
RANGES_MAX = 256


class _Left(NamedTuple):
    """A range that was set aside, and its records."""

    known: Announced
    records: list[Record]


def compact(home: Home, books: Books) -> list[str]:
    """The segments that are settled now, as what is left of each is in another one.

    The caller holds the flush lock, and deletes them. Raises LedgerError, and OSError where
    there is no room for the new one: then it changes nothing.
    """
    settled: list[str] = []
    names = list(books.snapshot.segments)
    while names:
        with ExitStack() as locked:
            found: dict[str, list[_Left]] = {}
            while names and len(found) < SEGMENTS_MAX:
                name = names.pop()
                left = _left_of(home, name, books.entry(name), locked)
                if found and sum(map(len, found.values())) + len(left) > RANGES_MAX:
                    names.append(name)  # the next one begins with it
                    break
                if left:
                    found[name] = left
            if found and _move(home, books, found):
                settled += found
    return settled


def _left_of(
    home: Home, name: str, entry: SegmentEntry, locked: ExitStack
) -> list[_Left]:
    """What is left of a segment that is read to its end; none if that is most of it.

    Nothing can be added to it while `locked` is open.
    """
    ranges = entry.announced
    if not ranges or any(each.joined or not each.reason for each in ranges):
        return []
    try:
        with ExitStack() as opened:
            reader = opened.enter_context(closing(SegmentReader(home, name)))
            size = reader.size()
            is_whole = known_entry(reader, entry) == entry and reader.lock()
            left = list(_ranges(reader, entry)) if is_whole else []
            kept = sum(each.known.end - each.known.start for each in left)
            is_damaged = any(len(each.records) < each.known.count for each in left)
            is_grown = size > entry.offset + entry.tail
            # What gives nothing stays closed: there may be thousands of segments.
            if not left or is_grown or is_damaged or 2 * kept > size:
                return []
            locked.push(opened.pop_all())
            return left
    except (OSError, SpoolError):
        return []


def _ranges(reader: SegmentReader, entry: SegmentEntry) -> Iterator[_Left]:
    for known in entry.announced:
        reader.start_at(known.start)
        items = reader.take(known.count, until=known.end)
        yield _Left(known, [item for item in items if type(item) is Record])


def _move(home: Home, books: Books, found: dict[str, list[_Left]]) -> bool:
    """Whether a new segment has these ranges, and the old ones are settled."""
    parts = [left for each in found.values() for left in each]
    contents = [record.event for part in parts for record in part.records]
    text = b"".join(map(frame.encode, range(len(contents)), contents))
    items = frame.scan(text, at=0, answered=0).items
    records = [item for item in items if type(item) is Record]
    ranges, end = [], 0
    for known, _ in parts:
        first, end = records[end], end + known.count
        its = records[end - 1].end
        ranges.append(msgspec.structs.replace(known, start=first.start, end=its))
    entry = SegmentEntry(
        offset=records[-1].end,
        seq=records[-1].seq,
        crc=records[-1].crc.decode(),
        retried=len(records),
        announced=tuple(ranges),
    )
    entries = {
        name: msgspec.structs.replace(books.entry(name), announced=()) for name in found
    }
    entries[write_moved(home, home.spool, contents)] = entry
    # On a full disk it is not on disk, and then nothing may be deleted.
    is_saved = books.commit(segments=entries)
    return is_saved and not finish_moves(home, books)
