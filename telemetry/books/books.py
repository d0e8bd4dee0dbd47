"""The books of one flush: a snapshot in memory, written through to the ledger.

A commit writes what differs from the ledger on disk, in one transaction. If that fails,
space is made and the ledger is opened again. If it still fails and the disk is full,
the flush goes on from memory, and the next commit that succeeds writes everything. A
kill in between costs duplicates, no event.

Any other fault of the ledger ends the flush with LedgerError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.books.entries import (
    DAYS_MAX,
    NOTHING,
    Day,
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
    fold,
    tally,
)
from telemetry.books.view import read_snapshot, translated
from telemetry.errors import LedgerError


if TYPE_CHECKING:
    from telemetry.books.ledger import Ledger

# The last error is text from outside; more of it would only be copied with each commit.
_LAST_ERROR_MAX = 500


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
        self._has_made_room = False
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
        return self._ledger is not None and self._ledger.snapshot is self._snapshot

    def entry(self, name: str) -> SegmentEntry:
        """What is settled of a segment; an empty entry if the segment is unknown."""
        return self._snapshot.segments.get(name) or SegmentEntry(offset=0)

    def gone(self, name: str) -> None:
        """The segment is deleted, or another file has its name: its entry is folded.

        It is written with the next commit. After a kill before that, the next flush
        finds an entry without a file, and folds it then.
        """
        entry = self._snapshot.segments.get(name)
        if entry is not None:
            totals = fold(self._snapshot.totals, entry)
            self._change(segments={name: None}, totals=totals)

    def stage(self, name: str, entry: SegmentEntry) -> None:
        """The entry holds from now on, and is written with the next commit.

        So one transaction settles a batch and announces the next. After a kill before
        it, the batch is sent again.
        """
        self.stage_all({name: entry})

    def stage_all(self, entries: Mapping[str, SegmentEntry]) -> None:
        """The same of several segments: they are written together."""
        self._change(segments=entries)

    def count_day(
        self, date: str, *, delivered: Mapping[str, int], dead: Mapping[str, int]
    ) -> None:
        """So many events of each name were settled that day; written with them."""
        known = self._snapshot.days
        day = tally(known.get(date) or Day(), delivered, dead)
        too_old = sorted({*known, date})[:-DAYS_MAX]
        self._change(days={date: day, **dict.fromkeys(too_old)})

    def commit(
        self,
        *,
        segments: Mapping[str, SegmentEntry | None] = NOTHING,
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_files: Mapping[str, DeadFile | None] = NOTHING,
    ) -> bool:
        """Whether the change is on disk; it holds in memory in any case.

        None in a mapping removes, elsewhere it keeps. Raises LedgerError if the ledger
        fails for another reason than a full disk: to go on without it would send
        everything twice.
        """
        self._change(segments, totals, state and _storable(state), dead_files)
        if self._ledger is not None:
            with contextlib.suppress(LedgerError):
                self._ledger.commit(self._snapshot)
                return True
        # What it says is read anew: all of the commit that failed may be there.
        try:
            self._ledger = self._open()
            self._ledger.commit(self._snapshot)
        except LedgerError:
            if not self._is_full():
                raise
        return self.is_saved

    def make_room(self) -> bool:
        """True if the disk is full: what can be deleted is deleted then. That is once."""
        if self._has_made_room or not self._is_full():
            return False
        self._has_made_room = True
        self._relieve()
        return True

    def close(self) -> None:
        """Write what is not written yet, if the disk allows it, and close the ledger."""
        if not self.is_saved:
            with contextlib.suppress(LedgerError):  # the same as a kill here
                self.commit()
        if self._ledger is not None:
            self._ledger.close()

    def _change(
        self,
        segments: Mapping[str, SegmentEntry | None] = NOTHING,
        totals: Totals | None = None,
        state: DeliveryState | None = None,
        dead_files: Mapping[str, DeadFile | None] = NOTHING,
        days: Mapping[str, Day | None] = NOTHING,
    ) -> None:
        """Replace the snapshot; those handed out before do not change."""
        old = self._snapshot
        self._snapshot = msgspec.structs.replace(
            old,
            segments=_merged(old.segments, segments),
            totals=totals or old.totals,
            state=state or old.state,
            dead_files=_merged(old.dead_files, dead_files),
            days=_merged(old.days, days),
        )

    def _open(self) -> Ledger:
        with translated(self._directory):
            # A Python without sqlite3 cannot load it.
            from telemetry.books.ledger import open_ledger

            try:
                return open_ledger(self._directory, power=self._power)
            except LedgerError:
                self._relieve()
                return open_ledger(self._directory, power=self._power)


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with `changes`; None removes."""
    merged = {**old, **changes}
    for name in [name for name, value in changes.items() if value is None]:
        del merged[name]
    return merged


def _storable(state: DeliveryState) -> DeliveryState:
    """`state` with a last error that JSON can hold, cut to 500 characters.

    A path with bytes that are not UTF-8 arrives in it as lone surrogates, which JSON
    has no form for; no error message is worth a commit.
    """
    text = state.last_error[:_LAST_ERROR_MAX]
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return msgspec.structs.replace(state, last_error=text)
