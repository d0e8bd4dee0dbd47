"""When the next flush may begin, remembered on disk across launches.

The file `next-flush` is born with the home. Its modification time is the
earliest time of the next flush, so a launch learns it from one `stat`; its
content is the CRC-32 of the endpoint, header and key that the time was set for,
so a corrected key or endpoint ends a pause at the next launch. It is
overwritten in place and therefore also works on a full disk.

A time more than 24 hours ahead counts as due: nothing here ever sets one, so a
clock was changed. Light, as every launch loads it.
"""

from __future__ import annotations

import os
from zlib import crc32

from telemetry.files import open_regular


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The longest that anything may hold a flush back, a server's wish included.
HORIZON_S = 24 * 3600.0
_CONTENT_BYTES = 8


def identity_of(endpoint: str, header: str, api_key: str) -> str:
    """8 hex digits that change when one of the three does. It tells no secret.

    Keys are long random strings: 32 bits of checksum do not narrow one down.
    """
    parts = f"{endpoint}\0{header}\0{api_key}"
    return f"{crc32(parts.encode('utf-8', 'surrogatepass')):08x}"


def make(path: str) -> None:
    """The file exists afterwards; a new one is due at once. Raises OSError."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    try:
        os.write(descriptor, b"0" * _CONTENT_BYTES)
    finally:
        os.close(descriptor)


def is_due(path: str, now: float, identity: str) -> bool:
    """Whether a flush may begin at `now`, seconds since 1970.

    A file that is missing or cannot be read is due: the flush makes a new one.
    """
    try:
        at = os.stat(path, follow_symlinks=False).st_mtime
        if at <= now or at > now + HORIZON_S:
            return True
        descriptor = open_regular(path, os.O_RDONLY)
        try:
            return os.read(descriptor, _CONTENT_BYTES) != identity.encode()
        finally:
            os.close(descriptor)
    except OSError:
        return True


def read(path: str) -> float | None:
    """The earliest time of the next flush, seconds since 1970; None if unknown."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return None


def postpone(path: str, until: float, identity: str) -> None:
    """No flush begins before `until`, seconds since 1970. Raises OSError.

    Killed between write and utime, the time is that of the write: due at once,
    which costs one early flush.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(descriptor, identity.encode()[:_CONTENT_BYTES], 0)
        until_ns = int(until * 1e9)
        if os.utime in os.supports_fd:
            os.utime(descriptor, ns=(until_ns, until_ns))
    finally:
        os.close(descriptor)


def backoff_s(
    failures: int, *, first_s: float, max_s: float, random: Callable[[], float]
) -> float:
    """Seconds to the next flush after `failures` in a row: exponential, full jitter.

    Uniform between zero and the window, which doubles from `first_s` to `max_s`
    (the "full jitter" of the AWS Architecture Blog). `random` gives 0 to 1.
    """
    window = min(max_s, first_s * 2.0 ** min(max(failures - 1, 0), 62))
    return random() * window
