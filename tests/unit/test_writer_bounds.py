"""What a spool may hold, and what happens where it, or the disk, is full."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.errors import DiskError, EventTooBigError, SpoolFullError
from telemetry.files import make_directory
from telemetry.paths import Home
from telemetry.spool import frame
from telemetry.spool import writer as writer_module
from telemetry.spool.reader import segment_names
from telemetry.spool.writer import SpoolWriter, size_of
from tests.support.examples import examples
from tests.support.writers import (
    Peer,
    child,
    event,
    home_at,
    spool_writer,
    spooled_events,
)


BOUND = 10_000
EVENT_BYTES = 1000 - frame.OVERHEAD


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty spool."""
    return home_at(tmp_path)


def fill(writer: SpoolWriter, first: int = 0) -> list[bytes]:
    """Thousand bytes at a time until the spool is full; the events that are in it."""
    taken: list[bytes] = []
    while True:
        each = event(first + len(taken), size=EVENT_BYTES)
        try:
            writer.append(each)
        except SpoolFullError:
            return taken
        taken.append(each)
        assert len(taken) < 1000


@pytest.mark.parametrize("segment_bytes_max", [1000, 3500, 1 << 20])
def test_bound_refuses_the_newest_event(home: Home, segment_bytes_max: int) -> None:
    """What was recorded first is what led up to it, and it stays."""
    writer = spool_writer(
        home, spool_bytes_max=BOUND, segment_bytes_max=segment_bytes_max
    )
    taken = fill(writer)
    assert len(taken) == BOUND // 1000
    for _ in range(3):
        with pytest.raises(SpoolFullError) as caught:
            writer.append(event(99, size=EVENT_BYTES))
        assert caught.value.size_bytes == caught.value.bound_bytes == BOUND
    writer.close()
    assert spooled_events(home) == taken
    assert size_of(home.spool) == BOUND


@pytest.mark.parametrize(
    ("path", "fit"),
    [
        ("dead/00000000000000000001-00000000.v1.jseq", 10),
        ("quarantine/kept", 10),
        ("spool/core.dump", 10),
        ("spool/00000000000000000001-00000000.v2.jseq", 6),
    ],
)
def test_bound_counts_what_waits_and_nothing_else(
    home: Home, path: str, fit: int
) -> None:
    """What is dead must not keep out what is new, nor must a file that is not ours."""
    make_directory(f"{home.root}/{path.partition('/')[0]}")
    Path(f"{home.root}/{path}").write_bytes(b"x" * 4000)
    writer = spool_writer(home, spool_bytes_max=BOUND)
    assert len(fill(writer)) == fit
    writer.close()


def test_bound_is_inclusive_and_smaller_events_still_fit(home: Home) -> None:
    """An event is refused for its own size, not because a longer one was."""
    writer = spool_writer(home, spool_bytes_max=BOUND)
    writer.append(event(0, size=BOUND - 500 - frame.OVERHEAD))
    with pytest.raises(SpoolFullError):
        writer.append(event(1, size=501 - frame.OVERHEAD))
    writer.append(event(2, size=300 - frame.OVERHEAD))
    with pytest.raises(SpoolFullError):
        writer.append(event(3, size=201 - frame.OVERHEAD))
    writer.append(event(4, size=200 - frame.OVERHEAD))
    writer.close()
    assert size_of(home.spool) == BOUND


def test_takes_events_again_once_a_segment_was_delivered(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a millisecond, and not at the next start of a program that runs for weeks."""
    writer = spool_writer(home, spool_bytes_max=BOUND, segment_bytes_max=2000)
    taken = fill(writer)
    os.utime(home.spool, ns=(0, 0))  # as if the last change were long ago
    with pytest.raises(SpoolFullError):
        writer.append(event(98, size=EVENT_BYTES))
    # Later than it was looked at, and before it is measured again.
    now_ns = [time.monotonic_ns() + 500_000_000]
    monkeypatch.setattr(writer_module.time, "monotonic_ns", lambda: now_ns[0])
    with pytest.raises(SpoolFullError):
        writer.append(event(98, size=EVENT_BYTES))
    os.unlink(home.segment(segment_names(home)[0]))
    now_ns[0] += 1_000_000
    assert fill(writer, first=100) == []
    assert writer.was_full is True
    now_ns[0] += 1
    writer.refuse_while_full(EVENT_BYTES)
    assert writer.was_full is False
    more = fill(writer, first=100)
    assert len(more) == 2
    writer.close()
    assert spooled_events(home) == taken[2:] + more


def test_room_that_does_not_show_is_found_after_a_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion in the same step of the file system's clock leaves the same time."""
    writer = spool_writer(home, spool_bytes_max=BOUND, segment_bytes_max=2000)
    fill(writer)
    with pytest.raises(SpoolFullError):
        writer.append(event(98, size=EVENT_BYTES))
    times = os.stat(home.spool).st_atime_ns, os.stat(home.spool).st_mtime_ns
    os.unlink(home.segment(segment_names(home)[0]))
    os.utime(home.spool, ns=times)
    monkeypatch.setattr(writer_module, "_FULL_FOR_NS", -1)
    monkeypatch.setattr(writer_module, "_LOOK_EACH_NS", -1)
    assert len(fill(writer, first=100)) == 2
    writer.close()


def test_a_full_spool_that_was_taken_away_is_none(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opt-out, or `rm -rf`: what comes after it has all the room there is."""
    monkeypatch.setattr(writer_module, "_LOOK_EACH_NS", -1)
    writer = spool_writer(home, spool_bytes_max=BOUND)
    fill(writer)
    with pytest.raises(SpoolFullError):
        writer.append(event(98, size=EVENT_BYTES))
    shutil.rmtree(home.spool)
    assert len(fill(writer, first=100)) == 10
    writer.close()


def test_a_size_is_that_of_the_files_themselves(tmp_path: Path) -> None:
    """Not of what a link leads to, nor of what went while it was measured."""
    (tmp_path / "one").write_bytes(b"x" * 100)
    (tmp_path / "two").write_bytes(b"x" * 23)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "link").symlink_to(tmp_path / "one")
    link = os.lstat(tmp_path / "kept" / "link").st_size
    assert size_of(str(tmp_path / "kept")) == link
    assert size_of(str(tmp_path / "nowhere")) == size_of(str(tmp_path / "one")) == 0
    with os.scandir(tmp_path) as entries:
        listed = {entry.name: entry for entry in entries}
    os.unlink(tmp_path / "two")
    assert writer_module._size(listed["two"]) == 0
    assert writer_module._size(listed["one"]) == 100


def test_refusing_is_cheap(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in a loop must not list a full spool a thousand times a second."""
    writer = spool_writer(home, spool_bytes_max=BOUND)
    taken = fill(writer)
    calls: list[str] = []
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(writer_module, "_FULL_FOR_NS", time.monotonic_ns())
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: calls.append(path) or scandir(path))
        patch.setattr(os, "listdir", lambda path: calls.append(path) or listdir(path))
        for number in range(200):
            with pytest.raises(SpoolFullError):
                writer.append(event(number, size=EVENT_BYTES))
    # Once: making the last segment has changed the directory.
    assert len(calls) <= 4
    writer.close()
    assert spooled_events(home) == taken


def test_full_spool_costs_no_file_and_no_descriptor(home: Home) -> None:
    """Refused events leave nothing behind but their count."""
    writer = spool_writer(home, spool_bytes_max=BOUND)
    fill(writer)
    files, descriptors = os.listdir(home.spool), os.listdir("/dev/fd")
    for number in range(20):
        with pytest.raises(SpoolFullError):
            writer.append(event(number, size=EVENT_BYTES))
    assert os.listdir(home.spool) == files
    assert len(os.listdir("/dev/fd")) <= len(descriptors)
    writer.close()


def test_bound_is_soft_only_by_what_open_segments_may_grow(home: Home) -> None:
    """Three processes look once each; together they stay below what each may add."""
    writers = [
        spool_writer(home, spool_bytes_max=BOUND, segment_bytes_max=3000)
        for _ in range(3)
    ]
    for number, writer in enumerate(writers):
        writer.append(event(number, size=EVENT_BYTES))
    for writer in writers:
        fill(writer)
    assert size_of(home.spool) <= BOUND + 2 * 3000
    for writer in writers:
        writer.close()


def test_longest_record_that_is_written_is_the_longest_that_is_read(home: Home) -> None:
    """Whatever bound on events a program sets: acknowledged means that it is found."""
    writer = spool_writer(home, spool_bytes_max=1 << 30)
    longest = event(0, size=frame.RECORD_BYTES_MAX - frame.OVERHEAD)
    writer.append(longest)
    writer.append(event(1))
    with pytest.raises(EventTooBigError) as caught:
        writer.append(longest + b" ")
    assert caught.value.bound_bytes == len(longest)
    writer.append(event(2))
    writer.close()
    assert sorted(spooled_events(home)) == sorted([longest, event(1), event(2)])


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(100, 4000))
@settings(max_examples=examples(50), deadline=None)
def test_one_writer_alone_never_exceeds_the_bound(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], segment_bytes_max: int
) -> None:
    """Whatever the sizes are: what is taken is there, and it is never too much."""
    home = home_at(tmp_path_factory.mktemp("bound"))
    writer = spool_writer(
        home, spool_bytes_max=BOUND, segment_bytes_max=segment_bytes_max
    )
    taken = set()
    for number, size in enumerate(sizes):
        each = event(number, size=size)
        held = size_of(home.spool)
        try:
            writer.append(each)
            taken.add(each)
        except SpoolFullError:
            assert held + len(each) + frame.OVERHEAD > BOUND
        assert size_of(home.spool) <= BOUND
    writer.close()
    assert set(spooled_events(home)) == taken


def test_short_write_costs_one_event_and_no_more(home: Home) -> None:
    """The torn record stays where it is, and the next event goes into a new file."""

    def work(peer: Peer) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer = spool_writer(home)
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for number in range(60):
            limit = 2500 if number % 3 else hard
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                writer.append(event(number, size=700))
            except DiskError:
                # It is let go at once: a flusher may take the rest of it.
                assert writer._segment is None
                continue
            peer.tell(str(number))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.close()

    with child(work) as peer:
        told = [int(line) for line in peer.finish().split()]
    assert 20 <= len(told) < 60
    assert sorted(spooled_events(home)) == sorted(
        event(number, size=700) for number in told
    )
