"""The ledger on disk: what is kept, how it stands there, who may look at it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import tempfile
import threading
import zlib
from typing import TYPE_CHECKING

import diskcache
import pytest

from telemetry.books import ledger as module
from telemetry.books.entries import DeadFile, DeliveryState, SegmentEntry, Totals
from telemetry.books.ledger import SETTINGS, Ledger, measure, open_ledger, read_snapshot
from telemetry.errors import LedgerError


if TYPE_CHECKING:
    from pathlib import Path

ENTRY = SegmentEntry(offset=4096, seq=11, crc="e8ab4401", recorded=12, delivered=12)
NAME = "1767225600000000000-1f0c.v1.jseq"


def image(directory: str) -> dict[str, tuple[bytes, int]]:
    """Bytes and modification times of all that stands in `directory`."""
    found = {}
    for entry in os.scandir(directory):
        with open(entry.path, "rb") as file:
            found[entry.name] = (file.read(), entry.stat().st_mtime_ns)
    return found


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where a ledger with one entry stands, closed."""
    directory = f"{tmp_path}/ledger"
    made = Ledger(directory)
    made.commit(segments={NAME: ENTRY}, totals=Totals(recorded=3))
    made.close()
    return directory


def test_a_row_is_what_the_docstring_says(place: str) -> None:
    """At 3 a.m. someone reads it with sqlite3; and older versions read it for ever."""
    connection = sqlite3.connect(f"{place}/cache.db")
    rows = dict(connection.execute("SELECT key, value FROM Cache").fetchall())
    connection.close()
    key = b"segment/" + NAME.encode()
    assert list(rows) == [key, b"totals"]
    assert rows[b"totals"] == (
        b'4e23dc20 {"recorded":3,"delivered":0,"damaged":0,"purged":0,'
        b'"refused":{},"refused_marks":{}}'
    )
    crc, text = rows[key].split(b" ", 1)
    assert crc == b"%08x" % zlib.crc32(key + text)
    fields = json.loads(text)
    assert (fields["offset"], fields["seq"], fields["crc"]) == (4096, 11, "e8ab4401")


def test_every_setting_of_diskcache_is_named(place: str) -> None:
    """Left to its defaults, it would forget the oldest rows at 1 GiB."""
    assert set(diskcache.DEFAULT_SETTINGS) <= set(SETTINGS)
    assert SETTINGS["eviction_policy"] == "none"
    assert SETTINGS["cull_limit"] == 0
    connection = sqlite3.connect(f"{place}/cache.db")
    rows = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
    connection.close()
    counters = ("count", "size", "hits", "misses")
    assert {key: rows[key] for key in rows if key not in counters} == SETTINGS


def test_the_connection_that_writes_is_the_safe_one(place: str) -> None:
    """A pragma in the table of settings is worth nothing unless it was executed."""
    opened = Ledger(place)
    for key, value in SETTINGS.items():
        if key.startswith("sqlite_"):
            row = opened._connection.execute(f"PRAGMA {key[7:]}").fetchone()
            assert row == (value,), key
    opened.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_may_read_it_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    """What a person's programs sent, and when, is no business of other users."""
    before = os.umask(umask)
    try:
        made = Ledger(f"{tmp_path}/ledger")
        made.commit(segments={NAME: ENTRY})
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
    os.chmod(place, 0o755)
    os.chmod(f"{place}/cache.db", 0o644)
    Ledger(place).close()
    assert stat.S_IMODE(os.lstat(place).st_mode) == 0o700
    assert stat.S_IMODE(os.lstat(f"{place}/cache.db").st_mode) == 0o600


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
        made.commit(segments={NAME: ENTRY})
        made.close()
    assert read_snapshot(f"{home}/ledger").segments == {NAME: ENTRY}
    assert os.listdir(home) == ["ledger"]
    assert os.listdir(tmp_path) == [name]


def test_opening_writes_nothing(place: str) -> None:
    """A flush at exit has a second; 60 syncs to repeat what stands there take longer."""
    before = image(place)
    opened = Ledger(place)
    assert opened.read().segments == {NAME: ENTRY}
    opened.close()
    assert image(place) == before


def test_the_known_tables_are_those_that_diskcache_makes() -> None:
    """If not, each opening would build a measure, and a full disk has no room for it."""
    if diskcache.__version__ not in module._READ_VERSIONS:
        pytest.skip("another diskcache: its own constructor opens the ledger")
    assert measure(module._build) == module._READ_SCHEMA


def test_another_diskcache_opens_by_its_own_constructor(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade of a dependency must not stop delivery, nor set a ledger aside."""
    monkeypatch.setattr(module, "_READ_VERSIONS", ())
    monkeypatch.setattr(module, "_READ_SCHEMA", "")
    for count in range(1, 3):
        opened, aside = open_ledger(place)
        opened.commit(totals=Totals(recorded=count), segments={"gone": None})
        assert opened.read().totals.recorded == count
        assert opened.read().segments == {NAME: ENTRY}
        opened.close()
        assert aside is None


def test_what_the_short_constructor_sets_is_all_that_the_long_one_does(
    place: str,
) -> None:
    """The short way in is right only as long as it leaves nothing out."""
    long = module._Cache(place, busy_s=0, synchronous=2)
    opened = Ledger(place)
    unread = {"count", "size", "hits", "misses", "_page_size"}
    assert set(vars(long)) - unread <= set(vars(opened._cache))
    assert vars(long.disk) == vars(opened._cache.disk)
    long.close()
    opened.close()


def test_a_tool_changes_nothing(place: str, tmp_path: Path) -> None:
    """Whoever only looks must leave no trace, or looking becomes a risk."""
    before = image(place)
    assert read_snapshot(place).segments == {NAME: ENTRY}
    assert read_snapshot(f"{tmp_path}/none").segments == {}
    assert image(place) == before
    assert os.listdir(tmp_path) == ["ledger"]


def test_a_tool_sees_the_last_commit_while_the_next_is_under_way(place: str) -> None:
    """`status` is asked most while a flush runs."""
    writer = Ledger(place)
    with writer._cache.transact():
        writer._cache.set(b"segment/next", b"whatever")
        assert list(read_snapshot(place, busy_s=0).segments) == [NAME]
    writer.close()


def test_a_tool_that_reads_never_sees_half_a_commit(place: str) -> None:
    """One commit settles a batch and announces the next: between them lies a lie."""
    writer = Ledger(place, busy_s=10)
    writer.commit(state=DeliveryState(requests=3))
    stop = threading.Event()

    def write() -> None:
        count = 3
        while not stop.wait(0.001):
            count += 1
            writer.commit(
                totals=Totals(recorded=count), state=DeliveryState(requests=count)
            )

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


def test_another_thread_may_use_it(place: str) -> None:
    """A flush in a thread is closed by whoever closes the client."""
    opened = Ledger(place)
    worker = threading.Thread(target=opened.commit, kwargs={"totals": Totals(purged=1)})
    worker.start()
    worker.join()
    assert opened.read().totals.purged == 1
    closer = threading.Thread(target=opened.close)
    closer.start()
    closer.join()
    assert opened._connection is None


def test_a_forked_child_is_refused(place: str) -> None:
    """SQLite's locks do not cross a fork: two writers would ruin the file."""
    opened = Ledger(place)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(LedgerError, match="before a fork"):
                opened.read()
            with pytest.raises(LedgerError, match="before a fork"):
                opened.commit(totals=Totals(purged=9))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    opened.commit(totals=Totals(recorded=5))
    assert opened.read().totals == Totals(recorded=5)
    opened.close()


def test_a_closed_ledger_is_refused(place: str) -> None:
    """After `close` nothing is written behind anyone's back."""
    opened = Ledger(place)
    opened.close()
    opened.close()
    with pytest.raises(LedgerError, match="it is closed"):
        opened.commit(totals=Totals())


def test_no_text_of_an_error_stops_a_commit(place: str) -> None:
    """An error about a path that is no UTF-8 carries lone surrogates into the books."""
    opened = Ledger(place)
    opened.commit(state=DeliveryState(last_error="/tmp/\udcff\ud800" + "x" * 9000))
    text = opened.read().state.last_error
    opened.close()
    assert text.startswith("/tmp/\\udcff\\ud800x")
    assert len(text) < 600


def test_names_that_are_no_utf_8_come_back_as_they_were(place: str) -> None:
    """A dead letter's name is a file's name, and those are bytes."""
    mark = DeadFile(end=90, letters=2)
    opened = Ledger(place)
    opened.commit(dead_files={"\udcff": mark})
    assert opened.read().dead_files == {"\udcff": mark}
    opened.close()


def test_a_ledger_that_vanished_is_not_made_anew_in_the_middle(place: str) -> None:
    """An empty one would hold only what changed since, and call that everything."""
    opened = Ledger(place)
    for name in os.listdir(place):
        os.unlink(f"{place}/{name}")
    os.rmdir(place)
    for _ in range(2):
        with pytest.raises(LedgerError):
            opened.commit(totals=Totals(recorded=1))
    opened.close()
    assert not os.path.lexists(place)


@pytest.mark.parametrize("born", ["nothing", "journal", "all"])
def test_a_birth_that_was_killed_is_begun_again(place: str, born: str) -> None:
    """The first flush of all may be killed like any other."""
    os.mkdir(f"{place}/birth")
    for name in ("cache.db", "cache.db-journal"):
        with open(f"{place}/birth/{name}", "wb") as file:
            file.write(b"half")
    if born != "all":
        os.unlink(f"{place}/cache.db")
    if born == "nothing":
        os.unlink(f"{place}/cache.db-journal")
    assert list(read_snapshot(place).segments) == ([NAME] if born == "all" else [])
    opened, aside = open_ledger(place)
    opened.commit(segments={"new": ENTRY})
    opened.close()
    assert aside is None
    assert "new" in read_snapshot(place).segments


def test_nothing_is_left_in_the_temporary_directory(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shared with others, and a flusher is started many times a day."""
    os.mkdir(f"{tmp_path}/tmp")
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/tmp")
    monkeypatch.setattr(module, "_READ_SCHEMA", "")
    Ledger(place).close()
    read_snapshot(place)
    assert os.listdir(f"{tmp_path}/tmp") == []
