"""The bytes of a segment, as coarse as they can be.

A record is two units, its first half `2 * event` and its second half
`2 * event + 1`. That is the least that shows half-written records, cuts inside a
record, and offsets that point into one. A first half followed by its own second
half is whole; any other unit is damage; a reader goes on at the next whole
record.
"""

from __future__ import annotations

from functools import cache


Units = tuple[int, ...]

ZERO = -1  # a unit that a power loss left empty
LF = -3  # what an opt-out writes, on Windows, to a file that a writer has open


@cache
def records(units: Units, start: int = 0) -> tuple[tuple[int, int, int], ...]:
    """The whole records from `start` on: start, end (exclusive), event."""
    found = []
    at = start
    while at + 1 < len(units):
        if units[at] % 2 == 0 and units[at + 1] == units[at] + 1:
            found.append((at, at + 2, units[at] // 2))
            at += 2
        else:
            at += 1
    return tuple(found)


def whole_end(units: Units, start: int = 0) -> int:
    """Where the last whole record ends; `start` where none follows it."""
    found = records(units, start)
    return found[-1][1] if found else start


def is_erased(units: Units) -> bool:
    """Whether only an LF was left of it; a write that was under way may follow."""
    return units[:1] == (LF,) and (len(units) == 1 or units[1] % 2 == 0)
