"""Small files: whole or not at all, private, and never through somebody's link."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry import files
from telemetry.errors import HomeError
from telemetry.files import (
    free_bytes,
    make_directory,
    make_home,
    open_regular,
    read_small,
    sync_directory,
    write_all,
    write_whole,
)
from telemetry.spool.segment import create
from tests.support.writers import Peer, child, within


def mode(path: str | Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture(params=[0, 0o022, 0o077, 0o277, 0o777])
def umask(request: pytest.FixtureRequest) -> object:
    """Whatever the user has set: it is not what protects the files."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_home_is_made_private(tmp_path: Path) -> None:
    """What a user runs is no other user's affair, and the user can read it."""
    root = f"{tmp_path}/state/app/telemetry"
    assert make_home(root)
    assert not make_home(root)
    make_directory(f"{root}/spool")
    make_directory(f"{root}/spool")
    for place in (
        "state",
        "state/app",
        "state/app/telemetry",
        "state/app/telemetry/spool",
    ):
        assert mode(tmp_path / place) == 0o700, place
    write_whole(f"{root}/whole", b"")
    os.close(open_regular(f"{root}/opened", os.O_WRONLY | os.O_CREAT))
    made = create(f"{root}/segment")
    assert made is not None
    made.close()
    assert [mode(f"{root}/{name}") for name in ("whole", "opened", "segment")] == [
        0o600
    ] * 3


def test_home_of_ours_that_lacks_permissions_is_mended(tmp_path: Path) -> None:
    """A backup that was restored under an unusual umask records nothing otherwise."""
    for bits in (0, 0o400, 0o500, 0o600, 0o300, 0o555):
        root = tmp_path / f"{bits:o}"
        (root / "spool").mkdir(parents=True)
        (root / "spool").chmod(bits)
        root.chmod(bits)
        assert not make_home(str(root))
        make_directory(str(root / "spool"))
        assert (mode(root), mode(root / "spool")) == (0o700, 0o700), oct(bits)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_makes_nothing_below_the_directory_of_another_user(tmp_path: Path) -> None:
    """`sudo` with a kept HOME, on the first run of a program."""
    home = tmp_path / "home"
    (home / "roots").mkdir(parents=True)
    os.chown(home, 12345, 12345)
    for below in ("telemetry", ".local/state/app/telemetry", "roots/telemetry"):
        with pytest.raises(HomeError, match=f"below {home} of user 12345"):
            make_home(f"{home}/{below}")
    assert [path.name for path in home.iterdir()] == ["roots"]


def test_home_is_made_once_by_many(tmp_path: Path) -> None:
    """Fifty first launches at once: one of them made it, none failed."""

    def work(peer: Peer) -> None:
        for number in range(100):
            peer.tell(str(make_home(f"{tmp_path}/{number}/home")))

    with child(work) as one, child(work) as two, child(work) as three:
        said = [peer.finish().split() for peer in (one, two, three)]
    for answers in zip(*said, strict=True):
        assert sorted(answers) == ["False", "False", "True"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda root: Path(root).touch(), "no directory"),
        (lambda root: os.symlink("/tmp", root), "symbolic link"),
        (lambda root: os.symlink("nowhere", root), "symbolic link"),
        (lambda root: os.mkdir(root) or os.chmod(root, 0o770), "written by others"),
        (lambda root: os.mkdir(root) or os.chmod(root, 0o702), "written by others"),
    ],
)
def test_home_that_others_can_reach_is_refused(
    tmp_path: Path, make: Callable[[str], object], problem: str
) -> None:
    """Below a directory that is ours alone nothing can have been planted."""
    root = str(tmp_path / "home")
    make(root)
    before = os.lstat(root)
    with pytest.raises(HomeError, match=problem):
        make_home(root)
    with pytest.raises(OSError, match=problem):
        make_directory(root)
    assert os.lstat(root) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """`sudo` with a kept HOME would leave files that their owner cannot write."""
    root = str(tmp_path / "home")
    os.mkdir(root)
    os.chown(root, 12345, -1)
    with pytest.raises(HomeError, match="belongs to user 12345"):
        make_home(root)
    with pytest.raises(OSError, match="belongs to user 12345"):
        make_directory(root)


def test_home_below_a_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    """It is refused by its reason, and nothing is created."""
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="cannot be made: Not a directory"):
        make_home(f"{tmp_path}/file/app/telemetry")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A FIFO would be waited for, a link leads elsewhere, a directory is no file."""
    (tmp_path / "file").write_bytes(b"content")
    os.symlink("file", tmp_path / "link")
    os.mkdir(tmp_path / "directory")
    os.mkfifo(tmp_path / "fifo")
    descriptor = open_regular(f"{tmp_path}/file", os.O_RDONLY)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    before = os.listdir("/dev/fd")

    def refused() -> None:
        for name in ("link", "directory", "fifo"):
            with pytest.raises(OSError):
                open_regular(f"{tmp_path}/{name}", os.O_RDONLY)
            with pytest.raises(OSError):
                read_small(f"{tmp_path}/{name}", 10)

    within(60, refused)
    refused()
    assert len(os.listdir("/dev/fd")) == len(before)


def test_small_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    """A file that grew to gigabytes must not be read into a command's memory."""
    path = f"{tmp_path}/file"
    assert read_small(path, 10) is None
    Path(path).write_bytes(b"0123456789abc")
    assert read_small(path, 10) == b"0123456789"
    assert read_small(path, 100) == b"0123456789abc"


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("durable", [False, True])
def test_written_whole_and_private(tmp_path: Path, durable: bool) -> None:
    """Its name shows the old content or the new, and no third file stays."""
    path = f"{tmp_path}/file"
    for content in (b"first", b"", b"x" * 300_000):
        assert write_whole(path, content, durable=durable)
        assert Path(path).read_bytes() == content
        assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_first_writer_wins(tmp_path: Path) -> None:
    """Of many first launches one makes the user's id, and all use that one."""
    path = f"{tmp_path}/file"

    def work(peer: Peer) -> None:
        name = str(os.getpid()).encode()
        for number in range(100):
            won = write_whole(f"{path}{number}", name, first_wins=True)
            found = Path(f"{path}{number}").read_bytes()
            assert won == (found == name)
            peer.tell(f"{number}:{found.decode()}:{won}")

    with child(work) as one, child(work) as two, child(work) as three:
        said = "".join(peer.finish() for peer in (one, two, three)).split()
    assert len({line.rsplit(":", 1)[0] for line in said}) == 100
    assert sum(line.endswith("True") for line in said) == 100
    assert len(os.listdir(tmp_path)) == 100


def test_first_writer_wins_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On exFAT no notice was remembered, and no wish to be forgotten kept."""

    def link(_source: str, _target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = f"{tmp_path}/file"
    assert write_whole(path, b"first", first_wins=True, durable=True)
    assert not write_whole(path, b"second", first_wins=True)
    assert Path(path).read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """A full disk must not cost the old content."""
    path = f"{tmp_path}/file"
    write_whole(path, b"old")

    def work(_: Peer) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        for first_wins in (False, True):
            with pytest.raises(OSError, match="too large"):
                write_whole(path, b"new" * 100, first_wins=first_wins)

    with child(work) as peer:
        peer.finish()
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_kill_at_any_time_leaves_old_or_new(tmp_path: Path) -> None:
    """Whoever reads it meanwhile or afterwards sees one of the two."""
    path = f"{tmp_path}/file"
    contents = [letter * 50_000 for letter in (b"a", b"b")]
    write_whole(path, contents[0])

    def work(peer: Peer) -> None:
        while True:
            for content in contents:
                write_whole(path, content)
                peer.tell()

    for round_ in range(20):
        with child(work) as peer:
            for _ in range(round_ % 5 + 1):
                peer.hear()
            assert Path(path).read_bytes() in contents
        assert Path(path).read_bytes() in contents
    others = [name for name in os.listdir(tmp_path) if name != "file"]
    assert all(files.TEMPORARY in name for name in others)


def test_symlink_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What it leads to is somebody else's file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.symlink("victim", tmp_path / "file")
    assert not write_whole(f"{tmp_path}/file", b"ours", first_wins=True)
    assert write_whole(f"{tmp_path}/file", b"ours")
    assert victim.read_bytes() == b"precious"
    assert not os.path.islink(tmp_path / "file")


def test_durable_is_synced_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss a name with no content is worse than no name."""
    steps: list[object] = []

    def noted_sync(descriptor: int) -> None:
        steps.append((os.fstat(descriptor).st_size, os.path.exists(tmp_path / "file")))

    def noted_directory(path: str) -> None:
        steps.append((path, os.listdir(path)))
        sync_directory(path)

    monkeypatch.setattr(files, "sync", noted_sync)
    monkeypatch.setattr(files, "sync_directory", noted_directory)
    write_whole(f"{tmp_path}/file", b"12345", durable=True)
    assert steps == [(5, False), (str(tmp_path), ["file"])]
    write_whole(f"{tmp_path}/other", b"12345")
    assert len(steps) == 2


def test_every_byte_is_written_also_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a signal or a quota may take a part of it."""
    reading, writing = os.pipe()
    write = os.write
    monkeypatch.setattr(os, "write", lambda to, view: write(to, bytes(view[:7])))
    write_all(writing, bytes(range(100)))
    monkeypatch.undo()
    os.close(writing)
    assert os.read(reading, 1000) == bytes(range(100))
    os.close(reading)


def test_directory_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    """An error, and nothing stays open."""
    before = len(os.listdir("/dev/fd"))
    sync_directory(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        sync_directory(f"{tmp_path}/nowhere")
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("files", "left", "is_room"),
    [(0, 0, True), (100, 3, True), (100, 2, False), (100, -1, True)],
)
def test_room_is_bytes_and_files(
    files: int, left: int, is_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """btrfs counts no files, and CephFS does not know how many are left."""
    values = (4096, 4096, 1000, 500, 400, files, left, left, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))
    assert (free_bytes("/") > 0) is is_room
