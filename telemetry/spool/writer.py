"""The spool as one process writes it: takes segments, rolls over, keeps the bound.

Rules:

- The newest segments are tried first, and the first that can be adopted is taken;
  else a new one is made. So eight writers share eight segments, and opening costs the
  same with a million events waiting as with none.
- A new name sorts behind every other, also after the clock was set back.
- The bound counts all of `spool/`, and nothing else. It refuses the newest event and
  deletes nothing. It is checked when a segment is opened, so it is soft by what other
  open segments may still grow.
- An event from inside `append` of the same thread (a signal handler) is refused: it
  would wait for itself.
- A forked child closes its copy of the descriptor and never unlocks: the lock belongs
  to the open file, which the parent still has.
- If a segment's path leads elsewhere (a purge, an opt-out, a moved home), consent is
  read again and the event goes into another segment.

This module reads no record and deletes nothing.
"""

from __future__ import annotations

import os
import time
from _thread import RLock, get_ident
from collections.abc import Callable
from itertools import islice

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
from telemetry.spool.segment import Segment, adopt, create, holding


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.spool.power import Round, SharedSync

# More writers than this at once each leave a segment of their own behind.
_ADOPTABLE = 8
# With so many files in the spool, the next launch is told what a look has found.
_MANY = 200
# A segment can be taken away while we take it; so often in a row only by design.
_ATTEMPTS = 20
# Whatever makes room deletes a segment, which changes the directory's time. A file
# system counts it in steps of milliseconds, so a deletion in the step in which the
# spool was found full does not show; after one second it is measured again.
_FULL_FOR_NS = 1_000_000_000
# How long a program may record behind an opt-out that was killed between its two steps.
_ASK_EACH_NS = 10_000_000_000
# Nor is it looked at more often than a file system counts.
_LOOK_EACH_NS = 1_000_000


class SpoolWriter:
    """Appends events to the spool of `home`; safe for threads, forks and signals.

    `prepare` makes the home and its directories, and returns the user's id that events
    carry from then on; it raises RefusedError.
    `allowed` says whether telemetry is on; it is asked whenever a segment is opened,
    as one is after each purge and opt-out, and every ten seconds. Sizes are bytes.
    """

    def __init__(
        self,
        home: Home,
        *,
        spool_bytes_max: int,
        segment_bytes_max: int,
        power: bool,
        prepare: Callable[[], str | None],
        allowed: Callable[[], bool],
    ) -> None:
        self._home = home
        self._spool_bytes_max = spool_bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._power = power
        self._prepare = prepare
        self._allowed = allowed
        self._segment: Segment | None = None
        self._owner: str | None = None
        self._shared_sync: SharedSync | None = None
        # What was found when the spool was full: its change time, when, and bytes.
        self._full: tuple[int, int, int] | None = None
        self._looked_ns = self._asked_ns = 0
        # Threads that are inside `append`, for power mode, which waits unlocked.
        self._inside: set[int] = set()
        # Asked for by a signal's handler inside of an event: done behind that event.
        self._is_to_close = False
        self._lock = RLock()
        # Bytes in the spool when a segment was last opened.
        self.waiting_bytes = 0

    @property
    def was_full(self) -> bool:
        """Whether the spool was full when a segment was last looked for."""
        return self._full is not None

    def append(self, event: bytes, owner: str | None = None) -> None:
        """The event is in the spool on return, and survives a kill from then on.

        `event` is compact JSON, `owner` the user's id in it: BusyError where another one
        holds by now. With `power` it survives a power loss as well.
        Raises a RefusedError where it was not recorded.
        """
        is_owned = self._lock._is_owned()  # type: ignore[attr-defined] # noqa: SLF001 - the only atomic way to ask
        if is_owned or (self._inside and get_ident() in self._inside):
            raise BusyError("an event inside an event; it was not recorded")
        try:
            if self._power:
                self._append_durably(event, owner, get_ident())
            else:
                holding(self._lock, self._append, event, owner)
        finally:
            if self._is_to_close:
                self.close()

    def refuse_while_full(self, size: int) -> None:
        """Raise SpoolFullError if a record of `size` bytes found no room just now.

        Refusing must not cost more than recording: this is one system call a
        millisecond, and none where a segment is open. Called before an event is made,
        `size` is what no event is below.
        """
        if self._full is None or self._segment is not None:
            return
        changed_ns, found_ns, kept = self._full
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns > _LOOK_EACH_NS:
            self._looked_ns = now_ns
            try:
                same = os.stat(self._home.spool).st_mtime_ns == changed_ns
            except OSError:
                same = False
            if not same or now_ns - found_ns > _FULL_FOR_NS:
                self._full = None
                return
        if size > self._spool_bytes_max - kept:
            raise SpoolFullError(kept, self._spool_bytes_max)

    def close(self) -> None:
        """Close the segment. Events may follow; they take one again.

        Called inside of an event, by a signal's handler, it is done behind that event:
        its write would meet the next file that the host opens under the same number.
        """
        self._is_to_close = self._lock._is_owned()  # type: ignore[attr-defined] # noqa: SLF001 - as above
        if self._is_to_close:
            return
        holding(self._lock, self._close_segment)

    def after_fork(self) -> None:
        """Forget what belongs to the parent: its descriptor, and its locks.

        The owner calls it in a child before anything else.
        """
        segment, self._segment = self._segment, None
        self._shared_sync = None
        self._inside = set()
        self._is_to_close = False
        self._lock = RLock()
        if segment is not None:
            segment.close()

    def _append(self, event: bytes, owner: str | None) -> Segment:
        """The segment that the event is in. The caller holds the lock."""
        size = len(event) + frame.OVERHEAD
        if size > frame.RECORD_BYTES_MAX:
            # No reader would take it, whatever the program's own bound is.
            raise EventTooBigError(len(event), frame.RECORD_BYTES_MAX - frame.OVERHEAD)
        for _ in range(_ATTEMPTS):
            segment = self._segment
            if segment is None or segment.size + size > segment.size_max:
                self._close_segment()
                try:
                    segment = self._segment = self._open(size)
                except FileNotFoundError:
                    continue  # a purge, or a move, took the directory meanwhile
                except OSError as error:
                    problem = error.strerror or str(error)
                    raise DiskError(self._home.spool, problem) from error
            elif time.monotonic_ns() - self._asked_ns > _ASK_EACH_NS:
                self._ask_again()
            if owner != self._owner:
                raise BusyError("the user's id has changed; it was not recorded")
            is_there = False
            try:
                is_there = segment.append(event)
            finally:
                if not is_there:
                    self._close_segment()
            if is_there:
                return segment
        raise DiskError(self._home.spool, "segments are taken away as they are made")

    def _append_durably(self, event: bytes, owner: str | None, ident: int) -> None:
        try:
            self._inside.add(ident)
            shared, covering = holding(self._lock, self._append_to_round, event, owner)
            try:
                shared.wait(covering)
            except DiskError:
                holding(self._lock, self._give_up, shared)
                raise
        finally:
            self._inside.discard(ident)

    def _append_to_round(
        self, event: bytes, owner: str | None
    ) -> tuple[SharedSync, Round]:
        from telemetry.spool.power import SharedSync

        segment = self._append(event, owner)
        shared = self._shared_sync
        if shared is None:
            shared = self._shared_sync = SharedSync(segment)
        return shared, shared.written()

    def _give_up(self, shared: SharedSync) -> None:
        if self._shared_sync is shared:
            self._close_segment()

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
        self.refuse_while_full(size)
        self._ask()
        self._owner = self._prepare()
        newest, room = self._survey(size)
        segment = self._take(newest, size)
        try:
            # A longer event goes in all the same, and the next one elsewhere.
            segment.size_max = min(self._segment_bytes_max, segment.size + room)
            if self._power:
                # Also if it was adopted: its maker may have died before it did so.
                sync_directory(self._home.spool)
                sync_way_to(self._home.spool)
            # An opt-out that ended before the segment existed has not seen it.
            self._ask()
        except BaseException:
            segment.close()
            raise
        return segment

    def _take(self, newest: list[str], size: int) -> Segment:
        # One that is too full for this event is no better than a new one.
        size_max = max(self._segment_bytes_max - size + 1, 1)
        for name in newest:
            segment = adopt(self._home.segment(name), size_max)
            if segment is not None:
                return segment
        newest_ns = segment_created_ns(newest[0]) if newest else 0
        for _ in range(_ATTEMPTS):
            newest_ns = max(time.time_ns(), newest_ns + 1)
            name = segment_name(newest_ns, os.urandom(4))
            segment = create(self._home.segment(name))
            if segment is not None:
                return segment
        raise DiskError(self._home.spool, "segments are taken away as they are made")

    def _ask_again(self) -> None:
        try:
            self._ask()
        except OffError:
            self._close_segment()
            raise
        except DiskError:
            pass  # it cannot be read just now: the segment is ours all the same

    def _ask(self) -> None:
        self._asked_ns = time.monotonic_ns()
        if not self._allowed():
            raise OffError(
                "telemetry was turned off while this program ran, or the user's choice "
                "can no longer be read"
            )

    def _survey(self, size: int) -> tuple[list[str], int]:
        """The segments to be tried, newest first, and the bytes left below the bound.

        SpoolFullError where these are less than `size`.
        """
        began_s = time.time()
        changed_ns = os.stat(self._home.spool).st_mtime_ns
        newest, kept = self._remembered(changed_ns)
        if not newest or size > self._spool_bytes_max - kept:
            newest, kept = self._look(changed_ns, began_s)
        self.waiting_bytes = kept
        if size > self._spool_bytes_max - kept:
            self._full = (changed_ns, time.monotonic_ns(), kept)
            raise SpoolFullError(kept, self._spool_bytes_max)
        return newest, self._spool_bytes_max - kept

    def _remembered(self, changed_ns: int) -> tuple[list[str], int]:
        """What `_look` answers, as an earlier launch has found it; no name: nothing."""
        if not os.path.exists(self._home.summary):
            return [], 0
        from telemetry.spool import summary

        newest, others = summary.read(self._home.summary, changed_ns) or ([], 0)
        # These are the ones that may have grown.
        return newest, others + sum(
            _size_at(self._home.segment(each)) for each in newest
        )

    def _look(self, changed_ns: int, began_s: float) -> tuple[list[str], int]:
        """The newest segments, newest first, and the bytes of all that is in the spool."""
        # Segments of other versions count as well, but nothing that is not ours.
        sizes = sizes_in(self._home.spool, ".jseq")
        # Lazily: to look at each of 10,000 names took twice as long as to sort them.
        segments = filter(is_segment, sorted(sizes, reverse=True))
        newest, kept = list(islice(segments, _ADOPTABLE)), sum(sizes.values())
        if len(sizes) >= _MANY:
            from telemetry.spool import summary

            others = kept - sum(map(sizes.__getitem__, newest))
            summary.write(self._home.summary, changed_ns, began_s, newest, others)
        return newest, kept


def sizes_in(directory: str, suffix: str = "") -> dict[str, int]:
    """The bytes of each file in a directory that ends so; empty where there is none."""
    try:
        with os.scandir(directory) as entries:
            return {
                each.name: _size(each) for each in entries if each.name.endswith(suffix)
            }
    except (FileNotFoundError, NotADirectoryError):
        return {}  # nothing of ours is in it, and nothing can come


def size_of(directory: str) -> int:
    """The bytes of the files in a directory; 0 where there are none."""
    return sum(sizes_in(directory).values())


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0  # deleted meanwhile


def _size_at(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
