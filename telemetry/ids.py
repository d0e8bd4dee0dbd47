"""Random ids: a UUIDv4 for an installation, UUIDv7s for events (RFC 9562).

An event's id carries the millisecond of its recording, so ids sort by time, and
73 random bits. They are drawn once and then counted up (§6.2, method 2): an id
costs no system call, and two events of one process never share one. A forked
child must call `renew`, or it would count on where its parent does.
"""

from __future__ import annotations

import os
from itertools import count


# 12 and 14 random bits before the last 12 hex digits, and 48 in these.
_HIGH_MASK = (1 << 26) - 1
_LOW_BITS = 48
_LOW_MASK = (1 << _LOW_BITS) - 1
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

    __slots__ = ("_high", "_last", "_numbers")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Draw new random bits. Call it in a forked child."""
        random = int.from_bytes(os.urandom(10), "big")
        # The lowest digits are counted up. Their top bit is left clear, so that they
        # never overflow into the 26 bits before them, which stay.
        self._numbers = count(random & _LOW_MASK >> 1)
        high = random >> _LOW_BITS & _HIGH_MASK
        self._high = (high >> 14, _VARIANT | high & 0x3FFF)
        self._last = (-1, "")

    def new(self, timestamp_ms: int) -> str:
        """A new id for an event of this time, milliseconds since 1970."""
        last = self._last
        if last[0] != timestamp_ms:
            prefix = "%08x-%04x-7%03x-%04x-" % (  # noqa: UP031 - half the time of an f-string
                timestamp_ms >> 16 & 0xFFFFFFFF,
                timestamp_ms & 0xFFFF,
                *self._high,
            )
            # One assignment of both: another thread reads the old or the new pair.
            last = self._last = (timestamp_ms, prefix)
        return last[1] + "%012x" % next(self._numbers)  # noqa: UP031 - as above


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
