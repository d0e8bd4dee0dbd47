"""What a segment's entry says once some of its records are settled. Pure.

`recorded` is read off the records and their numbers, while `delivered` and
`dead` are what became of them: that both sides agree is what conservation means.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from telemetry.delivery.books import Inflight, SegmentEntry
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.delivery.verdict import Verdict
from telemetry.spool.frame import Damage, Record


# An excerpt of a reply that a person can read; more would be the server's log.
_REPLY_CHARACTERS = 500


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


def rejected_numbers(records: Sequence[Record], verdict: Verdict) -> dict[int, str]:
    """The numbers of the records that a reply named as rejected, and its reasons."""
    if not verdict.rejected:
        return {}
    reasons = {each.event_id: each.reason for each in verdict.rejected}
    found = {}
    for number, record in enumerate(records):
        event_id = event_id_of(record.event)
        if event_id in reasons:
            found[number] = reasons[event_id]
    return found


class _Properties(msgspec.Struct):
    event_id: str = ""


class _Event(msgspec.Struct):
    properties: _Properties


def event_id_of(event: bytes) -> str:
    """The id of an event; empty where it has none."""
    try:
        return msgspec.json.decode(event, type=_Event).properties.event_id
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""


def letter(
    record: Record, verdict: Verdict, *, reply: str, now: float, attempts: int
) -> DeadLetter:
    """The dead letter of one record. `now` is in seconds since 1970."""
    return DeadLetter(
        event=msgspec.Raw(record.event),
        reason=verdict.reason,
        status=int(verdict.reason) if verdict.reason.isdecimal() else 0,
        reply=reply[:_REPLY_CHARACTERS],
        time_ms=int(now * 1000),
        attempts=attempts,
    )
