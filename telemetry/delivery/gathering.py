"""Which segments go into one batch, where each holds little. Pure.

Programs that run side by side begin a segment each. Ten thousand segments of one event
would be as many requests; so what follows is posted with what came before it, while both
are small.

    small     neither bound of a batch is half reached: more is waited for
    enough    one is, or SEGMENTS_MAX segments are in it: the batch is posted

Only what was never posted is gathered. A batch of several segments that fails is posted
again as it is, and in the end each of its parts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from telemetry.spool.frame import OVERHEAD, Record


# Each costs 55 bytes in the header X-Spool-Range. Servers take 4 to 8 KiB of headers.
SEGMENTS_MAX = 32

T = TypeVar("T")


class Gathering(Generic[T]):
    """What is gathered for the next batch."""

    def __init__(
        self, *, events_max: int, bytes_max: int, segments_max: int = SEGMENTS_MAX
    ) -> None:
        self.parts: list[T] = []
        self.events_max = events_max
        self._bytes_max = bytes_max
        self._segments_max = segments_max
        self._events = self._bytes = 0

    def add(self, part: T, records: Sequence[Record]) -> Iterator[list[T]]:
        """One more part, which holds these records. Batches that are to be posted now."""
        # Each event, and the comma behind it.
        size = sum([each.end - each.start for each in records])
        size -= (OVERHEAD - 1) * len(records)
        if (
            self._events + len(records) > self.events_max
            or self._bytes + size > self._bytes_max
        ) and self.parts:
            yield self.take()
        self.parts.append(part)
        self._events += len(records)
        self._bytes += size
        if (
            2 * self._events > self.events_max
            or 2 * self._bytes > self._bytes_max
            or len(self.parts) >= self._segments_max
        ):
            yield self.take()

    def take(self) -> list[T]:
        """What is gathered; nothing is left of it."""
        parts, self.parts = self.parts, []
        self._events = self._bytes = 0
        return parts
