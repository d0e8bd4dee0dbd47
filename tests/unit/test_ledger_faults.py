"""A lock that is held, a disk that is full, a commit that was killed: nothing half done.

None of these sets a ledger aside: it is as it was, and the next flush tries again. A
copy of the files in the middle of a commit is what a kill leaves there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from telemetry.books import ledger, view
from telemetry.books.entries import SegmentEntry, Snapshot, Totals
from telemetry.books.ledger import Ledger, open_ledger
from telemetry.books.view import is_hot, read_snapshot, set_aside_names
from telemetry.errors import LedgerError, LedgerMalformedError
from tests.support.tooling import fingerprint


if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = [f"{n}-seg" for n in range(12)]
HALF_A_COMMIT = "UPDATE Cache SET value = zeroblob(20000)"


def entries(offset: int) -> dict[str, SegmentEntry]:
    return {name: SegmentEntry(offset=offset) for name in NAMES}


OLD = Snapshot(segments=entries(100), totals=Totals(recorded=1))
NEW = Snapshot(segments=entries(200), totals=Totals(recorded=2))


def fault(use: Callable[[], object]) -> str:
    """What a fault says that leaves the ledger where it is."""
    with pytest.raises(LedgerError) as raised:
        use()
    assert type(raised.value) is LedgerError
    return raised.value.problem


def unfinished(place: str, *statements: str) -> sqlite3.Connection:
    """A connection in the middle of a commit, part of which is in the file."""
    connection = sqlite3.connect(f"{place}/cache.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = persist")
    connection.execute("PRAGMA cache_size = 1")  # pages go to the file as they change
    for statement in ("BEGIN IMMEDIATE", *statements):
        connection.execute(statement)
    return connection


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A sound ledger that says `OLD`."""
    with closing(Ledger(f"{tmp_path}/ledger")) as made:
        made.commit(OLD)
    return f"{tmp_path}/ledger"


@pytest.fixture
def killed(place: str, tmp_path: Path) -> str:
    """The same, with half of a commit in the file."""
    with closing(unfinished(place, HALF_A_COMMIT)):
        shutil.copytree(place, f"{tmp_path}/killed/ledger")
    return f"{tmp_path}/killed/ledger"


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE", "DEFERRED"])
def test_a_lock_is_waited_for_and_the_ledger_left_alone(
    place: str, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's sqlite3 shell must cost neither a flusher its minute nor the ledger.

    One that only reads lets a commit begin, and fail at its end: then SQLite leaves
    the transaction open.
    """
    assert ledger.BUSY_S <= 1  # all that a flush at exit has
    monkeypatch.setattr(ledger, "BUSY_S", 0.05)
    other = sqlite3.connect(f"{place}/cache.db", isolation_level=None)
    for is_open in (True, False):
        opened = Ledger(place)
        other.execute(f"BEGIN {lock}")
        reading = other.execute("SELECT * FROM Cache")
        reading.fetchone()
        if is_open:
            try:
                int("what the caller was busy with")
            except ValueError:
                assert "locked" in fault(partial(opened.commit, NEW))
            assert "closed" in fault(partial(opened.commit, NEW))
        else:
            assert "locked" in fault(lambda: open_ledger(place))
        if lock == "EXCLUSIVE":
            assert "locked" in fault(lambda: read_snapshot(place, busy_s=0.05))
        reading.close()
        other.execute("ROLLBACK")
        opened.close()
    other.close()
    with closing(open_ledger(place)) as opened:
        assert opened.snapshot == OLD
        opened.commit(NEW)
    assert read_snapshot(place) == NEW
    assert set_aside_names(place) == []


def test_a_commit_without_room_says_so_and_changes_nothing(place: str) -> None:
    """diskcache rolls back what SQLite has rolled back already, and hides the reason."""
    wide = {f"{n}": SegmentEntry(offset=1, crc="x" * 20_000) for n in range(9)}
    with closing(Ledger(place)) as opened:
        opened._cache._con.execute("PRAGMA max_page_count = 40")
        assert "full" in fault(partial(opened.commit, Snapshot(segments=wide)))
        assert opened.snapshot == OLD
    assert read_snapshot(place) == OLD


def has_room(place: str) -> bool:
    """Whether there are free pages, and a journal for as many, and no other row."""
    with closing(sqlite3.connect(f"{place}/cache.db")) as connection:
        ((pages,),) = connection.execute("PRAGMA freelist_count").fetchall()
        ((rows,),) = connection.execute("SELECT count(*) FROM Cache").fetchall()
    assert rows >= len(NAMES) + 1
    journal_bytes = os.stat(f"{place}/cache.db-journal").st_size
    return pages >= 16 and rows == len(NAMES) + 1 and journal_bytes >= 64 * 1024


@pytest.mark.parametrize("secure_delete", [0, 1])
def test_there_is_room_for_commits_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure_delete: int
) -> None:
    """Each batch sent has to be settled there. Rolling back takes the journal away.

    Whether pages are overwritten when they are freed, builds of SQLite choose.
    """
    monkeypatch.setitem(ledger.SETTINGS, "sqlite_secure_delete", secure_delete)
    place = f"{tmp_path}/ledger"
    with closing(Ledger(place)) as made:
        made.commit(OLD)
    assert has_room(place)
    os.unlink(f"{place}/cache.db-journal")
    Ledger(place).close()
    assert has_room(place)


def test_a_kill_while_room_is_made_costs_no_room(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that takes the room is no damage, and goes at the next opening."""
    killed = f"{tmp_path}/killed"

    def before_the_row_goes(*_: object, **__: object) -> None:
        shutil.copytree(place, killed)

    os.unlink(f"{place}/cache.db-journal")
    with monkeypatch.context() as patched:
        patched.setattr(ledger._Cache, "delete", before_the_row_goes)
        Ledger(place).close()
    assert not has_room(killed)
    assert read_snapshot(killed) == OLD
    Ledger(killed).close()
    assert has_room(killed)


def test_the_name_of_a_new_ledger_survives_a_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead letters count by its rows: one that vanishes takes them along."""
    synced: list[str] = []
    monkeypatch.setattr(ledger, "sync_directory", synced.append)
    for name, power in (("a", True), ("a", True), ("b", False)):
        Ledger(f"{tmp_path}/{name}", power=power).close()
    assert synced == [f"{tmp_path}"]


def test_a_tool_reads_a_killed_ledger_and_changes_nothing(
    killed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, SQLite refuses; read-write, the tool would repair what it inspects."""
    os.mkdir(f"{tmp_path}/tmp")
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/tmp")
    before = fingerprint(Path(killed))
    assert read_snapshot(killed) == OLD
    assert fingerprint(Path(killed)) == before
    assert os.listdir(f"{tmp_path}/tmp") == []


def test_a_killed_ledger_is_rolled_back_in_its_place(killed: str) -> None:
    """It is not malformed: what was committed is all there."""
    assert is_hot(f"{killed}/cache.db")
    with closing(open_ledger(killed)) as opened:
        assert opened.snapshot == OLD
        opened.commit(NEW)
    assert not is_hot(f"{killed}/cache.db")
    assert set_aside_names(killed) == []


def test_a_killed_birth_is_an_empty_ledger(tmp_path: Path) -> None:
    """The first flush of all may be killed like any other: nothing is set aside."""
    os.mkdir(f"{tmp_path}/born")
    statements = (
        "CREATE TABLE Cache (x)",
        "INSERT INTO Cache VALUES (zeroblob(99999))",
    )
    with closing(unfinished(f"{tmp_path}/born", *statements)):
        shutil.copytree(f"{tmp_path}/born", f"{tmp_path}/killed/ledger")
    place = f"{tmp_path}/killed/ledger"
    assert is_hot(f"{place}/cache.db")
    assert read_snapshot(place) == Snapshot()
    with closing(open_ledger(place)) as opened:
        assert opened.snapshot == Snapshot()
    assert set_aside_names(place) == []


def test_a_journal_with_nothing_in_it_is_cold(tmp_path: Path) -> None:
    """SQLite empties it, or zeroes its header; a commit under way has its magic."""
    path = f"{tmp_path}/cache.db"
    assert not is_hot(path)
    for content, hot in ((b"", False), (b"\0" * 512, False), (b"\xd9\xd5\x05", True)):
        (tmp_path / "cache.db-journal").write_bytes(content)
        assert is_hot(path) is hot, content


def test_a_commit_under_way_is_waited_for_not_copied(place: str) -> None:
    """A copy of a file that a writer changes may hold half of its commit."""
    with closing(unfinished(place, HALF_A_COMMIT)):
        assert is_hot(f"{place}/cache.db")
        assert "locked" in fault(lambda: read_snapshot(place, busy_s=0))


def test_only_a_hot_ledger_is_copied(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another fault is said as it is."""
    monkeypatch.setattr(tempfile, "tempdir", f"{place}/none")
    with closing(sqlite3.connect(f"{place}/cache.db")) as connection:
        connection.execute("DROP TABLE Cache")
    with pytest.raises(LedgerMalformedError, match="no such table"):
        read_snapshot(place)


def test_a_ledger_that_changes_while_it_is_copied_is_read_again(
    killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher repaired it: an old journal in a copy would undo what it committed."""
    copy = shutil.copyfile

    def repaired(source: str, target: str) -> str:
        if source.endswith(".db"):
            with closing(Ledger(killed)) as opened:
                opened.commit(NEW)
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", repaired)
    assert read_snapshot(killed) == NEW


def test_a_ledger_that_is_repaired_after_a_look_is_read_again(
    killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite met half of a commit, and nothing is left to copy a moment later."""

    def repaired(path: str) -> bool:
        with closing(Ledger(killed)) as opened:
            opened.commit(NEW)
        return is_hot(path)

    monkeypatch.setattr(view, "is_hot", repaired)
    assert read_snapshot(killed) == NEW


def test_a_ledger_that_never_stays_the_same_is_given_up(
    killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool must end, also beside a program that has gone mad."""
    copy = shutil.copyfile

    def touched(source: str, target: str) -> str:
        if source.endswith("-journal"):
            # NTFS counts in hundreds of nanoseconds.
            os.utime(source, ns=(0, os.stat(source).st_mtime_ns + 100))
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", touched)
    assert "try again" in fault(lambda: read_snapshot(killed))


FAULTS: list[tuple[BaseException, type[LedgerError]]] = [
    (sqlite3.DatabaseError("file is not a database"), LedgerMalformedError),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), LedgerMalformedError),
    (sqlite3.OperationalError("no such column: raw"), LedgerMalformedError),
    (sqlite3.OperationalError("unsupported file format"), LedgerMalformedError),
    (sqlite3.OperationalError("disk I/O error"), LedgerError),
    (sqlite3.IntegrityError("no such luck"), LedgerError),
    (PermissionError(13, "no such permission"), LedgerError),
]


def test_only_what_speaks_of_the_content_is_malformed() -> None:
    """Set aside by mistake, a ledger costs every event a second time."""
    for error, expected in FAULTS:
        with pytest.raises(LedgerError) as raised, view.translated("place"):
            raise error
        assert type(raised.value) is expected, error
        assert str(error) in raised.value.problem


def test_a_python_without_sqlite_says_so(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is common where Python is built from source; a traceback helps no user."""
    monkeypatch.setattr(view, "sqlite3", None)
    assert fault(lambda: read_snapshot(place)) == view.NO_SQLITE


def test_a_connection_trusts_the_file_as_little_as_it_can(place: str) -> None:
    """SQLite's defaults are those of the build, and serve files that are trusted."""
    expected = {"trusted_schema": 0, "cell_size_check": 1, "mmap_size": 0}
    path = f"{place}/cache.db"
    with view.connected(path, mode="ro", busy_s=0) as connection:
        for pragma, value in expected.items():
            assert connection.execute(f"PRAGMA {pragma}").fetchall() == [(value,)]
