"""The request bodies that the next flush would send, without sending any."""

from __future__ import annotations

from collections.abc import Iterator

from spool_tools.reading import Spool
from telemetry.books.entries import SegmentEntry
from telemetry.config import Config
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader
from telemetry.wire.formats import format_of


def as_sent(spool: Spool, form: str) -> Iterator[bytes]:
    """Each body, in the order of sending, as the next flush plans them.

    A range that was announced is planned as it was announced, the rest by the bounds of
    the last flush, or the default ones. What a server refuses is sent again in other
    parts, which cannot be foreseen.
    """
    default, known = Config(app=""), spool.snapshot.state
    events_max = known.batch_events_max or default.batch_events_max
    bytes_max = known.batch_bytes_max or default.batch_bytes_max
    for reader, entry in spool.opened():
        for items in _planned(reader, entry, events_max, bytes_max):
            events = [item.event for item in items if isinstance(item, Record)]
            yield format_of(form).body_of(events)


def _planned(
    reader: SegmentReader, entry: SegmentEntry, events_max: int, bytes_max: int
) -> Iterator[list[Record | Damage]]:
    """The batches of one segment."""
    for known in entry.announced:
        reader.start_at(known.start)
        if known.digest:
            yield reader.take(known.count, until=known.end)
            continue
        while items := reader.take(events_max, bytes_max, until=known.end):
            yield items
    reader.start_at(entry.offset)
    while items := reader.take(events_max, bytes_max):
        yield items
