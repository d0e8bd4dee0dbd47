"""Events as other processes record them.

Looks at the spool a few times a second. A segment that may still be written stays
open, so that what is added to it is shown even if a flusher deletes it meanwhile;
one that is made, drained and deleted between two looks is missed.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator

from spool_tools.reading import Spool
from telemetry.books.entries import SegmentEntry
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


_PAUSE_S = 0.1
# Writers take one of the newest eight; a writer may go on in one that is older.
# Those beyond are opened anew when they have grown: files that are open are few.
_OPEN_MAX = 64


def follow(spool: Spool) -> Iterator[bytes]:
    """Each pending event, and then each that is recorded, until nobody reads us."""
    segments: dict[str, _Followed] = {}
    try:
        while not _is_nobody_there():
            names = segment_names(spool.home)
            for name in names:
                if name not in segments:
                    segments[name] = _Followed(spool, name)
            newest = set(sorted(segments)[-_OPEN_MAX:])
            for name in sorted(segments):
                yield from segments[name].news(stays_open=name in newest)
            for name in segments.keys() - set(names):
                # Its name was gone before we read it to its end: nothing follows.
                segments.pop(name).close()
            time.sleep(_PAUSE_S)
    finally:
        for segment in segments.values():
            segment.close()


class _Followed:
    """One segment, and how far it was shown."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool = spool
        self._name = name
        self._reader: SegmentReader | None = None
        self._entry = SegmentEntry(offset=0)
        self._end: int | None = None
        self._size = -1

    def news(self, *, stays_open: bool) -> Iterator[bytes]:
        """The events that were added since."""
        if self._reader is None and not self._open():
            return
        reader = self._reader
        if reader is None:
            return
        self._size = reader.size()
        news = (
            self._spool.unsettled(reader, self._entry)
            if self._end is None
            else self._spool.items(reader)
        )
        for item in news:
            self._end = item.end
            if isinstance(item, Record):
                yield item.event
        if not stays_open:
            self.close()

    def close(self) -> None:
        """Let go of the file."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _open(self) -> bool:
        """Whether it is open now; one that has not grown need not be."""
        try:
            if os.lstat(self._spool.home.segment(self._name)).st_size == self._size:
                return False
        except OSError:
            return False
        opened = self._spool.open(self._name)
        if opened is None:
            return False
        self._reader, self._entry = opened
        if self._end is not None:
            self._reader.start_at(self._end)
        return True


def _is_nobody_there() -> bool:
    """Whether the pipe that we write to was closed at its other end."""
    if not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        found = poll.poll(0)
    except (OSError, ValueError):
        return False
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in found)
