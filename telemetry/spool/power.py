"""Making records survive a power loss, with one sync for many threads.

A record counts as safe once a sync that began after its write has ended well.
Records that were written while a sync runs wait for the next one together: they
are one round, and the first of its threads that gets through syncs for all of it.
A round never waits for the next one. After a sync that failed the
kernel may have dropped what it could not write, so no later sync says anything
about it: the segment is given up and every waiting event is answered False.

The locks are those of the interpreter, whose `with` no signal can come between:
an interrupt at any step leaves no thread waiting, and counts as a failed sync.
"""

from __future__ import annotations

import time
from _thread import RLock

from telemetry.errors import DiskError
from telemetry.locks import sync
from telemetry.spool.segment import Segment


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
        with self._lock:
            self._waiting += 1
        return self._round

    def wait(self, covering: Round) -> None:
        """The records of this round survive a power loss on return.

        Raises DiskError where a sync failed that it needed.
        """
        try:
            with covering.lock:
                if not covering.is_safe:
                    with self._turn:
                        self._sync(covering)
        finally:
            with self._lock:
                self._waiting -= 1
                self._close_if_idle()

    def close(self) -> None:
        """Close the segment now, or when the last waiting record is answered."""
        with self._lock:
            self._closing = True
            self._close_if_idle()

    def _sync(self, covering: Round) -> None:
        if self._failed:
            raise DiskError(self.segment.path, "could not be synced")
        if self._waiting > 1:
            # Those that the last sync has just answered may write again before this
            # one begins: a turn of theirs costs less than a sync of their own.
            time.sleep(0)
        # Every thread of this round has written by now; what is written from here on
        # belongs to the next one.
        self._round = Round()
        # Until it has ended well: an interrupt is no success either.
        self._failed = True
        try:
            sync(self.segment.descriptor)
        except OSError as error:
            problem = f"could not be synced: {error.strerror or error}"
            raise DiskError(self.segment.path, problem) from error
        covering.is_safe = True
        self._failed = False

    def _close_if_idle(self) -> None:
        if self._closing and self._waiting == 0:
            self.segment.close()
