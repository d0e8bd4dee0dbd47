"""Where to cut a refused batch, and where the next probe comes from. Pure.

A batch that draws a refusal, or no answer, while others are accepted holds a bad
event or is too large. It is cut in two, and each part again, down to the event: among
n events one bad one costs 2·log2(n) requests.

Whether others are accepted is what a probe tells: one event from another place. Its
place rotates over the segments, and within a segment over the positions, so that no
pattern of bad events hides the good ones for long.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from telemetry.books.entries import Announced


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


def next_range(
    waiting: Sequence[tuple[str, Announced]],
    good: Collection[tuple[str, int]],
    *,
    single_first: bool,
) -> tuple[str, Announced]:
    """Which range that was set aside is tried next, of at least one, by segment.

    An event that failed alone before comes first with `single_first`, as it is counted
    while others are accepted, and last without. Then what borders on what was accepted in this flush (`good`: segments
    and offsets): good events come in runs, before a program broke and after it was
    repaired. Else the largest, and of equal ones the newest.
    """
    return max(
        waiting,
        key=lambda each: (
            single_first == (each[1].count == 1 and each[1].windows > 0),
            (each[0], each[1].start) in good or (each[0], each[1].end) in good,
            each[1].count,
            each[0],
            each[1].start,
        ),
    )


def probe_segment(turn: int, segments: int) -> int:
    """Which of `segments` the probe number `turn` comes from.

    The newest, the oldest, the second newest, …: each has its turn, and many bad ones
    side by side do not hide a good one behind them.
    """
    at = turn % segments
    return at // 2 if at % 2 else segments - 1 - at // 2


def probe_event(turn: int, segments: int, events: int) -> int:
    """Which of the `events` of that segment it is.

    Every other visit takes the last one (a program that was repaired recorded it) or the
    first one (before the program broke). The visits between go to the middle, to a
    quarter, to three quarters, to an eighth, …
    """
    visit, fraction, part = turn // segments, 0.0, 0.5
    if visit % 2 == 0:
        return 0 if visit % 4 else events - 1
    rest = (visit + 1) // 2
    while rest:  # the digits of the binary number behind the point, reversed
        fraction += part * (rest & 1)
        rest >>= 1
        part /= 2
    return events - 1 - int(fraction * events)
