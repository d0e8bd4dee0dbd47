"""Random ids: a UUIDv4 for an installation, UUIDv7s for events (RFC 9562).

The installation's id is a file of the home, used as it stands, whatever it holds. Where it
is missing or empty a new one is written, and of several first launches at once the first
writer wins. Where that cannot be done the id lives as long as the caller keeps it.

An event's id carries the millisecond of its recording, so ids sort by time, and 73
random bits. They are drawn once and then counted up (§6.2, method 2): an id costs no
system call, and two events of one process never share one.
"""

from __future__ import annotations

import errno
import os
import time
from itertools import count
from uuid import UUID

from telemetry.errors import raise_the_hosts
from telemetry.files import lock_if_possible, open_regular, read_small, write_whole
from telemetry.text import decode, trim


# 12 and 14 random bits before the last 12 hex digits, and 48 in these.
_HIGH_MASK = (1 << 26) - 1
_LOW_BITS = 48
_LOW_MASK = (1 << _LOW_BITS) - 1
# The variant's two bits, on top of the 14 bits that share their group of digits.
_VARIANT = 0b10 << 14


def new_uuid4(random: bytes) -> str:
    """A UUIDv4 from 16 random bytes."""
    return str(UUID(bytes=random, version=4))


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


def new_ci_id(random: bytes) -> str:
    """A UUIDv8 (RFC 9562 §5.8) that says it was made in continuous integration."""
    random_id = new_uuid4(random)
    return f"c1000000-{random_id[9:14]}8{random_id[15:]}"


# A longer id would make every event larger than it needs to be.
_ID_BYTES_MAX = 1024
# Writing an id takes a fraction of a millisecond; a command waits 50 at most.
_TRIES = 50
# What an open says of a file that will never be read: its mode, a link, its kind.
_UNREADABLE = frozenset({0, errno.EACCES, errno.EPERM, errno.ELOOP})
_PAUSE_S = 0.001


def parse_id(content: bytes) -> str:
    """The id in a file: its text, trimmed; bytes that are no UTF-8 as U+FFFD."""
    return trim(decode(content))


def known_uuid(path: str) -> str:
    """The id in the file `path`; empty where there is none to be read."""
    try:
        return _read(path) or ""
    except OSError:
        return ""


def user_uuid(path: str, *, is_ci: bool = False) -> str:
    """The id of this installation, from the file `path` or new. Never raises.

    A new one says that it was made in continuous integration: there each run may have
    a home of its own, and would count as another user.
    """
    fresh = (new_ci_id if is_ci else new_uuid4)(os.urandom(16))
    try:
        found = _read(path)
        if found:
            return found
        if found is None and write_whole(path, fresh.encode(), first_wins=True):
            return fresh
        return _read(path) or _replace_empty(path, fresh)
    except OSError as error:
        raise_the_hosts(error)
        if not os.path.lexists(path) or error.errno in _UNREADABLE:
            # What cannot be read (its mode, a link) gives way, if the home allows.
            try:
                write_whole(path, fresh.encode())
            except OSError:
                pass  # the id lives as long as the client
        # Else it is a fault of the moment: the next launch reads it again.
        return fresh


def reset_uuid(path: str) -> str:
    """A new id, which is in the file `path` for good on return. Raises OSError."""
    fresh = new_uuid4(os.urandom(16))
    write_whole(path, fresh.encode(), durable=True)
    return fresh


def _read(path: str) -> str | None:
    content = read_small(path, _ID_BYTES_MAX)
    return None if content is None else parse_id(content)


def _replace_empty(path: str, fresh: str) -> str:
    """An empty file gets an id; of several launches the lock's holder writes it.

    Killed between the lock and the rename, the file is as empty as before.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        for _ in range(_TRIES):
            is_ours = lock_if_possible(descriptor)
            # The holder before us may have written while we opened the old file.
            found = _read(path)
            if found:
                return found
            if is_ours:
                write_whole(path, fresh.encode(), is_open=True)
                break
            time.sleep(_PAUSE_S)  # another launch is writing one now
        return fresh
    finally:
        os.close(descriptor)
