"""One segment at work: what is announced of it, and what becomes of each range.

The order is the promise:

    quarantine  damage is copied and synced before the entry passes it
    announce    the exact range and the hash of its body are in the ledger before the
                range is posted
    bury        a dead letter is appended and synced before its event is settled
    settle      in the transaction that announces the next range
    delete      once nothing of it is left, under the segment's own lock

Killed after a post and before the commit that settles it, the range is sent again:
twice on the wire, once after deduplication. It posts nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import (
    Announced,
    SegmentEntry,
    announce,
    replace,
    settle,
    settle_tail,
)
from telemetry.delivery import search
from telemetry.delivery.census import known_entry
from telemetry.delivery.dead_letters import DeadLetter, DeadLetterWriter
from telemetry.files import sync_directory
from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader
from telemetry.spool.writer import size_of
from telemetry.wire.formats import Request, event_id_of, records_request
from telemetry.wire.verdict import Verdict


# Ranges of one segment that may be unsettled while it is drained further. Each costs
# 150 bytes in its ledger row; beyond them the segment waits, and others go on.
RANGES_MAX = 32
# An excerpt of a reply that a person can read; more would be the server's log.
_REPLY_CHARACTERS = 500
_AT_ONCE = 1000
_NO_BOUND = 1 << 62


class Batch(NamedTuple):
    """A range that is announced, its records, and the request that posts it."""

    known: Announced
    records: list[Record]
    request: Request


class Desk(NamedTuple):
    """What every segment of one flush is settled with. Bounds are events or bytes."""

    home: Home
    books: Books
    letters: DeadLetterWriter
    batch_events_max: int
    batch_bytes_max: int
    quarantine_bytes_max: int
    power: bool


class OpenSegment:
    """A segment that is being drained. Raises SpoolError if it cannot be read.

    Its methods raise OSError and SpoolError if the disk keeps something from being
    read or stored; nothing is settled then.
    """

    def __init__(self, desk: Desk, name: str) -> None:
        self.name = name
        self._desk = desk
        self._books = desk.books
        self._reader = SegmentReader(desk.home, name)
        # Where the reader stands, if it stands where reading goes on.
        self._at = -1
        known = desk.books.entry(name)
        try:
            if known_entry(self._reader, known) != known:
                # A power loss shortened the file, or another one has its name.
                desk.books.gone(name)
        except OSError:
            self._reader.close()
            raise

    @property
    def entry(self) -> SegmentEntry:
        """What is known of the segment now."""
        return self._books.entry(self.name)

    def next(self, failed: Collection[int]) -> Batch | None:
        """The next range to post, in the ledger; None if there is none.

        Ranges that were set aside, and those that start at one of `failed`, are
        passed over.
        """
        for known in self.entry.announced:
            if not known.reason and known.start not in failed:
                batch = self.read(known)
                if batch is not None:
                    return batch
        entry = self.entry
        if len(entry.announced) >= RANGES_MAX:
            return None
        self._stand_at(entry.offset)
        desk = self._desk
        items = self._reader.take(desk.batch_events_max, desk.batch_bytes_max)
        if not items:
            return None
        self._quarantine(items)
        records = [item for item in items if type(item) is Record]
        request = records_request([record.event for record in records])
        entry = announce(entry, items, digest=request.digest)
        self._books.commit(segments={self.name: entry})
        self._at = entry.offset
        return Batch(entry.announced[-1], records, request)

    def read(self, known: Announced) -> Batch | None:
        """A range that is announced already; None if damage took all of it.

        One that was never posted as a whole and is larger than a batch is cut.
        """
        desk = self._desk
        self._at = -1
        self._reader.start_at(known.start)
        if known.digest:
            items = self._reader.take(known.count, _NO_BOUND, until=known.end)
        else:
            items = self._reader.take(
                desk.batch_events_max, desk.batch_bytes_max, until=known.end
            )
        records = [item for item in items if type(item) is Record]
        end = items[-1].end if items else known.start
        if not known.digest and records and end < known.end:
            rest = msgspec.structs.replace(
                known, start=end, count=max(known.count - len(records), 0)
            )
            first = msgspec.structs.replace(known, end=end, count=len(records))
            self._replace(known, first, *([rest] if rest.count else []))
            known = first
        if len(records) < known.count:
            # Damage came after the announcement: it costs what it hit.
            self._quarantine(items)
            if end < known.end:
                self._quarantine([Damage(end, known.end)])
            left = msgspec.structs.replace(known, count=len(records), end=end)
            lost = known.count - len(records)
            entry = replace(self.entry, known, *([left] if records else []))
            entry = msgspec.structs.replace(entry, damaged=entry.damaged + lost)
            self._books.stage(self.name, entry)
            known = left
        if not records:
            return None
        request = records_request([record.event for record in records])
        if known.digest != request.digest:
            known = self._replace(
                known, msgspec.structs.replace(known, digest=request.digest)
            )[0]
            self._books.commit()
        return Batch(known, records, request)

    def single_out(
        self, turn: int, segments: int, besides: Collection[int]
    ) -> Batch | None:
        """One event for a probe, announced; None if there is none to be had.

        Not from a range that starts at one of `besides`.
        """
        self._announce_rest()
        others = [each for each in self.entry.announced if each.start not in besides]
        # Single events that were set aside come last. A killed flush may have set aside
        # good ones with a bad one, and left nothing else to compare it with.
        ranges = [each for each in others if each.count > 1 or not each.reason]
        ranges = ranges or others
        events = sum(each.count for each in ranges)
        if not events or len(self.entry.announced) > RANGES_MAX:
            return None
        number = search.probe_event(turn, segments, events)
        for known in ranges:
            if number < known.count:
                break
            number -= known.count
        if known.count == 1:
            return self.read(known)
        self._at = -1
        self._reader.start_at(known.start)
        items = self._reader.take(number + 1, _NO_BOUND, until=known.end)
        records = [item for item in items if type(item) is Record]
        if len(records) <= number:
            return None  # damage came after the announcement; `read` settles it
        record = records[number]
        blank = msgspec.structs.replace(known, digest="", windows=0)
        start = records[number - 1].end if number else known.start
        behind = known.count - number - 1
        single = msgspec.structs.replace(blank, start=start, end=record.end, count=1)
        parts = [
            msgspec.structs.replace(blank, end=start, count=number),
            single,
            msgspec.structs.replace(blank, start=record.end, count=behind),
        ]
        self._replace(known, *(part for part in parts if part.count))
        return self.read(single)

    def narrow(self, batch: Batch) -> list[Announced]:
        """A range of several events is two; those, or none if there is no room."""
        known, records = batch.known, batch.records
        if len(records) < 2 or len(self.entry.announced) >= RANGES_MAX:
            return []
        left = search.middle([len(record.event) for record in records])
        cut = records[left - 1].end
        blank = Announced(
            start=known.start, end=known.end, count=0, reason=known.reason or "part"
        )
        return self._replace(
            known,
            msgspec.structs.replace(blank, end=cut, count=left),
            msgspec.structs.replace(blank, start=cut, count=len(records) - left),
        )

    def accept(self, batch: Batch, verdict: Verdict) -> int:
        """The range is settled: delivered, but for the events that the reply named.

        How many events were delivered.
        """
        reasons = {each.event_id: each.reason for each in verdict.rejected}
        named = msgspec.structs.replace(verdict, reason="rejected")
        letters = [
            self._letter(record, named, reply=reasons[event_id], attempts=1)
            for record in (batch.records if reasons else ())
            if (event_id := event_id_of(record.event)) in reasons
        ]
        self._settle(batch, letters)
        return len(batch.records) - len(letters)

    def bury(self, batch: Batch, verdict: Verdict) -> None:
        """The one event of the range is a dead letter on return."""
        (record,) = batch.records
        attempts = batch.known.windows + 1
        letter = self._letter(record, verdict, reply=verdict.detail, attempts=attempts)
        self._settle(batch, [letter])

    def finish(self) -> bool:
        """Whether this segment is done with; False if it has grown meanwhile.

        Without its lock it is being written: what follows the last whole record is
        left alone. Under its lock its end is read once more.
        """
        if self.entry.announced or not self._reader.lock():
            return True
        entry = self.entry
        self._at = -1
        self._reader.start_at(entry.offset)
        if self._reader.take(1, _NO_BOUND):
            return False
        size = self._reader.size()
        if size > entry.offset + entry.tail:
            self._quarantine([Damage(entry.offset, size)])
            self._books.stage(self.name, settle_tail(entry, size))
        if not self._books.is_saved:
            # The settled offset is in the ledger before its segment is gone. On a full
            # disk it cannot be, and the space is what the disk needs.
            self._books.commit()
        if self._reader.delete(size):
            if self._desk.power:
                # Sync first: a segment that reappears after folding would be sent again.
                sync_directory(self._desk.home.spool)
            self._books.gone(self.name)
        return True

    def close(self) -> None:
        """Close the file, its lock with it."""
        self._reader.close()

    def _announce_rest(self) -> None:
        """Everything up to the last whole record is announced, as one range."""
        entry = self.entry
        before = entry.announced
        self._stand_at(entry.offset)
        while items := self._reader.take(_AT_ONCE, _NO_BOUND):
            self._quarantine(items)
            entry = announce(entry, items)
        new = entry.announced[len(before) :]
        if new:
            rest = Announced(
                start=new[0].start,
                end=new[-1].end,
                count=sum(each.count for each in new),
            )
            entry = msgspec.structs.replace(entry, announced=(*before, rest))
            self._books.stage(self.name, entry)
            self._at = entry.offset

    def _stand_at(self, offset: int) -> None:
        if self._at != offset:
            self._reader.start_at(offset)

    def _replace(self, old: Announced, *new: Announced) -> list[Announced]:
        self._books.stage(self.name, replace(self.entry, old, *new))
        return list(new)

    def _settle(self, batch: Batch, letters: list[DeadLetter]) -> None:
        entry = settle(self.entry, batch.known, dead=len(letters))
        if letters:
            rows = self._desk.letters.append(letters)
            self._books.commit(segments={self.name: entry}, dead_files=rows)
        else:
            self._books.stage(self.name, entry)

    def _letter(
        self, record: Record, verdict: Verdict, *, reply: str, attempts: int
    ) -> DeadLetter:
        return DeadLetter(
            event=msgspec.Raw(record.event),
            reason=verdict.reason,
            status=int(verdict.reason) if verdict.reason.isdecimal() else 0,
            reply=reply[:_REPLY_CHARACTERS],
            time_ms=int(time.time() * 1000),
            attempts=attempts,
            segment=self.name,
            offset=record.start,
        )

    def _quarantine(self, items: list[Record | Damage]) -> None:
        """Damaged stretches are in `quarantine/` on return, if it is below its bound."""
        damage = [item for item in items if type(item) is Damage]
        kept = size_of(self._desk.home.quarantine) if damage else 0
        for item in damage:
            kept += item.end - item.start
            if kept <= self._desk.quarantine_bytes_max:
                self._reader.quarantine(item.start, item.end)
