"""The request bodies that the next flush would send, without sending any."""

from __future__ import annotations

from collections.abc import Iterator

from spool_tools.reading import NO_BOUND, Spool
from telemetry.books.entries import SegmentEntry
from telemetry.config import Config
from telemetry.delivery.census import letters
from telemetry.delivery.resend import together
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader
from telemetry.wire.formats import batch_of, records_request


def as_sent(spool: Spool) -> Iterator[bytes]:
    """Each body, in the order of sending, as a flush with default bounds plans them.

    A batch that was announced is planned as it was announced. What a server
    refuses is sent again in other parts, which nobody can foresee.
    """
    bounds = Config(app="")
    for reader, entry in spool.opened():
        for items in _planned(reader, entry, bounds):
            yield batch_of(items).request.body
    standings = letters(spool.home, spool.snapshot)
    names = [name for name, standing in standings.items() if standing == "retried"]
    for part in together(
        names,
        spool.letter,
        events_max=bounds.batch_events_max,
        bytes_max=bounds.batch_bytes_max,
    ):
        yield records_request([bytes(letter.event) for letter in part.values()]).body


def _planned(
    reader: SegmentReader, entry: SegmentEntry, bounds: Config
) -> Iterator[list[Record | Damage]]:
    """The batches of one segment."""
    announced = entry.inflight
    if announced is not None and announced.start == entry.offset:
        items = reader.take(announced.count, NO_BOUND, until=announced.end)
        is_whole = bool(items) and items[-1].end == announced.end
        if is_whole and batch_of(items).request.digest == announced.digest:
            yield items
        else:
            # The file is not the one that was announced: that batch is void.
            reader.start_at(entry.offset)
    while items := reader.take(bounds.batch_events_max, bounds.batch_bytes_max):
        yield items
