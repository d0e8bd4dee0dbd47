"""Files as Windows has them; skipped elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telemetry.files import (
    erase,
    is_erased,
    move_files,
    move_if_free,
    move_over,
    open_regular,
    overwrite,
    read_small,
    shut_out_writers,
    try_lock,
    write_whole,
)
from telemetry.spool.frame import encode
from telemetry.spool.segment import adopt, create
from tests.support.patience import PATIENCE_S


pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="Windows alone")
EVENT = b'{"event":"tool"}'


def test_lock_is_one_owners_and_ends_with_its_process(tmp_path: Path) -> None:
    """No kill leaves a lock that somebody has to clean up; nobody else reads it."""
    path = str(tmp_path / "file")
    Path(path).write_bytes(b"content")
    script = (
        "import os,sys\n"
        "from telemetry.files import try_lock\n"
        f"print(try_lock(os.open({path!r}, os.O_RDWR)), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"True"
        ours = os.open(path, os.O_RDWR)
        assert not try_lock(ours)
        assert read_small(path, 100) == b"content"
        other.kill()
        other.wait()
    # The system releases it soon, not at once (LockFileEx, "Remarks").
    until = time.monotonic() + PATIENCE_S
    while not try_lock(ours):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(ours)


def test_live_segment_cannot_be_taken_away(tmp_path: Path) -> None:
    """Its writer would go on into a file that no flusher reads."""
    path = str(tmp_path / "segment")
    ours = create(path)
    assert ours is not None
    assert ours.append(EVENT)
    with pytest.raises(PermissionError):
        os.unlink(path)
    with pytest.raises(PermissionError):
        os.rename(path, path + "2")
    assert adopt(path, 1 << 20) is None  # it is in other hands
    reading = open_regular(path, os.O_RDONLY)
    assert shut_out_writers(path, reading) is None
    assert ours.append(EVENT)
    ours.close()
    lock = shut_out_writers(path, reading)
    assert lock is not None
    assert adopt(path, 1 << 20) is None
    os.unlink(path)
    os.close(lock)
    os.close(reading)
    assert os.listdir(tmp_path) == []


def test_segment_that_is_in_use_is_given_up_and_erased(tmp_path: Path) -> None:
    """What an opt-out cannot remove its writer leaves, and no event is in it."""
    (tmp_path / "spool").mkdir()
    path = str(tmp_path / "spool" / "segment")
    for taken_away in (
        lambda: move_files(f"{tmp_path}/spool", f"{tmp_path}/aside"),
        lambda: erase(path),
    ):
        ours = create(path)
        assert ours is not None
        assert ours.append(EVENT)
        before = os.path.getsize(path)
        taken_away()
        assert os.path.getsize(path) in {before + 1, 1}
        size = os.path.getsize(path)
        assert not ours.append(EVENT)
        assert os.path.getsize(path) == size
        ours.close()
        os.unlink(path)
    assert os.listdir(tmp_path / "aside") == []


def test_erased_segment_is_adopted_by_nobody(tmp_path: Path) -> None:
    """Also with a record behind the line feed, whose writer had looked before."""
    path = str(tmp_path / "segment")
    for behind in (b"", encode(7, EVENT)):
        Path(path).write_bytes(b"\n" + behind)
        assert adopt(path, 1 << 20) is None
        reading = open_regular(path, os.O_RDONLY)
        assert is_erased(reading)
        os.close(reading)
    Path(path).write_bytes(encode(7, EVENT))
    ours = adopt(path, 1 << 20)
    assert ours is not None
    ours.close()


def test_files_that_nobody_uses_move(tmp_path: Path) -> None:
    """They are removed from where they were moved to."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "segment").write_bytes(b"content")
    reading = open_regular(f"{tmp_path}/spool/segment", os.O_RDONLY)
    move_files(f"{tmp_path}/spool", f"{tmp_path}/aside")
    os.close(reading)
    assert os.listdir(tmp_path / "aside") == ["segment"]
    assert os.listdir(tmp_path / "spool") == []


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A directory is no file, and what is not there is not made."""
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT):
        with pytest.raises(OSError, match="no regular file"):
            open_regular(str(tmp_path), flags)
    with pytest.raises(FileNotFoundError):
        open_regular(str(tmp_path / "nowhere"), os.O_RDONLY)
    made = open_regular(str(tmp_path / "new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert not os.get_inheritable(made)
    os.close(made)
    with pytest.raises(FileExistsError):
        open_regular(str(tmp_path / "new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    cut = tmp_path / "cut"
    cut.write_bytes(b"long content\n")
    os.close(open_regular(str(cut), os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    assert cut.read_bytes() == b""


def test_written_whole_also_while_it_is_read(tmp_path: Path) -> None:
    """Replacing fails while somebody has the file open, and is tried again."""
    path = str(tmp_path / "file")
    assert write_whole(path, b"first", first_wins=True)
    assert not write_whole(path, b"second", first_wins=True, durable=True)
    assert read_small(path, 100) == b"first"
    assert write_whole(path, b"line\r\nline\n")
    assert read_small(path, 100) == b"line\r\nline\n"
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError):
        move_over(path, str(tmp_path / "directory"))
    with pytest.raises(FileExistsError):
        move_if_free(path, str(tmp_path / "directory"))
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_short_file_written_in_place_is_read_as_it_was_at_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id without its first letters would be another installation for ever."""
    path = str(tmp_path / "file")
    Path(path).write_bytes(b" \n")
    answers = [b" \ncond id", b"second id", b"second id"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda *_: answers.pop(0))
        assert read_small(path, 100) == b"second id"
    assert not answers


def test_longer_content_leaves_no_end_behind_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the file is cut, it reads as what was written."""
    path = str(tmp_path / "file")
    Path(path).write_bytes(b"off 2026-01-01 (what was kept is still being removed)\n")
    reading = open_regular(path, os.O_RDONLY)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", killed)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"off 2026-01-01\n", is_open=True)
    assert (read_small(path, 100) or b"").rstrip() == b"off 2026-01-01"
    write_whole(path, b"on\n", is_open=True)
    assert read_small(path, 100) == b"on\n"
    os.close(reading)


def test_time_of_a_file_outlives_its_closing(tmp_path: Path) -> None:
    """Windows sets it when a file that was written is closed."""
    path = str(tmp_path / "next-flush")
    for seconds in (2_000_000_000, 1_000_000_000):
        overwrite(path, b"content", seconds * 10**9)
        assert os.stat(path).st_mtime == seconds
    assert read_small(path, 100) == b"content"
