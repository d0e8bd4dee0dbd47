"""A disk that is full, a ledger that one may not read, a Python without sqlite3.

None of these sets a ledger aside: it is as it was, and the next flush tries again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING

import pytest

from telemetry.books.books import Books
from telemetry.books.entries import SegmentEntry, Snapshot, Totals
from telemetry.books.ledger import Ledger, open_ledger
from telemetry.books.view import NO_SQLITE, read_snapshot
from telemetry.errors import LedgerError
from tests.support.disks import memory_disk


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAMES = [f"{n}-seg" for n in range(12)]


def entries(offset: int) -> dict[str, SegmentEntry]:
    return {name: SegmentEntry(offset=offset) for name in NAMES}


def fault(use: Callable[[], object]) -> str:
    """What a fault says that leaves the ledger where it is."""
    with pytest.raises(LedgerError) as raised:
        use()
    assert type(raised.value) is LedgerError
    return raised.value.problem


def run(script: str, *arguments: str) -> str:
    """What a fresh process prints; its arguments are in `sys.argv`."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    """A file system of 1 MiB of its own."""
    with memory_disk(tmp_path / "disk", size_kib=1024) as place:
        yield str(place)


def fill(disk: str) -> str:
    """Leave not one byte; returns the file that holds them all."""
    path = f"{disk}/filler"
    with open(path, "ab", buffering=0) as file:
        for size in (65536, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    assert os.statvfs(disk).f_bavail == 0
    return path


def test_a_full_disk_takes_commits_of_the_usual_size(small_disk: str) -> None:
    """A full disk is drained by sending: each batch sent has to be settled there."""
    place = f"{small_disk}/ledger"
    ledger = Ledger(place)
    ledger.commit(Snapshot(segments=entries(100)))
    fill(small_disk)
    new: dict[str, SegmentEntry] = {}
    for offset in range(200, 240):
        new[f"{offset}-new"] = SegmentEntry(offset=1)
        ledger.commit(Snapshot(segments={**entries(offset), **new}))
    ledger.close()
    ledger = open_ledger(place)
    assert len(ledger.snapshot.segments) == 12 + 40
    ledger.commit(Snapshot(totals=Totals(delivered=1)))
    ledger.close()
    assert read_snapshot(place).totals.delivered == 1
    assert sorted(os.listdir(small_disk)) == ["filler", "ledger"]


@pytest.mark.parametrize("size_bytes", [300_000, 4_000_000])
def test_a_commit_with_no_room_changes_nothing_and_the_next_works(
    small_disk: str, size_bytes: int
) -> None:
    """What fits SQLite's memory fails at its last step, the rest in the middle, where
    diskcache rolls back what is rolled back already and hides the reason."""
    place = f"{small_disk}/ledger"
    ledger = Ledger(place)
    ledger.commit(Snapshot(segments=entries(100), totals=Totals(recorded=1)))
    ledger.close()
    before = read_snapshot(place)
    filler = fill(small_disk)
    wide = SegmentEntry(offset=1, crc="x" * 20_000)
    rows = {**entries(200), **{f"{n}": wide for n in range(size_bytes // 20_000)}}
    for _ in range(2):
        ledger = open_ledger(place)
        said = fault(partial(ledger.commit, Snapshot(segments=rows)))
        assert "full" in said
        assert "closed" in fault(partial(ledger.commit, Snapshot(segments=rows)))
        assert read_snapshot(place) == before
    os.unlink(filler)
    ledger = open_ledger(place)
    ledger.commit(
        Snapshot(segments={**entries(200), "wide": wide}, totals=before.totals)
    )
    ledger.close()
    after = read_snapshot(place)
    assert after.segments == {**entries(200), "wide": wide}
    assert after.totals == before.totals
    assert os.listdir(small_disk) == ["ledger"]


def test_a_disk_too_full_for_a_ledger_gets_none_and_memory_is_carried_over(
    small_disk: str,
) -> None:
    """The flusher works from memory there; half a ledger would be set aside later."""
    place = f"{small_disk}/ledger"
    filler = fill(small_disk)
    assert "full" in fault(lambda: open_ledger(place))
    assert read_snapshot(place).segments == {}
    books = Books(
        place, relieve=lambda: None, is_full=lambda: not os.statvfs(small_disk).f_bavail
    )
    assert not books.commit(segments=entries(100))
    os.unlink(filler)
    assert books.commit()
    books.close()
    assert read_snapshot(place).segments == entries(100)
    assert sorted(os.listdir(place)) == ["cache.db", "cache.db-journal"]


FILE_SIZE_LIMIT = """
import resource, sys
from telemetry.books.entries import SegmentEntry, Snapshot
from telemetry.books.ledger import Ledger
from telemetry.books.view import read_snapshot
from telemetry.errors import LedgerError

place = sys.argv[1]
Ledger(place).close()
big = SegmentEntry(offset=1, crc="x" * 1_000_000)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
for _ in range(3):
    try:
        Ledger(place).commit(Snapshot(segments={"big": big}))
    except LedgerError as error:
        print(type(error).__name__)
    assert read_snapshot(place).segments == {}
small = SegmentEntry(offset=2)
Ledger(place).commit(Snapshot(segments={"small": small}))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
Ledger(place).commit(Snapshot(segments={"small": small, "big": big}))
print(sorted(read_snapshot(place).segments))
"""


def test_a_file_that_may_not_grow_is_a_fault_that_passes(tmp_path: Path) -> None:
    """A quota is a full disk by another name, and needs no right to mount."""
    said = run(FILE_SIZE_LIMIT, f"{tmp_path}/ledger").splitlines()
    assert said == ["LedgerError"] * 3 + ["['big', 'small']"]
    assert os.listdir(tmp_path) == ["ledger"]


NOT_PERMITTED = """
import os, sys
place = sys.argv[1]
from telemetry.books.ledger import open_ledger
from telemetry.books.view import read_snapshot
from telemetry.errors import LedgerError, LedgerMalformedError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for use in (open_ledger, read_snapshot):
    try:
        use(place)
    except LedgerMalformedError:
        print("malformed")
    except LedgerError:
        print("fault")
"""


@pytest.mark.parametrize("name", ["ledger", "ledger/cache.db"])
def test_a_ledger_one_may_not_read_is_left_alone(name: str) -> None:
    """A flush by another user must not take the ledger of the first from its place."""
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)  # pytest's own directories hide all from other users
        made = Ledger(f"{home}/ledger")
        made.commit(Snapshot(segments=entries(100)))
        made.close()
        os.chmod(f"{home}/ledger", 0o755)
        os.chmod(f"{home}/{name}", 0)
        assert run(NOT_PERMITTED, f"{home}/ledger").split() == ["fault", "fault"]
        os.chmod(f"{home}/{name}", 0o700)
        assert os.listdir(home) == ["ledger"]
        assert read_snapshot(f"{home}/ledger").segments == entries(100)


WITHOUT_SQLITE = """
import sys
sys.modules["_sqlite3"] = None  # what a Python that was built without it says
import telemetry.books.entries, telemetry.books.view as view
from telemetry.books.books import Books
from telemetry.errors import LedgerError
uses = (
    lambda: view.read_snapshot(sys.argv[1]),
    lambda: Books(sys.argv[1], relieve=lambda: None, is_full=lambda: False),
)
for use in uses:
    try:
        use()
    except LedgerError as error:
        print(error.problem)
"""


def test_a_python_without_sqlite_says_so_in_a_line(tmp_path: Path) -> None:
    """It is common where Python is built from source; a traceback helps no user."""
    Ledger(f"{tmp_path}/ledger").close()
    said = run(WITHOUT_SQLITE, f"{tmp_path}/ledger")
    assert said.splitlines() == [NO_SQLITE] * 2
