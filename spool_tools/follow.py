"""Events as other processes record them: looks at the spool a few times a second.

What is recorded, delivered and deleted between two looks is missed.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator

from spool_tools.reading import Spool
from telemetry.spool.frame import Record
from telemetry.spool.reader import segment_names


_PAUSE_S = 0.1


def follow(spool: Spool) -> Iterator[bytes]:
    """Each pending event, and then each that is recorded, until the pipe is closed."""
    # How far each segment was shown, and its size then.
    shown: dict[str, tuple[int, int]] = {}
    while not _is_reader_gone():
        names = segment_names(spool.home)
        for name in names:
            yield from _news(spool, name, shown)
        for name in shown.keys() - set(names):
            del shown[name]
        time.sleep(_PAUSE_S)


def _news(
    spool: Spool, name: str, shown: dict[str, tuple[int, int]]
) -> Iterator[bytes]:
    """The events that a segment has got since."""
    end, size = shown.get(name, (None, -1))
    try:
        if os.lstat(spool.home.segment(name)).st_size == size:
            return
    except OSError:
        return  # deleted meanwhile
    opened = spool.open(name)
    if opened is None:
        return
    reader, entry = opened
    try:
        size = reader.size()
        if end is None:
            yield from spool.waiting(reader, entry)
            end = entry.offset
        reader.start_at(end)
        for item in spool.items(reader):
            end = item.end
            if isinstance(item, Record):
                yield item.event
        shown[name] = (end, size)
    finally:
        reader.close()


def _is_reader_gone() -> bool:
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
