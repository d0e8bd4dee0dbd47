"""The arithmetic of an entry: announced, settled, set aside, folded."""

from __future__ import annotations

import msgspec
import pytest

from telemetry.books.entries import (
    Announced,
    Day,
    DeliveryState,
    SegmentEntry,
    Totals,
    announce,
    fold,
    replace,
    set_aside,
    settle,
    settle_as_purged,
    settle_tail,
    tally,
)
from telemetry.spool import frame
from telemetry.spool.frame import Damage, Record


EMPTY = SegmentEntry(offset=0)


def records(*seqs: int, at: int = 0) -> list[Record | Damage]:
    """Records with these numbers, one behind the other from byte `at` on."""
    content = b"".join(frame.encode(seq, b'{"event":"tool"}') for seq in seqs)
    return frame.scan(content, at=at, answered=at).items


def total(entry: SegmentEntry) -> int:
    """What the right side of the equation says of an entry."""
    listed = sum(each.count for each in entry.announced)
    return listed + entry.delivered + entry.dead + entry.damaged + entry.purged


def test_what_is_announced_is_recorded_and_not_settled() -> None:
    """The offset moves on at once; the range says what is still owed."""
    items = records(0, 1, 2)
    entry = announce(EMPTY, items)
    assert (entry.offset, entry.seq) == (items[-1].end, 2)
    assert entry.announced == (Announced(start=0, end=entry.offset, count=3),)
    assert (entry.recorded, entry.delivered) == (3, 0)
    assert total(entry) == entry.recorded


def test_missing_numbers_are_damaged_records() -> None:
    """They were recorded, and are not there any more."""
    entry = announce(EMPTY, records(0, 1, 5))
    assert (entry.recorded, entry.damaged, entry.announced[0].count) == (6, 3, 3)
    assert total(entry) == entry.recorded


def test_a_number_that_comes_again_is_no_missing_one() -> None:
    """A copy of a record was put behind it: each of them is one record."""
    entry = announce(EMPTY, records(0, 1, 1, 0, 2))
    assert (entry.recorded, entry.damaged, entry.announced[0].count) == (6, 1, 5)
    assert announce(EMPTY, records(0, 2)).damaged == 1


def test_a_range_is_replaced_in_its_place() -> None:
    """The others stay, in the order of their offsets."""
    a, b, c, d = (Announced(start=n, end=n + 1, count=1) for n in range(4))
    entry = SegmentEntry(offset=4, announced=(a, b, c, d))
    first, second = (Announced(start=n, end=n + 1, count=9) for n in (7, 8))
    assert replace(entry, b, first, second).announced == (a, first, second, c, d)
    assert replace(entry, a).announced == (b, c, d)
    assert replace(entry, d).announced == (a, b, c)


def test_a_range_starts_with_the_damage_before_it() -> None:
    """What stood there is quarantined with it."""
    entry = announce(EMPTY, [Damage(0, 50), *records(3, at=50)])
    assert (entry.announced[0].start, entry.damaged, entry.recorded) == (0, 3, 4)


def test_ranges_settle_in_any_order() -> None:
    """One that failed does not hold back the one behind it."""
    first = records(0, 1)
    entry = announce(EMPTY, first)
    entry = announce(entry, records(2, 3, 4, at=first[-1].end))
    early, late = entry.announced
    entry = settle(entry, late, dead=1)
    assert (entry.announced, entry.delivered, entry.dead) == ((early,), 2, 1)
    damaged = settle(entry, early, damaged=2)
    assert (damaged.delivered, damaged.damaged) == (2, 2)
    assert total(damaged) == damaged.recorded
    entry = settle(entry, early)
    assert (entry.announced, entry.delivered) == ((), 4)
    assert total(entry) == entry.recorded == 5


def test_a_range_that_is_set_aside_has_the_reason_of_its_last_answer() -> None:
    """And of it alone. What it was tried for without an answer counts no more."""
    entry = announce(EMPTY, records(0, 1, 2))
    (whole,) = entry.announced
    entry = set_aside(entry, whole, "403")
    assert [(e.tries, e.reason) for e in entry.announced] == [(0, "403")]
    assert Announced(start=0, end=1, count=1).refusals == 0
    one = Announced(start=0, end=50, count=1, reason="403", tries=2, unanswered=3)
    rest = Announced(start=50, end=whole.end, count=2, reason="403")
    entry = replace(entry, whole, one, rest)
    entry = set_aside(entry, one, "reset")
    assert [(e.tries, e.reason) for e in entry.announced] == [
        (0, "reset"),
        (0, "403"),
    ]
    assert [each.unanswered for each in entry.announced] == [0, 0]


def test_retried_letters_are_not_recorded_anew() -> None:
    """They were, once: in the segment that they died in."""
    fresh = SegmentEntry(offset=0, retried=2)
    entry = announce(fresh, records(0))
    assert entry.recorded == 0
    entry = announce(entry, records(1, 2, 3, at=entry.offset))
    assert entry.recorded == 2  # 2 and 3 were added by a program that went on in it


@pytest.mark.parametrize("announced", [0, 1, 2, 3])
def test_a_fold_counts_what_is_settled_and_nothing_that_may_come_again(
    announced: int,
) -> None:
    """The file is gone, or is read from its beginning."""
    entry = announce(EMPTY, records(0, 1))
    entry = settle(entry, entry.announced[0])
    if announced:
        entry = announce(entry, records(*range(2, 2 + announced), at=entry.offset))
    folded = fold(Totals(recorded=10, delivered=10), entry)
    assert folded == Totals(recorded=12, delivered=12)
    # A number is never negative: a row with one would be taken for damage.
    odd = msgspec.structs.replace(entry, recorded=0, delivered=0)
    assert fold(Totals(), odd) == Totals()


@pytest.mark.parametrize("announced", [0, 1, 2])
def test_retried_letters_whose_segment_is_gone_are_damaged(announced: int) -> None:
    """They stay in `recorded`: without this the equation would never hold again."""
    entry = SegmentEntry(offset=0, retried=2)
    if announced:
        entry = announce(entry, records(*range(announced)))
    folded = fold(Totals(recorded=10, delivered=8), entry)
    assert folded == Totals(recorded=10, delivered=8, damaged=2)


def test_everything_announced_can_be_purged() -> None:
    """It was pending."""
    entry = announce(EMPTY, records(0, 1, 2))
    entry = settle_as_purged(entry)
    assert (entry.announced, entry.purged, total(entry)) == ((), 3, entry.recorded)


def test_a_tail_counts_once_however_often_it_is_settled() -> None:
    """What it held cannot be told, and it may have grown."""
    entry = announce(EMPTY, records(0))
    entry = settle_tail(entry, entry.offset + 7)
    for size in (8, 9):
        again = settle_tail(entry, entry.offset + size)
        assert (again.tail, again.recorded, again.damaged) == (size, 2, 1)
    shortest = settle_tail(announce(EMPTY, records(0)), entry.offset + 1)
    assert settle_tail(shortest, entry.offset + 2).recorded == 2
    behind = announce(again, records(1, at=again.offset))
    assert behind.tail == 0


def test_a_day_counts_twenty_names_and_the_rest_as_one() -> None:
    """A program that makes up names must not fill the ledger with them."""
    day = tally(Day(), {"a": 2, "b": 1}, {"a": 1})
    assert tally(day, {"a": 3}, {}) == Day(delivered={"a": 5, "b": 1}, dead={"a": 1})
    many = {f"name {n}": 1 for n in range(20)}
    day = tally(Day(), many, {"late": 1})
    assert day.delivered == many
    day = tally(day, {"late": 2, "name 3": 4, "later": 1}, {"later": 1})
    assert day.delivered == many | {"name 3": 5, "(other)": 3}
    assert day.dead == {"late": 1, "later": 1}


def test_an_entry_is_a_row_and_back() -> None:
    """The ranges above all: a retry needs their exact bytes."""
    known = Announced(
        start=0, end=99, count=2, digest="d" * 64, joined="a", form="ndjson/1"
    )
    entry = set_aside(
        replace(announce(EMPTY, records(0, 1)), known, known), known, "timeout"
    )
    row = msgspec.json.encode(entry)
    assert msgspec.json.decode(row, type=SegmentEntry) == entry


def test_what_a_row_does_not_say_is_zero_and_a_number_out_of_bounds_is_damage() -> None:
    """Rows of an earlier version lack fields; damage makes any number."""

    def decoded(row: str) -> SegmentEntry:
        return msgspec.json.decode(row, type=SegmentEntry)

    for kind in (SegmentEntry, Totals, DeliveryState):
        required = {"offset": 0} if kind is SegmentEntry else {}
        row = msgspec.to_builtins(msgspec.convert(required, kind))
        numbers = {name: each for name, each in row.items() if isinstance(each, int)}
        assert numbers == dict.fromkeys(numbers, 0) | (
            {"seq": -1} if kind is SegmentEntry else {}
        )
    most = 2**63 - 1
    assert decoded(f'{{"offset":{most}}}').offset == most
    assert decoded('{"offset":0,"seq":-1}').seq == -1
    for row in (
        f'{{"offset":{most + 1}}}',
        '{"offset":-1}',
        '{"offset":0,"seq":-2}',
        f'{{"offset":0,"seq":{most + 1}}}',
    ):
        with pytest.raises(msgspec.ValidationError):
            decoded(row)
