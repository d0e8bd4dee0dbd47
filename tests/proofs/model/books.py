"""What the ledger holds, and when an entry still speaks of its file."""

from __future__ import annotations

from typing import NamedTuple

from tests.proofs.model.segment import Units, records


NO_ANCHOR = -1


class Batch(NamedTuple):
    """A batch in flight: its range, the key it is sent under, its bytes' hash."""

    start: int
    end: int
    key: int
    digest: Units


class Entry(NamedTuple):
    """What the ledger knows of one segment. No anchor: no record was settled.

    `tail`: units behind `offset` that were passed as damage.
    """

    offset: int = 0
    tail: int = 0
    anchor: int = NO_ANCHOR
    delivered: int = 0
    damaged: int = 0
    batch: Batch | None = None


class Ledger(NamedTuple):
    """One committed state; `delivered` and `damaged` come from folded entries."""

    delivered: int = 0
    damaged: int = 0
    entries: tuple[tuple[int, Entry], ...] = ()

    def entry(self, name: int) -> Entry:
        """What is known of a segment; an empty entry where nothing is."""
        return dict(self.entries).get(name, Entry())

    def put(self, name: int, entry: Entry) -> Ledger:
        """The ledger with this entry."""
        return self._replace(
            entries=tuple(sorted({**dict(self.entries), name: entry}.items()))
        )

    def drop(self, name: int) -> Ledger:
        """The ledger without the entry, its counts gone."""
        return self._replace(entries=tuple(e for e in self.entries if e[0] != name))

    def fold(self, name: int) -> Ledger:
        """The ledger without the entry, its counts in the totals."""
        entry = self.entry(name)
        return self.drop(name)._replace(
            delivered=self.delivered + entry.delivered,
            damaged=self.damaged + entry.damaged,
        )

    def counted(self) -> tuple[int, int]:
        """Delivered and damaged, totals and entries together."""
        return (
            self.delivered + sum(e.delivered for _, e in self.entries),
            self.damaged + sum(e.damaged for _, e in self.entries),
        )


def agrees(entry: Entry, units: Units, *, anchored: bool) -> bool:
    """Whether the file can be the one of which the entry speaks."""
    if entry.offset + entry.tail > len(units):
        return False
    below = [event for _, end, event in records(units) if end <= entry.offset]
    last = below[-1] if below else NO_ANCHOR
    return last == entry.anchor or not anchored


def settled(entry: Entry, units: Units, upto: int) -> Entry:
    """The entry after the records up to `upto` were accepted."""
    found = records(units[:upto], entry.offset)
    if not found:
        return entry._replace(batch=None)
    return entry._replace(
        offset=found[-1][1],
        tail=0,
        anchor=found[-1][2],
        delivered=entry.delivered + len(found),
        batch=None,
    )
