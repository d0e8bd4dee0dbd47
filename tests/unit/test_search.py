"""Where a refused batch is cut, and where probes come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from telemetry.books.entries import Announced
from telemetry.delivery.search import (
    FEW,
    PARTS_DEEP,
    SINGLES_MAX,
    doubt,
    first_ranges,
    fitting,
    is_spent,
    middle,
    next_range,
    next_refused,
    probe_event,
    probe_segment,
)


def cuts_to(sizes: list[int], bad: int) -> int:
    """How many cuts it takes to have the event `bad` alone."""
    first, stop, cuts = 0, len(sizes), 0
    while stop - first > 1:
        cut = first + middle(sizes[first:stop])
        assert first < cut < stop
        first, stop = (first, cut) if bad < cut else (cut, stop)
        cuts += 1
    return cuts


@given(st.lists(st.integers(1, 300_000), min_size=2, max_size=300), st.data())
def test_no_event_takes_more_cuts_than_by_count(
    sizes: list[int], data: st.DataObject
) -> None:
    """One huge event among small ones must not make the search longer."""
    bad = data.draw(st.integers(0, len(sizes) - 1))
    assert cuts_to(sizes, bad) <= (len(sizes) - 1).bit_length()


def test_of_what_was_refused_the_oldest_segment_makes_room_first() -> None:
    """Ranges that may hold good events before events that are known to be bad."""

    def known(start: int, count: int = 1, **changes: int) -> Announced:
        return Announced(start=start, end=start + 9, count=count, **changes)

    # Each goes before all that follow it.
    order = [
        ("1", known(50, 2, tries=1)),
        ("1", known(60, 2)),
        ("1", known(70)),
        ("1", known(40, refusals=2)),
        ("1", known(10, refusals=1)),
        ("1", known(20, refusals=1)),
        ("1", known(0, windows=1)),
        ("2", known(0, 3)),
        ("2", known(30, refusals=4)),
        ("1", known(5, tries=1)),
        ("0", known(0, refusals=4, tries=2)),
    ]
    for first in range(len(order)):
        assert next_refused([*order[:first:-1], order[first]]) == order[first]


def test_a_batch_is_cut_by_bytes() -> None:
    """A server that takes only so many bytes is asked for half of them."""
    assert middle([1] * 8) == 4
    assert middle([7, 1, 1, 1, 1, 1, 1, 1]) == 4  # no side above four events
    assert middle([10, 10, 10, 30]) == 2  # nor here
    assert middle([5, 5]) == 1


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_the_cut_is_next_to_the_middle_byte(sizes: list[int]) -> None:
    """An event goes to the side on which its own middle lies, as far as counts allow."""
    before = [sum(sizes[:n]) for n in range(len(sizes))]
    left = [
        n
        for n, size in enumerate(sizes)
        if 2 * before[n] + size < before[-1] + sizes[-1]
    ]
    most = max(power for power in (1, 2, 4, 8, 16, 32) if power < len(sizes))
    least = len(sizes) - most
    assert middle(sizes) == sorted((least, len(left), most))[1]


def test_probes_come_from_every_segment() -> None:
    """Eight bad segments must not hide the ninth, wherever it stands."""
    assert [probe_segment(turn, 5) for turn in range(9)] == [4, 1, 3, 0, 4, 2, 4, 1, 4]
    for segments in range(1, 40):
        probes = {probe_segment(turn, segments) for turn in range(3 * segments)}
        assert probes == set(range(segments))


@pytest.mark.parametrize("every", range(1, 6))
def test_probes_do_not_keep_step_with_segments_that_are_added(every: int) -> None:
    """Each launch of a program that is refused adds one; another holds good events."""
    probes = {probe_segment(turn, 3 + turn // every) for turn in range(40)}
    assert len(probes) >= (3 + 39 // every) // 2


def test_probes_of_a_segment_come_to_every_event() -> None:
    """However the bad ones lie in it, a good one is found."""
    places = [probe_event(turn, 16) for turn in range(32)]
    assert places[:8] == [15, 7, 0, 11, 15, 3, 0, 13]
    assert set(places) == set(range(16))
    assert {probe_event(turn, 1) for turn in range(50)} == {0}


def test_probes_come_to_every_event_of_every_segment() -> None:
    """The segment says nothing about the place in it."""
    probes = {(probe_segment(turn, 7), probe_event(turn, 8)) for turn in range(1000)}
    assert len(probes) == 7 * 8


@given(st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 10_000))
def test_a_probe_is_one_of_the_events(turn: int, segments: int, events: int) -> None:
    """The number is an index, whatever the ledger remembered."""
    assert 0 <= probe_event(turn, events) < events
    assert 0 <= probe_segment(turn, segments) < segments


def test_what_borders_on_accepted_events_is_tried_first_then_the_largest() -> None:
    """Good events come in runs; and no small range holds back a large one."""
    small = Announced(start=10, end=20, count=1)
    large, late = (Announced(start=at, end=at + 90, count=9) for at in (30, 200))
    waiting = [("a", large), ("a", small), ("a", late), ("b", small)]
    bad = Announced(start=60, end=70, count=1, windows=1)
    more = [*waiting, ("b", bad)]

    def first(
        waiting: list[tuple[str, Announced]],
        good: set[tuple[str, int]],
        *,
        parts: int = 4,
        singles: int = 0,
        begun: tuple[int, ...] = (),
        single_first: bool = False,
        has_others: bool = True,
    ) -> str:
        ranges = [bad] * singles + [large] * (parts - singles)
        name, known = next_range(
            waiting,
            good,
            segments={"a": ranges, "b": ranges},
            begun=[("b", start) for start in begun],
            single_first=single_first,
            has_others=has_others,
        )
        return f"{name} {known.start}"

    assert first(more, set()) == "a 200"
    assert first(more[:2], set()) == "a 30"
    assert first(more, {("a", 30)}) == "a 30"
    assert first(more, {("a", 20)}) == "a 10"
    assert first(more, {("b", 10), ("c", 30)}) == "b 10"
    assert first(more, {("a", 30)}, single_first=True) == "b 60"
    assert first(waiting, {("a", 30)}, single_first=True) == "a 30"
    # With many parts the search goes down to an event, and then there is room again.
    assert first(more, set(), parts=PARTS_DEEP - 1) == "a 200"
    assert first(more, set(), parts=PARTS_DEEP) == "b 10"
    assert first(more, set(), parts=99, singles=SINGLES_MAX - 1) == "b 10"
    assert first(more, set(), parts=99, singles=SINGLES_MAX) == "b 60"
    # Events that failed alone: the oldest, so that new ones hold none of them back.
    old = replace(bad, start=20, end=30)
    assert first([("b", bad), ("b", old), ("a", bad)], set()) == "a 60"
    assert first([("b", bad), ("b", old)], set(), single_first=True) == "b 20"
    # What the flush began with: its failure counts.
    assert first([*more, ("b", old)], {("a", 30)}, begun=(60,)) == "b 60"
    # The last one is whose failure would count only if the flush had begun with it.
    spent = replace(bad, windows=4)
    less = ("a", replace(bad, windows=3))
    assert first([("b", spent), less], set(), single_first=True) == "a 60"
    assert first([("b", spent), less], {("b", 60)}) == "a 60"
    assert first([("b", spent), less], set(), begun=(60,)) == "b 60"
    assert (
        first([("b", bad), ("b", old)], set(), begun=(60,), single_first=True) == "b 60"
    )
    # One that failed alone waits for others, also where it borders on what was accepted.
    assert first([("b", bad), ("a", small)], {("b", 60)}) == "a 10"
    # A refused one may die before ranges of several: they may be accepted behind it.
    refused, pair = replace(spent, reason="400"), replace(large, count=2)
    assert first([("b", refused), ("a", pair)], set(), single_first=True) == "b 60"
    assert first([("b", refused), ("a", pair)], set()) == "a 30"
    both = [("b", refused), ("a", small)]
    assert first(both, set(), single_first=True) == "b 60"
    assert first(both, set(), single_first=True, has_others=False) == "a 10"
    other = replace(spent, reason="503")
    assert first([("b", other), ("a", pair)], set(), single_first=True) == "a 30"
    two = [("b", bad), ("b", replace(refused, start=20, end=30)), ("a", pair)]
    assert first(two, set(), begun=(60,), single_first=True) == "b 60"


def test_an_event_is_spent_after_four_failures_of_either_kind() -> None:
    """Flushes that tried it alone, and those that had nothing else to send."""
    event = Announced(start=0, end=1, count=1)
    for windows, refusals, is_last in ((4, 0, True), (2, 2, True), (3, 0, False)):
        known = replace(event, windows=windows, refusals=refusals)
        assert is_spent(known) is is_last


def test_a_flush_begins_with_events_that_would_be_dead_then_with_a_range() -> None:
    """And each has its turn, where a server takes one request of a flush."""

    def event(start: int, windows: int, tries: int = 0) -> tuple[str, Announced]:
        known = Announced(start=start, end=start + 1, count=1, windows=windows)
        return "a", replace(known, tries=tries)

    whole = "a", Announced(start=0, end=20, count=9, tries=5)
    small = "a", Announced(start=20, end=40, count=2)
    known, new, spent = event(50, 3), event(60, 0), [event(n, 4) for n in (70, 80, 90)]
    every = [small, whole, known, new, *spent]
    assert first_ranges(every, count_max=2) == spent[:2]
    assert first_ranges(every[:5], count_max=2) == spent[:1]
    assert first_ranges(every[:4], count_max=2) == [whole]
    assert first_ranges([known, new], count_max=2) == [new]
    assert first_ranges([known], count_max=2) == [known]
    assert first_ranges([], count_max=2) == []
    assert first_ranges([known, event(60, 0, tries=4)], count_max=2) == [known]
    tired = event(70, 4, tries=3)
    assert first_ranges([tired, event(80, 4, tries=2)], count_max=2)[0][1].start == 80
    assert first_ranges([tired, small], count_max=2) == [tired]
    assert first_ranges([event(70, 4, tries=4), small], count_max=2) == [small]
    pair = "a", replace(small[1], tries=5)
    assert first_ranges([event(60, 0, tries=1), pair], count_max=2) == [pair]
    late = event(60, 0, tries=3)
    assert first_ranges([late, event(50, 1)], count_max=2) == [late]


def test_a_probe_is_first_an_event_of_which_nothing_is_known() -> None:
    """What failed alone tells of itself, and not of the server."""
    event = Announced(start=0, end=9, count=1, reason="500")
    for unknown in (
        replace(event, reason=""),
        replace(event, count=2),
        replace(event, joined="a batch of others"),
        replace(event, count=2, windows=1),
    ):
        assert doubt(unknown) == 0
    assert doubt(event) == 1
    for field in "windows", "tries", "refusals":
        assert doubt(replace(event, **{field: 1})) == 2


def test_no_batch_is_larger_than_half_of_one_that_had_no_answer_in_time() -> None:
    """Or than what is left of it. A few events are no question of size."""

    def aside(count: int, reason: str, *, is_posted: bool = True) -> Announced:
        digest = "d" if is_posted else ""
        return Announced(start=0, end=count, count=count, reason=reason, digest=digest)

    assert fitting([]) is None
    assert fitting([aside(500, "503"), aside(500, "")]) is None
    assert fitting([aside(500, "timeout"), aside(300, "slow")]) == 150
    assert fitting([aside(500, "slow"), aside(130, "slow", is_posted=False)]) == 130
    assert fitting([aside(FEW, "timeout")]) is None
    assert fitting([aside(FEW + 1, "timeout")]) == FEW
    assert fitting([aside(11, "timeout")]) == 10
