"""Damage to a ledger, by accident or by hand: what it may cost, and what it may not.

The outcome is always one of: what was committed, something committed earlier, an entry
that is absent and named, or a ledger set aside. Never an offset that was not committed,
another exception, code run, a file touched outside, or a flusher that is stuck.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diskcache
import pytest

from telemetry.books.entries import DeadFile, DeliveryState, SegmentEntry, Totals
from telemetry.books.ledger import (
    SETTINGS,
    Ledger,
    _RowsOnly,
    open_ledger,
    read_snapshot,
)
from telemetry.errors import LedgerError, LedgerMalformedError


if TYPE_CHECKING:
    from collections.abc import Callable

# How many bytes of the file get a flipped bit, besides the header's hundred. Every one
# was tried when this was written, with the same outcome.
FLIPS = 300

REPOSITORY = Path(__file__).resolve().parents[2]

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"

NAMES = [f"{n}-seg" for n in range(12)]


def entry(offset: int) -> SegmentEntry:
    return SegmentEntry(offset=offset, seq=offset // 100, recorded=offset // 100)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A closed ledger after two commits, and beside it (`.older`) after the first."""
    directory = f"{tmp_path_factory.mktemp('sound')}/ledger"
    made = Ledger(directory)
    made.commit(segments={name: entry(100) for name in NAMES})
    made.commit(totals=Totals(recorded=1), state=DeliveryState(requests=1))
    made.close()
    shutil.copytree(directory, directory + ".older")
    made = Ledger(directory)
    made.commit(segments={name: entry(200) for name in NAMES})
    made.commit(dead_files={"0-seg-0": DeadFile(end=90, letters=2)})
    made.commit(totals=Totals(recorded=2), state=DeliveryState(requests=2))
    made.close()
    return directory


@pytest.fixture
def place(sound: str, tmp_path: Path) -> str:
    """A copy of the sound ledger, to be ruined."""
    return shutil.copytree(sound, f"{tmp_path}/ledger")


def check_usable(directory: str) -> str | None:
    """Open and use what stands there; the name it was set aside under, if it was."""
    return outcome(directory)[0]


def outcome(directory: str) -> tuple[str | None, tuple[str, ...]]:
    """The same, and the rows that were named as unreadable.

    Asserts that nothing is believed that was never committed.
    """
    try:
        believed = [read_snapshot(directory)]
    except LedgerError:
        believed = []
    opened, aside = open_ledger(directory)
    try:
        believed.append(opened.read())
        opened.commit(segments={"next": entry(300), NAMES[0]: entry(300)})
        assert opened.read().segments["next"] == entry(300)
        assert opened.read().segments[NAMES[0]] == entry(300)
    finally:
        opened.close()
    for snapshot in believed:
        for name, found in snapshot.segments.items():
            assert name in NAMES
            assert found in (entry(100), entry(200))
        assert snapshot.totals.recorded in (0, 1, 2)
        assert snapshot.state.requests in (0, 1, 2)
        assert set(snapshot.dead_files) <= {"0-seg-0"}
    return aside, believed[-1].unreadable


def edit(directory: str, *statements: str) -> None:
    """Do to the database what only its enemy would."""
    connection = sqlite3.connect(f"{directory}/cache.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = persist")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_flipped_bit_costs_an_entry_or_a_ledger_never_the_truth(place: str) -> None:
    """SQLite notices few flipped bits: a wrong offset believed would lose events."""
    with open(f"{place}/cache.db", "rb") as file:
        whole = file.read()
    dice = random.Random(20)
    used = [at for at, byte in enumerate(whole) if byte]
    positions = [*range(100), *dice.sample(used, k=FLIPS)]
    named = set_aside = 0
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << dice.randrange(8)
        with open(f"{place}/cache.db", "wb") as file:
            file.write(damaged)
        aside, unreadable = outcome(place)
        named += bool(unreadable)
        set_aside += aside is not None
    assert named > 10
    assert 10 < set_aside < len(positions)


@pytest.mark.parametrize("name", ["cache.db", "cache.db-journal"])
def test_a_file_cut_anywhere_leaves_a_usable_ledger(
    place: str, sound: str, name: str
) -> None:
    """A power loss may shorten a file to any length."""
    size = os.path.getsize(f"{sound}/{name}")
    for end in [*range(0, size, 2048), 1, 99, 100, 511, size - 1]:
        for whole in ("cache.db", "cache.db-journal"):
            shutil.copy(f"{sound}/{whole}", f"{place}/{whole}")
        os.truncate(f"{place}/{name}", end)
        check_usable(place)


def test_an_empty_database_is_simply_new(place: str) -> None:
    """A crash at the first creation leaves one: there is nothing to set aside."""
    with open(f"{place}/cache.db", "wb"):
        pass
    assert read_snapshot(place).segments == {}
    assert check_usable(place) is None


def test_an_older_copy_put_back_says_what_was_true_then(place: str, sound: str) -> None:
    """A restored backup costs duplicates; the anchors tell the flusher what it lacks."""
    shutil.copy(f"{sound}.older/cache.db", f"{place}/cache.db")
    opened, aside = open_ledger(place)
    assert aside is None
    assert opened.read().segments == {name: entry(100) for name in NAMES}
    opened.close()
    assert check_usable(place) is None


def test_an_unreadable_row_is_absent_and_named(place: str) -> None:
    """Damage is never silent, and is reported once, not for ever."""
    edit(
        place,
        "UPDATE Cache SET value = CAST('junk' AS BLOB) WHERE key = x'746f74616c73'",
    )
    assert read_snapshot(place).unreadable == ("totals",)
    opened, aside = open_ledger(place)
    assert opened.read().unreadable == ("totals",)
    assert opened.read().totals == Totals()
    assert opened.read().segments == {name: entry(200) for name in NAMES}
    opened.close()
    assert aside is None
    assert read_snapshot(place).unreadable == ()


def test_an_entry_under_another_name_is_not_believed(place: str) -> None:
    """The checksum covers the name: an offset must not reach another segment."""
    edit(
        place, "UPDATE Cache SET key = CAST('segment/11-seh' AS BLOB) WHERE rowid = 12"
    )
    assert read_snapshot(place).unreadable == ("segment/11-seh",)
    assert check_usable(place) is None


def test_a_sound_row_of_a_later_version_is_left_alone(place: str) -> None:
    """Going back to an older release must not destroy what the newer one knew."""
    row = "CAST('5f19ea69 {}' AS BLOB)"
    edit(
        place,
        f"INSERT INTO Cache(key, raw, mode, value) VALUES (CAST('new' AS BLOB), 1, 1, {row})",
    )
    for _ in range(2):
        opened, aside = open_ledger(place)
        assert (opened.read().unreadable, aside) == ((), None)
        opened.close()
    connection = sqlite3.connect(f"{place}/cache.db")
    kept = connection.execute("SELECT count(*) FROM Cache WHERE key = x'6e6577'")
    assert kept.fetchone() == (1,)
    connection.close()


def make_directory(path: str) -> None:
    os.mkdir(path)


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(os.path.dirname(path))  # a socket's whole path has about 100 bytes
        bound.bind(os.path.basename(path))
        os.chdir(here)


def make_text(path: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write("no database at all\n" * 200)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("ledger/cache.db", make_directory),
        ("ledger/cache.db", os.mkfifo),
        ("ledger/cache.db", make_socket),
        ("ledger/cache.db", make_text),
        ("ledger/cache.db-journal", make_directory),
        ("ledger/cache.db-journal", os.mkfifo),
        ("ledger/cache.db-wal", make_text),
        ("ledger/cache.db-shm", make_text),
        ("ledger", make_text),
        ("ledger", os.mkfifo),
    ],
)
def test_what_is_no_ledger_is_set_aside_unopened(
    place: str, tmp_path: Path, name: str, make: Callable[[str], None]
) -> None:
    """A FIFO would hang the flusher, and a write-ahead log bring rows of its own."""
    path = f"{tmp_path}/{name}"
    if name == "ledger":
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)
    make(path)
    with pytest.raises(LedgerMalformedError):
        read_snapshot(place)
    aside = check_usable(place)
    assert aside is not None
    assert sorted(os.listdir(tmp_path)) == ["ledger", aside]
    kept = f"{tmp_path}/{aside}" + name.removeprefix("ledger")
    assert os.path.lexists(kept)


def test_what_no_ledger_grows_to_is_not_read(place: str) -> None:
    """To check it would outlast the flush; to copy it, for a tool, the disk."""
    os.truncate(f"{place}/cache.db", 2**30)
    with pytest.raises(LedgerMalformedError, match="never has"):
        read_snapshot(place)
    assert check_usable(place) is not None


@pytest.mark.parametrize("name", ["", "/cache.db", "/cache.db-journal"])
def test_no_symlink_is_followed(place: str, tmp_path: Path, name: str) -> None:
    """Through one, a commit would be written into a file of somebody's choice."""
    os.mkdir(f"{tmp_path}/elsewhere")
    victim = f"{tmp_path}/elsewhere/victim"
    os.rename(place + name, victim)
    os.symlink(victim, place + name)
    whole = f"{victim}/cache.db" if os.path.isdir(victim) else victim
    with open(whole, "rb") as file:
        before = file.read()
    with pytest.raises(LedgerMalformedError):
        read_snapshot(place)
    aside = check_usable(place)
    assert os.path.islink(f"{tmp_path}/{aside}{name}")
    with open(whole, "rb") as file:
        assert file.read() == before


@pytest.mark.parametrize(
    "setting",
    [
        "'sqlite_journal_mode', 'wal'",
        "'sqlite_journal_mode', 'off'",
        "'sqlite_locking_mode', 'exclusive'",
        "'sqlite_no such pragma(', 'x; DROP TABLE Cache'",
        "'disk_unheard_of', 1",
        "'reset', 1",
        "'close', 'x'",
        "'_txn_id', 1",
        "x'ff00', 1",
        "CAST(x'ff' AS TEXT), CAST(x'fe' AS TEXT)",
        "'cull_limit', 10",
        "'eviction_policy', 'no such policy'",
    ],
)
def test_a_planted_setting_is_put_right_not_obeyed(place: str, setting: str) -> None:
    """diskcache runs what its settings table says as pragmas, and sets attributes."""
    edit(place, f"INSERT OR REPLACE INTO Settings VALUES ({setting})")
    assert read_snapshot(place).segments == {name: entry(200) for name in NAMES}
    assert check_usable(place) is None
    connection = sqlite3.connect(f"{place}/cache.db")
    rows = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
    connection.close()
    assert {key: rows[key] for key in SETTINGS} == SETTINGS
    assert set(rows) == {*SETTINGS, "count", "size", "hits", "misses"}
    assert rows["count"] == 16


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TRIGGER t AFTER UPDATE ON Cache BEGIN DELETE FROM Cache; END"],
        [
            "DROP TRIGGER Settings_size_update",
            (
                "CREATE TRIGGER Settings_size_update AFTER UPDATE ON Cache BEGIN"
                f" INSERT INTO Settings {ENDLESS} SELECT x, x FROM n; END"
            ),
        ],
        ["CREATE TABLE more (x)"],
        ["CREATE INDEX i ON Cache (abs(size))"],
        ["DROP TABLE Cache"],
        ["DROP TABLE Settings"],
        ["ALTER TABLE Cache RENAME COLUMN filename TO file_name"],
        ["CREATE VIRTUAL TABLE v USING fts4(x)"],
    ],
)
def test_planted_tables_and_triggers_never_run(
    place: str, statements: list[str]
) -> None:
    """A trigger is a program that the next commit would run."""
    edit(place, *statements)
    assert check_usable(place) is not None


def test_a_view_without_end_keeps_no_reader_busy(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that hangs on a file is a tool that does not work."""
    monkeypatch.setattr("telemetry.books.view.READ_S_MAX", 0.05)
    edit(
        place,
        "DROP TABLE Cache",
        (
            f"CREATE VIEW Cache AS {ENDLESS} SELECT x AS rowid, 1 key, 1 raw, 1 mode,"
            " 1 filename, 1 expire_time, 1 value FROM n"
        ),
    )
    with pytest.raises(LedgerError, match="db: interrupted"):
        read_snapshot(place)
    assert check_usable(place) is not None


class Bomb:
    """What runs if anything here is ever unpickled."""

    def __init__(self, victim: str) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.unlink, (self.victim,)


def plain_disk(place: str) -> diskcache.Cache:
    """diskcache as it comes, to plant what only it can."""
    return diskcache.Cache(
        place, eviction_policy="none", cull_limit=0, sqlite_journal_mode="persist"
    )


def test_a_planted_pickle_is_never_loaded(place: str, tmp_path: Path) -> None:
    """To unpickle is to run a program."""
    victim = tmp_path / "victim"
    victim.touch()
    with plain_disk(place) as cache:
        cache.set(b"totals", Bomb(f"{victim}"))
        cache.set(Bomb(f"{victim}"), b"value")
        cache.set(("a", "tuple"), Bomb(f"{victim}"))
    snapshot = read_snapshot(place)
    assert snapshot.totals == Totals()
    assert len(snapshot.unreadable) == 3
    assert check_usable(place) is None
    assert victim.exists()


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_planted_file_name_is_neither_opened_nor_deleted(
    place: str, tmp_path: Path, mode: int
) -> None:
    """diskcache deletes the file of a row it replaces, wherever the name leads."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    edit(place, f"UPDATE Cache SET filename = '../victim', mode = {mode}")
    assert read_snapshot(place).segments == {}
    opened, _ = open_ledger(place)
    opened.commit(segments={name: entry(200) for name in NAMES})
    opened.commit(segments=dict.fromkeys(NAMES))
    opened.close()
    assert victim.read_bytes() == b"precious"


def test_replacing_a_row_planted_meanwhile_deletes_no_file(
    place: str, tmp_path: Path
) -> None:
    """The check at opening is not the only guard: the disk class holds by itself."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    opened = Ledger(place)
    edit(place, "UPDATE Cache SET filename = '../victim', mode = 2")
    opened.commit(segments={NAMES[0]: entry(200), NAMES[1]: None})
    opened.close()
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "column",
    [
        "expire_time = 1.0",
        "expire_time = CAST(x'ff' AS TEXT)",
        "raw = 0",
        "mode = 'x'",
        "filename = CAST(x'ff' AS TEXT)",
        "key = rowid",
        "key = CAST(x'ff' || rowid AS TEXT)",
        "value = NULL",
        "value = 7",
        "value = CAST(x'fffe' AS TEXT)",
        "value = zeroblob(100000)",
    ],
)
def test_any_column_of_any_row_may_be_wrong(place: str, column: str) -> None:
    """One row that cannot be read must not hide the others, nor stop its successor."""
    edit(place, f"UPDATE Cache SET {column} WHERE rowid <= 12")
    snapshot = read_snapshot(place)
    assert len(snapshot.unreadable) == 12
    assert all(name.isprintable() for name in snapshot.unreadable)
    assert snapshot.totals == Totals(recorded=2)
    assert check_usable(place) is None


def test_a_journal_that_names_a_file_deletes_none(place: str, tmp_path: Path) -> None:
    """SQLite deletes the super-journal that a rolled-back journal names: any file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    name = f"{victim}".encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + bytes.fromhex("00000000 00000000 00000001 00000200 00001000")
    tail = (2**30 // 4096 + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    tail += sum(name).to_bytes(4, "big") + magic
    journal = header.ljust(512, b"\0") + tail
    with open(f"{place}/cache.db-journal", "wb") as file:
        file.write(journal)
    with pytest.raises(LedgerMalformedError):
        read_snapshot(place)
    assert check_usable(place) is not None
    assert victim.read_bytes() == b"precious"


def test_a_planted_hot_journal_cannot_make_a_lie_believed(place: str) -> None:
    """Random bytes that SQLite takes for pages to restore: the checks come after."""
    dice = random.Random(3)
    magic = bytes.fromhex("d9d505f920a163d7")
    with open(f"{place}/cache.db", "rb") as file:
        whole = file.read()
    for _ in range(30):
        with open(f"{place}/cache.db", "wb") as file:
            file.write(whole)
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
        with open(f"{place}/cache.db-journal", "wb") as file:
            file.write(journal)
        check_usable(place)


def test_two_set_aside_are_kept(place: str, tmp_path: Path) -> None:
    """They hold no event; without a bound a failing disk would fill itself with them."""
    names = []
    for _ in range(4):
        make_text(f"{place}/cache.db")
        names.append(check_usable(place))
    assert sorted(os.listdir(tmp_path)) == ["ledger", *names[2:]]


@pytest.mark.parametrize(
    "use",
    [
        lambda disk: disk.put("text"),
        lambda disk: disk.put(("a", "tuple")),
        lambda disk: disk.get(b"key", False),
        lambda disk: disk.get("key", True),
        lambda disk: disk.store("text", False),
        lambda disk: disk.store({}, False),
        lambda disk: disk.store(b"x", True),
        lambda disk: disk.fetch(4, None, b"", False),
        lambda disk: disk.fetch(2, "../x", None, False),
        lambda disk: disk.fetch(1, "../x", b"", False),
        lambda disk: disk.fetch(1, None, "text", False),
        lambda disk: disk.fetch(1, None, b"", True),
        lambda disk: disk.filename(),
    ],
)
def test_the_disk_class_refuses_all_but_bytes_in_rows(
    tmp_path: Path, use: Callable[[Any], object]
) -> None:
    """Neither direction knows a pickle or a file."""
    disk = _RowsOnly(f"{tmp_path}", min_file_size=0, pickle_protocol=0)
    with pytest.raises(LedgerError, match="is refused"):
        use(disk)
    assert os.listdir(tmp_path) == []


def test_the_disk_class_takes_bytes_of_any_size(tmp_path: Path) -> None:
    """No size turns a value into a file."""
    disk = _RowsOnly(f"{tmp_path}", min_file_size=0, pickle_protocol=0)
    size, mode, filename, value = disk.store(bytes(100_000), False)
    assert (size, mode, filename, bytes(value)) == (0, 1, None, bytes(100_000))
    assert disk.fetch(mode, filename, bytes(value), False) == bytes(100_000)
    disk.remove("../anything")
    assert os.listdir(tmp_path) == []
