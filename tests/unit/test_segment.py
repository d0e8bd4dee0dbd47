"""One segment: when it is taken, when it is written to, when it is let go."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry import files
from telemetry.errors import DiskError
from telemetry.files import try_lock
from telemetry.spool import frame, segment
from telemetry.spool.frame import Record, scan
from telemetry.spool.segment import Segment, adopt, create, record_ending_at
from tests.support.open_files import open_files
from tests.support.writers import Peer, child, event, holding, segment_of, within


ROOMY = 1 << 30
EVENTS = [event(number) for number in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a segment may stand."""
    return str(tmp_path / "segment")


@pytest.fixture
def written(path: str) -> str:
    """A segment with three records, closed."""
    Path(path).write_bytes(segment_of(*EVENTS))
    return path


def made(path: str) -> Segment:
    """A new segment, which nobody takes away."""
    found = create(path)
    assert found is not None
    return found


def taken(path: str, size_max: int = ROOMY) -> Segment:
    """A segment that can be adopted."""
    found = adopt(path, size_max)
    assert found is not None
    return found


def events_in(path: str) -> list[bytes]:
    """The events of the whole records of a file."""
    items = scan(Path(path).read_bytes(), at=0, answered=0).items
    return [item.event for item in items if isinstance(item, Record)]


def not_adopted(path: str, size_max: int = ROOMY) -> None:
    """It is left alone, byte for byte, and nothing stays open."""
    before = open_files()
    content = Path(path).read_bytes() if os.path.isfile(path) else None
    assert adopt(path, size_max) is None
    assert open_files() == before
    if content is not None:
        assert Path(path).read_bytes() == content


def test_adopted_segment_goes_on_where_it_ended(written: str) -> None:
    """Events of several processes share a file, and their numbers run on."""
    ours = taken(written)
    assert (ours.size, ours.seq) == (os.path.getsize(written), 3)
    assert ours.append(event(3))
    ours.close()
    items = scan(Path(written).read_bytes(), at=0, answered=0).items
    assert [item.seq for item in items if isinstance(item, Record)] == [0, 1, 2, 3]
    assert events_in(written) == [*EVENTS, event(3)]


def test_empty_segment_is_adopted(path: str) -> None:
    """It is what a kill between creation and first event leaves."""
    Path(path).touch()
    ours = taken(path)
    assert (ours.size, ours.seq) == (0, 0)
    ours.close()


def make_device(path: str) -> None:
    """A device that reads as an empty file; only root can make one."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def make_socket(path: str) -> None:
    """A socket with a name."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)


@pytest.mark.parametrize(
    "make", [os.mkdir, getattr(os, "mkfifo", None), make_device, make_socket]
)
def test_what_is_no_regular_file_is_left_alone(
    make: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO planted as a segment would hold the program, or take its events away."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make("s")
    before = os.lstat("s")
    within(60, lambda: not_adopted("s"))
    after = os.lstat("s")
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_fifo_with_a_reader_gets_no_event(tmp_path: Path) -> None:
    """With a reader at its other end, a FIFO can be opened for writing at once."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    other_end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    within(60, lambda: not_adopted(path))
    assert os.read(other_end, 100) == b""
    os.close(other_end)


def test_symlink_is_not_followed(written: str, tmp_path: Path) -> None:
    """Whoever can plant a link must not direct our bytes into another file."""
    link, dangling = str(tmp_path / "link"), str(tmp_path / "dangling")
    os.symlink(written, link)
    os.symlink(tmp_path / "nowhere", dangling)
    for path in (link, dangling):
        assert adopt(path, ROOMY) is None
        with pytest.raises(OSError, match="exists"):
            create(path)
    assert events_in(written) == EVENTS
    assert not os.path.lexists(tmp_path / "nowhere")


def test_full_segment_is_not_adopted(written: str) -> None:
    """Full is what has reached the bound, to the byte."""
    size = os.path.getsize(written)
    not_adopted(written, size)
    taken(written, size + 1).close()


def test_segment_of_another_process_is_not_adopted(written: str) -> None:
    """Two writers of one file would number their records twice."""
    with holding(written) as other:
        not_adopted(written)
        other.kill()
        taken(written).close()


def test_own_lock_counts_as_well(written: str) -> None:
    """A second client of the same process must not share the segment of the first."""
    first = taken(written)
    not_adopted(written)
    first.close()
    taken(written).close()


def with_lock_hook(
    monkeypatch: pytest.MonkeyPatch, before_lock: Callable[[], object]
) -> None:
    """Something happens between our open and our lock."""

    def hooked(descriptor: int) -> bool:
        before_lock()
        return try_lock(descriptor)

    replace_lock(monkeypatch, hooked)


def replace_lock(monkeypatch: pytest.MonkeyPatch, lock: Callable[[int], bool]) -> None:
    """Of segments that are adopted, and of new ones."""
    monkeypatch.setattr(segment, "try_lock", lock)
    monkeypatch.setattr(files, "try_lock", lock)


def test_unlinked_between_open_and_lock(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher deletes under its lock; who locks next has a file without a name."""
    with_lock_hook(monkeypatch, lambda: os.unlink(written))
    before = open_files()
    assert adopt(written, ROOMY) is None
    assert open_files() == before


def test_replaced_between_open_and_lock(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to another file: what we hold is reached by nobody."""
    other = tmp_path / "other"
    other.write_bytes(b"")
    with_lock_hook(monkeypatch, lambda: os.replace(other, written))
    assert adopt(written, ROOMY) is None
    assert Path(written).read_bytes() == b""


def test_grown_between_open_and_lock(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer before us may have added to it until it let go."""

    def grow() -> None:
        with open(written, "ab") as file:
            file.write(frame.encode(3, event(3)))

    with_lock_hook(monkeypatch, grow)
    ours = taken(written)
    assert (ours.size, ours.seq) == (os.path.getsize(written), 4)
    assert ours.append(event(4))
    ours.close()
    assert events_in(written) == [*EVENTS, event(3), event(4)]
    # It is full now that we have its lock, though it was not when we opened it.
    assert adopt(written, os.path.getsize(written) + 1) is None


def test_torn_between_open_and_lock(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer before us may have been killed in its last write."""

    def tear() -> None:
        with open(written, "ab") as file:
            file.write(frame.encode(3, event(3))[:-1])

    with_lock_hook(monkeypatch, tear)
    assert adopt(written, ROOMY) is None


def test_torn_tail_is_not_adopted_and_not_cut(path: str) -> None:
    """A tail that was cut lets the next event hide below the settled offset."""
    whole = segment_of(*EVENTS)
    ends = {len(segment_of(*EVENTS[:count])) for count in range(4)}
    for length in range(len(whole) + 1):
        Path(path).write_bytes(whole[:length])
        if length in ends:
            taken(path).close()
            assert os.path.getsize(path) == length
        else:
            not_adopted(path)
    for tail in (b"\n", b"\0", b"\x1e", b"x" * 70000, b"\0" * 5000):
        Path(path).write_bytes(whole + tail)
        not_adopted(path)


def test_second_link_does_no_harm(written: str, tmp_path: Path) -> None:
    """A backup by hard links, made before or meanwhile, takes nothing from the spool."""
    os.link(written, tmp_path / "first")
    ours = taken(written)
    assert ours.append(event(3))
    os.link(written, tmp_path / "second")
    assert ours.append(event(4))
    ours.close()
    assert len(events_in(written)) == 5


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_where_nothing_locks_nothing_is_adopted(
    number: int, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There two writers cannot know of each other; a new file has one writer."""

    def no_locks(_: int) -> bool:
        raise OSError(number, os.strerror(number))

    replace_lock(monkeypatch, no_locks)
    not_adopted(written)
    ours = made(str(tmp_path / "new"))
    assert ours.append(b"{}")
    ours.close()
    assert events_in(str(tmp_path / "new")) == [b"{}"]


def test_new_segment_is_private_and_locked(path: str) -> None:
    """Its events are the user's own, and it has one writer from its first byte on."""
    umask = os.umask(0)
    try:
        ours = made(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not os.get_inheritable(ours.descriptor)
    not_adopted(path)
    ours.close()
    with pytest.raises(FileExistsError):
        create(path)


@pytest.mark.parametrize("how", ["unlinked", "locked"])
def test_new_segment_that_was_taken_away_is_not_used(
    how: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher may find the empty file before its maker has locked it."""
    held = []

    def take_away() -> None:
        if how == "unlinked":
            os.unlink(path)
        else:
            held.append(os.open(path, os.O_RDONLY))
            assert try_lock(held[0])

    with_lock_hook(monkeypatch, take_away)
    before = open_files()
    assert create(path) is None
    for descriptor in held:
        os.close(descriptor)
    assert open_files() == before


@pytest.mark.parametrize("cut", [0, 1])
def test_new_segment_that_somebody_has_written_to_is_not_used(
    cut: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer adopted it before its maker locked it, and is gone again."""
    content = segment_of(*EVENTS)
    content = content[: len(content) - cut]
    with_lock_hook(monkeypatch, lambda: Path(path).write_bytes(content))
    assert create(path) is None
    assert Path(path).read_bytes() == content


def test_event_is_one_write(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two would leave a record torn by a kill between them, many times as often."""
    writes: list[bytes] = []
    write = os.write

    def counted(descriptor: int, content: bytes) -> int:
        writes.append(content)
        return write(descriptor, content)

    ours = made(path)
    monkeypatch.setattr(os, "write", counted)
    for each in EVENTS:
        assert ours.append(each)
    monkeypatch.undo()
    assert writes == [frame.encode(seq, each) for seq, each in enumerate(EVENTS)]
    ours.close()


@pytest.mark.parametrize("steps", [-1, 1, 1000])
def test_moved_position_is_not_written_at(steps: int, written: str) -> None:
    """Somebody else has used the descriptor: then it may be his by now."""
    ours = taken(written)
    os.lseek(ours.descriptor, steps, os.SEEK_CUR)
    assert not ours.append(event(3))
    assert events_in(written) == EVENTS
    ours.close()


def test_strange_bytes_behind_ours_are_not_followed(written: str) -> None:
    """Who wrote them holds no lock; our next record goes elsewhere."""
    ours = taken(written)
    with open(written, "ab") as file:
        file.write(b"strange")
    # The write stands behind them as a whole record; the look after it tells.
    assert not ours.append(event(3))
    ours.close()
    assert events_in(written) == [*EVENTS, event(3)]


def test_closed_descriptor_is_not_written_to(written: str) -> None:
    """Daemons close every descriptor they find."""
    ours = taken(written)
    os.close(ours.descriptor)
    assert not ours.append(event(3))
    ours.close()
    assert events_in(written) == EVENTS


def test_database_on_our_number_gets_no_byte_and_stays_open(
    written: str, tmp_path: Path
) -> None:
    """A host closed our descriptor and its database was given the same number."""
    database = tmp_path / "database"
    database.write_bytes(b"precious" * 100)
    ours = taken(written)
    number = ours.descriptor
    os.close(number)
    theirs = os.open(database, os.O_RDWR)
    if theirs != number:
        os.dup2(theirs, number)
        os.close(theirs)
    assert not ours.append(event(3))
    ours.close()
    assert database.read_bytes() == b"precious" * 100
    assert os.read(number, 8) == b"precious"
    os.close(number)


def test_pipe_on_our_number_gets_no_byte_and_stays_open(written: str) -> None:
    """A pipe has no position at all."""
    ours = taken(written)
    number = ours.descriptor
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.close(writing)
    assert not ours.append(event(3))
    ours.close()
    os.write(number, b"theirs")
    assert os.read(reading, 100) == b"theirs"
    os.close(reading)
    os.close(number)


def test_event_in_a_file_without_a_name_is_not_acknowledged(written: str) -> None:
    """A purge or an `rm -rf` took it: nobody will ever read what is written there."""
    ours = taken(written)
    os.unlink(written)
    assert not ours.append(event(3))
    ours.close()


@pytest.mark.parametrize("how", ["renamed", "moved", "replaced", "linked and removed"])
def test_event_in_a_file_that_its_path_does_not_lead_to_is_not_acknowledged(
    how: str, written: str, tmp_path: Path
) -> None:
    """The file lives on under another name, and no flusher looks for it there."""
    ours = taken(written)
    if how == "renamed":
        os.rename(written, f"{written}.old")
    elif how == "moved":
        os.rename(tmp_path, f"{tmp_path}-trash")
    elif how == "replaced":
        Path(f"{written}.new").write_bytes(Path(written).read_bytes())
        os.replace(f"{written}.new", written)
    else:
        os.link(written, tmp_path / "backup")
        os.unlink(written)
    assert not ours.append(event(3))
    ours.close()


def test_write_that_takes_less_is_no_success(written: str) -> None:
    """The disk took a part of it: that part is no event, and nothing goes behind it."""
    size = os.path.getsize(written)
    record = frame.encode(3, event(3))

    def short(_: Peer) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
        with pytest.raises(DiskError, match=f"took 20 of {len(record)} bytes"):
            taken(written).append(event(3))

    with child(short) as peer:
        peer.finish()
    assert Path(written).read_bytes() == segment_of(*EVENTS) + record[:20]
    not_adopted(written)


def test_write_that_fails_is_no_success(written: str) -> None:
    """Nothing was written, and the error says which file and why."""
    size = os.path.getsize(written)

    def none(_: Peer) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        with pytest.raises(DiskError, match="File too large") as caught:
            taken(written).append(event(3))
        assert caught.value.path == written

    with child(none) as peer:
        peer.finish()
    taken(written).close()
    assert events_in(written) == EVENTS


def test_interrupted_write_is_not_followed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the write and what we remember of it: the file knows better."""
    write = os.write

    def interrupted(descriptor: int, content: bytes) -> int:
        write(descriptor, content)
        raise KeyboardInterrupt

    ours = made(path)
    assert ours.append(EVENTS[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ours.append(EVENTS[1])
    assert not ours.append(EVENTS[2])
    ours.close()
    assert events_in(path) == EVENTS[:2]


def test_segment_ends_with_the_last_number(path: str) -> None:
    """One number more would have nine digits, and no reader takes such a record."""
    Path(path).write_bytes(segment_of(EVENTS[0], seq=frame.SEQ_MAX - 1))
    ours = taken(path)
    assert ours.append(EVENTS[1])
    assert not ours.append(EVENTS[2])
    ours.close()
    assert events_in(path) == EVENTS[:2]
    not_adopted(path)


def test_stdio_is_left_to_the_host(written: str, tmp_path: Path) -> None:
    """What a program prints must not land in a segment."""

    def work(_: Peer) -> None:
        for number in range(3):
            os.close(number)
        adopted, new = taken(written), made(str(tmp_path / "new"))
        for ours in (adopted, new):
            assert ours.descriptor >= 3
            assert not os.get_inheritable(ours.descriptor)
            assert ours.append(event(3))
        for number in range(3):
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)
        # Adopted by number 3 or higher it is still locked.
        assert adopt(written, ROOMY) is None

    with child(work) as peer:
        peer.finish()
    assert events_in(written) == [*EVENTS, event(3)]
    assert events_in(str(tmp_path / "new")) == [event(3)]


@pytest.mark.parametrize(
    "size", [4095, 4096, 4097, 32768, 32769, 262144, 2097153, 3 << 20]
)
def test_last_record_is_found_however_long(size: int, path: str) -> None:
    """Its end is read in steps; each step's edge may fall anywhere in it."""
    for length in range(size - 2, size + 3):
        content = segment_of(EVENTS[0], event(1, size=length - frame.OVERHEAD))
        assert len(content) - len(segment_of(EVENTS[0])) == length
        Path(path).write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            found = record_ending_at(descriptor, len(content))
            assert found is not None
            assert (found.end, found.seq) == (len(content), 1)
            assert found.start == len(segment_of(EVENTS[0]))
            assert record_ending_at(descriptor, len(content) + 1) is None
            assert record_ending_at(descriptor, len(content) - 1) is None
        finally:
            os.close(descriptor)


def test_last_record_is_found_before_whatever_follows(path: str) -> None:
    """A settled offset lies in the middle of a segment, further in than one read."""
    content = segment_of(event(0, size=9000), event(1))
    Path(path).write_bytes(content + segment_of(event(2, size=9000), seq=2))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = record_ending_at(descriptor, len(content))
        assert found is not None
        assert (found.seq, found.end) == (1, len(content))
        assert record_ending_at(descriptor, len(content) + 100) is None
        assert record_ending_at(descriptor, 0) is None
    finally:
        os.close(descriptor)


def test_a_segment_that_filled_up_before_our_lock_is_left_alone(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer added to it between our open and its close."""
    more = frame.encode(3, event(3))
    size_max = os.path.getsize(written) + len(more)

    def grow() -> None:
        if os.path.getsize(written) < size_max:
            with open(written, "ab") as file:
                file.write(more)

    with_lock_hook(monkeypatch, grow)
    assert adopt(written, size_max) is None
    taken(written, size_max + 1).close()


def test_what_cannot_be_kept_of_a_new_segment_is_closed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that stays open keeps its lock until the program ends."""
    before = open_files()
    with monkeypatch.context() as patch:
        replace_lock(patch, lambda _: False)
        assert create(path) is None
    assert open_files() == before
    os.unlink(path)
    with monkeypatch.context() as patch:
        patch.setattr(segment, "give_file_to_owner", interrupting)
        with pytest.raises(KeyboardInterrupt):
            create(path)
    assert open_files() == before


def interrupting(*_: object) -> None:
    """Ctrl-C, just here."""
    raise KeyboardInterrupt


def test_the_hosts_own_timeout_is_the_hosts_while_a_segment_is_taken(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no reason to take another segment."""

    def out_of_time(*_: object, **__: object) -> None:
        raise TimeoutError("the host's time is up")

    for owner, name in (
        (segment, "open_segment"),
        (segment, "try_lock"),
        (os, "lstat"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, out_of_time)
            with pytest.raises(TimeoutError, match="the host's time is up"):
                segment.adopt(written, 1 << 20)


@pytest.mark.parametrize("call", ["end_of_ours", "lstat"])
def test_the_hosts_own_timeout_is_the_hosts(
    call: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler's TimeoutError is an OSError too, and no fault of the file."""

    def out_of_time(*_: object) -> None:
        raise TimeoutError("the host's time is up")

    def failing(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    for replacement in (out_of_time, failing):
        ours = taken(written)
        with monkeypatch.context() as patch:
            patch.setattr(segment if hasattr(segment, call) else os, call, replacement)
            if replacement is failing:
                assert not ours.append(event(3))
            else:
                with pytest.raises(TimeoutError, match="the host's time is up"):
                    ours.append(event(3))
        ours.close()


def test_an_error_says_what_the_system_said(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its text alone where it has one."""
    for error, problem in (
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("odd"), "odd"),
    ):
        ours = taken(written)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", raising(error))
            with pytest.raises(DiskError) as caught:
                ours.append(event(3))
        assert caught.value.problem == problem
        ours.close()


def raising(error: Exception) -> Callable[..., object]:
    """A call that raises this."""

    def call(*_: object) -> object:
        raise error

    return call


def test_let_go_twice_closes_once(written: str) -> None:
    """The number may belong to another file by then."""
    ours = taken(written)
    number = ours.descriptor
    ours.close()
    theirs = os.open(written, os.O_RDONLY)
    assert theirs == number
    ours.close()
    assert os.fstat(theirs).st_size
    os.close(theirs)
