"""Power mode: acknowledged means that it was on the medium before."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from telemetry.errors import BusyError, DiskError
from telemetry.files import sync, sync_directory
from telemetry.paths import Home
from telemetry.spool import power
from telemetry.spool import writer as writer_module
from telemetry.spool.reader import segment_names
from telemetry.spool.writer import SpoolWriter
from tests.support.writers import (
    PATIENCE_S,
    Peer,
    child,
    event,
    home_at,
    spool_writer,
    spooled_events,
    wait_until,
    within,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty spool."""
    return home_at(tmp_path)


class Syncs:
    """Every sync of a segment: how long the file was when it began, and if it ended.

    `before` is called when one has begun, with its number from one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[int] = []
        self.covered: dict[int, int] = {}
        self.before: Callable[[int], object] = lambda _: None
        monkeypatch.setattr(power, "sync", self)

    def __call__(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self.begun.append(found.st_size)
        self.before(len(self.begun))
        sync(descriptor)
        known = self.covered.get(found.st_ino, 0)
        self.covered[found.st_ino] = max(known, found.st_size)

    def cover(self, home: Home, each: bytes) -> bool:
        """Whether this event would be there after a power loss now."""
        for name in segment_names(home):
            content = Path(home.segment(name)).read_bytes()
            at = content.find(each)
            if at >= 0:
                covered = self.covered.get(os.stat(home.segment(name)).st_ino, 0)
                if at + len(each) + 2 <= covered:
                    return True
        return False


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """The syncs of this test."""
    return Syncs(monkeypatch)


class Threads:
    """Threads that each record one event, and what came of it."""

    def __init__(self, writer: SpoolWriter) -> None:
        self._writer = writer
        self._threads: list[threading.Thread] = []
        self.outcomes: dict[bytes, str] = {}

    def begin(self, each: bytes) -> None:
        """One more thread."""
        thread = threading.Thread(target=self._record, args=(each,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _record(self, each: bytes) -> None:
        try:
            self._writer.append(each)
            self.outcomes[each] = "recorded"
        except Exception as error:
            self.outcomes[each] = type(error).__name__

    def end(self) -> dict[bytes, str]:
        """What came of each, once all have ended."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a thread waits for ever"
        return self.outcomes


@pytest.fixture
def writer(home: Home) -> Iterator[SpoolWriter]:
    """A writer in power mode."""
    made = spool_writer(home, power=True)
    yield made
    made.close()


def waiting(writer: SpoolWriter) -> int:
    """The threads whose events are written and wait for a sync."""
    shared = writer._shared_sync
    return 0 if shared is None else shared._waiting


def sizes(home: Home) -> int:
    """The bytes of all segments."""
    return sum(os.path.getsize(home.segment(name)) for name in segment_names(home))


def test_event_is_synced_before_it_is_acknowledged(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """The order is the promise: write, sync, answer."""
    for number in range(5):
        writer.append(event(number))
        assert syncs.cover(home, event(number))
        assert len(syncs.begun) == number + 1


def test_process_mode_does_not_sync(home: Home, syncs: Syncs) -> None:
    """A sync costs a thousand times what an event does; only who asks for it pays."""
    made = spool_writer(home)
    made.append(event(0))
    made.close()
    assert syncs.begun == []


def test_sync_that_began_before_the_write_does_not_count(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """It may have passed that page already; and many threads share the next one."""
    threads = Threads(writer)

    def hold_the_first(number: int) -> None:
        if number == 1:
            for each in range(1, 8):
                threads.begin(event(each))
            wait_until(lambda: waiting(writer) == 8)

    syncs.before = hold_the_first
    writer.append(event(0))
    assert set(threads.end().values()) == {"recorded"}
    assert len(syncs.begun) == 2
    assert syncs.begun[0] < syncs.begun[1] == sizes(home)
    assert all(syncs.cover(home, event(each)) for each in range(8))


def test_every_acknowledged_event_of_many_threads_was_synced(
    home: Home, syncs: Syncs
) -> None:
    """Whoever gets True at any moment can pull the plug."""
    made = spool_writer(home, power=True, segment_bytes_max=2000)
    unsafe: list[bytes] = []

    def work(by: str) -> None:
        for number in range(40):
            each = event(number, by=by)
            made.append(each)
            if not syncs.cover(home, each):
                unsafe.append(each)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
    before = len(os.listdir("/dev/fd"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert unsafe == []
    made.close()
    assert len(set(spooled_events(home))) == len(spooled_events(home)) == 240
    # Each segment is closed when the last who waited for it was answered.
    assert len(os.listdir("/dev/fd")) <= before


def test_failed_sync_answers_false_to_all_who_waited_for_it(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """The kernel may have dropped their pages, and the next sync will not say so."""
    threads = Threads(writer)

    def fail_the_first(number: int) -> None:
        if number == 1:
            for each in range(1, 5):
                threads.begin(event(each))
            wait_until(lambda: waiting(writer) == 5)
            raise OSError(errno.EIO, "Input/output error")

    syncs.before = fail_the_first
    with pytest.raises(DiskError, match="could not be synced"):
        writer.append(event(0))
    assert set(threads.end().values()) == {"DiskError"}
    assert len(syncs.begun) == 1
    # The segment is given up; what follows is as safe as ever.
    assert writer._segment is None
    writer.append(event(9))
    assert syncs.cover(home, event(9))
    assert len(syncs.begun) == 2


def test_failed_sync_takes_back_nothing_that_was_safe(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """Events before it were answered True, and those after it are on their own."""

    def fail_the_second(number: int) -> None:
        if number == 2:
            raise OSError(errno.EIO, "Input/output error")

    syncs.before = fail_the_second
    writer.append(event(0))
    with pytest.raises(DiskError):
        writer.append(event(1))
    writer.append(event(2))
    assert syncs.cover(home, event(0))
    assert syncs.cover(home, event(2))


def test_directory_is_synced_at_every_opening(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose name did not survive is not there, however safe its content is."""
    synced: list[tuple[str, list[str], int]] = []

    def noted(path: str) -> None:
        synced.append((path, segment_names(home), sizes(home)))
        sync_directory(path)

    ways: list[str] = []
    monkeypatch.setattr(writer_module, "sync_way_to", ways.append)
    monkeypatch.setattr(writer_module, "sync_directory", noted)
    for number in range(2):  # created, then adopted
        made = spool_writer(home, power=True)
        before = sizes(home)
        made.append(event(number))
        made.append(event(number + 10))
        made.close()
        assert synced == [(home.spool, segment_names(home), before)]
        assert ways == [home.spool]
        synced.clear()
        ways.clear()
    made = spool_writer(home)
    made.append(event(3))
    assert made._shared_sync is None
    made.close()
    assert synced == ways == []


def test_directory_that_cannot_be_synced_piles_up_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event would leave a locked file and a descriptor behind."""

    def failing(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(writer_module, "sync_directory", failing)
    made = spool_writer(home, power=True)
    before = os.listdir("/dev/fd")
    for number in range(5):
        with pytest.raises(DiskError, match="Input/output"):
            made.append(event(number))
    assert len(os.listdir("/dev/fd")) == len(before)
    assert len(segment_names(home)) == 1
    assert spooled_events(home) == []


def test_interrupted_sync_is_no_success(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """Ctrl-C while the disk is slow: whoever waits is told False, and nobody hangs."""
    threads = Threads(writer)

    def interrupt_the_first(number: int) -> None:
        if number == 1:
            threads.begin(event(1))
            wait_until(lambda: waiting(writer) == 2)
            raise KeyboardInterrupt

    syncs.before = interrupt_the_first
    with pytest.raises(KeyboardInterrupt):
        writer.append(event(0))
    # It may as well have been synced by a second try; but not told so without one.
    [outcome] = threads.end().values()
    assert outcome == "DiskError" or len(syncs.begun) == 2
    within(60, lambda: spool_writer(home, power=True).append(event(2)))
    threads.begin(event(3))
    assert threads.end()[event(3)] == "recorded"
    assert syncs.cover(home, event(3))


def test_event_inside_an_event_is_refused(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """A signal handler inside `track` cannot wait for what it interrupts."""
    refused = []

    def inner(number: int) -> None:
        try:
            writer.append(event(100 + number))
        except BusyError:
            refused.append(number)

    syncs.before = inner
    for number in range(3):
        writer.append(event(number))
    assert refused == [1, 2, 3]
    assert spooled_events(home) == [event(0), event(1), event(2)]


def test_closed_while_others_wait(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """A client is closed at exit while a thread still records: the sync is not lost."""
    threads = Threads(writer)
    reached, closed = threading.Event(), threading.Event()

    def wait_for_the_close(_: int) -> None:
        reached.set()
        assert closed.wait(PATIENCE_S)

    syncs.before = wait_for_the_close
    threads.begin(event(0))
    assert reached.wait(PATIENCE_S)
    before = len(os.listdir("/dev/fd"))
    writer.close()
    assert len(os.listdir("/dev/fd")) == before  # its sync still needs it
    closed.set()
    assert threads.end() == {event(0): "recorded"}
    assert syncs.cover(home, event(0))
    assert len(os.listdir("/dev/fd")) == before - 1


def test_fork_while_a_thread_waits_for_a_sync(
    home: Home, writer: SpoolWriter, syncs: Syncs
) -> None:
    """The child has no such thread, and must not wait for its end."""
    threads = Threads(writer)
    reached, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        if number == 1:
            reached.set()
            assert go_on.wait(PATIENCE_S)

    syncs.before = hold
    threads.begin(event(0))
    assert reached.wait(PATIENCE_S)

    def in_child(peer: Peer) -> None:
        writer.after_fork()
        writer.append(event(1))
        peer.tell("recorded")

    with child(in_child) as peer:
        assert peer.hear() == "recorded"
    go_on.set()
    assert threads.end() == {event(0): "recorded"}
    assert sorted(spooled_events(home)) == [event(0), event(1)]
    assert len(segment_names(home)) == 2


def storm(home: Home, handler: Callable[[SpoolWriter, int], object]) -> None:
    """Signals at every step of a writer; then it still works, in all threads."""

    def work(peer: Peer) -> None:
        made = spool_writer(home, power=True)
        number = 0
        told: list[int] = []
        signals = 0

        def handle(_: int, frame: FrameType | None) -> None:
            nonlocal signals
            # Only what is interrupted inside of ours is ours to answer for.
            while frame is not None and frame.f_code is not inside:
                frame = frame.f_back
            if frame is not None:
                signals += 1
                handler(made, signals)

        inside = SpoolWriter.append.__code__
        sys.unraisablehook = lambda _: None  # what is interrupted in a `__del__`

        # An interrupt inside of a profiler comes between a step and its release.
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        signal.signal(signal.SIGALRM, handle)
        chance = random.Random(1)
        while signals < 1500:
            number += 1
            try:
                # On a slow machine every event would be hit, and none be told.
                after_s = 1e-6 + chance.random() * 3e-4 if number % 10 else 0
                signal.setitimer(signal.ITIMER_REAL, after_s)
                made.append(event(number))
                told.append(number)
            except (KeyboardInterrupt, BusyError, DiskError):
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        made.append(event(0))
        thread = threading.Thread(target=made.append, args=(event(-1),), daemon=True)
        thread.start()
        thread.join(PATIENCE_S / 4)
        assert not thread.is_alive(), "another thread waits for ever"
        peer.tell(" ".join(map(str, [*told, 0, -1])))

    with child(work) as peer:
        told = [int(word) for word in peer.finish().split()]
    found = spooled_events(home)
    assert len(told) > 10
    assert len(found) == len(set(found))
    assert {event(number) for number in told} <= set(found)


def test_interrupts_never_leave_it_stuck(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may hit between any two steps; a later event must neither wait nor fail."""
    monkeypatch.setattr(power, "sync", lambda _: None)  # more steps a second

    def interrupt(_: SpoolWriter, __: int) -> None:
        raise KeyboardInterrupt

    storm(home, interrupt)


def test_signal_handlers_that_record_never_leave_it_stuck(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event of a handler is recorded or refused, at whatever step it comes."""
    monkeypatch.setattr(power, "sync", lambda _: None)

    def record(made: SpoolWriter, signals: int) -> None:
        try:
            made.append(event(signals, by="handler"))
        except BusyError:
            pass

    storm(home, record)
