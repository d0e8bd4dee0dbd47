"""The spool as the flusher sees it: what it reads, keeps, and takes away."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from telemetry import files
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool import frame
from telemetry.spool import reader as reader_module
from telemetry.spool.frame import Damage, Record, encode, scan
from telemetry.spool.reader import Checked, SegmentReader, segment_names
from telemetry.spool.segment import adopt
from tests.support.examples import examples
from tests.support.writers import (
    Peer,
    child,
    event,
    home_at,
    plant,
    segment_of,
    spool_writer,
    within,
)
from tests.unit.test_frame import contents


YEAR_2001_NS = 1_000_000_000 * 10**9
NAME = f"{YEAR_2001_NS:020d}-00000000.v1.jseq"
EVENTS = [event(number) for number in range(5)]
NO_BOUND = 1 << 60
# What Windows takes for a segment that was erased, with a write that was under way.
ERASED = b"\n\x1e"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty spool."""
    return home_at(tmp_path)


def opened(home: Home, content: bytes) -> SegmentReader:
    """A reader of a segment with this content."""
    return SegmentReader(home, plant(home, YEAR_2001_NS, content))


def take_all(
    reader: SegmentReader, events_max: int = 3, bytes_max: int = NO_BOUND
) -> list[Record | Damage]:
    """Everything, some at a time; each time there is a record, and it is the last."""
    items: list[Record | Damage] = []
    while more := reader.take(events_max, bytes_max):
        assert isinstance(more[-1], Record)
        assert 1 <= sum(isinstance(item, Record) for item in more) <= events_max
        items += more
    return items


def test_segments_are_listed_oldest_first(home: Home) -> None:
    """Order of names is order of recording; what is no segment is not touched."""
    names = [plant(home, YEAR_2001_NS + n * 10**17, b"") for n in (3, 0, 2, 1)]
    for other in (
        NAME.replace(".v1.", ".v2."),
        NAME + ".tmp-1",
        NAME.upper(),
        "x" + NAME,
        NAME[1:],
        "notes",
    ):
        Path(home.segment(other)).touch()
    assert segment_names(home) == sorted(names)


def test_no_spool_has_no_segments(tmp_path: Path) -> None:
    """A tool may look at a home that is not there."""
    assert segment_names(Home(str(tmp_path / "nowhere"))) == []


@given(contents, st.integers(1, 5), st.integers(1, 200), st.integers(20, 300))
@settings(max_examples=examples(150), deadline=None)
def test_whatever_stands_there_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    events_max: int,
    bytes_max: int,
    chunk_bytes: int,
) -> None:
    """However much is read and taken at a time, no byte is given twice or left out."""
    assume(content[:2] != ERASED)
    home = home_at(tmp_path_factory.mktemp("reader"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "CHUNK_BYTES", chunk_bytes)
        reader = opened(home, content)
        try:
            items = take_all(reader, events_max, bytes_max)
            assert items == scan(content, at=0, answered=0).items
            # Once more from each record's end: that is where a flusher goes on.
            for item in items:
                if isinstance(item, Record):
                    reader.start_at(item.end)
                    rest = [each for each in items if each.start >= item.end]
                    assert take_all(reader, events_max, bytes_max) == rest
        finally:
            reader.close()


@given(contents, st.lists(st.integers(1, 100), max_size=20))
@settings(max_examples=examples(80), deadline=None)
def test_file_that_grows_is_read_as_if_it_had_not(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, steps: list[int]
) -> None:
    """Half-written records are seen by one look in five."""
    home = home_at(tmp_path_factory.mktemp("reader"))
    reader = opened(home, b"")
    path, length = home.segment(NAME), 0
    items: list[Record | Damage] = []
    try:
        for step in [*steps, len(content)]:
            with open(path, "ab") as file:
                file.write(content[length : length + step])
            length += step
            items += take_all(reader)
        assert items == scan(content, at=0, answered=0).items
    finally:
        reader.close()


def test_bounds_of_a_batch(home: Home) -> None:
    """At most so many events and bytes, but always one: else it would never end."""
    sizes = [100, 100, 100, 5000, 100, 100]
    events = [event(n, size=size) for n, size in enumerate(sizes)]
    reader = opened(home, segment_of(*events))

    def numbers(events_max: int, bytes_max: int, until: int | None = None) -> list[int]:
        items = reader.take(events_max, bytes_max, until=until)
        return [item.seq for item in items if isinstance(item, Record)]

    # A byte for the comma between two events.
    assert numbers(10, 201) == [0]
    reader.start_at(0)
    assert numbers(10, 202) == [0, 1]
    assert numbers(10, 202) == [2]
    assert numbers(10, 202) == [3]
    assert numbers(1, 10_000) == [4]
    assert numbers(10, 10_000) == [5]
    assert numbers(10, 10_000) == []
    reader.start_at(0)
    [*_, second, third] = reader.take(3, NO_BOUND)
    reader.start_at(0)
    assert numbers(10, NO_BOUND, second.end) == [0, 1]
    assert numbers(10, NO_BOUND, third.end - 1) == []
    assert numbers(10, NO_BOUND) == [2, 3, 4, 5]
    reader.close()


def test_damage_goes_with_the_record_behind_it(home: Home) -> None:
    """Until one follows it is a tail that may still grow."""
    torn = encode(1, EVENTS[1])[:-1]
    reader = opened(home, encode(0, EVENTS[0]) + torn)
    assert [type(item) for item in reader.take(9, NO_BOUND)] == [Record]
    assert reader.take(9, NO_BOUND) == []
    with open(home.segment(NAME), "ab") as file:
        file.write(encode(2, EVENTS[2]))
    damage, record = reader.take(9, NO_BOUND)
    start = len(encode(0, EVENTS[0]))
    assert damage == Damage(start, start + len(torn))
    assert isinstance(record, Record)
    assert record.event == EVENTS[2]
    reader.close()


def test_record_longer_than_what_is_read_at_once(home: Home) -> None:
    """A long event holds nobody back, and those behind it are found."""
    long = [event(n, size=size) for n, size in enumerate((1 << 20, 300, 5 << 20, 40))]
    reader = opened(home, b"garbage" * 100_000 + segment_of(*long))
    items = take_all(reader)
    assert [item.event for item in items if isinstance(item, Record)] == long
    assert items[0] == Damage(0, 700_000)
    reader.close()


def test_the_longest_record_there_is_is_read(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is read at once; one byte more is no record, and holds up none."""
    monkeypatch.setattr(reader_module, "CHUNK_BYTES", 16)
    monkeypatch.setattr(frame, "RECORD_BYTES_MAX", 5000)
    longest = event(0, size=5000 - frame.OVERHEAD)
    reader = opened(home, segment_of(longest, EVENTS[1]))
    assert [item.event for item in take_all(reader) if isinstance(item, Record)] == [
        longest,
        EVENTS[1],
    ]
    endless = b"\x1e" + b"x" * 20_000
    reader = opened(home, segment_of(longest) + endless)
    reads = counted_reads(lambda: take_all(reader), monkeypatch)
    assert reads < 40
    # From the start again, by what is read at once again.
    reader.start_at(0)
    assert reader._chunk_bytes == 16
    assert len(take_all(reader)) == 1
    reader.close()


def counted_reads(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many reads `work` makes."""
    reads = 0

    def counted(descriptor: int, length: int, at: int) -> bytes:
        nonlocal reads
        reads += 1
        return files.read_at(descriptor, length, at)

    with monkeypatch.context() as patch:
        patch.setattr(reader_module, "read_at", counted)
        work()
    return reads


def test_what_is_there_is_counted(home: Home) -> None:
    """Each number that is missing or comes again, with the place where it shows."""
    parts = [
        encode(2, EVENTS[0]),  # 0 and 1 are missing
        encode(3, EVENTS[1]),
        encode(3, EVENTS[2]),
        b"torn",
        encode(5, EVENTS[3]),  # 4 is missing
        encode(4, EVENTS[4]),
    ]
    places = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
    reader = opened(home, b"".join(parts) + b"tail")
    reader.take(2, NO_BOUND)
    checked = reader.check()
    assert checked == Checked(
        records=5,
        gaps=[(0, 2), (places[4], 1)],
        repeated=[places[2], places[5]],
        damage=[(places[3], places[4])],
        end=places[6],
    )
    reader.close()
    reader = opened(home, b"")
    assert reader.check() == Checked()
    assert (Checked().records, Checked().end) == (0, 0)
    reader.close()


def test_a_copy_of_the_descriptor_keeps_no_lock(home: Home) -> None:
    """A child that the host forks during a flush lives on for days."""
    reader = opened(home, segment_of(*EVENTS))
    assert reader.lock()
    with child(lambda peer: peer.hear()):
        reader.close()
        ours = adopt(home.segment(NAME), NO_BOUND)
        assert ours is not None
        ours.close()


def test_a_lock_that_was_not_taken_is_not_released(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system has no locks, releasing one is an error."""

    def failing(_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(reader_module, "unlock", failing)
    before = os.listdir("/dev/fd")
    opened(home, b"").close()
    reader = opened(home, b"")
    assert reader.lock()
    with pytest.raises(OSError, match="No locks"):
        reader.close()
    assert len(os.listdir("/dev/fd")) == len(before)


def test_megabytes_without_a_record_are_passed_in_linear_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk gave back zeros, or a file of separators: the flusher has one minute."""
    rubbish = b"\0" * (2 << 20) + b"\x1e" * (1 << 19) + b"\n" * (1 << 19)
    reader = opened(home, rubbish + segment_of(EVENTS[0]))
    items: list[Record | Damage] = []
    reads = counted_reads(lambda: items.extend(take_all(reader)), monkeypatch)
    assert items[0] == Damage(0, len(rubbish))
    assert len(items) == 2
    assert reads <= 2 + len(rubbish) // reader_module.CHUNK_BYTES + 2
    reader.close()


def test_offset_holds_only_with_its_number_and_checksum(home: Home) -> None:
    """A settled offset outlives bytes that a power loss took, and files their names."""
    content = segment_of(*EVENTS)
    records = [
        item
        for item in scan(content, at=0, answered=0).items
        if isinstance(item, Record)
    ]
    reader = opened(home, content)
    assert reader.holds(0, -1, "")
    for record in records:
        crc = record.crc.decode()
        assert reader.holds(record.end, record.seq, crc)
        assert not reader.holds(record.end, record.seq + 1, crc)
        assert not reader.holds(record.end, record.seq, "00000000")
        assert not reader.holds(record.end - 1, record.seq, crc)
        assert not reader.holds(record.end + 1, record.seq, crc)
        assert not reader.holds(record.end + 1000, record.seq, crc)
    os.truncate(home.segment(NAME), len(content) - 1)
    last = records[-1]
    assert not reader.holds(last.end, last.seq, last.crc.decode())
    reader.close()


def test_what_is_no_regular_file_is_an_error_at_once(home: Home) -> None:
    """A planted FIFO or link must neither hold the flusher nor lead it elsewhere."""
    path = home.segment(NAME)

    def refused() -> None:
        with pytest.raises(SpoolError, match=NAME):
            SegmentReader(home, NAME)

    refused()
    os.mkfifo(path)
    within(60, refused)
    os.unlink(path)
    os.mkdir(path)
    refused()
    os.rmdir(path)
    os.symlink(__file__, path)
    refused()


def test_segment_that_cannot_be_read_is_an_error_with_its_place(home: Home) -> None:
    """A bad sector: this segment waits, others go on."""
    with pytest.raises(SpoolError) as caught:
        SegmentReader(home, NAME)
    assert (caught.value.path, caught.value.offset) == (home.segment(NAME), 0)
    assert caught.value.problem == "No such file or directory"
    reader = opened(home, segment_of(*EVENTS))
    reader.start_at(60)
    os.close(reader._descriptor)
    with pytest.raises(SpoolError) as caught:
        reader.take(1, NO_BOUND)
    assert (caught.value.path, caught.value.offset) == (home.segment(NAME), 60)
    assert caught.value.problem == "Bad file descriptor"
    with pytest.raises(OSError, match="descriptor"):
        reader.holds(60, 0, "00000000")
    reader._descriptor = -1


def test_lock_is_had_once_the_writer_is_gone(home: Home) -> None:
    """While it lives, what follows the last whole record may be a record soon."""

    def write(peer: Peer) -> None:
        writer = spool_writer(home)
        writer.append(EVENTS[0])
        peer.tell("written")
        peer.hear()

    with child(write) as peer:
        assert peer.hear() == "written"
        [name] = segment_names(home)
        reader = SegmentReader(home, name)
        assert not reader.lock()
        assert not reader.delete(reader.size())
        peer.kill()
        assert reader.lock()
        assert reader.lock()
    # And while the flusher has it, no writer takes the segment.
    assert adopt(home.segment(name), NO_BOUND) is None
    assert reader.delete(reader.size())
    assert segment_names(home) == []
    reader.close()


def test_where_nothing_locks_nothing_is_deleted(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There nobody can know that its writer is gone."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(reader_module, "shut_out_writers", no_locks)
    reader = opened(home, segment_of(*EVENTS))
    assert not reader.lock()
    assert not reader.delete(reader.size())
    assert segment_names(home) == [NAME]
    reader.close()


def test_segment_that_has_grown_is_not_deleted(home: Home) -> None:
    """An event came between the last read and the lock: it is still in there."""
    reader = opened(home, segment_of(*EVENTS))
    settled = take_all(reader)[-1].end
    writer = spool_writer(home)
    writer.append(event(9))
    writer.close()
    assert reader.lock()
    assert not reader.delete(settled)
    assert segment_names(home) == [NAME]
    [late] = take_all(reader)
    assert isinstance(late, Record)
    assert late.event == event(9)
    assert reader.delete(late.end)
    assert segment_names(home) == []
    reader.close()


def test_segment_without_the_lock_is_not_deleted(home: Home) -> None:
    """Its writer may be about to append."""
    reader = opened(home, segment_of(*EVENTS))
    assert not reader.delete(reader.size())
    assert segment_names(home) == [NAME]
    reader.close()


def test_another_file_of_that_name_is_not_deleted(home: Home) -> None:
    """Ours is gone already; what stands there has not been read."""
    reader = opened(home, segment_of(*EVENTS))
    os.unlink(home.segment(NAME))
    plant(home, YEAR_2001_NS, segment_of(event(9)))
    assert reader.lock()
    assert reader.delete(reader.size())
    assert Path(home.segment(NAME)).read_bytes() == segment_of(event(9))
    reader.close()


def test_segment_with_a_second_name_loses_the_one_in_the_spool(
    home: Home, tmp_path: Path
) -> None:
    """A backup by hard links: kept in the spool, it would be sent again for ever."""
    backup = tmp_path / "backup"
    reader = opened(home, segment_of(*EVENTS))
    os.link(home.segment(NAME), backup)
    assert reader.lock()
    assert reader.delete(reader.size())
    assert segment_names(home) == []
    assert backup.read_bytes() == segment_of(*EVENTS)
    reader.close()


def test_quarantine_holds_the_bytes_and_nothing_else(home: Home) -> None:
    """Somebody may want to know what was there."""
    content = bytes(range(256)) * 4096
    reader = opened(home, content)
    for start, end in ((0, 10), (10, len(content)), (7, 7), (1000, 1000 + (300 << 10))):
        for _ in range(2):  # written again after a crash it is the same
            reader.quarantine(start, end)
            path = Path(f"{home.quarantine}/{NAME}-{start}")
            assert path.read_bytes() == content[start:end]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # A stretch is what is there, also if the file was cut meanwhile.
    reader.quarantine(len(content) - 5, len(content) + 5)
    path = Path(f"{home.quarantine}/{NAME}-{len(content) - 5}")
    assert path.read_bytes() == content[-5:]
    assert len(os.listdir(home.quarantine)) == 5
    assert stat.S_IMODE(os.stat(home.quarantine).st_mode) == 0o700
    assert Path(home.segment(NAME)).read_bytes() == content
    reader.close()


def test_an_erased_segment_holds_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows erases what is in use. If the look fails, nothing is taken for erased."""

    def failing(_: int) -> bool:
        raise OSError(5, "no such luck")

    reader = opened(home, b"\n")
    assert (reader.take(), reader.size()) == ([], 0)
    reader.close()
    monkeypatch.setattr(reader_module, "is_erased", failing)
    reader = opened(home, frame.encode(0, b"{}"))
    assert len(reader.take()) == 1
    reader.close()


def test_only_the_line_feed_of_a_purge_gives_a_segment_up(home: Home) -> None:
    """Whatever else stands there is a record that is being written, or damage."""
    content = frame.encode(0, b"{}")
    behind = {b"": False, b"\n": True, b"\n\n": False, b"\nx": False, b"x": False}
    for rest, is_given_up in behind.items():
        reader = opened(home, content + rest)
        assert reader.is_given_up(len(content)) is is_given_up, rest
        reader.close()


def test_reads_that_bring_less_than_was_asked_for_lose_no_byte(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read may be cut by a signal, or by a file system in another process."""
    sound = reader_module.read_at
    monkeypatch.setattr(
        reader_module,
        "read_at",
        lambda descriptor, length, at: sound(descriptor, min(length, 7), at),
    )
    content = frame.MARK + b"x" * 20 + frame.MARK + b"y" * 20 + frame.MARK
    reader = opened(home, content)
    assert reader.count_marks(0) == 3
    assert reader.count_marks(1, len(content) - 1) == 1
    assert reader.mentions(content[:20])
    assert reader.mentions(b"x" * 20 + frame.MARK)
    assert not reader.mentions(b"x" * 21)
    reader.quarantine(0, len(content))
    assert Path(f"{home.quarantine}/{NAME}-0").read_bytes() == content
    reader.close()


def test_quarantine_is_synced_before_it_counts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies behind it is settled next, and then the segment is deleted."""
    synced: list[object] = []

    def noted_sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        assert all(".tmp-" in name for name in os.listdir(home.quarantine))

    def noted_directory(path: str) -> None:
        synced.append((path, os.listdir(path)))

    def noted_making(path: str) -> None:
        synced.append((path, sorted(os.listdir(path))))

    monkeypatch.setattr(reader_module, "sync", noted_sync)
    monkeypatch.setattr(reader_module, "sync_directory", noted_directory)
    monkeypatch.setattr(files, "sync_directory", noted_making)
    reader = opened(home, b"x" * 5000)
    before = sorted([*os.listdir(home.root), "quarantine"])
    reader.quarantine(0, 5000)
    assert synced == [
        (home.root, before),
        5000,
        (home.quarantine, [f"{NAME}-0"]),
    ]
    reader.close()


def test_quarantine_that_cannot_be_written_shows_nothing(home: Home) -> None:
    """Half of a stretch would be taken for all of it."""

    def work(_: Peer) -> None:
        reader = opened(home, b"x" * 100_000)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="too large"):
            reader.quarantine(0, 100_000)

    with child(work) as peer:
        peer.finish()
    assert os.listdir(home.quarantine) == []


def test_quarantine_that_is_no_directory_takes_nothing(home: Home) -> None:
    """A planted file or link must not lead a stretch elsewhere, or lose it."""
    reader = opened(home, b"x" * 100)
    for make in (
        lambda path: Path(path).touch(),
        lambda path: os.symlink("/tmp", path),
    ):
        make(home.quarantine)
        with pytest.raises(OSError, match="directory"):
            reader.quarantine(0, 10)
        os.unlink(home.quarantine)
    reader.close()


def test_marks_are_counted_across_the_edges_of_reads(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tail's records are estimated by where they seem to begin."""
    monkeypatch.setattr(reader_module, "CHUNK_BYTES", 16)
    for before in range(70):
        content = b"x" * before + (frame.MARK + b"y" * 7) * 9
        reader = opened(home, content)
        assert reader.count_marks(0) == 9
        assert reader.count_marks(before + 1) == 8
        assert reader.count_marks(len(content)) == 0
        for stop in range(before, before + 40):
            found = content[:stop].count(frame.MARK)
            assert reader.count_marks(0, stop) == found
            assert reader.count_marks(0, stop + 10_000) >= found
        reader.close()


def test_nothing_stays_open(home: Home) -> None:
    """The flusher opens every segment there is, one after the other."""
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        reader = opened(home, segment_of(*EVENTS))
        take_all(reader)
        reader.lock()
        reader.quarantine(0, 10)
        reader.close()
        reader.close()
    assert len(os.listdir("/dev/fd")) == before


@given(contents, st.integers(0, 300), st.integers(16, 200))
@settings(max_examples=examples(150), deadline=None)
def test_last_record_is_found_behind_whatever_follows(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, chunk: int
) -> None:
    """It says what a torn segment's last number was, and how many came after it."""
    assume(content[:2] != ERASED)
    home = home_at(tmp_path_factory.mktemp("reader"))
    size = max(len(content) - cut, 0)
    items = scan(content[:size], at=0, answered=0).items
    records = [item for item in items if isinstance(item, Record)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "CHUNK_BYTES", chunk)
        patch.setattr(reader_module, "TAIL_BYTES", chunk)
        reader = opened(home, content)
        try:
            assert reader.last(size) == (records[-1] if records else None)
            marks = content[cut:size].count(frame.MARK)
            assert reader.count_marks(cut, size) == marks
            checked = reader.check()
            assert checked.damage == [
                (item.start, item.end)
                for item in scan(content, at=0, answered=0).items
                if isinstance(item, Damage)
            ]
            assert checked.end == scan(content, at=0, answered=0).answered
        finally:
            reader.close()


def test_an_erased_segment_is_empty(home: Home) -> None:
    """One line feed: what cannot be removed is taken away so, and counts for nothing."""
    for content, size in ((b"\n", 0), (b"x", 1), (b"\n\n", 2), (b"\nx", 2), (b"", 0)):
        reader = opened(home, content)
        assert reader.size() == size, content
        reader.close()


def test_last_record_is_found_however_long(home: Home) -> None:
    """Longer than a chunk, and something torn behind it."""
    content = segment_of(event(0), event(1, size=700_000))
    reader = opened(home, content + b"\x1e" + b"x" * 300_000)
    last = reader.last(reader.size())
    assert last is not None
    assert (last.end, last.seq) == (len(content), 1)
    reader.close()
