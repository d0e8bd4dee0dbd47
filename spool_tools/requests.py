"""The request bodies that the next flush would send, without sending any."""

from __future__ import annotations

from collections.abc import Iterator

from spool_tools.reading import NO_BOUND, Spool
from telemetry.books.entries import SegmentEntry
from telemetry.config import Config
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader
from telemetry.wire.formats import records_request


def as_sent(spool: Spool) -> Iterator[bytes]:
    """Each body, in the order of sending, as a flush with default bounds plans them.

    A range that was announced is planned as it was announced. What a server refuses
    is sent again in other parts, which cannot be foreseen.
    """
    bounds = Config(app="")
    for reader, entry in spool.opened():
        for items in _planned(reader, entry, bounds):
            events = [item.event for item in items if isinstance(item, Record)]
            yield records_request(events).body


def _planned(
    reader: SegmentReader, entry: SegmentEntry, bounds: Config
) -> Iterator[list[Record | Damage]]:
    """The batches of one segment."""
    events_max, bytes_max = bounds.batch_events_max, bounds.batch_bytes_max
    for known in entry.announced:
        reader.start_at(known.start)
        if known.digest:
            yield reader.take(known.count, NO_BOUND, until=known.end)
            continue
        while items := reader.take(events_max, bytes_max, until=known.end):
            yield items
    reader.start_at(entry.offset)
    while items := reader.take(events_max, bytes_max):
        yield items
