"""The request bodies that the next flush would send, without sending any."""

from __future__ import annotations

from collections.abc import Iterator

from spool_tools.reading import NO_BOUND, open_behind
from telemetry.config import Config
from telemetry.delivery import dead_letters
from telemetry.delivery.batch import batch_of, records_request
from telemetry.delivery.books import SegmentEntry, Snapshot
from telemetry.paths import Home
from telemetry.spool.reader import SegmentReader, segment_names


def as_sent(home: Home, snapshot: Snapshot) -> Iterator[bytes]:
    """Each body, in the order of sending, as a flush with default bounds plans them.

    A batch that was announced is planned as it was announced.
    """
    bounds = Config(app="")
    for name in segment_names(home):
        opened = open_behind(home, name, snapshot)
        if opened is None:
            continue
        reader, entry = opened
        try:
            yield from _planned(reader, entry, bounds)
        finally:
            reader.close()
    letters = [
        letter
        for name in dead_letters.names(home.dead)
        if name.endswith(dead_letters.RETRY)
        and (letter := dead_letters.read(home.dead, name)) is not None
    ]
    for first in range(0, len(letters), bounds.batch_events_max):
        part = letters[first : first + bounds.batch_events_max]
        yield records_request([bytes(letter.event) for letter in part]).body


def _planned(
    reader: SegmentReader, entry: SegmentEntry, bounds: Config
) -> Iterator[bytes]:
    announced = entry.inflight
    items = []
    if announced is not None and announced.start == entry.offset:
        items = reader.take(announced.count, NO_BOUND, until=announced.end)
        if items:
            request = records_request([r.event for r in batch_of(items).records])
            if request.digest != announced.digest:
                reader.start_at(entry.offset)
                items = []
    while True:
        items = items or reader.take(bounds.batch_events_max, bounds.batch_bytes_max)
        if not items:
            return
        yield records_request([r.event for r in batch_of(items).records]).body
        items = []
