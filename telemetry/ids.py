"""Random ids: a UUIDv4 for an installation, UUIDv7s for events (RFC 9562).

An event's id carries the millisecond of its recording, so ids sort by time, and
74 random bits. They are drawn once and then counted up (§6.2, method 2): an id
costs no system call, and two events of one process never share one. A forked
child must call `renew`, or it would count on where its parent does.
"""

from __future__ import annotations

import os
from itertools import count


_RANDOM_BITS = 74
_B_BITS = 62
_B_MASK = (1 << _B_BITS) - 1
# The variant's two bits, on top of the 14 bits that share their group of digits.
_VARIANT = 0b10 << 14


def new_uuid4(random: bytes) -> str:
    """A UUIDv4 from 16 random bytes."""
    number = int.from_bytes(random, "big")
    number = number & ~(0xF << 76) | 0x4 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return _dashed(f"{number:032x}")


class EventIds:
    """Makes event ids; safe for threads."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Draw new random bits. Call it in a forked child."""
        # The top bit is left clear, so that counting up never overflows.
        start = int.from_bytes(os.urandom(10), "big") >> (80 - _RANDOM_BITS + 1)
        self._numbers = count(start)

    def new(self, timestamp_ms: int) -> str:
        """A new id for an event of this time, milliseconds since 1970."""
        number = next(self._numbers)
        low = number & _B_MASK
        return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031 - half the time of an f-string
            timestamp_ms >> 16 & 0xFFFFFFFF,
            timestamp_ms & 0xFFFF,
            number >> _B_BITS,
            _VARIANT | low >> 48,
            low & 0xFFFFFFFFFFFF,
        )


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
