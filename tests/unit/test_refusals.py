"""What was refused is counted, by several processes at once, on a full disk too."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.client import Client
from telemetry.events import ToolEvent
from telemetry.spool import refusals
from tests.support.delivering import client_of
from tests.support.examples import examples
from tests.support.writers import Peer, child, holding


REASONS = ["invalid", "too_big", "spool_full", "disk_error", "busy", "no_home"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The file as a home is born with it."""
    made = str(tmp_path / "refused")
    refusals.make(made)
    return made


def test_file_has_its_size_from_birth(path: str) -> None:
    """On a full disk only what is there already can be written."""
    assert os.path.getsize(path) == refusals.FILE_BYTES == 4096
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for reason in REASONS:
        assert refusals.add(path, {reason: 1})
    assert os.path.getsize(path) == refusals.FILE_BYTES


def test_line_is_what_the_docstring_says(path: str) -> None:
    """A person reads it with `cat`; a line is overwritten in place."""
    refusals.add(path, {"busy": 7, "spool_full": 1234})
    refusals.add(path, {"busy": 3})
    content = Path(path).read_bytes()
    assert content[:64] == (
        b"busy            000000000000010\nspool_full      000000000001234\n"
    )
    assert content[64:].strip() == b""


def test_counts_add_up_by_reason(path: str) -> None:
    """A loss that is not counted is a loss that nobody knows of."""
    for _ in range(3):
        refusals.add(path, {reason: 5 + n for n, reason in enumerate(REASONS)})
    assert refusals.read(path) == {
        reason: 3 * (5 + n) for n, reason in enumerate(REASONS)
    }


@given(st.lists(st.dictionaries(st.sampled_from(REASONS), st.integers(0, 10**9))))
@settings(max_examples=examples(40), deadline=None)
def test_any_counts_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[dict[str, int]]
) -> None:
    """Every digit of every count is kept."""
    path = str(tmp_path_factory.mktemp("refusals") / "refused")
    refusals.make(path)
    expected: dict[str, int] = {}
    for counts in rounds:
        assert refusals.add(path, counts)
        for reason, count in counts.items():
            expected[reason] = expected.get(reason, 0) + count
    assert refusals.read(path) == expected


def test_made_again_it_keeps_its_counts(path: str) -> None:
    """Each process that finds no spool makes it."""
    refusals.add(path, {"busy": 7})
    refusals.make(path)
    assert refusals.read(path) == {"busy": 7}


def test_processes_count_at_once(path: str) -> None:
    """What finds the file locked is not lost: it is told so and counts it later."""

    def work(_: Peer) -> None:
        kept = 0
        for _ in range(300):
            kept += 1
            if refusals.add(path, {"busy": kept, "spool_full": 2 * kept}):
                kept = 0
        while kept and not refusals.add(path, {"busy": kept, "spool_full": 2 * kept}):
            pass

    with child(work) as one, child(work) as two, child(work) as three:
        for peer in (one, two, three):
            peer.finish()
    assert refusals.read(path) == {"busy": 900, "spool_full": 1800}


def test_locked_file_is_not_waited_for(path: str) -> None:
    """An event costs microseconds, also one that is refused."""
    with holding(path):
        assert not refusals.add(path, {"busy": 1})
    assert refusals.read(path) == {}
    assert refusals.add(path, {"busy": 1})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\n",
        b"busy",
        b"\xff" * 32,
        b"busy            00000000000001x\n",
    ],
    ids=["empty", "zeros", "newline", "cut", "noise", "digits"],
)
def test_damaged_file_counts_on(path: str, content: bytes) -> None:
    """A kill at its birth, or a power loss, must not end the counting."""
    Path(path).write_bytes(content)
    refusals.read(path)
    assert refusals.add(path, {"busy": 1, "invalid": 2})
    assert refusals.add(path, {"busy": 1})
    assert refusals.read(path) == {"busy": 2, "invalid": 2}


@given(st.binary(max_size=5000))
@settings(max_examples=examples(200), deadline=None)
def test_no_content_raises(content: bytes) -> None:
    """It is read at each flush, whatever stands there."""
    for reason, count in refusals.parse(content).items():
        assert reason
        assert 0 <= count < 10**15


def test_a_line_counts_from_its_first_byte_to_its_last() -> None:
    """A file that was cut loses its last line, and nothing that stands before it."""
    content = b"busy            000000000000010\nspool_full      000000000001234\n"
    assert refusals.parse(content) == {"busy": 10, "spool_full": 1234}
    for length in range(33, 64):
        assert refusals.parse(content[:length]) == {"busy": 10}
    assert refusals.parse(content[:31]) == {}
    assert refusals.parse(content[32:] + content[:32] * 2) == {
        "spool_full": 1234,
        "busy": 20,
    }


def test_a_count_stops_where_it_fills_its_line(path: str) -> None:
    """One digit more would move every line behind it."""
    most = 10**15 - 1
    assert refusals.add(path, {"busy": most - 1, "invalid": 3})
    for _ in range(3):
        assert refusals.add(path, {"busy": 1})
    assert refusals.read(path) == {"busy": most, "invalid": 3}
    assert os.path.getsize(path) == refusals.FILE_BYTES


def test_made_by_two_at_once_it_has_its_size(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them has counted in it before the other fills it up."""
    os.unlink(path)

    def counted_meanwhile(descriptor: int) -> bool:
        if not os.fstat(descriptor).st_size:
            Path(path).write_bytes(b"busy            000000000000010\n")
        return True

    monkeypatch.setattr(refusals, "lock_if_possible", counted_meanwhile)
    refusals.make(path)
    assert os.path.getsize(path) == refusals.FILE_BYTES
    assert refusals.read(path) == {"busy": 10}


def test_file_that_is_full_of_reasons_adds_no_more(path: str) -> None:
    """There are a handful of reasons; a file with 128 was not written by us."""
    counts = {f"reason{n}": n for n in range(1, 130)}
    assert refusals.add(path, counts)
    assert os.path.getsize(path) == refusals.FILE_BYTES
    assert len(refusals.read(path)) == 128


def test_missing_file_and_foreign_file(tmp_path: Path) -> None:
    """Whoever counts learns that there is none, and makes one."""
    with pytest.raises(FileNotFoundError):
        refusals.add(str(tmp_path / "none"), {"busy": 1})
    assert refusals.read(str(tmp_path / "none")) == {}
    os.symlink(__file__, tmp_path / "link")
    with pytest.raises(OSError, match=r"symbolic|Too many"):
        refusals.add(str(tmp_path / "link"), {"busy": 1})
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="no regular file"):
        refusals.add(str(tmp_path / "fifo"), {"busy": 1})
    assert refusals.read(str(tmp_path / "fifo")) == {}


def test_what_cannot_be_counted_now_waits(path: str) -> None:
    """Locked now, counted with the next one: none is lost and none counts twice."""
    waiting = [("busy", 1), ("busy", 1), ("invalid", 1)]
    with holding(path):
        refusals.count(path, waiting)
    assert refusals.read(path) == {}
    waiting.append(("busy", 1))
    refusals.count(path, waiting)
    assert (refusals.read(path), waiting) == ({"busy": 3, "invalid": 1}, [])


def test_counting_makes_the_file_and_survives_the_home(tmp_path: Path) -> None:
    """A home that was removed is no reason to raise into the program."""
    home, waiting = tmp_path / "home", [("busy", 1)]
    refusals.count(str(home / "refused"), waiting)
    home.mkdir()
    waiting.append(("busy", 1))
    refusals.count(str(home / "refused"), waiting)
    assert refusals.read(str(home / "refused")) == {"busy": 2}


def test_the_first_refusals_of_several_threads_are_all_counted(tmp_path: Path) -> None:
    """Who makes the file must not wipe what another has counted in it already."""
    rounds, counters = 300, 4
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(rounds):
            path = str(tmp_path / f"refused-{number}")
            waiting: list[tuple[str, int]] = []
            start = threading.Barrier(counters)

            def work(
                path: str = path,
                waiting: list[tuple[str, int]] = waiting,
                start: threading.Barrier = start,
            ) -> None:
                start.wait()
                waiting.append(("busy", 1))
                refusals.count(path, waiting)

            threads = [threading.Thread(target=work) for _ in range(counters)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            refusals.count(path, waiting)
    finally:
        sys.setswitchinterval(interval)
    counts = [refusals.read(str(tmp_path / f"refused-{n}")) for n in range(rounds)]
    assert counts == [{"busy": counters}] * rounds


def test_threads_of_one_client_that_refuse_first_count_together(
    tmp_path: Path,
) -> None:
    """Each had one of its own, and what one of them could not write yet was lost."""
    rounds, counters = 60, 4
    interval = sys.getswitchinterval()
    for number in range(rounds):
        home = tmp_path / f"home-{number}"
        with client_of(home, "", events=1, event_bytes_max=600) as client:
            start = threading.Barrier(counters)

            def work(client: Client = client, start: threading.Barrier = start) -> None:
                start.wait()
                assert not client.track(ToolEvent(tool_name="x" * 600))

            threads = [threading.Thread(target=work) for _ in range(counters)]
            sys.setswitchinterval(1e-6)
            try:
                # Nobody can write until all have counted.
                with holding(str(home / "refused")):
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
            finally:
                sys.setswitchinterval(interval)
        assert refusals.read(str(home / "refused")) == {"too_big": counters}


def test_a_file_that_is_gone_is_not_made_again_unless_it_may(tmp_path: Path) -> None:
    """After an opt-out nothing of it comes back."""
    path, waiting = str(tmp_path / "refused"), [("busy", 1), ("invalid", 2)]
    refusals.count(path, waiting, lambda: False)
    assert not os.path.lexists(path)
    assert sorted(waiting) == [("busy", 1), ("invalid", 2)]
    refusals.count(path, waiting, lambda: True)
    assert (refusals.read(path), waiting) == ({"busy": 1, "invalid": 2}, [])


@pytest.mark.parametrize(
    ("held", "tried", "is_counted"), [(0, 1, True), (3, 4, True), (20, 20, False)]
)
def test_a_lock_that_is_held_is_tried_twenty_times(
    held: int,
    tried: int,
    is_counted: bool,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has it lets go of it in microseconds."""
    tries: list[int] = []

    def lock(descriptor: int) -> bool:
        tries.append(descriptor)
        return len(tries) == held + 1

    monkeypatch.setattr(refusals, "lock_if_possible", lock)
    assert refusals.add(path, {"busy": 1}) == is_counted
    assert len(tries) == tried
    assert refusals.read(path) == ({"busy": 1} if is_counted else {})
    tries.clear()
    os.unlink(path)
    refusals.make(path)
    assert len(tries) == tried
    assert os.path.getsize(path) == (4096 if is_counted else 0)
