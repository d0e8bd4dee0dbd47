"""The spool as the flusher sees it: reads, quarantines, deletes.

Rules:

- Segments are read in the order of their names, also while they are written, up to
  the last whole record. What follows is left alone while a writer holds the segment's
  lock; once the lock is free, it is damage.
- A damaged stretch is copied to `quarantine/`, whole and synced, before what follows
  it is settled.
- A segment is deleted under its own lock, after its end was read again under that
  lock, and only if its name still leads to it. Otherwise an event that was written
  between our last read and our lock is lost.

This module sends nothing and keeps no books. Its caller holds the flush lock, so no
other process deletes meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from telemetry.errors import SpoolError
from telemetry.files import (
    TEMPORARY,
    is_erased,
    make_directory,
    move_over,
    names_in,
    open_regular,
    read_at,
    shut_out_writers,
    sync,
    sync_directory,
    unlock,
    write_all,
)
from telemetry.paths import Home, is_segment
from telemetry.spool import frame
from telemetry.spool.segment import TAIL_BYTES, record_ending_at


# One read. Large enough that parsing, not reading, is what takes time; small
# enough that memory stays the same however large the spool is.
CHUNK_BYTES = 256 * 1024
# Records taken at once by who wants them all: bounds memory, not the count.
_AT_ONCE = 1000
_NO_BOUND = 1 << 62


def segment_names(home: Home, directory: str = "") -> list[str]:
    """The segments of a spool, oldest first; none where there is no spool."""
    return sorted(filter(is_segment, names_in(directory or home.spool)))


class Checked(msgspec.Struct):
    """What a segment holds up to `end`, the end of its last whole record.

    records: whole records
    gaps: where numbers are missing: the offset of the record behind, and how many
    repeated: where a record begins whose number is not above the one before
    damage: damaged stretches, as pairs of offsets
    """

    records: int = 0
    gaps: list[tuple[int, int]] = []
    repeated: list[int] = []
    damage: list[tuple[int, int]] = []
    end: int = 0


class SegmentReader:
    """One segment, open for reading; in `directory`, if not in `spool/`.

    Raises SpoolError if it is no regular file or cannot be read.
    """

    def __init__(self, home: Home, name: str, directory: str = "") -> None:
        self.name = name
        self.path = f"{directory or home.spool}/{name}"
        self._home = home
        try:
            self._descriptor = open_regular(self.path, os.O_RDONLY)
        except OSError as error:
            raise SpoolError(self.path, 0, error.strerror or str(error)) from error
        try:
            self._is_erased = is_erased(self._descriptor)
        except OSError:
            self._is_erased = False  # what cannot be read says so where it is read
        # While it is open, no writer can have the segment.
        self._lock: int | None = None
        # Records that were read and not yet taken, and where reading goes on.
        self._items: list[frame.Record | frame.Damage] = []
        self._next = 0
        self._answered = 0
        self._resume = 0
        self._chunk_bytes = CHUNK_BYTES

    def holds(self, offset: int, seq: int, crc: str) -> bool:
        """Whether the record that ends at `offset` has this number and checksum.

        Raises OSError: a read that failed says nothing about the file.
        """
        if offset == 0:
            return True
        last = record_ending_at(self._descriptor, offset)
        return last is not None and (last.seq, last.crc) == (seq, crc.encode())

    def mentions(self, text: bytes) -> bool:
        """Whether the text stands anywhere in the segment. Raises OSError."""
        return self._count(text, 0, self.size()) > 0

    def start_at(self, offset: int) -> None:
        """Read from `offset` on, where a record begins or the segment does."""
        self._items, self._next = [], 0
        self._answered = self._resume = offset
        self._chunk_bytes = CHUNK_BYTES

    def take(
        self,
        events_max: int = _AT_ONCE,
        bytes_max: int = _NO_BOUND,
        *,
        until: int | None = None,
    ) -> list[frame.Record | frame.Damage]:
        """The next records, with the damaged stretches before and between them.

        At most `events_max` records whose events have at most `bytes_max` bytes
        together, but always one; none that ends behind `until`. The last item
        is a record. Empty where no whole record follows.
        """
        taken: list[frame.Record | frame.Damage] = []
        count = size = 0
        while self._next < len(self._items) or self._read():
            item = self._items[self._next]
            if type(item) is frame.Record:
                # The event, and the comma behind it.
                size += item.end - item.start - frame.OVERHEAD + 1
                if (until is not None and item.end > until) or (
                    count and (count >= events_max or size > bytes_max)
                ):
                    break
                count += 1
            taken.append(item)
            self._next += 1
        # Damage is taken with the record behind it, which is in the same read.
        while taken and type(taken[-1]) is frame.Damage:
            taken.pop()
            self._next -= 1
        return taken

    def items(
        self, start: int = 0, until: int | None = None
    ) -> Iterator[frame.Record | frame.Damage]:
        """All that `take` gives from `start` on."""
        self.start_at(start)
        while items := self.take(until=until):
            yield from items

    def _read(self) -> bool:
        """Whether one more read brought an item. Raises SpoolError."""
        if self._is_erased:
            return False
        while True:
            at = self._resume
            try:
                content = read_at(self._descriptor, self._chunk_bytes, at)
            except OSError as error:
                problem = error.strerror or str(error)
                raise SpoolError(self.path, at, problem) from error
            found = frame.scan(content, at=at, answered=self._answered)
            self._answered, self._resume = found.answered, found.resume
            if found.items:
                self._items, self._next = found.items, 0
                return True
            if not content:
                return False
            if found.resume == at:
                # One record is longer than what was read of it, or not yet whole.
                if len(content) < self._chunk_bytes:
                    return False
                longer = 4 * self._chunk_bytes
                self._chunk_bytes = min(longer, frame.RECORD_BYTES_MAX + 1)

    def check(self) -> Checked:
        """Every record from the segment's start, by its checksum. Raises SpoolError."""
        checked = Checked()
        seq = -1
        for item in self.items():
            if isinstance(item, frame.Damage):
                checked.damage.append((item.start, item.end))
                continue
            checked.records += 1
            if item.seq > seq + 1:
                checked.gaps.append((item.start, item.seq - seq - 1))
            elif item.seq <= seq:
                checked.repeated.append(item.start)
            seq, checked.end = item.seq, item.end
        return checked

    def last(self, size: int) -> frame.Record | None:
        """The last whole record among the first `size` bytes; None if there is none.

        Looks backwards from their end, no further than a record can be long.
        Raises OSError.
        """
        length = TAIL_BYTES
        while True:
            at = max(size - length, 0)
            content = read_at(self._descriptor, size - at, at)
            found = frame.scan(content, at=at, answered=at).items
            if found and isinstance(found[-1], frame.Record):
                return found[-1]
            if at == 0 or length > frame.RECORD_BYTES_MAX:
                return None
            length *= 8

    def count_marks(self, start: int, stop: int | None = None) -> int:
        """How many records seem to begin in these bytes. Raises OSError."""
        stop = self.size() if stop is None else stop
        return self._count(frame.MARK, start, stop)

    def _count(self, text: bytes, start: int, stop: int) -> int:
        count, before = 0, b""
        for content in self._chunks(start, stop):
            seen = before + content
            count += seen.count(text)
            # Too short to hold the text, which has several bytes: none counts twice.
            before = seen[1 - len(text) :]
        return count

    def _chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """These bytes in pieces, as far as they are there. Raises OSError."""
        while start < stop:
            length = min(CHUNK_BYTES, stop - start)
            content = read_at(self._descriptor, length, start)
            if not content:
                return
            yield content
            start += len(content)

    def lock(self) -> bool:
        """Whether no writer has it any more; it stays locked until `close`.

        False where one has, and where this file system cannot tell.
        """
        if self._lock is None:
            try:
                self._lock = shut_out_writers(self.path, self._descriptor)
            except OSError:
                return False
        return self._lock is not None

    def size(self) -> int:
        """Its length in bytes now; 0 where it was erased."""
        if self._is_erased:
            return 0
        return os.fstat(self._descriptor).st_size

    def is_given_up(self, end: int) -> bool:
        """Whether only the line feed of a purge stands behind `end`. Raises OSError."""
        return read_at(self._descriptor, 2, end) == b"\n"

    def quarantine(self, start: int, end: int) -> None:
        """The bytes `start` to `end` are in `quarantine/` on return, and synced.

        Written again after a crash, it has the same name and the same bytes.
        Raises OSError; nothing of it is visible then.
        """
        directory = self._home.quarantine
        make_directory(directory, durable=True)
        path = f"{directory}/{self.name}-{start}"
        temporary = f"{path}{TEMPORARY}{os.getpid()}"
        descriptor = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            try:
                for content in self._chunks(start, end):
                    write_all(descriptor, content)
                sync(descriptor)
            finally:
                os.close(descriptor)
            move_over(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        sync_directory(directory)

    def delete(self, settled: int) -> bool:
        """Whether the segment is gone; it is if all `settled` bytes are all it has.

        The caller holds its lock (`lock`), so its end cannot move between the
        look and the unlink. Killed before the unlink: the ledger says that all
        is settled, and the next flush comes here again.
        """
        if self._lock is None or self.size() != settled:
            return False
        try:
            # A second name (a backup by hard links) keeps nothing in the spool.
            if os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor)):
                os.unlink(self.path)
        except FileNotFoundError:
            pass  # a purge was quicker
        return True

    def close(self) -> None:
        """Close it, and release its lock."""
        descriptor, self._descriptor = self._descriptor, -1
        lock, self._lock = self._lock, None
        try:
            if lock is not None:
                # A child that was forked meanwhile has a copy of the descriptor.
                unlock(lock)
        finally:
            if lock is not None and lock != descriptor:
                os.close(lock)
            if descriptor >= 0:
                os.close(descriptor)
