"""When the next flush may begin, and whose turn it is, remembered across launches.

The file `next-flush` is born with the home at its full size and is overwritten in
place, so it also works on a full disk. Its modification time is the earliest time
of the next flush for the destination in its first line. Each line has 23 bytes:

    <destination> <starts> <last>            8 hex digits, 2 digits, 10 digits
    <destination> <failures> <not before>    one line for each recent destination, and
                                             one for `programs` and for `launches`

destination   CRC-32 of endpoint, header, key and format: each has its own backoff, and
              so has the address for deletions
starts        flushes that began by themselves since one finished; what a program in
              `launch` mode flushes itself, at its end, does not end the count
last          when a flush last began or ended, seconds since 1970
failures      flushes in a row that delivered nothing; under `programs`, flushes at
              programs' ends that may have killed them; under `launches`, programs that
              were to flush at their end, when one was due, since any flush began

Rules:

- A flush waits for its own destination's time. A change of destination ends a wait
  once WINDOW_S have passed since the last flush, so two keys that take turns make
  no more requests than one.
- A flush at a program's end may be what kills the program (a limit of memory): as long
  as none delivers anything, comes to an end or runs out of time, the next one waits six
  times longer, to WITHIN_MAX_S.
- A time more than HORIZON_S ahead counts as due: a clock was changed. So does any time
  where the last flush was later than now.
- Where no time can be set (some mounts, a sandbox), the file's is that of the write: a
  flush is due at once, but after a failure waits as its line says.
- A damaged line counts as absent, which costs one early flush.

Light: every launch loads it and reads this one file.
"""

from __future__ import annotations

import os
from zlib import crc32

from telemetry.errors import raise_the_hosts
from telemetry.files import (
    FULL,
    directory_problem,
    open_regular,
    overwrite,
    try_lock,
    write_at,
)
from telemetry.spool.segment import above_stdio, has_its_name


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from telemetry.config import Config
    from telemetry.paths import Home

# The shortest time between two flushes of one home, and what a killed flusher costs.
WINDOW_S = 60.0
# The longest that anything may hold a flush back, a server's wish included.
HORIZON_S = 24 * 3600.0
# What a flush that kills its program costs in the end: four programs a day.
WITHIN_MAX_S = 6 * 3600.0
_WITHIN_FACTOR = 6
# File systems keep times to 2 seconds at the worst.
SAME_TIME_S = 2.0
# Names of lines that are no destination of events: these are 8 hex digits.
_WITHIN = "programs"
_LAUNCHES = "launches"
_DELETION = "z"
_DIGITS = frozenset("0123456789abcdef")
# After so many starts in a row that no flusher finished, programs flush by
# themselves at exit. Every tenth time a detached flusher is tried once more, and each
# time that a flush at exit had too little time: it alone may have enough.
STARTS_MAX = 3
_TRY_AGAIN_EVERY = 10
_STARTS_LIMIT = 99
# A released build beside a development one, staging beside production, and room.
_DESTINATIONS_MAX = 8
_LINE_BYTES = 23
_FILE_BYTES = (1 + _DESTINATIONS_MAX) * _LINE_BYTES


class Schedule:
    """The content of `next-flush`; `at` is its modification time, seconds since 1970."""

    __slots__ = ("at", "destination", "last", "starts", "waits")

    def __init__(self, content: bytes = b"", at: float = 0.0) -> None:
        self.at = at
        self.destination, self.starts, self.last = _fields(content, 0)
        # For each destination: failures in a row, and the time before which it waits.
        self.waits: dict[str, tuple[int, int]] = {}
        for start in range(_LINE_BYTES, len(content), _LINE_BYTES):
            destination, failures, until = _fields(content, start)
            if destination:
                self.waits[destination] = failures, until

    def content(self) -> bytes:
        """What is written to the file: always the same number of bytes."""
        lines = [(self.destination or "0" * 8, self.starts, self.last)]
        lines += [(name, *wait) for name, wait in self.waits.items()]
        text = "".join(f"{name} {count:02d} {at:010d}\n" for name, count, at in lines)
        return text.encode().ljust(_FILE_BYTES)

    def failures(self, destination: str) -> int:
        """Flushes in a row that delivered nothing there."""
        return self.waits.get(destination, (0, 0))[0]

    def wait_ends(self, destination: str, now: float) -> float:
        """When what failed there may be tried again; not above `now` where it may now."""
        until = float(self.waits.get(destination, (0, 0))[1])
        return until if not self.is_ahead(now) and until <= now + HORIZON_S else 0.0

    def others_wait_until(self, now: float) -> float:
        """When the last of the other destinations may be tried; 0.0: none waits."""
        if not self.destination:
            return 0.0
        others = self.waits.keys() - {self.destination}
        return self._latest(now, [n for n in others if _DIGITS.issuperset(n)])

    def deletion_waits_until(self, now: float) -> float:
        """When a server may be asked again to delete what it has; 0.0: it may now."""
        return self._latest(now, [n for n in self.waits if n.startswith(_DELETION)])

    def _latest(self, now: float, names: list[str]) -> float:
        ends = [self.wait_ends(name, now) for name in names]
        return max((until for until in ends if until > now), default=0.0)

    def not_before(
        self,
        destination: str,
        now: float,
        *,
        after_failure_only: bool = False,
        is_within: bool = False,
    ) -> float:
        """The earliest time of the next flush there; not above `now` where it is due.

        With `after_failure_only` the interval after a success does not count: a
        machine in CI is gone after the program. `is_within` asks for a flush at a
        program's end.
        """
        if self.is_ahead(now):
            return 0.0
        failures, wait = self.waits.get(destination, (0, 0))
        is_ours = destination == self.destination
        until = self.at if is_ours else float(wait)
        if is_ours and self._has_no_time(wait):
            until = float(wait)
        if after_failure_only and not failures:
            until = 0.0
        other_counts = not after_failure_only or self.failures(self.destination)
        if not is_ours and other_counts and self.at > now >= self.last:
            until = max(until, self.last + WINDOW_S)
        if is_within:
            until = max(until, self.within_not_before(now))
        return until if until <= now + HORIZON_S else 0.0

    def _has_no_time(self, wait: int) -> bool:
        """Whether a failure's time could not be set: the file has that of its write."""
        was_written = abs(self.at - self.last) <= SAME_TIME_S
        return was_written and wait > self.at + SAME_TIME_S

    def is_ahead(self, now: float) -> bool:
        """Whether all this was written by a clock that has been put back since."""
        return self.last > now + WINDOW_S

    def flushers_never_finish(self, now: float) -> bool:
        """Whether a program has to flush by itself at exit (STARTS_MAX).

        Not while that may kill it: a flusher that is killed does no harm.
        """
        return (
            self.starts >= STARTS_MAX
            and self.starts % _TRY_AGAIN_EVERY != 0
            and self.within_not_before(now) <= now
        )

    @property
    def never_ended_within(self) -> int:
        """Flushes at programs' ends in a row that may have killed them."""
        return self.failures(_WITHIN)

    def within_not_before(self, now: float) -> float:
        """When the next one of these may begin; not above `now` where it may now."""
        return self.wait_ends(_WITHIN, now)

    def begin(
        self,
        destination: str,
        now: float,
        *,
        wait_s: float = 0.0,
        is_within: bool = False,
    ) -> None:
        """A flush begins in `wait_s` seconds; no other one before a window has passed."""
        if self.is_ahead(now):
            self.waits.clear()
        self.waits.pop(_LAUNCHES, None)
        self.destination, self.last = destination, int(now)
        self.at = now + wait_s + WINDOW_S
        if is_within:
            longer = _WITHIN_FACTOR ** min(self.never_ended_within, 9)
            until = now + min(WINDOW_S * longer, WITHIN_MAX_S)
            self._note_wait(_WITHIN, self.never_ended_within + 1, until)

    def count_launch(self) -> int:
        """One more program that will flush at its end; how many since a flush began."""
        launches = self.failures(_LAUNCHES) + 1
        self._note_wait(_LAUNCHES, launches, 0.0)
        return launches

    def count_start(self) -> None:
        """One more flusher that has not finished yet."""
        over = self.starts >= _STARTS_LIMIT
        self.starts = _STARTS_LIMIT + 1 - _TRY_AGAIN_EVERY if over else self.starts + 1

    def end(self, destination: str, now: float, *, failures: int, until: float) -> None:
        """A flush ended; the next one there may begin at `until`."""
        self.destination, self.last, self.at = destination, int(now), until
        self.end_within()
        self._note_wait(destination, failures, until)

    def end_within(self) -> bool:
        """Whether a flush within a program was thought not to have ended."""
        return self.waits.pop(_WITHIN, None) is not None

    def fall_short(self) -> None:
        """A flush at a program's end had too little time: a detached one is tried next."""
        if self.starts >= STARTS_MAX:
            every = _TRY_AGAIN_EVERY
            following = -(-self.starts // every) * every
            self.starts = (
                following if following < _STARTS_LIMIT else following - 2 * every
            )

    @property
    def is_every_other(self) -> bool:
        """Whether this start is one of every two in a row that did not finish.

        Of flushes at exit and of detached ones each, also where those take turns.
        """
        turns = self.starts + self.starts // _TRY_AGAIN_EVERY
        return self.starts > 1 and turns % 2 == 1

    def end_beside(
        self, destination: str, now: float, *, failures: int, until: float
    ) -> None:
        """What is not the program's delivery ended; it may be tried again at `until`.

        A request for deletion, or a flush by hand to another place. Events do not wait
        for that.
        """
        if self.destination == destination:
            self.destination, self.last, self.at = "", int(now), now + WINDOW_S
        self.waits.pop(destination, None)
        if failures:
            self._note_wait(destination, failures, until)

    def _note_wait(self, destination: str, failures: int, until: float) -> None:
        self.waits.pop(destination, None)
        while len(self.waits) >= _DESTINATIONS_MAX:
            names = (name for name in self.waits if name not in {_WITHIN, _LAUNCHES})
            del self.waits[next(names)]
        self.waits[destination] = min(failures, 99), int(until) + 1 if failures else 0


def _fields(content: bytes, start: int) -> tuple[str, int, int]:
    """The three fields of the line at `start`; ("", 0, 0) where it is damaged."""
    words = content[start : start + _LINE_BYTES].split()
    is_whole = [len(word) for word in words] == [8, 2, 10] and words[0].isalnum()
    if not is_whole or not (words[1].isdigit() and words[2].isdigit()):
        return "", 0, 0
    return words[0].decode("ascii"), int(words[1]), int(words[2])


def destination_crc(
    endpoint: str,
    header: str,
    api_key: str,
    format_name: str = "records",
    gzip: object = None,
) -> str:
    """8 hex digits that change when one of the five does. It tells no secret.

    `gzip` is None where requests are compressed as the format's receivers take it.

    Keys are long random strings: 32 bits of checksum do not narrow one down.
    """
    parts = f"{endpoint}\0{header}\0{api_key}\0{format_name}"
    parts += "" if gzip is None else f"\0{gzip}"
    return f"{crc32(parts.encode('utf-8', 'surrogatepass')):08x}"


def destination_of(config: Config, *, asks: bool = False) -> str:
    """What a time for the next flush is set for; `asks` for a request for deletion."""
    found = destination_crc(
        config.deletion_endpoint if asks else config.endpoint,
        config.header,
        config.api_key,
        config.format,
        config.gzip,
    )
    return _DELETION + found[1:] if asks else found


def make(path: str) -> None:
    """The file exists afterwards; a new one is due at once. Raises OSError.

    Killed before the write, it is empty, which reads the same.
    """
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    try:
        os.write(descriptor, Schedule().content())
    finally:
        os.close(descriptor)


def load(path: str) -> Schedule:
    """The schedule; one that is due at once where the file cannot be read."""
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except OSError as error:
        raise_the_hosts(error)
        return Schedule()
    try:
        content = os.read(descriptor, _FILE_BYTES)
        return Schedule(content, os.fstat(descriptor).st_mtime)
    except OSError as error:
        raise_the_hosts(error)
        return Schedule()
    finally:
        os.close(descriptor)


def store(path: str, schedule: Schedule) -> None:
    """The file says this on return. Raises OSError. For who holds the flush lock.

    Killed between the two steps, its time is that of the write: due at once, which
    costs one early flush.
    """
    overwrite(path, schedule.content(), int(schedule.at * 1e9))


def read(path: str) -> float | None:
    """The earliest time of the next flush, seconds since 1970; None if unknown."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return None


class FlushLock:
    """Holds `flush.lock` from the moment it is taken until it is closed or collected.

    An object owns the descriptor, so that an exception at any step, Ctrl-C included,
    frees the lock with the last reference. `wait_s` is how long its owner has to wait
    before it flushes, `next_flush` what the claim set that time to.
    """

    __slots__ = ("descriptor", "next_flush", "wait_s")

    def __init__(self, path: str) -> None:
        """Open the file; the lock is not taken yet. Raises OSError."""
        self.wait_s = self.next_flush = 0.0
        self.descriptor = -1
        self.descriptor = above_stdio(open_regular(path, os.O_RDWR | os.O_CREAT))

    def take(self, path: str) -> bool:
        """Whether the lock is ours now. Raises OSError where nothing can be locked."""
        # A home that was removed and made again has another lock by now.
        status = os.fstat(self.descriptor)
        is_ours = try_lock(self.descriptor) and has_its_name(path, status)
        if is_ours:
            _taken[self.descriptor] = status.st_dev, status.st_ino
            if not status.st_size:
                _fill(self.descriptor)
        return is_ours

    def detach(self) -> int:
        """The descriptor, which the caller closes from now on."""
        descriptor, self.descriptor = self.descriptor, -1
        return descriptor

    def close(self) -> None:
        """The lock is free on return, unless a child process has inherited it."""
        descriptor = self.detach()
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _fill(descriptor: int) -> None:
    """What clears away empty files would let a second flusher in."""
    try:
        write_at(descriptor, b"flush\n", 0)
    except OSError as error:
        raise_the_hosts(error)  # on a full disk the next flush does it


# The file behind each descriptor that took a lock in this process; it may be closed.
_taken: dict[int, tuple[int, int]] = {}


def _after_fork() -> None:
    """In a child: the lock is the parent's, which may end within a flush, before us."""
    for descriptor, file in _taken.items():
        _close_if_open(descriptor, file)
    _taken.clear()


def _close_if_open(descriptor: int, file: tuple[int, int]) -> None:
    try:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == file:
            os.close(descriptor)
    except OSError:
        pass  # it was closed before the fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def take_flush_lock(home: Home) -> FlushLock | None:
    """The flush lock; None where another process has it.

    Raises OSError where it cannot be made, where nothing can be locked, and for a home in
    which nothing is recorded, as that of another user: what a program that is root again
    leaves there, its owner cannot write.
    """
    if problem := directory_problem(os.lstat(home.root)):
        raise OSError(0, problem, home.root)
    lock = FlushLock(home.flush_lock)
    try:
        if lock.take(home.flush_lock):
            return lock
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def flush_lock(home: Home) -> int | None:
    """The same, as a descriptor that the caller closes."""
    lock = take_flush_lock(home)
    return None if lock is None else lock.detach()


def claim(
    config: Config,
    home: Home,
    now: float,
    *,
    is_start: bool = False,
    is_within: bool = False,
    asks: bool = False,
    spread_s: float = 0.0,
    after_failure_only: bool = False,
) -> FlushLock | None:
    """The flush lock, if a flush is due at `now` and no other process is at it.

    The next flush is one window ahead on return, if that can be written. `is_start`
    counts a flush that has to finish, `is_within` that it is one at a program's end,
    `asks` that nothing but a request for deletion is sent. After a failure the owner
    waits a random part of `spread_s` seconds, so that a fleet that launches by the clock
    does not arrive by the clock; the next flush is moved behind that wait. Raises OSError.
    """
    destination = destination_of(config, asks=asks)
    lock = take_flush_lock(home)
    if lock is None:
        return None
    try:
        # Between our look and our lock another launch may have had its turn.
        plan = load(home.next_flush)
        not_before = plan.not_before(
            destination,
            now,
            after_failure_only=after_failure_only,
            is_within=is_within,
        )
        if not_before > now:
            lock.close()
            return None
        if spread_s and plan.failures(destination):
            lock.wait_s = spread_s * int.from_bytes(os.urandom(4), "big") / 2**32
        plan.begin(destination, now, wait_s=lock.wait_s, is_within=is_within)
        if is_start:
            plan.count_start()
        try:
            store(home.next_flush, plan)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # A full file system that copies what is overwritten. What is delivered
            # makes room; until then each launch flushes, if no time could be set.
            lock.wait_s = 0.0
        lock.next_flush = plan.at
        if abs((read(home.next_flush) or 0.0) - plan.at) > SAME_TIME_S:
            lock.wait_s = 0.0  # no time could be set, and who waits looks for that
    except BaseException:
        lock.close()
        raise
    return lock


def note_launch(home: Home) -> int:
    """A program begins that will flush at its end; how many have since a flush began.

    Zero where that cannot be counted.
    """
    try:
        lock = take_flush_lock(home)
        if lock is None:
            return 0  # a flush is at work
        with lock:
            plan = load(home.next_flush)
            launches = plan.count_launch()
            store(home.next_flush, plan)
            return launches
    except OSError as error:
        raise_the_hosts(error)
        return 0


def note_finished(home: Home) -> None:
    """A flusher came to an end of its own."""

    def finish(plan: Schedule) -> None:
        plan.end_within()
        plan.starts = 0

    _note(home, finish)


def note_ended_within(home: Home, *, falls_short: bool = False) -> None:
    """A flush at a program's end is over, and the program is still there.

    `falls_short`: its time was up before anything was delivered.
    """

    def end(plan: Schedule) -> None:
        plan.end_within()
        if falls_short:
            plan.fall_short()

    _note(home, end)


def note_cut(home: Home) -> None:
    """The program ends, and its flush has no time left.

    This process holds the flush lock; the flush may write at the same moment, which costs
    an early flush at the worst.
    """
    plan = load(home.next_flush)
    if plan.end_within():
        plan.fall_short()
        try:
            store(home.next_flush, plan)
        except OSError:
            pass  # it counts as one that may have killed the program


def note_failed_start(home: Home, now: float) -> None:
    """None could be started: a flush at exit takes over, which is due at once.

    Unless such flushes may have killed their programs: of those it tells nothing.
    """

    def fail(plan: Schedule) -> None:
        plan.starts, plan.at = STARTS_MAX, now

    _note(home, fail)


def _note(home: Home, change: Callable[[Schedule], None]) -> None:
    """Where another process has the flush lock nothing changes: it says so itself."""
    try:
        lock = take_flush_lock(home)
        if lock is None:
            return
        with lock:
            plan = load(home.next_flush)
            before = plan.content(), plan.at
            change(plan)
            if (plan.content(), plan.at) != before:
                store(home.next_flush, plan)
    except OSError:
        pass  # a count that is one too high costs one flush at exit
