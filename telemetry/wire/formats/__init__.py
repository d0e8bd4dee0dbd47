"""The formats of a request: one file each, and this table of them.

A format has two pure functions and a number:

    body_of(events)          the body that carries these events, in their order. The same
                             events always make the same bytes: a retry is byte-identical.
                             It raises nothing, whatever an event holds
    refusals(body, headers)  what a complete 2xx says: the events that it refused, or None
                             if it acknowledges nothing. `headers` has lower-case names
    VERSION                  changes when the same events would make other bytes

What a format needs besides stands in the table. Name and version are kept with a batch in
flight (`Format.label`): a batch that was announced in one format is never retried in
another. The key and the content coding are no part of the body that a label, a hash and an
idempotency key speak of; `request.py` adds them as the body is sent.

    event     reads an event that does not go as it stands
    answer    which events an answer names, and whether it acknowledges anything
    protobuf  the messages of OTLP in binary form, written and read

Nothing else in the house knows what a body looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from telemetry.wire.batch import Rejection, Request, request_of
from telemetry.wire.formats import (
    clickhouse,
    ndjson,
    otlp,
    otlp_protobuf,
    posthog,
    records,
)


class _Module(Protocol):
    """What the file of a format holds."""

    VERSION: int

    def body_of(self, events: Sequence[bytes], /) -> bytes: ...

    def refusals(
        self, body: bytes, headers: Mapping[str, str], /
    ) -> tuple[Rejection, ...] | None: ...


class Format(NamedTuple):
    """One way to write a batch, and what its receivers need.

    gzip: they take `Content-Encoding: gzip`, so it is the default
    said: what an error's body says to a person
    key_header: where the key goes if the config names no header of its own
    user_header: where the user that the endpoint names goes, instead of Authorization
    user: who sends if the endpoint names nobody and the key is in `key_header`
    key_field: the field of the body that the key goes into, instead of a header
    parameters: what is added to the endpoint's query unless that says otherwise; `{key}`
        stands for the batch's key
    """

    name: str
    version: int
    content_type: str
    body_of: Callable[[Sequence[bytes]], bytes]
    refusals: Callable[[bytes, Mapping[str, str]], tuple[Rejection, ...] | None]
    gzip: bool = False
    said: Callable[[bytes, Mapping[str, str]], bytes] = lambda body, _headers: body
    key_header: str = ""
    user_header: str = ""
    user: str = ""
    key_field: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """What is kept with a batch in flight: `records/1`."""
        return f"{self.name}/{self.version}"

    def request(self, events: Sequence[bytes], spool_range: str = "") -> Request:
        """The request that posts these events."""
        return request_of(self.body_of(events), spool_range)


def _format(name: str, module: _Module, content_type: str, **more: Any) -> Format:
    return Format(
        name, module.VERSION, content_type, module.body_of, module.refusals, **more
    )


RECORDS = _format("records", records, "application/json")
_OTHERS = (
    _format("ndjson", ndjson, "application/x-ndjson"),
    _format("otlp-json", otlp, "application/json", gzip=True),
    _format(
        "otlp-protobuf",
        otlp_protobuf,
        "application/x-protobuf",
        gzip=True,
        said=otlp_protobuf.said,
    ),
    _format("posthog", posthog, "application/json", gzip=True, key_field="api_key"),
    _format(
        "clickhouse",
        clickhouse,
        "application/x-ndjson",
        gzip=True,
        key_header="X-ClickHouse-Key",
        user_header="X-ClickHouse-User",
        # Beside a key ClickHouse takes no name for an empty one, and refuses it.
        user="default",
        parameters=(
            ("query", "INSERT INTO telemetry.events FORMAT JSONEachRow"),
            ("insert_deduplication_token", "{key}"),
            # The answer comes when the rows are stored, and its status is the last word.
            ("wait_end_of_query", "1"),
            ("wait_for_async_insert", "1"),
        ),
    ),
)
FORMATS: Mapping[str, Format] = {each.name: each for each in (RECORDS, *_OTHERS)}


def is_compressed(name: str, gzip: bool | None) -> bool:
    """Whether a body is compressed: as `gzip` says, or as the format's receivers take it.

    `gzip` is None where nobody said.
    """
    return name in FORMATS and FORMATS[name].gzip if gzip is None else gzip


def format_of(name: str) -> Format:
    """The format of this name. Raises KeyError if there is none."""
    return FORMATS[name]
