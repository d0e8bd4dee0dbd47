"""Putting on disk what became of records: quarantine, letters, books.

The order is the promise: a damaged stretch is in quarantine and a dead letter
is written, both synced, before the entry that passes them is staged; what is
announced is committed before anybody posts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from telemetry.delivery import dead_letters
from telemetry.delivery.accounts import Accounts
from telemetry.delivery.batch import Request
from telemetry.delivery.books import SegmentEntry
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.delivery.settling import (
    announce,
    letter,
    rejected_numbers,
    settle,
    settle_tail,
)
from telemetry.delivery.verdict import Verdict
from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader


class Settlement:
    """Settles the records of one flush, and counts what was delivered and damaged.

    `clock` is seconds since 1970. Its methods raise OSError where the disk keeps
    something from being stored; nothing is staged then.
    """

    def __init__(
        self, home: Home, accounts: Accounts, *, clock: Callable[[], float]
    ) -> None:
        self.delivered = 0
        self.damaged = 0
        self._home = home
        self._accounts = accounts
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
        self._accounts.commit(segments={name: entry})
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
        self._accounts.stage(name, after)
