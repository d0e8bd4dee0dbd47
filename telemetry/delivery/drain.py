"""The one loop that drains a spool: read, announce, post, settle, delete.

Whoever runs it holds the flush lock. The order in which it does things is the
promise, so that a kill between any two of them loses nothing:

    announce n      the exact range, key and hash of a batch are in the ledger
    post n          a retry after a kill sends the same bytes under the same key
    settle n        in the same transaction that announces n+1
    delete          once all is settled, under the segment's own lock
    fold            the entry of a segment that is gone goes into the totals

Killed after the post and before the commit, the batch is sent again: twice on
the wire, once after deduplication. Only proof of acceptance settles a batch;
`verdict.py` says what proof is, `search.py` how a bad event is found, and
`conclusion.py` when the next flush may begin.

It opens no ledger, takes no lock and starts nothing.
"""

from __future__ import annotations

import os

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import SegmentEntry
from telemetry.delivery.search import Search
from telemetry.delivery.settlement import Settlement
from telemetry.errors import SpoolError
from telemetry.files import sync_directory
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.wire.formats import Batch, batch_of
from telemetry.wire.retry import Halted, Poster
from telemetry.wire.verdict import Action, Stopped, Verdict


# After so many flushes that a batch drew server errors in, it is split: one event
# that breaks the server must not hold the others for ever.
WINDOWS_5XX_MAX = 5
# An event that is the only one pending is given up after so many flushes.
REFUSALS_MAX = 5
# So many segments are searched before anything was accepted: each may begin with an
# event of the same bad kind, and behind them stand good ones.
SUSPECTS_MAX = 8
# A batch that was announced is taken again whole, whatever the bounds are now.
_NO_BOUND = 1 << 62


class _SetAsideError(Exception):
    """This segment waits, the others go on."""


class Flusher:
    """One flush of one spool, with its books, its poster and its settlement.

    Batches hold at most `batch_events_max` events and `batch_bytes_max` bytes of
    them, but always one event.
    """

    def __init__(
        self,
        *,
        home: Home,
        books: Books,
        poster: Poster,
        settlement: Settlement,
        batch_events_max: int,
        batch_bytes_max: int,
        power: bool = False,
    ) -> None:
        self.poster = poster
        self._power = power
        self.settlement = settlement
        self._home = home
        self._books = books
        self._batch_events_max = batch_events_max
        self._batch_bytes_max = batch_bytes_max
        # Whether the disk kept something from being settled.
        self.blocked = False
        # Segments whose event was refused alone while nothing was accepted yet.
        self.suspects: dict[str, Verdict] = {}
        self._set_aside: set[str] = set()
        self._widened: set[str] = set()

    def drain(self) -> None:
        """Everything is delivered on return, but for what had to be set aside.

        Raises Halted where network, server, consent or time end it before.
        """
        moved = True
        while moved:
            before = self.settlement.delivered
            for name in segment_names(self._home):
                if name not in self._set_aside:
                    self._drain_segment(name)
            if self.settlement.delivered and self.suspects:
                # By now something was accepted: it is the events, not the server.
                self._set_aside -= self.suspects.keys()
                self.suspects = {}
                continue
            moved = self.settlement.delivered > before

    def give_up_alone(self, pending: int) -> Stopped:
        """What to do with events that were refused alone while nothing was accepted.

        One that is the only one `pending` has no other to be compared with: it is
        given up after five flushes. Where there are more, it is the server that
        refuses, and nothing is given up.
        """
        names = list(self.suspects)
        if any(verdict.server_error for verdict in self.suspects.values()):
            return "waiting"  # a server error is no refusal
        if pending != 1 or len(names) != 1:
            return "paused"
        name = names[0]
        entry = self._books.entry(name)
        known = entry.inflight
        if known is None:
            return "waiting"
        refusals = known.refusals + 1
        if refusals < REFUSALS_MAX:
            known = msgspec.structs.replace(known, refusals=refusals)
            entry = msgspec.structs.replace(entry, inflight=known)
            self._books.commit(segments={name: entry})
            return "waiting"
        reader = SegmentReader(self._home, name)
        try:
            entry = self._known(reader)
            items = reader.take(1, _NO_BOUND)
            verdict = self.suspects[name]
            letters = {
                record.start: self.settlement.letter(record, verdict, attempts=refusals)
                for record in items
                if isinstance(record, Record)
            }
            self._finish(reader, self.settlement.settle(reader, entry, items, letters))
        finally:
            reader.close()
        return "drained"

    def _drain_segment(self, name: str) -> None:
        try:
            reader = SegmentReader(self._home, name)
        except SpoolError:
            self.blocked = self.blocked or os.path.lexists(self._home.segment(name))
            self._set_aside.add(name)
            return
        try:
            entry = self._known(reader)
            while True:
                entry, batch = self._announced(reader, entry)
                if batch is None:
                    if self._finish(reader, entry):
                        return
                else:
                    self._deliver(reader, entry, batch)
                entry = self._books.entry(name)
        except _SetAsideError:
            self._set_aside.add(name)
        except (OSError, SpoolError):
            # What cannot be read or quarantined waits, and holds back no other.
            self.blocked = True
            self._set_aside.add(name)
        finally:
            reader.close()

    def _known(self, reader: SegmentReader) -> SegmentEntry:
        """What is settled of a segment, if the file still bears it out.

        A power loss may have shortened it, and another file may have its name:
        then what was settled is folded and the segment begins anew.
        """
        entry = self._books.entry(reader.name)
        behind = reader.size() < entry.offset + entry.tail
        if behind or not reader.holds(entry.offset, entry.seq, entry.crc):
            self._books.gone(reader.name)
            entry = SegmentEntry(offset=0)
        reader.start_at(entry.offset)
        return entry

    def _announced(
        self, reader: SegmentReader, entry: SegmentEntry
    ) -> tuple[SegmentEntry, Batch | None]:
        """The next batch of a segment, in the ledger before anybody posts it."""
        known = entry.inflight
        if known is not None and known.start == entry.offset:
            items = reader.take(known.count, _NO_BOUND, until=known.end)
            if items and items[-1].end == known.end:
                batch = batch_of(items)
                if batch.request.digest == known.digest:
                    return entry, batch
            # The file is not the one that was announced: that batch is void.
            reader.start_at(entry.offset)
        items = reader.take(self._batch_events_max, self._batch_bytes_max)
        if not items:
            return entry, None
        batch = batch_of(items)
        entry = self.settlement.announce(
            reader.name, entry, batch.records, batch.request
        )
        return entry, batch

    def _deliver(
        self, reader: SegmentReader, entry: SegmentEntry, batch: Batch
    ) -> None:
        """The batch is posted and settled on return. Raises Halted, or sets aside."""
        known = entry.inflight
        windows = known.windows_5xx if known else 0
        is_patient = windows < WINDOWS_5XX_MAX
        verdict = self.poster.post(batch.request, patient=is_patient)
        if verdict.action is Action.ACCEPTED:
            letters = self.settlement.rejected(batch.records, verdict, attempts=1)
            self.settlement.settle(reader, entry, batch.items, letters)
        elif verdict.action is Action.SPLIT or (
            verdict.server_error and not is_patient
        ):
            self._search(reader, entry, batch, verdict)
        else:
            if verdict.server_error and known is not None:
                known = msgspec.structs.replace(known, windows_5xx=windows + 1)
                entry = msgspec.structs.replace(entry, inflight=known)
                self._books.commit(segments={reader.name: entry})
            is_pause = verdict.action is Action.PAUSE
            raise Halted("paused" if is_pause else "waiting", verdict)

    def _search(
        self, reader: SegmentReader, entry: SegmentEntry, batch: Batch, verdict: Verdict
    ) -> None:
        """Find the bad events of a refused batch, or set its segment aside."""
        if len(self.suspects) >= SUSPECTS_MAX and not self.settlement.delivered:
            # One batch after the other is refused, none accepted: it is the server.
            raise Halted("waiting" if verdict.server_error else "paused", verdict)
        search = Search(
            reader,
            entry,
            batch,
            verdict,
            poster=self.poster,
            settlement=self.settlement,
            evidence=self.settlement.delivered > 0,
        )
        if not search.run() and not self._widen(reader, batch):
            self.suspects[reader.name] = verdict
            raise _SetAsideError

    def _widen(self, reader: SegmentReader, batch: Batch) -> bool:
        """Whether a refused part of a batch is void, so that the whole is announced.

        An earlier search ended at that part. Only beside its neighbours can it be
        told whether it is the events or the server. Once a flush.
        """
        entry = self._books.entry(reader.name)
        reader.start_at(entry.offset)
        whole = reader.take(self._batch_events_max, self._batch_bytes_max)
        if (
            entry.inflight is None
            or reader.name in self._widened
            or whole[-1].end <= batch.end
        ):
            return False
        self._widened.add(reader.name)
        void = msgspec.structs.replace(entry.inflight, digest="")
        entry = msgspec.structs.replace(entry, inflight=void)
        self._books.commit(segments={reader.name: entry})
        return True

    def _finish(self, reader: SegmentReader, entry: SegmentEntry) -> bool:
        """Whether this segment is done with; False where it has grown meanwhile.

        Without its lock it is being written: what follows the last whole record
        is left alone. Under its lock its end is read once more.
        """
        if not reader.lock():
            return True
        reader.start_at(entry.offset)
        if reader.take(1, _NO_BOUND, until=None):
            reader.start_at(entry.offset)
            return False
        size = reader.size()
        if size > entry.offset + entry.tail:
            self.settlement.settle_tail(reader, entry, size)
        if not self._books.is_saved:
            # The settled offset is in the ledger before its segment is gone. On a full
            # disk it cannot be, and the space is what the disk needs.
            self._books.commit()
        if reader.delete(size):
            if self._power:
                # Once it is folded, nobody would know it if it came back.
                sync_directory(self._home.spool)
            self._books.gone(reader.name)
        return True
