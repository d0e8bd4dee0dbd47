"""Making records survive a power loss, with one sync for many threads.

A record is safe once a sync that began after its write has ended well. Records that
are written while a sync runs are one round: the first of its threads that gets the
turn syncs for all of it. After a failed sync the kernel may have dropped what it could
not write, and no later sync tells: the segment is given up, and every waiting event is
answered False.

An interrupt at any step leaves no thread waiting (`segment.holding`), and counts as a
failed sync.
"""

from __future__ import annotations

import time
from _thread import RLock

from telemetry.errors import DiskError
from telemetry.files import sync
from telemetry.spool.segment import Segment, holding


class Round:
    """The records that one sync covers: those written since the last one began."""

    __slots__ = ("is_safe", "lock")

    def __init__(self) -> None:
        self.lock = RLock()
        self.is_safe = False


class SharedSync:
    """The syncs of one segment. `close` closes it once no thread waits any more."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        # One sync at a time.
        self._turn = RLock()
        # What is written from now on belongs to it.
        self._round = Round()
        self._failed = False
        # Guards the two below.
        self._lock = RLock()
        self._waiting = 0
        self._closing = False

    def written(self) -> Round:
        """The round of a record that was just written; `wait` has to follow.

        The caller sees to it that records are written one after the other.
        """
        holding(self._lock, self._count, 1)
        return self._round

    def wait(self, covering: Round) -> None:
        """The records of this round survive a power loss on return, or DiskError."""
        try:
            holding(covering.lock, self._make_safe, covering)
        finally:
            holding(self._lock, self._count, -1)

    def close(self) -> None:
        """Close the segment now, or when the last waiting record is answered."""
        holding(self._lock, self._close_once_idle)

    def _close_once_idle(self) -> None:
        self._closing = True
        self._count(0)

    def _count(self, more: int) -> None:
        self._waiting += more
        if self._closing and self._waiting == 0:
            self.segment.close()

    def _make_safe(self, covering: Round) -> None:
        if not covering.is_safe:
            holding(self._turn, self._sync, covering)

    def _sync(self, covering: Round) -> None:
        if self._failed:
            raise DiskError(self.segment.path, "could not be synced")
        if self._waiting > 1:
            # Threads that the last sync has just answered may write again before this
            # one begins, and need no sync of their own then.
            time.sleep(0)
        # What is written from here on belongs to the next round.
        self._round = Round()
        # Until it has ended well, and for good if it is interrupted.
        self._failed = True
        try:
            sync(self.segment.descriptor)
        except OSError as error:
            problem = f"could not be synced: {error.strerror or error}"
            raise DiskError(self.segment.path, problem) from error
        covering.is_safe = True
        self._failed = False
