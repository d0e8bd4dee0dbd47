"""One segment that is open for writing: taken, appended to, closed.

Rules, each of which an exhaustive search over two writers, a flusher and a
purge found an event lost without:

- A segment has one writer. The lock is taken without waiting. Once it is held, the
  name must still lead to the same file: a flusher may have deleted it between our
  open and our lock.
- It is adopted only if it is empty or ends in a whole record. Nothing is ever cut
  off: the next event would hide below the offset that the flusher has settled.
- An event is one `write` where the last one ended. At another position the descriptor
  is not ours any more (a host closes all descriptors and opens its database): nothing
  is written, and it is not closed.
- After the write the path must still lead to this file, and the file must end with
  the record. No flusher reads a file that was purged, renamed or moved with its home.
  A purge that cannot remove a segment appends a byte to it.

A crash between any two system calls leaves at worst a torn tail, which no reader takes
for a record and no writer appends to. This module lists no directory and has no bound.
"""

from __future__ import annotations

import os
import stat

from telemetry.errors import DiskError, raise_the_hosts
from telemetry.files import (
    end_of_ours,
    give_file_to_owner,
    lock_if_possible,
    open_segment,
    read_at,
    try_lock,
)
from telemetry.spool import frame


TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


# Most records are shorter, so one read of the tail finds the last one.
TAIL_BYTES = 4096


class Segment:
    """An open segment of ours. `size` is its length in bytes, `seq` the next number."""

    __slots__ = ("_identity", "descriptor", "name", "path", "seq", "size", "size_max")

    def __init__(self, path: str, descriptor: int, size: int, seq: int) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.descriptor = descriptor
        self.size = size
        self.seq = seq
        # The writer sets it: where the next segment has to begin.
        self.size_max = 0
        found = os.fstat(descriptor)
        self._identity = (found.st_dev, found.st_ino)

    def append(self, event: bytes) -> bool:
        """Whether the event is in a segment that a flusher will read.

        If not, the segment is not ours any more: the caller closes it and takes another
        one. Raises DiskError if the disk took only a part: a torn record may be at the
        end, so the caller closes the segment and counts the event as lost.
        """
        if self.seq > frame.SEQ_MAX:
            return False  # its number would have a ninth digit
        record = frame.encode(self.seq, event)
        descriptor = self.descriptor
        try:
            if end_of_ours(descriptor, 0, os.SEEK_CUR) != self.size:
                return False
        except OSError as error:
            raise_the_hosts(error)
            return False  # closed, or a pipe by now: not ours in any case
        try:
            written = os.write(descriptor, record)
        except OSError as error:
            raise DiskError(self.path, error.strerror or str(error)) from error
        if written != len(record):
            raise DiskError(self.path, f"took {written} of {len(record)} bytes")
        # In this order: interrupted between the two, the segment is abandoned.
        self.seq += 1
        self.size += written
        try:
            named = os.lstat(self.path)
        except OSError as error:
            raise_the_hosts(error)
            return False
        return (
            named.st_size == self.size
            and (named.st_dev, named.st_ino) == self._identity
        )

    def close(self) -> None:
        """Close the segment: its lock ends with the last copy of the descriptor.

        A descriptor that leads to another file by now is left to its owner.
        """
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            return
        try:
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == self._identity:
                os.close(descriptor)
        except OSError:
            pass  # the host has closed it


def adopt(path: str, size_max: int) -> Segment | None:
    """The segment `path`, or None if it cannot be written to.

    It cannot if it is no regular file, full (`size_max` bytes), locked by another
    writer, gone, or if it does not end in a whole record.
    """
    try:
        descriptor = above_stdio(open_segment(path, is_new=False))
    except OSError as error:
        raise_the_hosts(error)
        return None
    segment = None
    try:
        found = os.fstat(descriptor)
        if (
            stat.S_ISREG(found.st_mode)
            and found.st_size < size_max
            and try_lock(descriptor)
            and has_its_name(path, found)
        ):
            # Read under the lock: the writer before us may have added to it.
            size = os.lseek(descriptor, 0, os.SEEK_END)
            seq = _next_seq(descriptor, size)
            if seq is not None and size < size_max:
                segment = Segment(path, descriptor, size, seq)
    except OSError as error:
        raise_the_hosts(error)
        # A file system that cannot lock is one where nothing is adopted.
    finally:
        if segment is None:
            os.close(descriptor)
    return segment


def create(path: str) -> Segment | None:
    """A new segment of ours; None if it was taken away before it was locked.

    Raises OSError. Killed after the open: an empty file stays, which the next writer
    or flusher takes.
    """
    descriptor = above_stdio(open_segment(path, is_new=True))
    try:
        # Without locks no writer adopts, and no flusher deletes.
        locked = lock_if_possible(descriptor)
        found = os.fstat(descriptor)
        give_file_to_owner(descriptor, found)
        # One that is not empty was adopted and closed between our open and our lock.
        if locked and found.st_size == 0 and has_its_name(path, found):
            return Segment(path, descriptor, 0, 0)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def has_its_name(path: str, found: os.stat_result) -> bool:
    """Whether `path` leads to the file of this `fstat`, whatever else does."""
    try:
        return os.path.samestat(os.lstat(path), found)
    except OSError as error:
        raise_the_hosts(error)
        return False


def record_ending_at(descriptor: int, end: int) -> frame.Record | None:
    """The whole record that ends at byte `end`, or None. Raises OSError."""
    length = TAIL_BYTES
    while True:
        at = max(end - length, 0)
        tail = read_at(descriptor, end - at, at)
        if frame.RS in tail or at == 0 or length > frame.RECORD_BYTES_MAX:
            break
        length *= 8
    return frame.last_record(tail, at=at) if at + len(tail) == end else None


def _next_seq(descriptor: int, size: int) -> int | None:
    """The number after the last record's; None if the end is not clean."""
    if size == 0:
        return 0
    last = record_ending_at(descriptor, size)
    return None if last is None or last.seq >= frame.SEQ_MAX else last.seq + 1


def above_stdio(descriptor: int) -> int:
    """The same file on number 3 or higher: 0 to 2 are the host's, open or not."""
    low = []
    try:
        while descriptor <= 2:
            low.append(descriptor)
            descriptor = os.dup(descriptor)
    finally:
        for number in low:
            os.close(number)
    return descriptor


def holding(lock: RLock, call: Callable[..., T], *given: object) -> T:
    """What the call returns; the lock is held meanwhile, and released whatever happens.

    In Python 3.14 a signal's handler may raise between the two halves of `with lock`,
    and the lock stays held. Here one call releases it, in the frame that acquired it.
    """
    try:
        lock.acquire()
        return call(*given)
    finally:
        try:
            lock.release()
        except RuntimeError:
            pass  # the handler raised before the lock was acquired
