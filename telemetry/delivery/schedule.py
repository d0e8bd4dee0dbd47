"""When the next flush may begin, remembered on disk across launches.

The file `next-flush` is born with the home. Its modification time is the
earliest time of the next flush, so a launch learns it from one `stat`; its
content is the CRC-32 of the endpoint, header and key that the time was set for,
so a corrected key or endpoint ends a pause at the next launch. It is
overwritten in place and therefore also works on a full disk.

A time more than 24 hours ahead counts as due: nothing here ever sets one, so a
clock was changed. Light, as every launch loads it.

Whether a launch has a flush to begin, and may: asked by every launch.

Nearly every one ends here, so this is light and reads one file. Taking the lock
and starting the flusher is `launch.py`, which is loaded only then.
"""

from __future__ import annotations

import os
import sys
from zlib import crc32

from telemetry.files import open_regular
from telemetry.locks import try_lock
from telemetry.spool.segment import above_stdio, has_its_name


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.config import Config
    from telemetry.paths import Home

# What puts a flusher into the background.
SHELL = "/bin/sh"


def can_send(config: Config) -> bool:
    """Whether there is somewhere to send: an endpoint, and its key if one is asked for."""
    return bool(config.endpoint and (config.api_key or not config.header))


def can_spawn() -> bool:
    """Whether `sys.executable` is a Python that runs what it is given."""
    name = os.path.basename(sys.executable or "").lower()
    return (
        name.startswith(("python", "pypy"))
        and not getattr(sys, "frozen", False)
        # The first process of a container inherits every orphan: a `wait` of its own
        # would meet our flusher.
        and os.getpid() != 1
        and hasattr(os, "posix_spawn")
        and os.access(SHELL, os.X_OK)
    )


def is_due(config: Config, home: Home, now: float) -> bool:
    """Whether the next flush may begin at `now`, in seconds since 1970."""
    return can_send(config) and is_time_due(
        home.next_flush, now, destination_of(config)
    )


def destination_of(config: Config) -> str:
    """What a time for the next flush is set for."""
    return destination_crc(config.endpoint, config.header, config.api_key)


# Until a flusher that was started has set a time of its own.
WINDOW_S = 60.0


def flush_lock(home: Home) -> int | None:
    """A descriptor that holds the flush lock; None where somebody else has it.

    Raises OSError where it cannot be made, or where nothing can be locked.
    """
    descriptor = above_stdio(open_regular(home.flush_lock, os.O_RDWR | os.O_CREAT))
    try:
        # A home that was removed and made again has another lock by now.
        if try_lock(descriptor) and has_its_name(home.flush_lock, os.fstat(descriptor)):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def claim(config: Config, home: Home, now: float) -> int | None:
    """The flush lock, if a flush is due at `now` and nobody else is at it.

    The next flush is one window ahead on return. Raises OSError.
    """
    if not is_due(config, home, now):
        return None
    lock = flush_lock(home)
    if lock is None:
        return None
    try:
        # Between our look and our lock another launch may have had its turn.
        if is_due(config, home, now):
            postpone(home.next_flush, now + WINDOW_S, destination_of(config))
            return lock
    except OSError:
        # Kept, it would be locked for as long as this program runs.
        os.close(lock)
        raise
    os.close(lock)
    return None


# The longest that anything may hold a flush back, a server's wish included.
HORIZON_S = 24 * 3600.0
_CONTENT_BYTES = 8


def destination_crc(endpoint: str, header: str, api_key: str) -> str:
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


def is_time_due(path: str, now: float, identity: str) -> bool:
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
