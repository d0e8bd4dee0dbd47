"""The books of one flush: a snapshot in memory, written through to the ledger.

Every commit goes to the ledger on disk, one transaction each. If that fails, space
is made and the ledger is opened again. If it still fails and the disk is full, the
flush goes on from memory, and the next commit that succeeds writes everything. A
kill in between costs duplicates, no event.

Any other fault of the ledger ends the flush with LedgerError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.books.entries import (
    NOTHING,
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
    fold,
)
from telemetry.books.view import read_snapshot, translated
from telemetry.errors import LedgerError


if TYPE_CHECKING:
    from telemetry.books.ledger import Ledger


class Books:
    """What is known of every segment, and the totals. Its user holds the flush lock."""

    def __init__(
        self,
        directory: str,
        *,
        relieve: Callable[[], None],
        is_full: Callable[[], bool],
        power: bool = True,
    ) -> None:
        """Open the ledger in `directory`, or on a full disk only read it.

        `relieve` makes space on a full disk; `is_full` says whether the disk is full.
        `power`: whether a commit survives a power loss, besides a kill. Raises
        LedgerError for any other fault than a full disk.
        """
        self._directory = directory
        self._relieve = relieve
        self._is_full = is_full
        self._power = power
        self._ledger: Ledger | None = None
        # Entries that the next commit folds, and entries that it writes.
        self._gone: dict[str, SegmentEntry] = {}
        self._staged: dict[str, SegmentEntry] = {}
        try:
            self._ledger = self._open()
            self._snapshot = self._ledger.snapshot
        except LedgerError:
            if not is_full():
                raise
            self._snapshot = read_snapshot(directory)

    @property
    def snapshot(self) -> Snapshot:
        """What is known now, saved or not."""
        return self._snapshot

    @property
    def is_saved(self) -> bool:
        """Whether the ledger on disk says the same."""
        return self._ledger is not None and not self._gone and not self._staged

    def entry(self, name: str) -> SegmentEntry:
        """What is settled of a segment; an empty entry if the segment is unknown."""
        if name in self._gone and name not in self._staged:
            return SegmentEntry(offset=0)
        return self._snapshot.segments.get(name) or SegmentEntry(offset=0)

    def gone(self, name: str) -> None:
        """The segment is deleted, or another file has its name: fold its entry.

        It is written with the next commit. After a kill before that, the next flush
        finds an entry without a file, and folds it then.
        """
        entry = self._snapshot.segments.get(name)
        if entry is not None:
            self._gone.setdefault(name, entry)
        # What is folded must not be written as an entry as well.
        self._staged.pop(name, None)

    def stage(self, name: str, entry: SegmentEntry) -> None:
        """The entry holds from now on, and is written with the next commit.

        So one transaction settles a batch and announces the next. After a kill before
        it, the batch is sent again.
        """
        self._staged[name] = entry
        self._change({name: entry})

    def commit(
        self,
        *,
        segments: Mapping[str, SegmentEntry] = NOTHING,
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_files: Mapping[str, DeadFile | None] = NOTHING,
    ) -> bool:
        """Whether the change is on disk; it holds in memory in any case.

        Raises LedgerError if the ledger fails for another reason than a full disk:
        to go on without it would send everything twice.
        """
        # A name that is gone and known again is that of another file.
        changed = {**dict.fromkeys(self._gone), **self._staged, **segments}
        for entry in self._gone.values():
            totals = fold(totals or self._snapshot.totals, entry)
        self._gone, self._staged = {}, {}
        self._change(changed, totals, state, dead_files)
        if self._ledger is not None:
            try:
                self._ledger.commit(
                    segments=changed, totals=totals, state=state, dead_files=dead_files
                )
            except LedgerError:
                self._drop()
            else:
                return True
        return self._catch_up()

    def close(self) -> None:
        """Write what is not written yet, if the disk allows it, and close the ledger."""
        try:
            if not self.is_saved:
                self.commit()
        except LedgerError:
            pass  # the same as a kill here
        self._drop()

    def _change(
        self,
        segments: Mapping[str, SegmentEntry | None],
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_files: Mapping[str, DeadFile | None] = NOTHING,
    ) -> None:
        """Replace the snapshot; those handed out before do not change."""
        old = self._snapshot
        self._snapshot = msgspec.structs.replace(
            old,
            segments=_merged(old.segments, segments),
            totals=totals or old.totals,
            state=state or old.state,
            dead_files=_merged(old.dead_files, dead_files),
        )

    def _catch_up(self) -> bool:
        """Open the ledger anew, and have it say what memory says, nothing else."""
        now = self._snapshot
        try:
            self._ledger = self._open()
            old = self._ledger.snapshot
            self._ledger.commit(
                segments={**dict.fromkeys(old.segments), **now.segments},
                totals=now.totals,
                state=now.state,
                dead_files={**dict.fromkeys(old.dead_files), **now.dead_files},
            )
        except LedgerError:
            self._drop()
            if not self._is_full():
                raise
            return False
        return True

    def _open(self) -> Ledger:
        with translated(self._directory):
            # A Python without sqlite3 cannot load it.
            from telemetry.books.ledger import open_ledger

            try:
                return open_ledger(self._directory, power=self._power)
            except LedgerError:
                self._relieve()
                return open_ledger(self._directory, power=self._power)

    def _drop(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = None


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with `changes`; None removes."""
    merged = {**old, **changes}
    return {name: value for name, value in merged.items() if value is not None}
