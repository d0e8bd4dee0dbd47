"""The spool as one process writes it: takes segments, rolls over, keeps the bound.

Rules:

- The newest segments are tried first and the first that can be adopted is
  taken, else a new one is made. So up to eight writers at once share eight
  segments, and opening costs the same with a million events waiting as with none.
- A new name sorts behind every name there is, also after the clock was set back.
- The bound counts everything in `spool/`; `dead/` and `quarantine/` have bounds of
  their own. It refuses the newest event; it never deletes. It is looked at when a
  segment is opened, so it is soft by what other open segments may still grow.
- An event from inside `append` of the same thread (a signal handler) is
  refused: waiting would wait for itself.
- A forked child closes its copy of the parent's descriptor. It never unlocks: the
  lock belongs to the open file, which the parent still has.
- Where a segment's path leads elsewhere (a purge, an opt-out, a moved home), consent
  is read again and the event goes into another segment.

This module reads no record and deletes nothing.
"""

from __future__ import annotations

import os
import time
from _thread import RLock, get_ident
from collections.abc import Callable

from telemetry.errors import (
    BusyError,
    DiskError,
    EventTooBigError,
    OffError,
    SpoolFullError,
)
from telemetry.files import sync_directory, sync_way_to
from telemetry.paths import Home, is_segment, segment_created_ns, segment_name
from telemetry.spool import frame
from telemetry.spool.segment import Segment, adopt, create


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.spool.power import SharedSync

# More writers than this at once each leave a segment of their own behind.
_ADOPTABLE = 8
# A segment can be taken away while we take it; so often in a row only by design.
_ATTEMPTS = 20
# Whatever makes room deletes a segment, which changes the directory's time. A file
# system counts it in steps of milliseconds, so a deletion in the step in which the
# spool was found full does not show; after one second it is measured again.
_FULL_FOR_NS = 1_000_000_000


class SpoolWriter:
    """Appends events to the spool of `home`; safe for threads, forks and signals.

    `prepare` makes the home and its directories; it raises RefusedError.
    `allowed` says whether telemetry is on; it is asked whenever a segment is opened,
    as one is after each purge and opt-out. Sizes are bytes.
    """

    def __init__(
        self,
        home: Home,
        *,
        spool_bytes_max: int,
        segment_bytes_max: int,
        power: bool,
        prepare: Callable[[], object],
        allowed: Callable[[], bool],
    ) -> None:
        self._home = home
        self._spool_bytes_max = spool_bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._power = power
        self._prepare = prepare
        self._allowed = allowed
        self._segment: Segment | None = None
        self._shared_sync: SharedSync | None = None
        # What was found when the spool was full: its change time, when, and bytes.
        self._full: tuple[int, int, int] | None = None
        # Threads that are inside `append`, for power mode, which waits unlocked.
        self._inside: set[int] = set()
        self._lock = RLock()
        # Bytes in the spool when a segment was last opened.
        self.waiting_bytes = 0

    def append(self, event: bytes) -> None:
        """The event is in the spool on return, and survives a kill from then on.

        `event` is compact JSON. With `power` it survives a power loss as well.
        Raises a RefusedError where it was not recorded.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - the only atomic way to ask
            raise BusyError("an event inside an event; it was not recorded")
        if self._power:
            self._append_durably(event)
            return
        with lock:
            segment, size = self._segment, len(event) + frame.OVERHEAD
            # Nearly always this one, without what surrounds the taking of another.
            if (
                segment is not None
                and segment.size + size <= segment.size_max
                and size <= frame.RECORD_BYTES_MAX
                and self._put(segment, event)
            ):
                return
            self._append(event)

    def close(self) -> None:
        """Close the segment. Events may follow; they take one again."""
        with self._lock:
            self._close_segment()

    def after_fork(self) -> None:
        """Forget what belongs to the parent: its descriptor, and its locks.

        The owner calls it in a child before anything else.
        """
        segment, self._segment = self._segment, None
        self._shared_sync = None
        self._inside = set()
        self._lock = RLock()
        if segment is not None:
            segment.close()

    def _append(self, event: bytes) -> None:
        size = len(event) + frame.OVERHEAD
        if size > frame.RECORD_BYTES_MAX:
            # Whatever the program's own bound is: no reader would take it.
            raise EventTooBigError(len(event), frame.RECORD_BYTES_MAX - frame.OVERHEAD)
        for _ in range(_ATTEMPTS):
            segment = self._segment
            if segment is None or segment.size + size > segment.size_max:
                try:
                    segment = self._take_anew(size)
                except FileNotFoundError:
                    continue  # a purge, or a move, took the directory meanwhile
                except OSError as error:
                    problem = error.strerror or str(error)
                    raise DiskError(self._home.spool, problem) from error
            if self._put(segment, event):
                return
        raise DiskError(self._home.spool, "segments are taken away as they are made")

    def _put(self, segment: Segment, event: bytes) -> bool:
        """Whether the event is in `segment`, which is closed where it is not.

        Raises DiskError; it is closed then, too.
        """
        try:
            if segment.append(event):
                return True
        except DiskError:
            self._close_segment()
            raise
        self._close_segment()
        return False

    def _take_anew(self, size: int) -> Segment:
        """Another segment, which has room for a record of `size` bytes."""
        self._close_segment()
        segment = self._open(size)
        if self._power:
            from telemetry.spool.power import SharedSync

            self._shared_sync = SharedSync(segment)
        self._segment = segment
        return segment

    def _append_durably(self, event: bytes) -> None:
        ident = get_ident()
        if ident in self._inside:
            raise BusyError("an event inside an event; it was not recorded")
        try:
            self._inside.add(ident)
            with self._lock:
                self._append(event)
                shared = self._shared_sync
                if shared is None:  # nothing was appended, or `_append` had raised
                    raise DiskError(self._home.spool, "no segment is open")
                covering = shared.written()
            try:
                shared.wait(covering)
            except DiskError:
                with self._lock:
                    if self._shared_sync is shared:
                        self._close_segment()
                raise
        finally:
            self._inside.discard(ident)

    def _close_segment(self) -> None:
        segment, self._segment = self._segment, None
        shared, self._shared_sync = self._shared_sync, None
        if shared is not None:
            shared.close()
        elif segment is not None:
            segment.close()

    def _open(self, size: int) -> Segment:
        """A segment that takes a record of `size` bytes.

        Raises RefusedError, and OSError.
        """
        self._refuse_while_full(size)
        self._ask()
        self._prepare()
        room = self._room(size)
        names = sorted(filter(is_segment, os.listdir(self._home.spool)))
        segment = self._take(names, size)
        try:
            # It may grow by what the bound leaves, and not beyond its own.
            segment.size_max = min(
                max(self._segment_bytes_max, segment.size + size), segment.size + room
            )
            if self._power:
                # Also for one that was adopted: its maker may have died before.
                sync_directory(self._home.spool)
                sync_way_to(self._home.spool)
            # An opt-out that ended before the segment was there has not seen it.
            self._ask()
        except BaseException:
            segment.close()
            raise
        return segment

    def _take(self, names: list[str], size: int) -> Segment:
        # One that is too full for this event is no better than a new one.
        size_max = max(self._segment_bytes_max - size + 1, 1)
        for name in names[: -_ADOPTABLE - 1 : -1]:
            segment = adopt(self._home.segment(name), size_max)
            if segment is not None:
                return segment
        newest_ns = segment_created_ns(names[-1]) if names else 0
        for _ in range(_ATTEMPTS):
            newest_ns = max(time.time_ns(), newest_ns + 1)
            name = segment_name(newest_ns, os.urandom(4))
            segment = create(self._home.segment(name))
            if segment is not None:
                return segment
        raise DiskError(self._home.spool, "segments are taken away as they are made")

    def _ask(self) -> None:
        if not self._allowed():
            raise OffError("telemetry was turned off while this program ran")

    def _refuse_while_full(self, size: int) -> None:
        """Raise SpoolFullError where the spool was full a moment ago and still is.

        Refusing must not cost more than recording: this is one system call.
        """
        if self._full is None:
            return
        changed_ns, found_ns, kept = self._full
        try:
            same = os.stat(self._home.spool).st_mtime_ns == changed_ns
        except OSError:
            same = False
        if not same or time.monotonic_ns() - found_ns > _FULL_FOR_NS:
            self._full = None
        elif size > self._spool_bytes_max - kept:
            raise SpoolFullError(kept, self._spool_bytes_max)

    def _room(self, size: int) -> int:
        """Bytes left below the bound; SpoolFullError where they are less than `size`."""
        changed_ns = os.stat(self._home.spool).st_mtime_ns
        kept = self.waiting_bytes = size_of(self._home.spool)
        if size > self._spool_bytes_max - kept:
            self._full = (changed_ns, time.monotonic_ns(), kept)
            raise SpoolFullError(kept, self._spool_bytes_max)
        return self._spool_bytes_max - kept


def size_of(directory: str) -> int:
    """The bytes of all files in a directory; 0 where there is none."""
    try:
        with os.scandir(directory) as entries:
            return sum(_size(entry) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return 0  # nothing of ours is in it, and nothing can come


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0  # deleted meanwhile
