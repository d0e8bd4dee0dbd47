"""The books as the flusher uses them: in memory, and written through to the ledger.

Every commit goes to the ledger on disk, one transaction each. Where that fails,
space is made and it is tried once more; where it still fails because the disk
is full, the flusher works on from memory and the ledger catches up with the
next commit that succeeds. A kill in that window costs duplicates, no event.

A ledger that cannot be opened for any other reason is waited for: LedgerError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from telemetry.books.entries import (
    NOTHING,
    DeadMark,
    DeliveryState,
    LedgerLike,
    MemoryLedger,
    SegmentEntry,
    Snapshot,
    Totals,
    carry_over,
    fold,
)
from telemetry.errors import LedgerError


class Accounts:
    """What is known of every segment, and the totals.

    `open_ledger` opens the ledger on disk and `read_ledger` only reads it; both
    raise LedgerError. `relieve` makes space on a full disk. `is_full` says
    whether the disk takes nothing more.
    """

    def __init__(
        self,
        *,
        open_ledger: Callable[[], LedgerLike],
        read_ledger: Callable[[], Snapshot],
        relieve: Callable[[], None],
        is_full: Callable[[], bool],
    ) -> None:
        self._open_ledger = open_ledger
        self._relieve = relieve
        self._is_full = is_full
        self._ledger: LedgerLike | None = None
        # Segments that are gone, and entries that changed: they are written with
        # the next commit.
        self._gone: dict[str, SegmentEntry] = {}
        self._staged: dict[str, SegmentEntry] = {}
        try:
            self._ledger = self._open_with_relief()
            snapshot = self._ledger.read()
        except LedgerError:
            self._drop()
            if not is_full():
                raise
            snapshot = read_ledger()
        self._memory = MemoryLedger(snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """What is known now, saved or not."""
        return self._memory.read()

    @property
    def is_saved(self) -> bool:
        """Whether the ledger on disk says the same."""
        return self._ledger is not None and not self._gone and not self._staged

    def entry(self, name: str) -> SegmentEntry:
        """What is settled of a segment; nothing where it is not known."""
        if name in self._gone and name not in self._staged:
            return SegmentEntry(offset=0)
        return self.snapshot.segments.get(name) or SegmentEntry(offset=0)

    def gone(self, name: str) -> None:
        """The segment is deleted, or another file has its name: fold its entry.

        It is written with the next commit: killed before, the entry is found to
        be without a file and folded then.
        """
        entry = self.snapshot.segments.get(name)
        if entry is not None and name not in self._gone:
            self._gone[name] = entry
        # What is folded must not be written as an entry as well.
        self._staged.pop(name, None)

    def stage(self, name: str, entry: SegmentEntry) -> None:
        """The entry holds from now on, and is written with the next commit.

        So one transaction settles a batch and announces the next. Killed before
        it, the batch is sent again.
        """
        self._staged[name] = entry
        self._memory.commit(segments={name: entry})

    def commit(
        self,
        *,
        segments: Mapping[str, SegmentEntry] = NOTHING,
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_marks: Mapping[str, DeadMark | None] = NOTHING,
    ) -> bool:
        """Whether the change is on disk; it holds in memory in any case.

        Raises LedgerError where it is not, and that for another reason than a
        full disk: whoever went on would have everything sent twice.
        """
        # A name that is gone and known again is that of another file.
        changed: dict[str, SegmentEntry | None] = dict.fromkeys(self._gone)
        changed.update(self._staged)
        changed.update(segments)
        self._staged = {}
        if self._gone:
            totals = totals or self.snapshot.totals
            for entry in self._gone.values():
                totals = fold(totals, entry)
            self._gone = {}
        change = {
            "segments": changed,
            "totals": totals,
            "state": state,
            "dead_marks": dead_marks,
        }
        self._memory.commit(**change)  # type: ignore[arg-type]
        if self._ledger is not None:
            try:
                self._ledger.commit(**change)  # type: ignore[arg-type]
            except LedgerError:
                self._drop()
            else:
                return True
        return self._catch_up()

    def close(self) -> None:
        """Write what is not written yet, if that can be had, and let go."""
        try:
            if self._gone or self._staged or self._ledger is None:
                self.commit()
        except LedgerError:
            pass  # as if it had been killed here: the next flush finds out
        self._drop()

    def _catch_up(self) -> bool:
        try:
            self._ledger = self._open_with_relief()
            carry_over(self.snapshot, into=self._ledger)
        except LedgerError:
            self._drop()
            if not self._is_full():
                raise
            return False
        return True

    def _open_with_relief(self) -> LedgerLike:
        try:
            return self._open_ledger()
        except LedgerError:
            self._relieve()
            return self._open_ledger()

    def _drop(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()
