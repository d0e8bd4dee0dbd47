"""The books as values: what folds, what is replaced, and one contract for both ledgers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from telemetry.books.entries import (
    DeadMark,
    DeliveryState,
    Inflight,
    LedgerLike,
    MemoryLedger,
    SegmentEntry,
    Snapshot,
    Totals,
    carry_over,
    fold,
)
from telemetry.books.ledger import Ledger


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLIGHT = Inflight(start=10, end=90, count=4, key="k", digest="d" * 64, windows_5xx=2)
ENTRY = SegmentEntry(
    offset=10,
    seq=8,
    crc="e8ab4401",
    recorded=9,
    delivered=4,
    dead=2,
    damaged=1,
    purged=2,
    inflight=FLIGHT,
)
TOTALS = Totals(recorded=100, delivered=90, refused={"busy": 3}, refused_marks={"x": 1})
STATE = DeliveryState(failures=2, last_error="503", stopped="waiting", requests=7)


@pytest.fixture(params=["memory", "disk"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerLike]:
    made: LedgerLike
    made = MemoryLedger() if request.param == "memory" else Ledger(f"{tmp_path}/ledger")
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
    landed = msgspec.structs.replace(ENTRY, inflight=None)
    assert fold(TOTALS, ENTRY) == fold(TOTALS, landed)


def test_a_new_ledger_says_nothing(ledger: LedgerLike) -> None:
    """The flusher starts from zero without asking whether there was a ledger."""
    assert ledger.read() == Snapshot()


def test_a_commit_is_read_back_whole(ledger: LedgerLike) -> None:
    """Each field survives, the batch in flight above all: a retry needs its bytes."""
    ledger.commit(
        segments={"a": ENTRY},
        totals=TOTALS,
        state=STATE,
        dead_marks={"a-10": DeadMark(state="delivered")},
    )
    assert ledger.read() == Snapshot(
        segments={"a": ENTRY},
        totals=TOTALS,
        state=STATE,
        dead_marks={"a-10": DeadMark(state="delivered")},
    )


def test_none_removes_and_silence_keeps(ledger: LedgerLike) -> None:
    """Forgetting is always asked for by name."""
    marks = {"m": DeadMark(state="dropped"), "n": DeadMark(state="delivered")}
    ledger.commit(segments={"a": ENTRY, "b": ENTRY}, totals=TOTALS, dead_marks=marks)
    ledger.commit(segments={"a": None, "never": None}, dead_marks={"m": None})
    assert ledger.read() == Snapshot(
        segments={"b": ENTRY}, totals=TOTALS, dead_marks={"n": marks["n"]}
    )


def test_an_earlier_snapshot_stays_as_it_was(ledger: LedgerLike) -> None:
    """The flusher decides from a snapshot while it commits: it must not shift."""
    ledger.commit(segments={"a": ENTRY})
    before = ledger.read()
    ledger.commit(segments={"a": None, "b": ENTRY})
    assert list(before.segments) == ["a"]


def test_carrying_over_leaves_nothing_else_behind(ledger: LedgerLike) -> None:
    """After a full disk, what memory knows replaces the ledger, gone entries included."""
    ledger.commit(
        segments={"old": ENTRY}, dead_marks={"old-0": DeadMark(state="dropped")}
    )
    memory = MemoryLedger(ledger.read())
    memory.commit(segments={"old": None, "new": ENTRY}, totals=TOTALS, state=STATE)
    memory.commit(dead_marks={"old-0": None})
    carry_over(memory.read(), into=ledger)
    assert ledger.read() == memory.read()


def test_an_inflight_batch_says_no_negative_number() -> None:
    """A value out of bounds in a row is damage, not an offset to seek to."""
    row = msgspec.json.encode({"offset": -1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(row, type=SegmentEntry)
