"""The books: what the flusher knows of each segment, as values.

Rules: every value is frozen and says all it means by itself, so that writing it
twice does no harm; what counts an event counts it in one place (a segment's entry
while the segment stands, the totals once it is gone).

Opens no file, knows no clock and no database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from telemetry.spool.frame import Damage, Record


# What the database and any JSON reader hold exactly; a value beyond it is damage.
_INT_MAX = 2**63 - 1

Number = Annotated[int, msgspec.Meta(ge=0, le=_INT_MAX)]
"""A count, a byte offset, or milliseconds since 1970: never negative."""

SequenceNumber = Annotated[int, msgspec.Meta(ge=-1, le=_INT_MAX)]
"""A record's number in its segment; -1 before the first."""

NOTHING: Mapping[str, Any] = MappingProxyType({})
"""No changes: the default of every mapping that `commit` takes."""


class Inflight(msgspec.Struct, frozen=True, kw_only=True):
    """One announced request: a retry sends these bytes under this key, or none."""

    start: Number
    """Byte offset of its first record in the segment."""
    end: Number
    """Byte offset after its last record."""
    count: Number
    """Whole records in the range."""
    key: str
    """The `Idempotency-Key`."""
    digest: str
    """SHA-256, in hex, of the body before any content coding."""
    windows_5xx: Number = 0
    """Flushes in which it drew a server error."""
    refusals: Number = 0
    """Flushes in which its one event, the only one pending, was refused alone."""


class SegmentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is settled of one segment. Counts are of events before `offset`."""

    offset: Number
    """Settled up to here: the first byte that is not."""
    seq: SequenceNumber = -1
    """Number of the last settled record; with `crc`, the anchor that ties the
    entry to the bytes of its file."""
    crc: str = ""
    tail: Number = 0
    """Bytes behind `offset` that are quarantined: an unclean tail, settled."""
    recorded: Number = 0
    """Records and missing numbers, and the unclean tail once it is settled."""
    delivered: Number = 0
    dead: Number = 0
    """Dead letters made from it; how many there are now is counted in `dead/`."""
    damaged: Number = 0
    purged: Number = 0
    inflight: Inflight | None = None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of segments that are gone, and what has no segment.

    A retried dead letter that was delivered is in `delivered`, a dropped one in
    `purged`: their own segments' entries are long closed.
    """

    recorded: Number = 0
    delivered: Number = 0
    damaged: Number = 0
    purged: Number = 0
    refused: dict[str, Number] = {}
    """Refusals by reason, folded from the file they are counted in."""
    refused_marks: dict[str, Number] = {}
    """How much of that file is folded already, by reason."""


class DeliveryState(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery went lately, for the next flush and for whoever asks."""

    failures: Number = 0
    """Flushes in a row without success."""
    last_success_ms: Number = 0
    last_error: str = ""
    last_error_ms: Number = 0
    next_attempt_ms: Number = 0
    stopped: str = ""
    """Why the last flush ended."""
    identity: str = ""
    """CRC-32 of endpoint, key and header that the rest was learnt with."""
    requests: Number = 0
    """Requests ever sent."""


class DeadMark(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that the totals count already, though its file may still stand."""

    state: Literal["delivered", "dropped"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a ledger says at one moment. Its mappings are not to be changed."""

    segments: dict[str, SegmentEntry] = {}
    totals: Totals = Totals()
    state: DeliveryState = DeliveryState()
    dead_marks: dict[str, DeadMark] = {}
    unreadable: tuple[str, ...] = ()
    """Rows that damage took: treated as absent (a segment's row costs duplicates,
    the totals begin again), named so that it is not silent."""


def fold(totals: Totals, entry: SegmentEntry) -> Totals:
    """`totals` with `entry` in them: its segment is gone, or is another one now.

    What was in flight was never settled and is not in the entry's counts, so it adds
    nothing. Dead letters are files and are counted where they stand.
    """
    return msgspec.structs.replace(
        totals,
        recorded=totals.recorded + entry.recorded,
        delivered=totals.delivered + entry.delivered,
        damaged=totals.damaged + entry.damaged,
        purged=totals.purged + entry.purged,
    )


def settle(
    entry: SegmentEntry, items: Sequence[Record | Damage], *, dead: int
) -> SegmentEntry:
    """The entry once `items`, which begin at its offset, are settled.

    Of their records `dead` became dead letters; the others were delivered.
    Numbers that are missing between them are damaged records. Nothing is in
    flight afterwards.
    """
    seq, records, missing = entry.seq, 0, 0
    last: Record | None = None
    for item in items:
        if type(item) is Record:
            if item.seq > seq + 1:
                missing += item.seq - seq - 1
            seq = item.seq
            records += 1
            last = item
    if last is None:
        return entry
    return msgspec.structs.replace(
        entry,
        offset=last.end,
        seq=last.seq,
        crc=last.crc.decode(),
        # A tail that was passed is gone where records stand now: a power loss took it.
        tail=0,
        recorded=entry.recorded + records + missing,
        delivered=entry.delivered + records - dead,
        dead=entry.dead + dead,
        damaged=entry.damaged + missing,
        inflight=None,
    )


def settle_tail(entry: SegmentEntry, size: int) -> SegmentEntry:
    """The entry once what follows the last whole record is quarantined.

    An unclean tail counts as one damaged record, however long it is: what it
    held cannot be told. Settled twice (it had grown), it still counts once.
    """
    again = entry.tail > 0
    return msgspec.structs.replace(
        entry,
        tail=size - entry.offset,
        recorded=entry.recorded + (0 if again else 1),
        damaged=entry.damaged + (0 if again else 1),
        inflight=None,
    )


def announce(
    entry: SegmentEntry, records: Sequence[Record], *, key: str, digest: str
) -> SegmentEntry:
    """The entry with a request in flight, from its offset to the last record's end.

    How often the range drew server errors before stays with what remains of it.
    """
    before = entry.inflight
    return msgspec.structs.replace(
        entry,
        inflight=Inflight(
            start=entry.offset,
            end=records[-1].end,
            count=len(records),
            key=key,
            digest=digest,
            windows_5xx=before.windows_5xx if before else 0,
            refusals=before.refusals if before else 0,
        ),
    )
