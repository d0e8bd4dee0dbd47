"""The spool of one process: which segment it takes, and when it takes another."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.errors import BusyError, DiskError, OffError, RefusedError
from telemetry.files import try_lock
from telemetry.paths import Home, is_segment
from telemetry.spool import frame, segment
from telemetry.spool import writer as writer_module
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.spool.writer import SpoolWriter
from tests.support.open_files import open_files
from tests.support.writers import (
    Peer,
    child,
    event,
    holding,
    home_at,
    plant,
    segment_of,
    spool_writer,
    spooled_events,
)


YEAR_2001_NS = 1_000_000_000 * 10**9
YEAR_5000_NS = 95_617_584_000 * 10**9


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty spool."""
    return home_at(tmp_path)


def contents(home: Home) -> dict[str, bytes]:
    """Every segment's bytes."""
    return {name: Path(home.segment(name)).read_bytes() for name in segment_names(home)}


def changed(home: Home, before: dict[str, bytes]) -> list[str]:
    """The segments that are not as they were."""
    after = contents(home)
    return sorted(name for name in after if after[name] != before.get(name))


def append_one(home: Home, number: int = 0) -> None:
    """One event by a writer of its own, which lets go."""
    writer = spool_writer(home)
    writer.append(event(number))
    writer.close()


def test_newest_that_can_be_had_is_taken(home: Home) -> None:
    """Old ones are then drained and deleted, instead of being kept alive for ever."""
    names = [plant(home, YEAR_2001_NS + n, segment_of(event(n))) for n in range(10)]
    for free in (9, 8, 5, 2):
        before = contents(home)
        with child(lambda peer, held=names[free + 1 :]: hold(peer, home, held)) as peer:
            assert peer.hear() == "held"
            append_one(home)
        assert changed(home, before) == [names[free]]


def hold(peer: Peer, home: Home, names: list[str]) -> None:
    """Have the locks of these segments until told otherwise."""
    for name in names:
        assert try_lock(os.open(home.segment(name), os.O_RDWR))
    peer.tell("held")
    peer.hear()


def test_only_the_newest_eight_are_tried(home: Home) -> None:
    """With a million events waiting, opening costs the same as with none."""
    names = [plant(home, YEAR_2001_NS + n, segment_of(event(n))) for n in range(10)]
    before = contents(home)
    with child(lambda peer: hold(peer, home, names[2:])) as peer:
        assert peer.hear() == "held"
        append_one(home)
    [new] = changed(home, before)
    assert new > names[-1]
    before = contents(home)
    with child(lambda peer: hold(peer, home, [*names[4:], new])) as peer:
        assert peer.hear() == "held"
        append_one(home)
    assert changed(home, before) == [names[3]]


def test_eight_writers_share_eight_segments(home: Home) -> None:
    """However often they start and end, no more files come into being."""
    for _ in range(5):
        writers = [spool_writer(home) for _ in range(8)]
        for number, writer in enumerate(writers):
            writer.append(event(number))
        for writer in writers:
            writer.close()
    assert len(segment_names(home)) == 8
    assert len(spooled_events(home)) == 40


def test_torn_full_and_foreign_ones_are_passed(home: Home) -> None:
    """Each of them would cost an event or give away one."""
    good = plant(home, YEAR_2001_NS, segment_of(event(1)))
    torn = plant(home, YEAR_2001_NS + 1, segment_of(event(2)) + b"\x1e{")
    full = plant(home, YEAR_2001_NS + 2, segment_of(event(3, size=4 << 20)))
    os.symlink(home.segment(good), home.segment(f"{YEAR_2001_NS + 4:020d}-0.v1.jseq"))
    os.symlink(
        f"{home.root}/else", home.segment(f"{YEAR_2001_NS + 5:020d}-{0:08x}.v1.jseq")
    )
    os.mkfifo(home.segment(f"{YEAR_2001_NS + 6:020d}-{0:08x}.v1.jseq"))
    os.mkdir(home.segment(f"{YEAR_2001_NS + 7:020d}-{0:08x}.v1.jseq"))
    newer = home.segment(f"{YEAR_2001_NS + 8:020d}-{0:08x}.v2.jseq")
    Path(newer).write_bytes(b"")
    watched = (torn, full)
    before = [Path(home.segment(name)).read_bytes() for name in watched]
    append_one(home)
    assert [Path(home.segment(name)).read_bytes() for name in watched] == before
    assert Path(home.segment(good)).read_bytes() == segment_of(event(1)) + frame.encode(
        1, event(0)
    )
    assert Path(newer).read_bytes() == b""
    assert not os.path.lexists(f"{home.root}/else")


def test_new_name_is_the_time_of_now(home: Home) -> None:
    """A person reads from it when a segment was begun."""
    before = time.time_ns()
    append_one(home)
    [name] = segment_names(home)
    assert before <= int(name[:20]) <= time.time_ns()


def test_new_name_sorts_last_after_the_clock_was_set_back(home: Home) -> None:
    """A flusher reads in the order of names, and that is the order of recording."""
    for _ in range(3):
        last = plant(home, YEAR_5000_NS, segment_of(event(0)) + b"torn", "ffffffff")
        append_one(home)
        new = segment_names(home)[-1]
        assert int(new[:20]) == YEAR_5000_NS + 1
        assert new > last
        os.unlink(home.segment(new))


def test_name_at_the_end_of_time_hides_no_event(home: Home) -> None:
    """A name of one digit more is no segment's name, and nobody would read it."""
    plant(home, 10**20 - 1, segment_of(event(0)) + b"torn")
    append_one(home, 1)
    assert spooled_events(home) == [event(0), event(1)] or spooled_events(home) == [
        event(1),
        event(0),
    ]
    assert all(is_segment(name) for name in os.listdir(home.spool))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_where_nothing_locks_each_writer_has_a_file_of_its_own(
    number: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have no locks: two writers would share a file."""

    def no_locks(_: int) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(segment, "try_lock", no_locks)
    for count in range(1, 4):
        append_one(home, count)
        assert len(segment_names(home)) == count
    assert spooled_events(home) == [event(1), event(2), event(3)]


def test_rolls_over_at_the_bound_of_a_segment(home: Home) -> None:
    """One deletion gives back at most so much, one bad file costs at most so much."""
    one = len(frame.encode(0, event(0)))
    writer = spool_writer(home, segment_bytes_max=3 * one)
    for number in range(9):
        writer.append(event(number))
    writer.close()
    assert [len(content) for content in contents(home).values()] == [3 * one] * 3
    assert spooled_events(home) == [event(number) for number in range(9)]


def test_event_that_does_not_fit_goes_into_the_next(home: Home) -> None:
    """The bound holds also where the last event is a long one."""
    writer = spool_writer(home, segment_bytes_max=1000)
    sizes = [300, 500, 400, 100, 900, 900]
    for number, size in enumerate(sizes):
        writer.append(event(number, size=size))
    writer.close()
    lengths = [len(content) for content in contents(home).values()]
    assert max(lengths) <= 1000
    assert sum(lengths) == sum(sizes) + frame.OVERHEAD * len(sizes)
    assert len(spooled_events(home)) == len(sizes)


def test_event_larger_than_a_segment_has_one_of_its_own(home: Home) -> None:
    """The bound of an event decides whether it is recorded, not that of a segment."""
    writer = spool_writer(home, segment_bytes_max=1000)
    events = [event(0), event(1, size=5000), event(2), event(3, size=5000)]
    for each in events:
        writer.append(each)
    writer.close()
    assert sorted(spooled_events(home)) == sorted(events)
    assert sorted(len(content) > 1000 for content in contents(home).values()) == [
        False,
        True,
        True,
    ]


def test_one_that_the_event_fills_to_the_byte_is_taken(home: Home) -> None:
    """And one that lacks a byte is left for a shorter event."""
    there = segment_of(event(0))
    record = frame.encode(1, event(1))
    for missing in (1, 0):
        plant(home, YEAR_2001_NS, there)
        writer = spool_writer(
            home, segment_bytes_max=len(there) + len(record) - missing
        )
        writer.append(event(1))
        writer.close()
        assert len(segment_names(home)) == 1 + missing
        assert spooled_events(home) == [event(0), event(1)]
        for name in segment_names(home):
            os.unlink(home.segment(name))


def test_an_event_from_inside_an_event_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler inside `append` cannot wait for what it interrupts."""
    writer = spool_writer(home)
    append = segment.Segment.append

    def interrupted(ours: segment.Segment, each: bytes) -> bool:
        with pytest.raises(BusyError):
            writer.append(event(100))
        return append(ours, each)

    monkeypatch.setattr(segment.Segment, "append", interrupted)
    for number in range(3):
        writer.append(event(number))
    writer.close()
    assert spooled_events(home) == [event(0), event(1), event(2)]


def test_a_forked_child_closes_its_copy_and_takes_a_segment_of_its_own(
    home: Home,
) -> None:
    """The parent's lock stays, and ends with the parent."""
    writer = spool_writer(home)
    writer.after_fork()  # a fork before the first event
    writer.append(event(0))

    def forked(_: Peer) -> None:
        before = open_files()
        writer.after_fork()
        assert len(open_files()) == len(before) - 1
        writer.append(event(1))
        writer.close()

    with child(forked) as peer:
        peer.finish()
    assert len(segment_names(home)) == 2
    writer.append(event(2))
    writer.close()
    assert sorted(spooled_events(home)) == [event(0), event(1), event(2)]


def test_what_the_disk_refused_is_not_tried_elsewhere(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of it may stand in the file: written again, it might be there twice."""
    writer = spool_writer(home)
    writer.append(event(0))
    append = segment.Segment.append
    errors = [DiskError(home.spool, "took 3 of 60 bytes")]

    def failing_once(ours: segment.Segment, each: bytes) -> bool:
        if errors:
            raise errors.pop()
        return append(ours, each)

    monkeypatch.setattr(segment.Segment, "append", failing_once)
    with pytest.raises(DiskError, match="took 3"):
        writer.append(event(1))
    writer.append(event(2))
    writer.close()
    assert spooled_events(home) == [event(0), event(2)]


def test_a_new_segment_that_is_taken_away_is_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher may delete it before we have its lock; so often only by design."""
    made: list[str] = []

    def taken_away(times: int) -> Callable[[str], segment.Segment | None]:
        def create(path: str) -> segment.Segment | None:
            made.append(path)
            return None if len(made) <= times else segment.create(path)

        return create

    monkeypatch.setattr(writer_module, "create", taken_away(3))
    append_one(home)
    assert spooled_events(home) == [event(0)]
    assert len(set(made)) == len(made) == 4
    assert made == sorted(made)
    os.unlink(made[-1])
    made.clear()
    monkeypatch.setattr(writer_module, "create", taken_away(1000))
    with pytest.raises(DiskError, match="taken away"):
        append_one(home)
    assert len(made) < 50


def test_moved_position_costs_no_event(home: Home) -> None:
    """The segment is given up, and the event goes into another one."""
    writer = spool_writer(home)
    writer.append(event(0))
    assert writer._segment is not None
    os.lseek(writer._segment.descriptor, 0, os.SEEK_SET)
    writer.append(event(1))
    writer.append(event(2))
    writer.close()
    assert spooled_events(home) == [event(0), event(1), event(2)]


def test_host_that_closes_all_descriptors_loses_no_event(
    home: Home, tmp_path: Path
) -> None:
    """A daemon closes what it does not know and opens its database on the number."""
    database = tmp_path / "database"
    database.write_bytes(b"")

    def daemon(_: Peer) -> None:
        before = open_files()
        writer = spool_writer(home)
        for round_ in range(5):
            writer.append(event(round_))
            assert writer._segment is not None
            number = writer._segment.descriptor
            theirs = os.open(database, os.O_RDWR)
            os.dup2(theirs, number)  # as `close` and `open` in a row would do
            os.close(theirs)
            theirs = number
            writer.append(event(100 + round_))
            os.pwrite(theirs, b"precious", 0)
            assert os.pread(theirs, 100, 0) == b"precious"
            os.close(theirs)
        writer.close()
        # Nothing that was given up is still open: it would be locked for ever.
        assert open_files() == before

    with child(daemon) as peer:
        peer.finish()
    assert database.read_bytes() == b"precious"
    assert sorted(spooled_events(home)) == sorted(
        event(number) for round_ in range(5) for number in (round_, 100 + round_)
    )


def test_rm_rf_of_the_home_costs_no_event_after_it(home: Home) -> None:
    """What is recorded afterwards stands in a new home."""
    writer = spool_writer(home)
    writer.append(event(0))
    shutil.rmtree(home.root)
    writer.append(event(1))
    writer.append(event(2))
    writer.close()
    assert spooled_events(home) == [event(1), event(2)]
    assert os.stat(home.root).st_mode & 0o777 == 0o700


def test_event_goes_where_the_name_leads(home: Home) -> None:
    """A trash, a swap, a backup by hard links and a purge: each is one or two renames."""

    def moved() -> None:
        os.rename(home.root, f"{home.root}-trash")

    def swapped() -> None:
        os.rename(home.spool, f"{home.root}/before")
        os.mkdir(home.spool, 0o700)

    def renamed() -> None:
        (name,) = segment_names(home)
        os.rename(home.segment(name), f"{home.root}/elsewhere")

    def backed_up_and_purged() -> None:
        (name,) = segment_names(home)
        os.link(home.segment(name), f"{home.root}/backup")
        os.unlink(home.segment(name))

    writer = spool_writer(home)
    for number, disturb in enumerate((moved, swapped, renamed, backed_up_and_purged)):
        writer.append(event(2 * number))
        assert event(2 * number) in spooled_events(home)
        disturb()
        writer.append(event(2 * number + 1))
        assert spooled_events(home) == [event(2 * number + 1)], disturb
    writer.close()


def test_directory_that_is_taken_while_a_segment_is_opened_costs_no_event(
    home: Home,
) -> None:
    """A purge renames it between our making and our reading of it."""
    times = 0

    def prepare() -> None:
        nonlocal times
        times += 1
        os.makedirs(home.spool, exist_ok=True)
        if times == 1:
            os.rename(home.spool, f"{home.root}/taken")

    writer = SpoolWriter(
        home,
        spool_bytes_max=1 << 20,
        segment_bytes_max=1 << 20,
        power=False,
        prepare=prepare,
        allowed=lambda: True,
    )
    writer.append(event(0))
    writer.close()
    assert (spooled_events(home), times) == ([event(0)], 2)


class Consent:
    """A user's choice, and how often it was asked for."""

    def __init__(self) -> None:
        self.on = True
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.on


def test_consent_is_read_again_after_a_purge(home: Home) -> None:
    """Files vanish when somebody opts out, and then nothing more is written, ever."""
    consent = Consent()
    writer = spool_writer(home, allowed=consent)
    writer.append(event(0))
    asked = consent.asked
    consent.on = False
    shutil.rmtree(home.root)
    for _ in range(3):
        with pytest.raises(OffError):
            writer.append(event(1))
        assert not os.path.exists(home.root)
    assert consent.asked > asked
    consent.on = True
    writer.append(event(2))
    writer.close()
    assert spooled_events(home) == [event(2)]


def test_consent_is_read_at_every_opening(home: Home) -> None:
    """A process between two segments has no link count to notice a purge by."""
    consent = Consent()
    writer = spool_writer(home, allowed=consent, segment_bytes_max=100)
    writer.append(event(0, size=90))
    consent.on = False
    shutil.rmtree(home.root)
    with pytest.raises(OffError):
        writer.append(event(1, size=90))
    writer.close()
    with pytest.raises(OffError):
        writer.append(event(2))
    assert not os.path.exists(home.root)


def test_consent_withdrawn_while_a_segment_is_taken(home: Home) -> None:
    """A purge that ran before our file came into being has not seen it."""
    answers = iter([True, False])
    writer = spool_writer(home, allowed=lambda: next(answers))
    with pytest.raises(OffError):
        writer.append(event(0))
    assert spooled_events(home) == []


def test_consent_is_not_asked_for_each_event(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a file, and an event costs microseconds."""
    monkeypatch.setattr(writer_module, "_ASK_EACH_NS", 1 << 60)
    consent = Consent()
    writer = spool_writer(home, allowed=consent)
    writer.append(event(0))
    asked = consent.asked
    for number in range(100):
        writer.append(event(number))
    writer.close()
    assert consent.asked == asked


def test_a_choice_that_took_no_segment_away_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opt-out that was killed right behind it left a program its segment."""
    monkeypatch.setattr(writer_module, "_ASK_EACH_NS", -1)
    answers: list[bool | DiskError] = [True, True, True]

    def allowed() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, DiskError):
            raise answer
        return answer

    before = open_files()
    writer = spool_writer(home, allowed=allowed)
    writer.append(event(0))
    writer.append(event(1))
    answers[:] = [DiskError(home.consent, "cannot be opened just now"), False]
    writer.append(event(2))
    with pytest.raises(OffError):
        writer.append(event(3))
    assert open_files() == before
    assert spooled_events(home) == [event(0), event(1), event(2)]


def test_segments_taken_away_again_and_again_end_in_an_error(home: Home) -> None:
    """A loop without end inside `track` would be worse than a counted loss."""
    closes = 0

    def vanish() -> bool:
        nonlocal closes
        closes += 1
        for name in segment_names(home):
            os.unlink(home.segment(name))
        return True

    writer = spool_writer(home, allowed=vanish)
    with pytest.raises(DiskError, match="taken away"):
        writer.append(event(0))
    assert closes < 50
    writer.close()


def test_directory_that_cannot_be_written_is_an_error_and_nothing_stays_open(
    home: Home,
) -> None:
    """Each event of a long-lived program would cost a descriptor."""
    shutil.rmtree(home.spool)
    Path(home.spool).write_bytes(b"")
    writer = spool_writer(home)
    before = open_files()
    for _ in range(3):
        with pytest.raises(Exception, match="directory") as caught:
            writer.append(event(0))
        assert isinstance(caught.value, RefusedError)
    assert open_files() == before
    os.unlink(home.spool)
    writer = SpoolWriter(
        home,
        spool_bytes_max=1 << 20,
        segment_bytes_max=1 << 20,
        power=False,
        prepare=lambda: Path(home.spool).touch(),
        allowed=lambda: True,
    )
    with pytest.raises(DiskError) as found:
        writer.append(event(0))
    assert (found.value.path, found.value.problem) == (home.spool, "Not a directory")


def test_lock_of_a_live_writer_keeps_a_flusher_from_deleting(home: Home) -> None:
    """The next event goes into that file."""
    writer = spool_writer(home)
    writer.append(event(0))
    [name] = segment_names(home)
    with child(lambda peer: peer.tell(str(can_lock(home, name)))) as peer:
        assert peer.hear() == "False"
    writer.close()
    with child(lambda peer: peer.tell(str(can_lock(home, name)))) as peer:
        assert peer.hear() == "True"


def can_lock(home: Home, name: str) -> bool:
    """Whether a reader gets the lock of a segment."""
    reader = SegmentReader(home, name)
    try:
        return reader.lock()
    finally:
        reader.close()


def test_closed_writer_records_on(home: Home) -> None:
    """A client that was closed may be used again by a library that does not know."""
    writer = spool_writer(home)
    for number in range(3):
        writer.append(event(number))
        writer.close()
    assert spooled_events(home) == [event(0), event(1), event(2)]
    assert len(segment_names(home)) == 1


@pytest.mark.parametrize("power", [False, True])
def test_close_from_inside_an_event_is_done_behind_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power: bool
) -> None:
    """Before its write, that would meet whatever the host opens next."""
    writer = spool_writer(home, power=power)
    look, before = segment.end_of_ours, open_files()
    others: list[int] = []

    def interrupted(*given: int) -> int:
        found = look(*given)
        writer.close()
        others.append(os.open(tmp_path / "the host's", os.O_WRONLY | os.O_CREAT))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(segment, "end_of_ours", interrupted)
        writer.append(event(0))
    assert open_files() == before.union(others)
    writer.append(event(1))
    writer.close()
    for descriptor in others:
        os.close(descriptor)
    assert spooled_events(home) == [event(0), event(1)]
    assert len(others) == 1
    assert not (tmp_path / "the host's").stat().st_size


def test_locked_segment_is_passed_and_taken_later(home: Home) -> None:
    """Only while a flusher looks at the end is it not to be had."""
    append_one(home, 0)
    [name] = segment_names(home)
    with holding(home.segment(name)):
        append_one(home, 1)
    assert len(segment_names(home)) == 2
    writer = spool_writer(home)
    writer.append(event(2))
    writer.close()
    assert spooled_events(home) == [event(0), event(1), event(2)]


@pytest.mark.parametrize("power", [False, True])
def test_an_event_of_another_id_than_holds_is_not_recorded(
    power: bool, home: Home
) -> None:
    """It was sealed before the user's id was given up."""
    writer = spool_writer(home, power=power)
    for owner, is_recorded in (("old", False), (None, True), ("old", False)):
        if is_recorded:
            writer.append(event(1), owner)
            continue
        with pytest.raises(BusyError, match="id has changed"):
            writer.append(event(0), owner)
    writer.close()
    assert spooled_events(home) == [event(1)]
