"""Putting on disk what became of records: quarantine, letters, books.

The order is the promise: a damaged stretch is in quarantine and a dead letter
is written, both synced, before the entry that passes them is staged; what is
announced is committed before anybody posts it.

What a segment's entry says once some of its records are settled. Pure.

`recorded` is read off the records and their numbers, while `delivered` and
`dead` are what became of them: that both sides agree is what conservation means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import (
    SegmentEntry,
    announce,
    settle,
    settle_tail,
)
from telemetry.delivery import dead_letters
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader
from telemetry.wire.formats import Request, event_id_of
from telemetry.wire.verdict import Verdict


# An excerpt of a reply that a person can read; more would be the server's log.
_REPLY_CHARACTERS = 500


def rejected_numbers(records: Sequence[Record], verdict: Verdict) -> dict[int, str]:
    """The numbers of the records that a reply named as rejected, and its reasons."""
    if not verdict.rejected:
        return {}
    reasons = {each.event_id: each.reason for each in verdict.rejected}
    found = {}
    for number, record in enumerate(records):
        event_id = event_id_of(record.event)
        if event_id in reasons:
            found[number] = reasons[event_id]
    return found


def letter(
    record: Record, verdict: Verdict, *, reply: str, now: float, attempts: int
) -> DeadLetter:
    """The dead letter of one record. `now` is in seconds since 1970."""
    return DeadLetter(
        event=msgspec.Raw(record.event),
        reason=verdict.reason,
        status=int(verdict.reason) if verdict.reason.isdecimal() else 0,
        reply=reply[:_REPLY_CHARACTERS],
        time_ms=int(now * 1000),
        attempts=attempts,
    )


class Settlement:
    """Settles the records of one flush, and counts what was delivered and damaged.

    `clock` is seconds since 1970. Its methods raise OSError where the disk keeps
    something from being stored; nothing is staged then.
    """

    def __init__(self, home: Home, books: Books, *, clock: Callable[[], float]) -> None:
        self.delivered = 0
        self.damaged = 0
        self._home = home
        self._books = books
        self._clock = clock

    def announce(
        self,
        name: str,
        entry: SegmentEntry,
        records: Sequence[Record],
        request: Request,
    ) -> SegmentEntry:
        """What is settled and what is posted next are in the ledger on return."""
        entry = announce(entry, records, key=request.key, digest=request.digest)
        self._books.commit(segments={name: entry})
        return entry

    def settle(
        self,
        reader: SegmentReader,
        entry: SegmentEntry,
        items: Sequence[Record | Damage],
        letters: Mapping[int, DeadLetter],
    ) -> SegmentEntry:
        """`items` are settled: delivered, but for those with a letter at their offset.

        The transaction that announces what follows commits it.
        """
        for item in items:
            if isinstance(item, Damage):
                reader.quarantine(item.start, item.end)
        for offset, each in letters.items():
            name = dead_letters.name_of(reader.name, offset)
            dead_letters.write(self._home.dead, name, each)
        settled = settle(entry, items, dead=len(letters))
        announced = entry.inflight
        if announced is not None and settled.offset < announced.end:
            # The rest of the batch has drawn the same server errors.
            settled = msgspec.structs.replace(settled, inflight=announced)
        self.delivered += settled.delivered - entry.delivered
        self._stage(reader.name, entry, settled)
        return settled

    def settle_tail(
        self, reader: SegmentReader, entry: SegmentEntry, size: int
    ) -> SegmentEntry:
        """What follows the last whole record up to `size` is quarantined and settled."""
        reader.quarantine(entry.offset, size)
        settled = settle_tail(entry, size)
        self._stage(reader.name, entry, settled)
        return settled

    def letter(self, record: Record, verdict: Verdict, *, attempts: int) -> DeadLetter:
        """The letter of a record that was refused alone."""
        return letter(
            record,
            verdict,
            reply=verdict.detail,
            now=self._clock(),
            attempts=attempts,
        )

    def rejected(
        self, records: Sequence[Record], verdict: Verdict, *, attempts: int
    ) -> dict[int, DeadLetter]:
        """Letters for the records that an accepting reply named, by their offset."""
        named = msgspec.structs.replace(verdict, reason="rejected")
        return {
            records[number].start: letter(
                records[number],
                named,
                reply=reason,
                now=self._clock(),
                attempts=attempts,
            )
            for number, reason in rejected_numbers(records, verdict).items()
        }

    def _stage(self, name: str, before: SegmentEntry, after: SegmentEntry) -> None:
        self.damaged += after.damaged - before.damaged
        self._books.stage(name, after)
