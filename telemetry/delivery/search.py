"""Which range is tried next, where a batch is cut, where a probe comes from. Pure.

A batch that draws a refusal, or no answer, while others are accepted holds a bad
event or is too large. It is cut in two, and each part again, down to the event: among
n events one bad one costs 2·log2(n) requests.

Whether others are accepted is what a probe tells: one event from another place. Its
place moves over the segments, and over the positions within a segment, so that no
pattern of bad events hides the good ones for long.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from telemetry.books.entries import Announced
from telemetry.wire.verdict import REFUSALS, SLOW


# An event that failed alone in so many flushes is dead, if the last of them shows that it
# is at fault.
WINDOWS_MAX = 5
# Too many requests: that is about when, and never about what (RFC 6585 §4).
NOT_NOW = "429"
# The reasons for which a batch is set aside that had no answer in a request's time.
NO_ANSWER = frozenset({"timeout", SLOW})
# With so many events a batch is not made smaller for that.
FEW = 10
# Of one segment, single events that were set aside: with so many no range is cut.
SINGLES_MAX = 600
# From so many ranges on the smallest is cut, to come down to an event soon.
PARTS_DEEP = 48
# Ranges that were set aside: with so many nothing new of the segment is posted. Each
# costs 150 bytes in its ledger row.
PARTS_MAX = 900
# An event that may die goes first until so many flushes more began with it in vain than
# with others.
_EARLY = 3
# Multiples of the golden ratio, modulo 1, spread evenly for any count. A plain rotation
# can keep step with launches that add a segment each, and probe one event for ever.
_GOLDEN = 0.6180339887498949


def middle(sizes: Sequence[int]) -> int:
    """How many of at least two events go into the left part; `sizes` are bytes.

    Both parts have about the same size. Neither holds more events than the next
    smaller power of two, so it takes no more cuts to come to one event than by count.
    """
    count = len(sizes)
    half = sum(sizes) / 2
    size = left = 0
    while left < count and size + sizes[left] / 2 < half:
        size += sizes[left]
        left += 1
    count_max = 1 << ((count - 1).bit_length() - 1)
    return min(max(left, count - count_max, 1), count_max)


def is_spent(known: Announced) -> bool:
    """Whether one more failure would be the last of this event."""
    return known.windows + known.refusals >= WINDOWS_MAX - 1


def doubt(known: Announced) -> int:
    """How likely a probe out of this range is to fail.

    0 where none of its events is known to have failed alone. 1 is an event that is left of
    a batch, or that failed alone once without being counted; 2 is one that was posted
    alone again (`tries`), or counted (`windows`, `refusals`).
    """
    if known.count > 1 or known.joined or not known.reason:
        return 0
    return 2 if known.windows or known.tries or known.refusals else 1


def taken_up(known: Announced) -> Announced:
    """The range as if it had never been posted, if it only came too soon."""
    if known.reason != NOT_NOW or known.windows or known.refusals or known.unanswered:
        return known
    return Announced(start=known.start, end=known.end, count=known.count)


def can_cut(ranges: Iterable[Announced]) -> bool:
    """Whether a range of this segment may be cut."""
    return sum(each.count == 1 for each in ranges) < SINGLES_MAX


def is_full(ranges: Iterable[Announced]) -> bool:
    """Whether so much of a segment is set aside that nothing new of it is posted."""
    return sum(bool(each.reason) for each in ranges) >= PARTS_MAX


def first_ranges(
    waiting: Sequence[tuple[str, Announced]], *, count_max: int
) -> list[tuple[str, Announced]]:
    """What a flush begins with, of the ranges that were set aside.

    Up to `count_max` single events whose next failure would be their last, else one
    range. Each try in vain moves an event back, so that others have their turn where a
    server takes one request of a flush.
    """

    def order(known: Announced) -> int:
        if known.count > 1:
            return 0  # tried once, it is cut
        if is_spent(known):
            return known.tries - _EARLY
        return known.tries + (_EARLY if known.windows else 0)

    first = min((order(known) for _, known in waiting), default=0)
    found = [each for each in waiting if order(each[1]) == first]
    spent = [each for each in found if is_spent(each[1])]
    return spent[:count_max] or sorted(found, key=lambda each: -each[1].count)[:1]


def next_range(
    waiting: Sequence[tuple[str, Announced]],
    good: Collection[tuple[str, int]],
    *,
    segments: Mapping[str, Sequence[Announced]],
    begun: Collection[tuple[str, int]],
    single_first: bool,
    has_others: bool,
    small_first: bool = False,
) -> tuple[str, Announced]:
    """Which range that was set aside is tried next, of at least one, by segment.

    The first of these:

    1. an event that the flush began with (`begun`): this failure counts
    2. with `single_first`, or where none of its segment can be cut (`segments`: all the
       ranges of each): an event that failed alone before. With `single_first` also one
       whose failure would be its last, if it was refused and ranges of several are
       left: it counts if something is accepted behind it
    3. what borders on what was accepted in this flush (`good`: segments and offsets):
       good events come in runs, before a program broke and after it was repaired. Else
       the largest range; from PARTS_DEEP on, or with `small_first`, the smallest
    4. any other event that failed alone before
    5. any other one whose failure would be its last

    Of equal ones the newest; of events that failed alone the oldest, so that new ones of
    their kind hold none of them back.
    """
    failed_alone = {name for name, known in waiting if known.windows}
    cuts = {name: can_cut(segments[name]) for name in failed_alone}

    def rank(name: str, known: Announced) -> tuple[int, bool, int]:
        key = name, known.start
        is_deep = small_first or len(segments[name]) >= PARTS_DEEP
        order = 2
        if known.windows:
            order = 3 if single_first or not cuts[name] else 1
        if known.count == 1 and key in begun:
            order = 4
        elif is_spent(known):
            may_die = single_first and has_others and known.reason in REFUSALS
            order = 3 if may_die else 0
        return (
            order,
            key in good or (name, known.end) in good,
            -known.count if is_deep else known.count,
        )

    def place(each: tuple[str, Announced]) -> tuple[str, int]:
        return each[0], each[1].start

    ranks = [rank(*each) for each in waiting]
    best = max(ranks)
    equal = [each for each, its in zip(waiting, ranks, strict=True) if its == best]
    others = [each for each in equal if not each[1].windows]
    return max(others, key=place) if others else min(equal, key=place)


def fitting(ranges: Iterable[Announced]) -> int | None:
    """How many events a batch may hold, by those that had no answer in a request's time.

    Half of the smallest that was posted, or as many as are left of one. None if there is
    no such batch. Few enough are no question of size.
    """
    found = [
        max(each.count // 2 if each.digest else each.count, FEW)
        for each in ranges
        if each.reason in NO_ANSWER and each.count > FEW
    ]
    return min(found, default=None)


def next_refused(waiting: Sequence[tuple[str, Announced]]) -> tuple[str, Announced]:
    """Which range is tried next, of at least one, where all that waits was refused.

    Oldest segment first: its events die first, and the segment makes room. Of one segment
    first what may hold accepted events, then those that were refused most often. Each try
    of an event that is not answered moves it back; a range is cut.
    """

    def order(name: str, known: Announced) -> tuple[int, str, int, int, int]:
        is_event = known.count == 1
        was_refused = bool(known.refusals or known.windows)
        tries = known.tries if is_event else 0
        return tries, name, is_event + was_refused, -known.refusals, known.start

    return min(waiting, key=lambda each: order(*each))


def probe_segment(turn: int, segments: int) -> int:
    """Which of `segments` the probe number `turn` comes from.

    Every fourth comes from the newest, which a program may have begun that was repaired,
    behind any number that were refused. The others spread over all.
    """
    place = (turn - turn // 4) * _GOLDEN % 1 if turn % 4 else 0
    return segments - 1 - int(place * segments)


def probe_event(turn: int, events: int) -> int:
    """Which of the `events` of that segment it is.

    Every other turn takes the last one (a program that was repaired recorded it) or the
    first one (before the program broke). The turns between go to the middle, to a
    quarter, to three quarters, to an eighth, …
    """
    if turn % 2 == 0:
        return 0 if turn % 4 else events - 1
    fraction, part = 0.0, 0.5
    rest = (turn + 1) // 2
    while rest:  # the digits of the binary number behind the point, reversed
        fraction += part * (rest & 1)
        rest >>= 1
        part /= 2
    return events - 1 - int(fraction * events)
