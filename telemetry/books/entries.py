"""The books: what the flusher knows of each segment, as values.

Rules: every value is frozen and says all it means by itself, so that writing it
twice does no harm; what counts an event counts it in one place (a segment's entry
while the segment stands, the totals once it is gone).

Opens no file, knows no clock and no database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

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


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """A range of one segment that is posted as one request until it is settled.

    It is in the ledger before it is posted, so a retry sends the same bytes under
    the same key. Several stand in an entry where one was refused, or went unanswered,
    and the flusher went on with what follows.
    """

    start: Number
    """Byte offset where its first record, or the damage before it, begins."""
    end: Number
    """Byte offset after its last record."""
    count: Number
    """Whole records in the range."""
    digest: str = ""
    """SHA-256, in hex, of the body before any content coding; empty if the range
    was never posted as a whole."""
    form: str = "records/1"
    """Name and version of the format that `digest` is of."""
    windows: Number = 0
    """Flushes in which this single event failed while others were accepted."""
    reason: str = ""
    """Why it was set aside: the reason of the last verdict. Empty if it was not."""
    tries: Number = 0
    """Times it was posted again since it was last set aside; 1 for a range that is to be
    cut before it is posted."""
    unanswered: Number = 0
    """Flushes that began with this single event and had no answer in their time."""
    begun: Number = 0
    """Flushes that began with this single event and drew a failure, while others were
    accepted."""
    joined: str = ""
    """Ranges with the same one, of several segments, are posted as one batch, whose hash
    `digest` is then."""
    refusals: Number = 0
    """Flushes that refused this single event while there was nothing to compare it with:
    all that was pending had been set aside, or the spool was full."""


class SegmentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one segment. Counts are of events before `offset`."""

    offset: Number
    """Everything before it is settled, or is listed in `announced`."""
    seq: SequenceNumber = -1
    """Number of the last record before `offset`; with `crc`, the anchor that ties
    the entry to the bytes of its file."""
    crc: str = ""
    tail: Number = 0
    """Bytes behind `offset` that are quarantined: an unclean tail, settled."""
    recorded: Number = 0
    """Records and missing numbers, and the unclean tail once it is settled; less
    those that the retried letters in it are."""
    delivered: Number = 0
    dead: Number = 0
    """Dead letters made from it; how many there are now is counted in `dead/`."""
    damaged: Number = 0
    purged: Number = 0
    retried: Number = 0
    """The first so many records of the segment are retried dead letters: they were
    recorded once already, in another segment."""
    announced: tuple[Announced, ...] = ()
    """Ranges before `offset` that are not settled, in the order of their offsets."""


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
    is_asked: bool = False
    """Whether that time is one that the server named (`Retry-After`)."""
    stopped: str = ""
    """Why the last flush ended."""
    identity: str = ""
    """CRC-32 of endpoint, key and header that the rest was learnt with."""
    accepted: str = ""
    """The same of the last flush that delivered something."""
    requests: Number = 0
    """Requests ever sent."""
    endpoint: str = ""
    """Where the last flush sent to, or could not send to, without credentials."""
    deletion_endpoint: str = ""
    """Where the program asks for what it sent to be deleted, without credentials."""
    deletion_url: str = ""
    """The same, complete; empty where it holds credentials or a query."""
    url: str = ""
    """The same, complete, for a flush that is asked for by hand; empty where it holds
    credentials or a query."""
    header: str = "x-api-key"
    """The name of the header that the key goes into."""
    format: str = "records"
    gzip: bool | None = None
    """Whether the program compresses; None: where the format's receivers take it."""
    batch_events_max: Number = 0
    batch_bytes_max: Number = 0
    """The program's bounds of a batch; 0 if no flush has said them yet."""
    full_bytes: Number = 0
    """From this size on a program of this home may leave a segment as full; 0: not known."""
    spool_bytes_max: Number = 0
    """The program's bound of the spool; 0: not known."""
    accept_statuses: tuple[int, ...] = ()
    """Which 2xx the program takes for acceptance; empty: every one."""
    by_hand: bool = False
    """Whether only flushes by hand have said all this, and none of the program's."""
    probe: Number = 0
    """How many probes were posted: the next one comes from another place."""


class DeadFile(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of one file of dead letters: its first `letters`, up to byte `end`.

    Letters behind `end` were written by a flusher that was killed before it settled
    their events; they count for nothing. A file without letters is to be removed.
    """

    end: Number
    letters: Number


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What became of events on one day (UTC), by the names of the events.

    For people to look at: nothing is decided from it, and purges leave it as it is.
    """

    delivered: dict[str, Number] = {}
    dead: dict[str, Number] = {}


# What a person looks back on, and names that a plot can show. More are one name.
DAYS_MAX = 90
NAMES_MAX = 20
OTHER = "(other)"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a ledger says at one moment. Its mappings are not to be changed."""

    segments: dict[str, SegmentEntry] = {}
    totals: Totals = Totals()
    state: DeliveryState = DeliveryState()
    dead_files: dict[str, DeadFile] = {}
    days: dict[str, Day] = {}
    """By date, `2026-01-31`: the last 90 days on which something was settled."""


def tally(day: Day, delivered: Mapping[str, int], dead: Mapping[str, int]) -> Day:
    """The day once so many events of each name were delivered, or are dead letters."""
    return Day(delivered=_more(day.delivered, delivered), dead=_more(day.dead, dead))


def _more(known: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    sums = dict(known)
    for name, count in counts.items():
        shown = name if name in sums or len(sums) < NAMES_MAX else OTHER
        sums[shown] = sums.get(shown, 0) + count
    return sums


def fold(totals: Totals, entry: SegmentEntry) -> Totals:
    """`totals` with `entry` in them: its segment is gone, or is another one now.

    Announced events that were not settled are gone with the file, as records behind
    the offset are, and count for nothing. Retried letters that are gone were recorded
    elsewhere and count as damaged. Dead letters are counted where they stand.
    """
    unsettled = sum(each.count for each in entry.announced)
    passed = min(entry.seq + 1, entry.retried)
    # Of the unsettled ones as many as there can be are retried letters.
    lost = min(unsettled, passed) + entry.retried - passed
    return msgspec.structs.replace(
        totals,
        recorded=max(totals.recorded + entry.recorded - max(unsettled - passed, 0), 0),
        delivered=totals.delivered + entry.delivered,
        damaged=totals.damaged + entry.damaged + lost,
        purged=totals.purged + entry.purged,
    )


def announce(entry: SegmentEntry, items: Sequence[Record | Damage]) -> SegmentEntry:
    """The entry once `items`, which begin at its offset, are announced as one range.

    The last item is a record. Numbers that are missing between the records are
    damaged ones.
    """
    records = [item for item in items if type(item) is Record]
    seq, missing = entry.seq, 0
    for last in records:
        missing += max(last.seq - seq - 1, 0)
        seq = last.seq
    again = min(seq + 1, entry.retried) - min(entry.seq + 1, entry.retried)
    return msgspec.structs.replace(
        entry,
        offset=last.end,
        seq=seq,
        crc=last.crc.decode(),
        # A tail that was passed is gone where records stand now: a power loss took it.
        tail=0,
        recorded=entry.recorded + len(records) + missing - max(again, 0),
        damaged=entry.damaged + missing,
        announced=(
            *entry.announced,
            Announced(start=items[0].start, end=last.end, count=len(records)),
        ),
    )


def replace(entry: SegmentEntry, old: Announced, *new: Announced) -> SegmentEntry:
    """The entry with `new` in the place of the range that starts where `old` does."""
    starts = [each.start for each in entry.announced]
    at = starts.index(old.start)
    ranges = (*entry.announced[:at], *new, *entry.announced[at + 1 :])
    return msgspec.structs.replace(entry, announced=ranges)


def settle(
    entry: SegmentEntry, known: Announced, *, dead: int = 0, damaged: int = 0
) -> SegmentEntry:
    """The entry once the range `known` is settled: all others of it were delivered."""
    return msgspec.structs.replace(
        replace(entry, known),
        delivered=entry.delivered + known.count - dead - damaged,
        dead=entry.dead + dead,
        damaged=entry.damaged + damaged,
    )


def settle_as_purged(entry: SegmentEntry) -> SegmentEntry:
    """The entry once every range that is announced is purged."""
    count = sum(each.count for each in entry.announced)
    return msgspec.structs.replace(entry, announced=(), purged=entry.purged + count)


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
    )


def set_aside(
    entry: SegmentEntry, known: Announced, reason: str, *, tries: int = 0
) -> SegmentEntry:
    """The entry once what is left of the range `known` is set aside.

    It failed as a whole while others were accepted. With `tries=1` it is cut before it
    is posted again.
    """
    parts = [
        msgspec.structs.replace(each, reason=reason, tries=tries, unanswered=0)
        if known.start <= each.start < known.end
        else each
        for each in entry.announced
    ]
    return msgspec.structs.replace(entry, announced=tuple(parts))
