"""Damage to a ledger, by accident or by hand: what it may cost, and what it may not.

The outcome is always one of: what was committed, something committed earlier, or a
ledger set aside. Never an offset that was not committed, a part of what was, another
exception, code run, a file touched outside, or a flusher that is stuck.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diskcache
import pytest

from telemetry.books.books import Books
from telemetry.books.entries import (
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
)
from telemetry.books.ledger import SETTINGS, Ledger, _RowsOnly, open_ledger
from telemetry.books.view import read_snapshot, row_crc, set_aside_names
from telemetry.delivery.upkeep import tidy
from telemetry.errors import LedgerError, LedgerMalformedError
from tests.support.draining import Spool, in_turn, naming, status


if TYPE_CHECKING:
    from collections.abc import Callable

# How many bytes of the file get a flipped bit, besides the header's hundred. Every one
# was tried when this was written, with the same outcome.
FLIPS = 150

NAMES = [f"{n}-seg" for n in range(12)]


def entry(offset: int) -> SegmentEntry:
    return SegmentEntry(offset=offset, seq=offset // 100, recorded=offset // 100)


LAST = {name: entry(200) for name in NAMES}
FIRST = Snapshot(
    segments={name: entry(100) for name in NAMES},
    totals=Totals(recorded=1),
    state=DeliveryState(requests=1),
)
SECOND = Snapshot(
    segments=LAST,
    dead_files={"0-seg-0": DeadFile(end=90, letters=2)},
    totals=Totals(recorded=2),
    state=DeliveryState(requests=2),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A closed ledger after two commits, and beside it (`.older`) after the first."""
    directory = f"{tmp_path_factory.mktemp('sound')}/ledger"
    made = Ledger(directory)
    made.commit(FIRST)
    made.close()
    shutil.copytree(directory, directory + ".older")
    made = Ledger(directory)
    made.commit(SECOND)
    made.close()
    return directory


@pytest.fixture
def place(sound: str, tmp_path: Path) -> str:
    """A copy of the sound ledger, to be ruined."""
    return shutil.copytree(sound, f"{tmp_path}/ledger")


def restore(sound: str, place: str) -> str:
    """The sound ledger again, and nothing beside it."""
    for name in os.listdir(os.path.dirname(place)):
        path = f"{os.path.dirname(place)}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return shutil.copytree(sound, place)


def used(directory: str) -> bool:
    """Use what stands there: whether it was set aside.

    Asserts that nothing is believed that was never committed, and none of it in part.
    """
    believed = []
    try:
        believed.append(read_snapshot(directory))
    except LedgerError:
        pass
    before = set_aside_names(directory)
    books = Books(directory, relieve=lambda: None, is_full=lambda: False, power=False)
    believed.append(books.snapshot)
    assert books.commit(segments={"next": entry(300), NAMES[0]: entry(300)})
    books.close()
    after = read_snapshot(directory)
    assert after.segments == {
        **believed[-1].segments,
        "next": entry(300),
        NAMES[0]: entry(300),
    }
    for snapshot in believed:
        assert snapshot in (Snapshot(), FIRST, SECOND)
    return set_aside_names(directory) != before


def edit(directory: str, *statements: str) -> None:
    """Do to the database what only its owner could."""
    connection = sqlite3.connect(f"{directory}/cache.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = persist")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_flipped_bit_costs_nothing_or_a_ledger_never_the_truth(place: str) -> None:
    """SQLite notices few flipped bits: a wrong offset believed would lose events.

    Nor may one row be lost alone: the sums would be wrong for good, and in silence.
    """
    path = f"{place}/cache.db"
    whole = Path(path).read_bytes()
    dice = random.Random(20)
    used_bytes = [at for at, byte in enumerate(whole) if byte]
    positions = [*range(100), *dice.sample(used_bytes, k=FLIPS)]
    set_aside = 0
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << dice.randrange(8)
        Path(path).write_bytes(damaged)
        try:
            set_aside += used(place)
        except (AssertionError, LedgerError) as error:
            raise AssertionError(f"at byte {position}: {error}") from error
        for name in set_aside_names(place):
            shutil.rmtree(f"{place}/../{name}")
    assert 30 < set_aside < len(positions)


@pytest.mark.parametrize("name", ["cache.db", "cache.db-journal"])
def test_a_file_cut_anywhere_leaves_a_usable_ledger(
    place: str, sound: str, name: str
) -> None:
    """A power loss may shorten a file to any length."""
    size = os.path.getsize(f"{sound}/{name}")
    for end in [*range(0, size, 4096), 1, 8, 99, 100, 511, size - 1]:
        restore(sound, place)
        os.truncate(f"{place}/{name}", end)
        used(place)


def test_an_empty_database_is_simply_new(place: str) -> None:
    """A crash at the first creation leaves one: there is nothing to set aside."""
    os.truncate(f"{place}/cache.db", 0)
    assert read_snapshot(place).segments == {}
    assert not used(place)


def test_an_older_copy_put_back_says_what_was_true_then(place: str, sound: str) -> None:
    """A restored backup costs duplicates; the anchors tell the flusher what it lacks."""
    shutil.copy(f"{sound}.older/cache.db", f"{place}/cache.db")
    assert read_snapshot(place).segments == {name: entry(100) for name in NAMES}
    assert not used(place)


def test_damage_that_a_commit_meets_sets_the_ledger_aside(place: str) -> None:
    """What no check at opening finds would stop every flush; memory has everything."""
    books = Books(place, relieve=lambda: None, is_full=lambda: False)
    edit(place, "DROP TABLE Settings", "DROP TABLE Cache")
    assert books.commit(totals=Totals(recorded=3))
    books.close()
    assert len(set_aside_names(place)) == 1
    assert read_snapshot(place).segments == LAST
    assert read_snapshot(place).totals == Totals(recorded=3)


ROWS = {
    "totals": "value = CAST('junk' AS BLOB) WHERE key = CAST('totals' AS BLOB)",
    # The checksum covers the name: an offset must not reach another segment.
    "segment/11-seh": "key = CAST('segment/11-seh' AS BLOB) WHERE rowid = 12",
    # The key is shown to a person, and may be anything.
    r"\x1b[31m": "key = x'1b5b33316d' WHERE rowid = 1",
    ("abc" * 99)[:200]: f"key = x'{b'abc'.hex() * 99}' WHERE rowid = 1",
}


def test_a_row_that_cannot_be_believed_is_named_and_costs_the_ledger(
    place: str, sound: str
) -> None:
    """Without it the others would count a sum that nothing puts right again."""
    for name, change in ROWS.items():
        restore(sound, place)
        edit(place, f"UPDATE Cache SET {change}")
        with pytest.raises(LedgerMalformedError) as caught:
            read_snapshot(place)
        assert caught.value.problem == f"its row {name} is damaged"
        assert used(place), change


COLUMNS = """
expire_time = 1.0
expire_time = CAST(x'ff' AS TEXT)
raw = 0
mode = 'x'
filename = CAST(x'ff' AS TEXT)
key = rowid
key = CAST(x'ff' || rowid AS TEXT)
value = NULL
value = 7
value = CAST(x'fffe' AS TEXT)
value = zeroblob(100000)
"""


def test_any_column_of_any_row_may_be_wrong(place: str, sound: str) -> None:
    """No value of a column is an error that a flush cannot go on from."""
    for column in COLUMNS.split("\n")[1:-1]:
        restore(sound, place)
        edit(place, f"UPDATE Cache SET {column} WHERE key BETWEEN x'7365' AND x'7366'")
        with pytest.raises(LedgerMalformedError) as caught:
            read_snapshot(place)
        assert str(caught.value).isprintable(), column
        assert used(place), column


@pytest.mark.parametrize("segments", [[6, 4], [3, 4]])
def test_a_damaged_row_leaves_no_sum_wrong(tmp_path: Path, segments: list[int]) -> None:
    """What is sent again is counted anew, with the dead letters that are left.

    Of each row in turn, while the segment of a letter stands, and once it is gone.
    """
    spool = Spool(tmp_path / "home", segments)
    answers = in_turn(naming(1), then=lambda _: status(503))
    arrived = spool.drain(answers, batch_events_max=3, at_once=1).received
    count = sum(segments)
    assert spool.left() == (2, count - 3, 1)
    with sqlite3.connect(f"{spool.home.ledger}/cache.db") as ledger:
        rows = [row for (row,) in ledger.execute("SELECT rowid FROM Cache")]
    ledger.close()
    assert len(rows) >= 3, "a segment's, that of the letters, and the day's"
    for row in rows:
        copy = Spool(tmp_path / f"{row}", [])
        shutil.copytree(spool.home.root, copy.home.root, dirs_exist_ok=True)
        edit(copy.home.ledger, f"UPDATE Cache SET value = x'00' WHERE rowid = {row}")
        books = Books(
            copy.home.ledger, relieve=lambda: None, is_full=lambda: False, power=False
        )
        tidy(copy.home, books)
        books.close()
        again = copy.drain().received
        assert copy.left()[1] == 0, row
        assert copy.census().holds(), row
        texts = b"".join(bytes(each.event) for each in copy.letters())
        letters = map(int, re.findall(rb'"n":(\d+)', texts))
        assert {*arrived, *again, *letters} == set(range(count)), row


def test_a_sound_row_of_a_later_version_is_left_alone(place: str) -> None:
    """Going back to an older release must not destroy what the newer one knew."""
    row = (row_crc(b"new", b"{}") + b"{}").hex()
    edit(
        place,
        "INSERT INTO Cache(key, raw, mode, value)"
        f" VALUES (CAST('new' AS BLOB), 1, 1, x'{row}')",
    )
    assert not used(place)
    connection = sqlite3.connect(f"{place}/cache.db")
    kept = connection.execute("SELECT count(*) FROM Cache WHERE key = x'6e6577'")
    assert kept.fetchone() == (1,)
    connection.close()


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(os.path.dirname(path))  # a socket's whole path has about 100 bytes
        bound.bind(os.path.basename(path))
        os.chdir(here)


def make_text(path: str) -> None:
    Path(path).write_text("no database at all\n" * 200, encoding="ascii")


WRONG_KINDS: list[tuple[str, Callable[[str], None]]] = [
    ("ledger/cache.db", os.mkdir),
    ("ledger/cache.db", getattr(os, "mkfifo", None)),
    ("ledger/cache.db", make_socket),
    ("ledger/cache.db", make_text),
    ("ledger/cache.db-journal", os.mkdir),
    ("ledger/cache.db-journal", getattr(os, "mkfifo", None)),
    ("ledger", make_text),
    ("ledger", getattr(os, "mkfifo", None)),
]


def test_what_is_no_ledger_is_set_aside_unopened(
    place: str, sound: str, tmp_path: Path
) -> None:
    """A FIFO would hang the flusher, and a directory stop it for ever."""
    for name, make in WRONG_KINDS:
        restore(sound, place)
        path = f"{tmp_path}/{name}"
        shutil.rmtree(path) if name == "ledger" else os.unlink(path)
        make(path)
        with pytest.raises(LedgerMalformedError):
            read_snapshot(place)
        assert used(place), (name, make)
        (aside,) = set_aside_names(place)
        assert sorted(os.listdir(tmp_path)) == ["ledger", aside]
        assert os.path.lexists(f"{tmp_path}/{aside}" + name.removeprefix("ledger"))


@pytest.mark.parametrize("name", ["", "/cache.db", "/cache.db-journal"])
def test_no_symlink_is_followed(place: str, tmp_path: Path, name: str) -> None:
    """Through one, a commit would be written into a file of somebody's choice."""
    os.mkdir(f"{tmp_path}/elsewhere")
    victim = f"{tmp_path}/elsewhere/victim"
    os.rename(place + name, victim)
    os.symlink(victim, place + name)
    whole = Path(f"{victim}/cache.db" if os.path.isdir(victim) else victim)
    before = whole.read_bytes()
    with pytest.raises(LedgerMalformedError):
        read_snapshot(place)
    assert used(place)
    assert os.path.islink(f"{tmp_path}/{set_aside_names(place)[0]}{name}")
    assert whole.read_bytes() == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_stray_write_ahead_log_stops_nothing(place: str, suffix: str) -> None:
    """A ledger never has one; SQLite takes it for its own."""
    make_text(f"{place}/cache.db{suffix}")
    used(place)
    assert read_snapshot(place).segments["next"] == entry(300)


PLANTED_SETTINGS = """
'sqlite_journal_mode', 'wal'
'sqlite_journal_mode', 'off'
'sqlite_locking_mode', 'exclusive'
'sqlite_no such pragma(', 'x; DROP TABLE Cache'
'disk_unheard_of', 1
'reset', 1
'close', 'x'
'_con', 1
x'ff00', 1
CAST(x'ff' AS TEXT), CAST(x'fe' AS TEXT)
'cull_limit', 10
'eviction_policy', 'no such policy'
"""


def test_a_setting_that_is_not_ours_is_put_right_not_obeyed(
    place: str, sound: str
) -> None:
    """diskcache runs what its settings table says as pragmas, and sets attributes."""
    for setting in PLANTED_SETTINGS.split("\n")[1:-1]:
        restore(sound, place)
        edit(place, f"INSERT OR REPLACE INTO Settings VALUES ({setting})")
        assert read_snapshot(place).segments == LAST
        assert not used(place), setting
        connection = sqlite3.connect(f"{place}/cache.db")
        rows = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
        connection.close()
        ours = {**SETTINGS, "sqlite_synchronous": 0}  # no power loss is asked for
        assert {key: rows[key] for key in SETTINGS} == ours, setting
        assert set(rows) == {*SETTINGS, "count", "size", "hits", "misses"}, setting
        assert rows["count"] == 16, setting


OTHER_TABLES = """
DROP TABLE Cache
DROP TABLE Settings
DROP INDEX Cache_key_raw
CREATE TABLE more (x)
CREATE INDEX i ON Cache (abs(size))
CREATE VIRTUAL TABLE v USING fts4(x)
CREATE VIEW v AS SELECT 1
ALTER TABLE Cache RENAME COLUMN filename TO file_name
CREATE TRIGGER t AFTER UPDATE ON Cache BEGIN DELETE FROM Cache; END
CREATE TRIGGER t BEFORE UPDATE ON Cache BEGIN SELECT absent(1); END
"""


def test_other_tables_and_triggers_never_run(place: str, sound: str) -> None:
    """A damaged table may drop what is committed, and a trigger is a program."""
    for statement in OTHER_TABLES.split("\n")[1:-1]:
        restore(sound, place)
        edit(place, statement)
        assert used(place), statement


class Bomb:
    """What runs if anything here is ever unpickled."""

    def __init__(self, victim: str) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.unlink, (self.victim,)


def test_a_planted_pickle_is_never_loaded(place: str, tmp_path: Path) -> None:
    """To unpickle is to run a program (CVE-2025-69872)."""
    victim = tmp_path / "victim"
    victim.touch()
    with diskcache.Cache(
        place, eviction_policy="none", cull_limit=0, sqlite_journal_mode="persist"
    ) as cache:
        cache.set(b"totals", Bomb(f"{victim}"))
        cache.set(Bomb(f"{victim}"), b"value")
        cache.set(("a", "tuple"), Bomb(f"{victim}"))
    with pytest.raises(LedgerMalformedError):
        read_snapshot(place)
    assert used(place)
    assert victim.exists()


def test_a_planted_file_name_is_neither_opened_nor_deleted(
    place: str, sound: str, tmp_path: Path
) -> None:
    """diskcache deletes the file of a row it replaces, wherever the name leads.

    Planted before the opening or after it: the disk class holds by itself.
    """
    for mode in (1, 2, 3, 4):
        for is_open in (False, True):
            restore(sound, place)
            victim = tmp_path / "victim"
            victim.write_bytes(b"precious")
            opened = Ledger(place) if is_open else None
            edit(place, f"UPDATE Cache SET filename = '../victim', mode = {mode}")
            opened = opened or open_ledger(place)
            opened.commit(Snapshot(segments=LAST))
            opened.commit(Snapshot())
            opened.close()
            assert victim.read_bytes() == b"precious", (mode, is_open)


def test_a_journal_that_names_a_file_deletes_none(place: str, tmp_path: Path) -> None:
    """SQLite deletes the super-journal that a rolled-back journal names: any file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    name = f"{victim}".encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + bytes.fromhex("00000000 00000000 00000001 00000200 00001000")
    tail = (2**30 // 4096 + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    tail += sum(name).to_bytes(4, "big") + magic
    Path(f"{place}/cache.db-journal").write_bytes(header.ljust(512, b"\0") + tail)
    with pytest.raises(LedgerMalformedError):
        read_snapshot(place)
    assert used(place)
    assert victim.read_bytes() == b"precious"


def test_a_planted_hot_journal_cannot_make_a_lie_believed(
    place: str, sound: str
) -> None:
    """Random bytes that SQLite takes for pages to restore: the checks come after."""
    dice = random.Random(3)
    magic = bytes.fromhex("d9d505f920a163d7")
    whole = Path(f"{place}/cache.db").read_bytes()
    for _ in range(30):
        restore(sound, place)
        pages, nonce = dice.randrange(1, 4), dice.randrange(2**32)
        journal = magic + b"".join(
            number.to_bytes(4, "big")
            for number in (pages, nonce, len(whole) // 4096, 512, 4096)
        )
        journal = journal.ljust(512, b"\0")
        for _ in range(pages):
            number = dice.randrange(1, len(whole) // 4096 + 1)
            page = bytearray(whole[4096 * (number - 1) : 4096 * number])
            page[dice.randrange(4096)] ^= 0xFF
            # SQLite sums every 200th byte from the end.
            crc = (nonce + sum(page[4096 - 200 : 0 : -200])) % 2**32
            journal += number.to_bytes(4, "big") + page + crc.to_bytes(4, "big")
        Path(f"{place}/cache.db-journal").write_bytes(journal)
        used(place)


def make_junk(path: str) -> None:
    os.mkdir(path)
    make_text(f"{path}/cache.db")


def make_link(path: str) -> None:
    os.symlink("nowhere", path)


def test_two_set_aside_are_kept(place: str, tmp_path: Path) -> None:
    """They hold no event; without a bound a failing disk would fill itself with them."""
    names: list[str] = []
    for make in (make_junk, make_text, make_link, make_junk, make_text):
        shutil.rmtree(place)
        make(place)
        assert used(place)
        names.append(set_aside_names(place)[-1])
    assert set_aside_names(place) == names[3:]
    assert sorted(os.listdir(tmp_path)) == ["ledger", *names[3:]]


REFUSED: list[Callable[[Any], object]] = [
    lambda disk: disk.get(b"key", raw=True),
    lambda disk: disk.fetch(1, None, b"", read=False),
    lambda disk: disk.fetch(4, None, b"", read=False),
    lambda disk: disk.filename(b"key", b""),
]


def test_the_disk_class_reads_no_row_and_makes_no_file(tmp_path: Path) -> None:
    """What diskcache would unpickle or open, it is refused; no size makes a file."""
    disk = _RowsOnly(f"{tmp_path}", min_file_size=0, pickle_protocol=0)
    for number, use in enumerate(REFUSED):
        with pytest.raises(LedgerError, match="reads no row"):
            pytest.fail(f"number {number} gave {use(disk)}")
    assert disk.put(b"key") == (b"key", True)
    row = disk.store(bytes(100_000), read=False, key=b"key")
    assert row == (0, 1, None, bytes(100_000))
    disk.remove("../anything")
    assert os.listdir(tmp_path) == []
