"""Where to cut a refused batch, and where the next probe comes from. Pure.

A batch that draws a refusal, or no answer, while others are accepted holds a bad
event or is too large. It is cut in two, and each part again, down to the event: among
n events one bad one costs 2·log2(n) requests.

Whether others are accepted is what a probe tells: one event from another place. Its
place moves over the segments, and over the positions within a segment, so that no
pattern of bad events hides the good ones for long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from telemetry.books.entries import Announced


# An event that failed alone in so many flushes, while others were accepted, is dead, if
# the last of them has proved that it was the event.
WINDOWS_MAX = 5
# So many flushes may begin in vain with an event whose turn it is, before another has it.
_EARLY = 3


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


# Ranges of one segment from which on the smallest is cut further, so that there is room
# to come down to an event.
PARTS_DEEP = 48
# Ranges of one segment beyond which none is cut.
PARTS_MAX = 64


def is_spent(known: Announced) -> bool:
    """Whether one more failure would be the last of this event."""
    return known.windows >= WINDOWS_MAX - 1


def first_ranges(
    waiting: Sequence[tuple[str, Announced]], *, count_max: int
) -> list[tuple[str, Announced]]:
    """What a flush begins with, of the ranges that were set aside.

    Events whose next failure would be their last, or else one range; an event that
    failed less often is counted elsewhere, too. A server may take one request of a
    flush: so what was tried in vain a few times more than others lets them go first.
    """

    def turn(known: Announced) -> int:
        if known.count > 1:
            return 0  # tried once, it is cut
        early = _EARLY if is_spent(known) else 0
        late = _EARLY if known.windows and not early else 0
        return known.tries + late - early

    first = min((turn(known) for _, known in waiting), default=0)
    found = [each for each in waiting if turn(each[1]) == first]
    spent = [each for each in found if is_spent(each[1])]
    return spent[:count_max] or sorted(found, key=lambda each: -each[1].count)[:1]


def next_range(
    waiting: Sequence[tuple[str, Announced]],
    good: Collection[tuple[str, int]],
    *,
    parts: Mapping[str, int],
    last_chances: Collection[tuple[str, int]],
    single_first: bool,
) -> tuple[str, Announced]:
    """Which range that was set aside is tried next, of at least one, by segment.

    An event that failed alone before comes first with `single_first`, as it is counted
    while others are accepted, and last without; so does it where there is no room for
    more parts (`parts`: ranges of each segment). The last of all is one whose next failure would
    count only if the flush had begun with it (`last_chances`). Then what borders on what was
    accepted in this flush (`good`: segments and offsets): good events come in runs, before
    a program broke and after it was repaired. Else the largest, and of equal ones the
    newest; the smallest where many parts are there.
    """

    def rank(each: tuple[str, Announced]) -> tuple[int, bool, int, str, int]:
        name, known = each
        order = 2
        if known.windows:
            order = 3 if single_first or parts[name] >= PARTS_MAX else 1
        if is_spent(known) and (name, known.start) not in last_chances:
            order = 0
        return (
            order,
            (name, known.start) in good or (name, known.end) in good,
            known.count if parts[name] < PARTS_DEEP else -known.count,
            name,
            known.start,
        )

    return max(waiting, key=rank)


# Multiples of it, less their whole part, are spread evenly however many are taken.
# Counting through the segments instead would keep step with a segment that is added for
# each probe, and come to the same one for ever.
_GOLDEN = 0.6180339887498949


def probe_segment(turn: int, segments: int) -> int:
    """Which of `segments` the probe number `turn` comes from: the newest, then any."""
    return segments - 1 - int(turn * _GOLDEN % 1 * segments)


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
