"""The ledger on disk: what is kept, how it stands there, who may look at it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import tempfile
import threading
import zlib
from pathlib import Path

import diskcache
import pytest

from telemetry.books import ledger
from telemetry.books.books import Books
from telemetry.books.entries import (
    Day,
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
)
from telemetry.books.ledger import SETTINGS, Ledger
from telemetry.books.view import read_snapshot
from telemetry.errors import LedgerError
from tests.support.tooling import fingerprint


ENTRY = SegmentEntry(offset=4096, seq=11, crc="e8ab4401", recorded=12, delivered=12)
STORED = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "sqlite_auto_vacuum": 0,
    "sqlite_cache_size": 512,
    "sqlite_journal_mode": "persist",
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 2,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 0,
    "sqlite_cell_size_check": 1,
    "sqlite_secure_delete": 1,
    "sqlite_journal_size_limit": -1,
    "sqlite_temp_store": 2,
    "sqlite_trusted_schema": 0,
}
NAME = "1767225600000000000-1f0c.v1.jseq"


def table(place: str, query: str) -> dict[object, object]:
    """A table of two columns, as it is in the database."""
    connection = sqlite3.connect(f"{place}/cache.db")
    rows = dict(connection.execute(query).fetchall())
    connection.close()
    return rows


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where a ledger with one entry stands, closed."""
    directory = f"{tmp_path}/ledger"
    made = Ledger(directory)
    made.commit(Snapshot(segments={NAME: ENTRY}, totals=Totals(recorded=3)))
    made.close()
    return directory


def test_what_is_committed_is_read_back_whole(place: str) -> None:
    """What a snapshot says no more is gone, and a file's name may be any bytes."""
    marks = {"m": DeadFile(end=90, letters=2), "\udcff": DeadFile(end=90, letters=2)}
    state = DeliveryState(failures=2, last_error="503")
    opened = Ledger(place)
    assert opened.snapshot.segments == {NAME: ENTRY}
    assert opened.snapshot.totals == Totals(recorded=3)
    days = {"2026-01-31": Day(delivered={"a": 1}), "2026-02-01": Day(dead={"b": 2})}
    whole = Snapshot(segments={"a": ENTRY}, state=state, dead_files=marks, days=days)
    rest = Snapshot(
        segments={"a": ENTRY, "b": ENTRY},
        totals=Totals(purged=1),
        dead_files={"\udcff": marks["\udcff"]},
        days={"2026-02-01": Day(dead={"b": 3})},
    )
    for each in (whole, rest):
        opened.commit(each)
        assert opened.snapshot == read_snapshot(place) == each
    opened.close()


def test_a_row_is_what_the_docstring_says(place: str) -> None:
    """At 3 a.m. someone reads it with sqlite3; and older versions read it for ever."""
    rows = table(place, "SELECT key, value FROM Cache")
    key = b"segment/" + NAME.encode()
    assert set(rows) == {key, b"totals"}
    assert rows[b"totals"] == (
        b'4e23dc20 {"recorded":3,"delivered":0,"damaged":0,"purged":0,'
        b'"refused":{},"refused_marks":{}}'
    )
    row = rows[key]
    assert isinstance(row, bytes)
    crc, text = row.split(b" ", 1)
    assert crc == b"%08x" % zlib.crc32(key + text)
    fields = json.loads(text)
    assert (fields["offset"], fields["seq"], fields["crc"]) == (4096, 11, "e8ab4401")


def test_every_setting_of_diskcache_is_named(place: str) -> None:
    """Left to its defaults, it would forget the oldest rows at 1 GiB."""
    assert set(diskcache.DEFAULT_SETTINGS) <= set(SETTINGS)
    rows = table(place, "SELECT key, value FROM Settings")
    assert {key: rows[key] for key in SETTINGS} == STORED
    assert set(rows) == {*STORED, "count", "size", "hits", "misses"}


@pytest.mark.parametrize("power", [False, True])
def test_the_connection_that_writes_is_the_safe_one(place: str, power: bool) -> None:
    """A pragma in the table of settings is worth nothing unless it was executed."""
    opened = Ledger(place, power=power)
    cache = opened._cache
    for key, value in SETTINGS.items():
        if key.startswith("sqlite_"):
            ((found,),) = cache._con.execute(f"PRAGMA {key[7:]}").fetchall()
            is_unsynced = key == "sqlite_synchronous" and not power
            assert found == (0 if is_unsynced else value), key
    # It is diskcache's only connection, also where it opens one for each thread.
    worker = threading.Thread(
        target=opened.commit, args=[Snapshot(totals=Totals(purged=1))]
    )
    worker.start()
    worker.join()
    opened.close()
    assert read_snapshot(place).totals.purged == 1


def test_opening_an_existing_ledger_is_one_transaction(place: str) -> None:
    """A flush at exit has a second; diskcache on its own takes 40 transactions."""

    def changes() -> int:
        """SQLite's file change counter."""
        with open(f"{place}/cache.db", "rb") as file:
            return int.from_bytes(file.read(28)[24:], "big")

    before = changes()
    Ledger(place).close()
    assert changes() == before + 1


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_may_read_it_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    """What a person's programs sent, and when, is no business of other users."""
    before = os.umask(umask)
    try:
        made = Ledger(f"{tmp_path}/ledger")
        made.commit(Snapshot(segments={NAME: ENTRY}))
        made.close()
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE(os.lstat(f"{tmp_path}/ledger/{name}").st_mode)
        for name in (".", *os.listdir(f"{tmp_path}/ledger"))
    }
    assert modes == {".": 0o700, "cache.db": 0o600, "cache.db-journal": 0o600}


def test_modes_that_somebody_loosened_are_tightened(place: str) -> None:
    """A restored backup often comes back readable by all."""
    loose = {"": 0o777, "/cache.db": 0o644, "/cache.db-journal": 0o666}
    for name, mode in loose.items():
        os.chmod(place + name, mode)
    Ledger(place).close()
    modes = [stat.S_IMODE(os.lstat(place + name).st_mode) for name in loose]
    assert modes == [0o700, 0o600, 0o600]


@pytest.mark.parametrize(
    "name",
    ["a b?mode=memory#x", "100%41", "$HOME", "~", "${HOME}é", "\udcff\udcfe", "'\"\n"],
)
def test_any_name_of_a_home_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    """diskcache expands names and SQLite reads URIs: neither may move the ledger."""
    home = f"/{tmp_path}/{name}"
    try:
        os.mkdir(home)
    except OSError as error:
        pytest.skip(f"this file system takes no such name: {error}")
    for _ in range(2):
        made = Ledger(f"{home}/ledger")
        made.commit(Snapshot(segments={NAME: ENTRY}))
        made.close()
    assert read_snapshot(f"{home}/ledger").segments == {NAME: ENTRY}
    assert os.listdir(home) == ["ledger"]
    assert os.listdir(tmp_path) == [name]


def test_a_tool_changes_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever only looks must leave no trace, or looking becomes a risk."""
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/tmp")
    before = fingerprint(Path(place))
    assert read_snapshot(place).segments == {NAME: ENTRY}
    assert read_snapshot(f"{tmp_path}/none").segments == {}
    assert fingerprint(Path(place)) == before
    assert os.listdir(tmp_path) == ["ledger"]


def test_a_tool_sees_the_last_commit_while_the_next_is_under_way(place: str) -> None:
    """`status` is asked most while a flush runs."""
    writer = Ledger(place)
    with writer._cache.transact():
        writer._cache.set(b"segment/next", b"whatever")
        assert list(read_snapshot(place, busy_s=0).segments) == [NAME]
    writer.close()


def test_a_tool_that_reads_never_sees_half_a_commit(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit settles a batch and announces the next: between them lies a lie."""
    monkeypatch.setattr(ledger, "BUSY_S", 10.0)
    writer = Ledger(place, power=False)
    writer.commit(Snapshot(totals=Totals(recorded=3), state=DeliveryState(requests=3)))
    stop = threading.Event()

    def write() -> None:
        count = 3
        while not stop.wait(0.001):
            count += 1
            state = DeliveryState(requests=count)
            writer.commit(Snapshot(totals=Totals(recorded=count), state=state))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = {}
        for _ in range(500):
            snapshot = read_snapshot(place, busy_s=10)
            seen[snapshot.totals.recorded] = snapshot.state.requests
            if len(seen) == 8:
                break
    finally:
        stop.set()
        thread.join()
        writer.close()
    assert len(seen) == 8
    assert all(recorded == requests for recorded, requests in seen.items())


def test_a_closed_ledger_is_refused(place: str) -> None:
    """After `close` nothing is written behind anyone's back."""
    opened = Ledger(place)
    opened.close()
    opened.close()
    with pytest.raises(LedgerError, match="closed"):
        opened.commit(Snapshot(totals=Totals()))


def test_a_ledger_that_vanished_is_refused_and_written_again_whole(place: str) -> None:
    """SQLite would go on writing into a file that has no name any more."""
    opened = Ledger(place)
    books = Books(place, relieve=lambda: None, is_full=lambda: False)
    for name in os.listdir(place):
        os.unlink(f"{place}/{name}")
    os.rmdir(place)
    with pytest.raises(LedgerError):
        opened.commit(Snapshot(totals=Totals(recorded=1)))
    assert books.commit(totals=Totals(recorded=4))
    books.close()
    assert read_snapshot(place).segments == {NAME: ENTRY}
    assert read_snapshot(place).totals == Totals(recorded=4)


def test_a_birth_that_failed_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk an event has room there; a database that holds something stays."""

    def fail(*_: object, **__: object) -> None:
        raise LedgerError("ledger", "database or disk is full")

    monkeypatch.setattr(ledger, "_opened", fail)
    database, journal = tmp_path / "cache.db", tmp_path / "cache.db-journal"
    for content, stays in ((b"", False), (b"x", True)):
        database.write_bytes(content)
        journal.touch()
        with pytest.raises(LedgerError):
            ledger.open_ledger(str(tmp_path))
        assert (database.exists(), journal.exists()) == (stays, stays)
