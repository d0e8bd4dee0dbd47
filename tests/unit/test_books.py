"""The books as the flusher uses them: in memory, written through, and on a full disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from telemetry.books.books import Books
from telemetry.books.entries import (
    Announced,
    Day,
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
    fold,
)
from telemetry.books.ledger import Ledger, open_ledger
from telemetry.books.view import read_snapshot
from telemetry.errors import LedgerError


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLIGHT = Announced(start=10, end=90, count=4, digest="d" * 64, windows=2)
ENTRY = SegmentEntry(
    offset=90,
    seq=12,
    crc="e8ab4401",
    recorded=13,
    delivered=4,
    dead=2,
    damaged=1,
    purged=2,
    announced=(FLIGHT,),
)
TOTALS = Totals(recorded=100, delivered=90, refused={"busy": 3}, refused_marks={"x": 1})
STATE = DeliveryState(failures=2, last_error="503", stopped="waiting", requests=7)
MARK = DeadFile(end=90, letters=2)


class Disk:
    """Where a ledger can be made, as long as `parent` stands; else the disk is full."""

    def __init__(self, parent: Path, *, is_full: bool) -> None:
        self.parent = parent
        self.place = f"{parent}/ledger"
        self.relieved = 0
        if not is_full:
            self.empty()

    def empty(self) -> None:
        """It has room again."""
        self.parent.mkdir()

    def fill(self) -> None:
        """It takes nothing more."""
        os.rename(self.parent, f"{self.parent}.away")

    def relieve(self) -> None:
        self.relieved += 1

    def books(self) -> Books:
        return Books(
            self.place,
            relieve=self.relieve,
            is_full=lambda: not self.parent.exists(),
        )


@pytest.fixture(params=[False, True], ids=["disk", "full disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return Disk(tmp_path / "home", is_full=request.param)


@pytest.fixture
def books(disk: Disk) -> Iterator[Books]:
    made = disk.books()
    yield made
    made.close()


def test_fold_keeps_every_settled_event() -> None:
    """A segment's counts outlive its file, or the books stop balancing."""
    folded = fold(TOTALS, ENTRY)
    assert folded == msgspec.structs.replace(
        TOTALS, recorded=109, delivered=94, damaged=1, purged=2
    )


def test_fold_counts_nothing_that_was_only_in_flight() -> None:
    """What was never settled is counted by reading, or not at all: never twice."""
    landed = msgspec.structs.replace(ENTRY, recorded=9, announced=())
    assert fold(TOTALS, ENTRY) == fold(TOTALS, landed)


def test_a_negative_number_is_damage() -> None:
    """A value out of bounds in a row is damage, not an offset to seek to."""
    row = msgspec.json.encode({"offset": -1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(row, type=SegmentEntry)


def test_new_books_say_nothing(books: Books) -> None:
    """The flusher starts from zero without asking whether there was a ledger."""
    assert books.snapshot == Snapshot()
    assert books.entry("any") == SegmentEntry(offset=0)


WHOLE: dict[str, Any] = {
    "segments": {"a": ENTRY},
    "totals": TOTALS,
    "state": STATE,
    "dead_files": {"a-10": MARK},
}


def test_a_commit_holds_in_memory_and_on_disk(disk: Disk, books: Books) -> None:
    """Each field survives, the batch in flight above all: a retry needs its bytes."""
    saved = books.commit(**WHOLE)
    assert books.snapshot == Snapshot(**WHOLE)
    assert saved == books.is_saved == disk.parent.exists()
    assert read_snapshot(disk.place) == (books.snapshot if saved else Snapshot())


def test_none_removes_and_silence_keeps(books: Books) -> None:
    """Forgetting is always asked for by name."""
    books.commit(
        segments={"a": ENTRY}, totals=TOTALS, dead_files={"m": MARK, "n": MARK}
    )
    books.commit(dead_files={"m": None, "never": None})
    assert books.snapshot == Snapshot(
        segments={"a": ENTRY}, totals=TOTALS, dead_files={"n": MARK}
    )


def test_an_earlier_snapshot_stays_as_it_was(books: Books) -> None:
    """The flusher decides from a snapshot while it commits: it must not shift."""
    books.commit(segments={"a": ENTRY})
    before = books.snapshot
    books.gone("a")
    books.commit(segments={"b": ENTRY})
    assert list(before.segments) == ["a"]


def test_what_is_gone_is_folded_once_with_the_next_commit(
    disk: Disk, books: Books
) -> None:
    """A segment's events are counted in its entry or in the totals, in one of them."""
    books.commit(segments={"a": ENTRY}, totals=TOTALS)
    books.stage("a", msgspec.structs.replace(ENTRY, purged=3))
    for _ in range(2):
        books.gone("a")
    books.gone("never known")
    assert books.entry("a") == SegmentEntry(offset=0)
    assert not books.is_saved
    assert books.commit() == disk.parent.exists()
    books.commit()
    entry = msgspec.structs.replace(ENTRY, purged=3)
    assert books.snapshot == Snapshot(totals=fold(TOTALS, entry))


def test_a_name_that_is_gone_may_be_known_again(books: Books) -> None:
    """Another file with its name: the old entry is folded, the new one stands."""
    again = SegmentEntry(offset=1)
    books.commit(segments={"a": ENTRY, "b": ENTRY}, totals=TOTALS)
    books.gone("a")
    books.gone("b")
    books.stage("a", again)
    assert (books.entry("a"), books.entry("b")) == (again, SegmentEntry(offset=0))
    books.commit(segments={"b": again})
    folded = fold(fold(TOTALS, ENTRY), ENTRY)
    assert books.snapshot == Snapshot(segments={"a": again, "b": again}, totals=folded)


def test_one_commit_writes_what_was_staged(disk: Disk, books: Books) -> None:
    """It settles one batch and announces the next; before it, nothing is written."""
    books.stage("a", ENTRY)
    assert books.entry("a") == ENTRY
    assert not books.is_saved
    assert read_snapshot(disk.place).segments == {}
    books.commit(segments={"b": ENTRY})
    assert books.snapshot.segments == {"a": ENTRY, "b": ENTRY}
    if books.is_saved:
        assert read_snapshot(disk.place) == books.snapshot


def test_closing_writes_what_is_not_written_yet(disk: Disk) -> None:
    """The last segment's end is found after the last commit."""
    books = disk.books()
    books.stage("a", ENTRY)
    books.close()
    written = {"a": ENTRY} if disk.parent.exists() else {}
    assert read_snapshot(disk.place).segments == written


def test_memory_replaces_the_ledger_once_there_is_room(tmp_path: Path) -> None:
    """What a full disk kept out arrives whole, and what went meanwhile is gone."""
    disk = Disk(tmp_path / "home", is_full=False)
    books = disk.books()
    books.commit(segments={"old": ENTRY}, dead_files={"old-0": MARK})
    disk.fill()
    books.gone("old")
    assert not books.commit(segments={"new": ENTRY}, state=STATE)
    assert not books.commit(dead_files={"old-0": None})
    assert disk.relieved > 0
    os.rename(f"{disk.parent}.away", disk.parent)
    assert list(read_snapshot(disk.place).segments) == ["old"]
    assert books.commit(segments={"newer": ENTRY})
    assert read_snapshot(disk.place) == books.snapshot
    assert books.snapshot == Snapshot(
        segments={"new": ENTRY, "newer": ENTRY},
        totals=fold(Totals(), ENTRY),
        state=STATE,
    )
    books.close()


def test_what_a_full_disk_still_says_is_read(tmp_path: Path) -> None:
    """To begin at zero there would send everything again."""
    disk = Disk(tmp_path / "home", is_full=False)
    made = Ledger(disk.place)
    made.commit(Snapshot(segments={"a": ENTRY}))
    made.close()

    class Unopened(Books):
        def _open(self) -> Ledger:
            raise LedgerError(disk.place, "full")

    books = Unopened(disk.place, relieve=disk.relieve, is_full=lambda: True)
    assert books.snapshot.segments == {"a": ENTRY}
    books.close()


def test_a_fault_that_is_no_full_disk_ends_the_flush(tmp_path: Path) -> None:
    """To go on would send everything twice, flush after flush."""
    disk = Disk(tmp_path / "home", is_full=False)
    books = disk.books()
    disk.fill()
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o500)
    disk.place = f"{disk.parent}/absent/ledger"
    with pytest.raises(LedgerError):
        disk.books()
    books._directory = disk.place
    with pytest.raises(LedgerError):
        books.commit(segments={"a": ENTRY})
    books.close()


def test_one_connection_is_opened_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush of hours commits thousands of times, and a program flushes for months."""
    disk = Disk(tmp_path / "home", is_full=False)
    before = len(os.listdir("/dev/fd"))
    opened: list[str] = []
    really = Books._open

    def counted(books: Books) -> Ledger:
        opened.append("")
        return really(books)

    monkeypatch.setattr(Books, "_open", counted)
    books = disk.books()
    for name in "abc":
        assert books.commit(segments={name: ENTRY})
    books.close()
    assert len(opened) == 1
    assert len(os.listdir("/dev/fd")) == before
    # Each commit that fails closes what it had opened, and the next one opens it anew.
    books = disk.books()
    disk.fill()
    for name in "def":
        assert not books.commit(segments={name: ENTRY})
        assert len(os.listdir("/dev/fd")) == before
    os.rename(f"{disk.parent}.away", disk.parent)
    assert books.commit()
    books.close()
    assert set(read_snapshot(disk.place).segments) == set("abcdef")
    assert len(os.listdir("/dev/fd")) == before


def test_without_a_word_a_commit_survives_a_power_loss(tmp_path: Path) -> None:
    """Who asks for less names it."""
    disk = Disk(tmp_path / "home", is_full=False)
    books = disk.books()
    lax = Books(disk.place, relieve=int, is_full=bool, power=False)
    for ledger, synchronous in (
        (books._ledger, 2),
        (open_ledger(disk.place), 2),
        (lax._ledger, 0),
    ):
        assert ledger is not None
        found = ledger._cache._sql("PRAGMA synchronous").fetchall()
        assert found == [(synchronous,)]
        ledger.close()


def test_no_text_of_an_error_stops_a_commit(books: Books) -> None:
    """An error about a path that is no UTF-8 carries lone surrogates into the books."""
    books.commit(state=DeliveryState(last_error="/tmp/\udcff\ud800" + "x" * 9000))
    text = books.snapshot.state.last_error
    assert text == "/tmp/\\udcff\\ud800" + "x" * 493


def test_ninety_days_are_kept_and_each_counts_on(disk: Disk, books: Books) -> None:
    """A row for each day: without a bound the ledger would grow for ever."""
    dates = [f"2026-{n // 28 + 1:02}-{n % 28 + 1:02}" for n in range(100)]
    for date in dates:
        for _ in range(2):
            books.count_day(date, delivered={"a": 1}, dead={"b": 2})
        books.commit()
    twice = Day(delivered={"a": 2}, dead={"b": 4})
    assert books.snapshot.days == dict.fromkeys(dates[-90:], twice)
    if books.is_saved:
        assert read_snapshot(disk.place).days == books.snapshot.days
