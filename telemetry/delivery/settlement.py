"""Segments at work: what is announced of each, and what becomes of each range.

The order is the promise:

    quarantine  damage is copied and synced before the entry passes it; what a full disk
                tore at the end of a segment is not
    announce    the exact range and the hash of its body are in the ledger before the
                range is posted
    bury        a dead letter is appended and synced before its event is settled
    settle      in the transaction that announces the next range
    delete      once nothing of it is left, under the segment's own lock

Killed after a post and before the commit that settles it, the range is sent again:
twice on the wire, once after deduplication. It posts nothing itself.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import (
    OTHER,
    Announced,
    DeadFile,
    SegmentEntry,
    announce,
    replace,
    settle,
    settle_tail,
)
from telemetry.delivery import search
from telemetry.delivery.census import known_entry
from telemetry.delivery.dead_letters import NO_EVENT, DeadLetter, DeadLetterWriter
from telemetry.delivery.evidence import Place, whole
from telemetry.delivery.gathering import SEGMENTS_MAX
from telemetry.delivery.unfinished import tell_unfinished
from telemetry.errors import SpoolError
from telemetry.files import FULL, sync_directory
from telemetry.paths import Home
from telemetry.spool.frame import EVENT_AT, Damage, Record
from telemetry.spool.reader import SegmentReader
from telemetry.spool.writer import size_of
from telemetry.wire.batch import Rejection, Request, event_id_of
from telemetry.wire.formats import RECORDS, Format
from telemetry.wire.verdict import Verdict


# An excerpt of a reply that a person can read; more would be the server's log.
_REPLY_CHARACTERS = 500


class Part(NamedTuple):
    """A range of a segment that stands in its entry, and its records."""

    segment: str
    known: Announced
    records: list[Record]

    def dead(self, places: Collection[tuple[str, int]]) -> list[Record]:
        """Those of its records that stand at one of these places."""
        if not places:
            return []
        return [each for each in self.records if (self.segment, each.start) in places]


class Batch(NamedTuple):
    """What is posted as one request: a range, or ranges of several segments."""

    parts: list[Part]
    request: Request

    @property
    def places(self) -> list[Place]:
        """Its ranges, and the segments that they are of."""
        return [(part.segment, part.known) for part in self.parts]

    @property
    def segment(self) -> str:
        """Of its first part."""
        return self.parts[0].segment

    @property
    def known(self) -> Announced:
        """Its first range, with the count of all."""
        return whole(self.places)[1]

    @property
    def events(self) -> int:
        """How many events are in it."""
        return self.known.count


class Desk(NamedTuple):
    """What every segment of one flush is settled with. Bounds are events or bytes."""

    home: Home
    books: Books
    letters: DeadLetterWriter
    batch_events_max: int
    batch_bytes_max: int
    quarantine_bytes_max: int
    power: bool
    form: Format = RECORDS
    # From this size on a segment may have been left because it was full.
    full_bytes: int = 0
    # Of how many a batch may hold parts.
    batch_segments_max: int = SEGMENTS_MAX

    def fold_changed(self) -> None:
        """No entry is left of a file that a power loss shortened, or that is another one.

        Called before anything is under way. What changes later in this flush waits for
        the next one: an answer would settle ranges that nothing knows any more.
        """
        for name, entry in self.books.snapshot.segments.items():
            with suppress(OSError, SpoolError):  # left alone as it is
                with closing(SegmentReader(self.home, name)) as reader:
                    is_known = known_entry(reader, entry) == entry
                if not is_known:
                    self.books.gone(name)

    def batch(self, parts: Sequence[Part]) -> Batch:
        """The batch of these parts: in the ledger, under the hash of its body, on return.

        All are in it with one commit. Killed behind it, the next flush finds which
        ranges were joined, and posts the same body under the same key.
        """
        request = self.form.request(
            [record.event for part in parts for record in part.records],
            ", ".join(map(_spool_range, parts)),
        )
        joined = parts[0].known.joined or request.digest[:16]
        announced = [
            part._replace(
                known=msgspec.structs.replace(
                    part.known,
                    digest=request.digest,
                    form=self.form.label,
                    joined=joined if len(parts) > 1 else "",
                )
            )
            for part in parts
        ]
        # The ledger may hold a range as a probe had cut it that was taken back since.
        if announced != parts or not self.books.is_saved:
            for part in announced:
                self.change(part.segment, part.known)
            self.books.commit()
        return Batch(announced, request)

    def cut(self, batch: Batch) -> None:
        """The parts of a batch are two batches from now on, of about the same size."""
        sizes = [sum(len(each.event) for each in part.records) for part in batch.parts]
        left = search.middle(sizes)
        for side, parts in enumerate((batch.parts[:left], batch.parts[left:])):
            joined = f"{batch.known.joined}{side}" if len(parts) > 1 else ""
            for part in parts:
                smaller = msgspec.structs.replace(
                    part.known,
                    digest="",
                    joined=joined,
                    tries=0,
                    reason=part.known.reason or "part",
                )
                self.change(part.segment, smaller)

    def change(self, name: str, known: Announced) -> None:
        """The range that begins where this one does is this one."""
        self.books.stage(name, replace(self.books.entry(name), known, known))

    def stands(self, part: Part) -> bool:
        """Whether the range is still in its entry as it was."""
        return part.known in self.books.entry(part.segment).announced

    def accept(self, batch: Batch, verdict: Verdict) -> int:
        """The batch is settled: delivered, but for the events that the reply named.

        How many events were delivered. Raises OSError where a dead letter cannot be
        written: then only the parts are settled of which no event was refused. Where that
        is for want of room, their segments make some.
        """
        reasons = {each.event_id: each for each in verdict.rejected}
        named = msgspec.structs.replace(verdict, reason="rejected")
        letters: list[DeadLetter] = []
        others: list[tuple[str, Record]] = []
        places = _places(batch) if reasons else []
        for segment, record in places:
            event_id = event_id_of(record.event)
            if event_id and event_id in reasons:
                reply = reasons[event_id].reason
                letters.append(_letter(segment, record, named, reply=reply, attempts=1))
            else:
                others.append((segment, record))
        unnamed = reasons.get("", Rejection("", "", count=0))
        count = min(unnamed.count, len(others))
        for segment, record in others[:count]:
            # They are counted. Which they are is known only if they are all.
            reply = f"{count} of {len(places)} without a name: {unnamed.reason}"
            letter = _letter(segment, record, named, reply=reply, attempts=1)
            if count < len(others):
                letter = msgspec.structs.replace(letter, event=NO_EVENT)
            letters.append(letter)
        try:
            self._settle(batch.parts, letters)
        except OSError:
            if not count:  # else any of them may be one that was refused
                dead_at = {(each.segment, each.offset) for each in letters}
                sound = [part for part in batch.parts if not part.dead(dead_at)]
                self._settle(sound, [])
            raise
        return batch.events - len(letters)

    def bury(self, part: Part, verdict: Verdict) -> None:
        """The one event of the range is a dead letter on return. Raises OSError."""
        (record,) = part.records
        letter = _letter(
            part.segment,
            record,
            verdict,
            reply=verdict.detail,
            attempts=part.known.windows + part.known.refusals,
        )
        self._settle([part], [letter])

    def _written(self, letters: list[DeadLetter]) -> dict[str, DeadFile]:
        try:
            return self.letters.append(letters)
        except OSError as error:
            if error.errno not in FULL or not self.books.make_room():
                raise
            # What was appended by then counts for nothing.
            return self.letters.append(letters)

    def _settle(self, parts: Sequence[Part], letters: list[DeadLetter]) -> None:
        rows = self._written(letters) if letters else {}
        dead_at = {(each.segment, each.offset) for each in letters}
        dead: Counter[str] = Counter()
        delivered: Counter[str] = Counter()
        entries: dict[str, SegmentEntry] = {}
        for part in parts:
            buried = part.dead(dead_at)
            entry = entries.get(part.segment) or self.books.entry(part.segment)
            entries[part.segment] = settle(entry, part.known, dead=len(buried))
            dead += _names(buried)
            delivered += _names(part.records)
        date = time.strftime("%Y-%m-%d", time.gmtime())
        self.books.count_day(date, delivered=delivered - dead, dead=dead)
        if letters:
            self.books.commit(segments=entries, dead_files=rows)
        else:
            self.books.stage_all(entries)


def _places(batch: Batch) -> list[tuple[str, Record]]:
    return [(part.segment, record) for part in batch.parts for record in part.records]


def _spool_range(part: Part) -> str:
    first, last = part.records[0].seq, part.records[-1].seq
    return f"{part.segment}; first={first}; last={last}"


def _letter(
    segment: str, record: Record, verdict: Verdict, *, reply: str, attempts: int
) -> DeadLetter:
    return DeadLetter(
        event=msgspec.Raw(record.event),
        reason=verdict.reason,
        status=int(verdict.reason) if verdict.reason.isdecimal() else 0,
        reply=reply[:_REPLY_CHARACTERS],
        time_ms=int(time.time() * 1000),
        attempts=attempts,
        segment=segment,
        offset=record.start,
    )


# As the writer begins an event, of any name that a plot has room for.
_NAME = re.compile(rb'\{"event":"([^"\\]{1,60})"')


def _names(records: list[Record]) -> Counter[str]:
    """How many events of each name there are."""
    matches = [_NAME.match(each.text, EVENT_AT) for each in records]
    counts: Counter[str] = Counter()
    for name, count in Counter([each and each[1] for each in matches]).items():
        counts[name.decode("utf-8", "replace") if name else OTHER] += count
    return counts


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
        try:
            is_known = known_entry(self._reader, self.entry) == self.entry
        except OSError:
            self._reader.close()
            raise
        if not is_known:
            self._reader.close()
            raise SpoolError(self._reader.path, 0, "does not match its entry")

    @property
    def entry(self) -> SegmentEntry:
        """What is known of the segment now."""
        return self._books.entry(self.name)

    def next(self, failed: Collection[int]) -> Part | None:
        """The next range to post; None if there is none. It is staged, not committed.

        Ranges that were set aside, and those that start at one of `failed`, are
        passed over. Once many are set aside, the segment waits and others go on.
        """
        is_full = search.is_full(self.entry.announced)
        for known in self.entry.announced:
            if known.reason or known.start in failed or (is_full and not known.digest):
                continue
            part = self.read(known)
            if part is not None:
                return part
        entry = self.entry
        if is_full:
            return None
        self._stand_at(entry.offset)
        desk = self._desk
        items = self._take(desk.batch_events_max, desk.batch_bytes_max)
        if not items:
            return None
        self._quarantine(items)
        records = [item for item in items if type(item) is Record]
        entry = announce(entry, items)
        self._books.stage(self.name, entry)
        self._at = entry.offset
        return Part(self.name, entry.announced[-1], records)

    def read(self, known: Announced) -> Part | None:
        """A range that is announced already; None if damage took all of it.

        One that was never posted as a whole and is larger than a batch is cut.
        """
        desk = self._desk
        if known.digest and known.form != desk.form.label:
            # It was posted in another format, so to another server: that one's answers
            # count no more, and under this format it is another batch.
            void = msgspec.structs.replace(
                known,
                digest="",
                windows=0,
                reason="",
                tries=0,
                unanswered=0,
                begun=0,
                refusals=0,
            )
            known = self._replace(known, void)[0]
        self._at = -1
        self._reader.start_at(known.start)
        if known.digest:
            items = self._take(known.count, until=known.end)
        else:
            items = self._take(
                desk.batch_events_max, desk.batch_bytes_max, until=known.end
            )
        records = [item for item in items if type(item) is Record]
        end = items[-1].end if items else known.start
        if not known.digest and records and end < known.end:
            # Still joined, it would be under way once more beside what is posted now.
            rest = msgspec.structs.replace(
                known, start=end, count=max(known.count - len(records), 0), joined=""
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
        return Part(self.name, known, records) if records else None

    def single_out(
        self,
        turn: int,
        besides: Collection[int],
        probed: Collection[int],
        *,
        doubt_max: int,
    ) -> Part | None:
        """One event for a probe, staged; None if there is none to be had.

        Not from a range that starts at one of `besides`, and no event that starts at one
        of `probed`, and none that is more in doubt (`search.doubt`).
        """
        self._announce_rest()
        others = [each for each in self.entry.announced if each.start not in besides]
        ranges = [each for each in others if search.doubt(each) <= doubt_max]
        ranges = [each for each in ranges if each.count > 1 or each.start not in probed]
        events = sum(each.count for each in ranges)
        if not events:
            return None
        number = search.probe_event(turn, events)
        for known in ranges:
            if number < known.count:
                break
            number -= known.count
        if known.count == 1:
            return self.read(known)
        self._at = -1
        self._reader.start_at(known.start)
        items = self._take(known.count, until=known.end)
        records = [item for item in items if type(item) is Record]
        if len(records) < known.count:
            self.read(known)  # damage came after the announcement, and is settled
            return self.single_out(turn, besides, probed, doubt_max=doubt_max)
        turned = (*range(number, known.count), *range(number))
        number = next((n for n in turned if records[n].start not in probed), -1)
        if number < 0:
            return None
        record = records[number]
        blank = msgspec.structs.replace(known, digest="", joined="", windows=0, tries=0)
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

    def split(self, part: Part, left: int) -> list[Part]:
        """A range that was never posted as two, of which the first has `left` events.

        One that has none is left out.
        """
        known, records = part.known, part.records
        if not left:
            return [part]
        cut = records[left - 1].end
        first, rest = self._replace(
            known,
            msgspec.structs.replace(known, end=cut, count=left),
            msgspec.structs.replace(known, start=cut, count=len(records) - left),
        )
        return [
            Part(self.name, first, records[:left]),
            Part(self.name, rest, records[left:]),
        ]

    def narrow(self, part: Part) -> list[Announced]:
        """A range of several events is two; those, or none if there is no room."""
        known, records = part.known, part.records
        if len(records) < 2 or not search.can_cut(self.entry.announced):
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
        if self._take(1):
            return False
        size = self._reader.size()
        if size > entry.offset + entry.tail:
            self._quarantine([Damage(entry.offset, size)], is_end=True)
            self._books.stage(self.name, settle_tail(entry, size))
        if not self._books.is_saved:
            # The settled offset is in the ledger before its segment is gone. On a full
            # disk it cannot be, and the space is what the disk needs.
            self._books.commit()
        if size < self._desk.full_bytes:
            tell_unfinished(self._desk.home, self._reader)
        if self._reader.delete(size):
            if self._desk.power:
                # Sync first: a segment that reappears after folding would be sent again.
                sync_directory(self._desk.home.spool)
            self._books.gone(self.name)
        return True

    def _take(self, *bounds: int, until: int | None = None) -> list[Record | Damage]:
        """What `SegmentReader.take` gives. Raises SpoolError where it cannot be told.

        A handler of signals that loads this package inside of its first import leaves
        classes of it in two copies: then no record is one, and all would count as damaged.
        Another process reads it right.
        """
        items = self._reader.take(*bounds, until=until)
        if items and type(items[-1]) is not Record:
            problem = "its records cannot be told from damage here"
            raise SpoolError(self._reader.path, items[0].start, problem)
        return items

    def close(self) -> None:
        """Close the file, its lock with it."""
        self._reader.close()

    def _announce_rest(self) -> None:
        """Everything up to the last whole record is announced, as one range."""
        entry = self.entry
        before = entry.announced
        self._stand_at(entry.offset)
        while items := self._take():
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

    def _quarantine(
        self, items: list[Record | Damage], *, is_end: bool = False
    ) -> None:
        """Damaged stretches are in `quarantine/` on return, if it is below its bound.

        On a full disk there is no room for a copy of the end of a segment, and would never
        be: the space that is needed is that of the segment, which could not be deleted. It
        is what the disk took of an event that it refused. Nor is there a place for a copy
        where `quarantine` is no directory of ours; `status` names it.
        """
        damage = [item for item in items if type(item) is Damage]
        kept = size_of(self._desk.home.quarantine) if damage else 0
        for item in damage:
            kept += item.end - item.start
            if kept <= self._desk.quarantine_bytes_max:
                try:
                    self._reader.quarantine(item.start, item.end)
                except OSError as error:
                    # 0: what `make_directory` says of one that is not ours.
                    if error.errno and not (is_end and error.errno in FULL):
                        raise
