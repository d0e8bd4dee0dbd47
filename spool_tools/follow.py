"""Events as other processes record them.

Looks at the spool a few times a second. A segment that was seen once stays
open, so what is written to it is shown even if a flusher deletes it meanwhile;
one that is made, drained and deleted between two looks is missed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from spool_tools.reading import items_of, open_behind
from telemetry.delivery.books import Snapshot
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


_PAUSE_S = 0.1


def follow(home: Home, snapshot: Snapshot) -> Iterator[bytes]:
    """Each pending event, and then each that is recorded, for ever."""
    readers: dict[str, SegmentReader] = {}
    try:
        while True:
            names = segment_names(home)
            for name in names:
                if name not in readers:
                    opened = open_behind(home, name, snapshot)
                    if opened is not None:
                        readers[name] = opened[0]
            yield from _news(readers)
            for name in readers.keys() - set(names):
                # Its name was gone before we read it to its end: nothing follows.
                readers.pop(name).close()
            time.sleep(_PAUSE_S)
    finally:
        for reader in readers.values():
            reader.close()


def _news(readers: dict[str, SegmentReader]) -> Iterator[bytes]:
    for name in sorted(readers):
        for item in items_of(readers[name]):
            if isinstance(item, Record):
                yield item.event
