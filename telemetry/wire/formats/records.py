"""The format `records`: `{"records":[event, …]}`, the ancestor's and the default. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import answer


VERSION = 1


def body_of(events: Sequence[bytes]) -> bytes:
    """The body that carries these events, byte for byte as they were recorded."""
    return b'{"records":[%b]}' % b",".join(events)


def refusals(body: bytes, headers: Mapping[str, str]) -> tuple[Rejection, ...] | None:
    """The events that a complete 2xx refused; None if it acknowledges nothing."""
    fields = answer.read(body)
    return None if fields is None else answer.rejections(fields.get("rejected", ()))
