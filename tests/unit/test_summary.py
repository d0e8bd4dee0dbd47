"""What one launch leaves for the next one about a spool of many segments."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from telemetry.errors import SpoolFullError
from telemetry.paths import Home, segment_name
from telemetry.spool import summary
from telemetry.spool import writer as writers
from tests.support.writers import event, home_at, spool_writer


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of many full segments, at rest for an hour."""
    home = home_at(tmp_path)
    for number in range(writers._MANY):
        path = Path(home.segment(segment_name(10**18 + number, bytes(4))))
        path.write_bytes(b"x" * 1000)
    _rest(home)
    return home


def _rest(home: Home, seconds: float = 3600.0) -> None:
    os.utime(home.spool, (0, time.time() - seconds))


def _launch(home: Home, monkeypatch: pytest.MonkeyPatch, bound: int = 1 << 20) -> int:
    """How often one event of a new process looks at the whole spool."""
    looks: list[str] = []
    plain = writers.sizes_in

    def counted(directory: str, suffix: str = "") -> dict[str, int]:
        looks.append(directory)
        return plain(directory, suffix)

    with monkeypatch.context() as patch:
        patch.setattr(writers, "sizes_in", counted)
        writer = spool_writer(home, spool_bytes_max=bound)
        try:
            writer.append(event(1))
        finally:
            writer.close()
    return len(looks)


def _remember(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """One launch makes a segment; a later one leaves what it has found."""
    _launch(home, monkeypatch)
    _rest(home)
    _launch(home, monkeypatch)
    assert os.path.exists(home.summary)


def test_a_spool_that_nobody_changed_is_looked_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one makes a segment; the others go on in it, and only it has grown."""
    assert [_launch(home, monkeypatch) for _ in range(2)] == [1, 1]
    _rest(home)
    assert [_launch(home, monkeypatch) for _ in range(3)] == [1, 0, 0]
    assert len(os.listdir(home.spool)) == writers._MANY + 1
    known = spool_writer(home)
    known.append(event(2))
    there = writers.size_of(home.spool)
    assert known.waiting_bytes + len(event(2)) < there <= known.waiting_bytes + 200
    known.close()


def test_what_was_made_or_deleted_since_is_seen(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is kept before the directory has been at rest."""
    _remember(home, monkeypatch)
    assert _launch(home, monkeypatch) == 0
    os.unlink(min(Path(home.spool).iterdir()))
    # However slow the machine is, that was just now.
    monkeypatch.setattr(summary, "_SETTLED_S", 3600.0)
    assert [_launch(home, monkeypatch) for _ in range(2)] == [1, 1]


def test_it_refuses_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT keeps no time of a directory: a spool that was drained would stay full."""
    _remember(home, monkeypatch)
    before = os.stat(home.spool)
    bound = writers.size_of(home.spool)
    with pytest.raises(SpoolFullError):
        _launch(home, monkeypatch, bound)
    os.unlink(min(Path(home.spool).iterdir()))
    os.utime(home.spool, ns=(0, before.st_mtime_ns))
    assert _launch(home, monkeypatch, bound) == 1


@pytest.mark.parametrize("content", [b"", b"\xff", b"1", b"x y\n", b"%d 5 a"])
def test_a_damaged_one_costs_a_look(
    content: bytes, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that is old, or from a clock that was put back."""
    _remember(home, monkeypatch)
    good = Path(home.summary).read_bytes()
    changed = os.stat(home.spool).st_mtime_ns
    Path(home.summary).write_bytes(content.replace(b"%d", b"%d" % changed))
    assert [_launch(home, monkeypatch) for _ in range(2)] == [1, 0]
    assert Path(home.summary).read_bytes().split()[0] == good.split()[0]
    newest, others = summary.read(home.summary, changed) or ([], 0)
    assert (len(newest), others) == (8, (writers._MANY - 7) * 1000)
    assert summary.read(home.summary, changed + 1) is None
    for ahead_s in (-2 * 3600.0, 3600.0):
        os.utime(home.summary, (0, time.time() + ahead_s))
        assert [_launch(home, monkeypatch) for _ in range(2)] == [1, 0]


def test_whatever_byte_of_it_is_damaged_it_is_not_believed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is none stopped every event; a total would have moved the bound."""
    _remember(home, monkeypatch)
    good = Path(home.summary).read_bytes()
    changed = os.stat(home.spool).st_mtime_ns
    assert summary.read(home.summary, changed) is not None
    for at in range(len(good)):
        for other in (b"\0", b"/", b" ", b"7", b"-", b"x"):
            damaged = good[:at] + other + good[at + 1 :]
            Path(home.summary).write_bytes(damaged)
            assert damaged == good or summary.read(home.summary, changed) is None
    Path(home.summary).write_bytes(good.replace(b"-", b"/", 1))
    assert _launch(home, monkeypatch) == 1


def test_a_small_spool_has_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly every home: no file more, and nothing more is loaded."""
    os.unlink(min(Path(home.spool).iterdir()))
    for is_written in (False, True):  # a launch adds a segment
        _rest(home)
        _launch(home, monkeypatch)
        assert os.path.exists(home.summary) == is_written
