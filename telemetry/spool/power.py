"""Making records survive a power loss, with one sync for many threads.

A record counts as safe once a sync that began after its write has ended well.
The first thread that needs one runs it; those that wrote before it began share
it; those that wrote later run or share the next. After a sync that failed the
kernel may have dropped what it could not write, so no later sync says anything
about it: the segment is given up and every waiting event is answered False.
"""

from __future__ import annotations

from threading import Condition

from telemetry.errors import DiskError
from telemetry.locks import sync
from telemetry.spool.segment import Segment


class SharedSync:
    """The syncs of one segment. `close` lets go of it once nobody waits any more."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._condition = Condition()
        self._written = 0
        self._safe = 0
        self._waiting = 0
        self._running = False
        self._closing = False
        self.failed = False

    def written(self) -> int:
        """The ticket of a record that was just written; `wait` has to follow."""
        with self._condition:
            self._written += 1
            self._waiting += 1
            return self._written

    def wait(self, ticket: int) -> None:
        """The record of this ticket survives a power loss on return.

        Raises DiskError where a sync failed that it needed.
        """
        condition = self._condition
        try:
            while True:
                with condition:
                    while self._running and self._safe < ticket and not self.failed:
                        condition.wait()
                    if self._safe >= ticket:
                        return
                    if self.failed:
                        raise DiskError(self.segment.path, "could not be synced")
                    self._running = True
                    covered = self._written
                self._run(covered)
        finally:
            with condition:
                self._waiting -= 1
                self._let_go()

    def close(self) -> None:
        """Close the segment now, or when the last waiting record is answered."""
        with self._condition:
            self._closing = True
            self._let_go()

    def _run(self, covered: int) -> None:
        failed = True
        try:
            sync(self.segment.descriptor)
            failed = False
        except OSError:
            pass  # `failed` tells every thread that waits
        finally:
            with self._condition:
                self._running = False
                self.failed = self.failed or failed
                if not failed:
                    self._safe = max(self._safe, covered)
                self._condition.notify_all()

    def _let_go(self) -> None:
        if self._closing and self._waiting == 0:
            self.segment.close()
