"""Making records survive a power loss, with one sync for many threads.

A record counts as safe once a sync that began after its write has ended well.
The first thread that needs one runs it; the others queue behind it, and whoever
comes next runs the next one for all that have written by then. After a sync that
failed the kernel may have dropped what it could not write, so no later sync says
anything about it: the segment is given up and every waiting event is answered
False.

The locks are those of the interpreter, whose `with` no signal can come between:
an interrupt at any step leaves nobody waiting, and counts as a failed sync.
"""

from __future__ import annotations

from _thread import RLock

from telemetry.errors import DiskError
from telemetry.locks import sync
from telemetry.spool.segment import Segment


class SharedSync:
    """The syncs of one segment. `close` lets go of it once nobody waits any more."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        # Whoever has it syncs; the others queue for it.
        self._turn = RLock()
        # Records that were written, and how many of them a sync has covered.
        self._written = 0
        self._safe = 0
        self._failed = False
        # Guards the two below.
        self._lock = RLock()
        self._waiting = 0
        self._closing = False

    def written(self) -> int:
        """The ticket of a record that was just written; `wait` has to follow.

        The caller sees to it that records are written one after the other.
        """
        with self._lock:
            self._waiting += 1
        self._written += 1
        return self._written

    def wait(self, ticket: int) -> None:
        """The record of this ticket survives a power loss on return.

        Raises DiskError where a sync failed that it needed.
        """
        try:
            with self._turn:
                if self._safe < ticket:
                    self._sync()
        finally:
            with self._lock:
                self._waiting -= 1
                self._let_go()

    def close(self) -> None:
        """Close the segment now, or when the last waiting record is answered."""
        with self._lock:
            self._closing = True
            self._let_go()

    def _sync(self) -> None:
        if self._failed:
            raise DiskError(self.segment.path, "could not be synced")
        covered = self._written
        # Until it has ended well: an interrupt is no success either.
        self._failed = True
        try:
            sync(self.segment.descriptor)
        except OSError as error:
            problem = f"could not be synced: {error.strerror or error}"
            raise DiskError(self.segment.path, problem) from error
        self._safe = covered
        self._failed = False

    def _let_go(self) -> None:
        if self._closing and self._waiting == 0:
            self.segment.close()
