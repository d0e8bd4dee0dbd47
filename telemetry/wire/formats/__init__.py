"""The formats of a request: one file each, and this registry of them.

A format is a module with two pure functions. `body_of(events)` is deterministic: a retry
is byte-identical. `refusals(body)` reads what an accepting server answered: the events
that it refused, or None where the answer acknowledges nothing. `VERSION` changes when
the same events would make other bytes; it is kept with a batch in flight.

Nothing else in the house knows what a body looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from telemetry.spool.frame import Damage, Record
from telemetry.wire.batch import Batch, Rejection, Request, event_id_of, request_of
from telemetry.wire.formats import records


__all__ = [
    "FORMATS",
    "Batch",
    "Format",
    "Request",
    "batch_of",
    "event_id_of",
    "format_of",
    "records_request",
]


class Format(Protocol):
    """What is asked of the module of a format."""

    VERSION: int
    CONTENT_TYPE: str

    def body_of(self, events: Sequence[bytes], /) -> bytes:
        """The body that carries these events."""

    def refusals(self, body: bytes, /) -> tuple[Rejection, ...] | None:
        """The events that a complete 2xx refused; None if it acknowledges nothing."""


FORMATS: Mapping[str, Format] = {"records": records}


def format_of(name: str) -> Format:
    """The format of this name. Raises KeyError if there is none."""
    return FORMATS[name]


def records_request(events: Sequence[bytes], *, form: Format = records) -> Request:
    """The request that posts these events."""
    return request_of(form.body_of(events))


def batch_of(items: list[Record | Damage], *, form: Format = records) -> Batch:
    """A batch of `items`, of which the last is a record."""
    found = [item for item in items if type(item) is Record]
    request = records_request([record.event for record in found], form=form)
    return Batch(items, found, items[0].start, items[-1].end, request)
