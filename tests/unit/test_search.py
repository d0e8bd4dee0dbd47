"""Where a refused batch is cut, and where probes come from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from telemetry.books.entries import Announced
from telemetry.delivery.search import middle, next_range, probe_event, probe_segment


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


def test_probes_come_from_every_segment_in_turn() -> None:
    """Eight bad segments must not hide the ninth, wherever it stands."""
    assert [probe_segment(turn, 5) for turn in range(7)] == [4, 0, 3, 1, 2, 4, 0]
    assert [probe_segment(turn, 4) for turn in range(5)] == [3, 0, 2, 1, 3]
    assert probe_segment(9, 1) == 0


def test_probes_of_a_segment_come_to_every_event() -> None:
    """However the bad ones lie in it, a good one is found."""
    places = [probe_event(turn, 1, 16) for turn in range(32)]
    assert places[:8] == [15, 7, 0, 11, 15, 3, 0, 13]
    assert set(places) == set(range(16))
    assert {probe_event(turn, 5, 1) for turn in range(50)} == {0}
    # With five segments each of them is visited every fifth time.
    assert [probe_event(turn, 5, 16) for turn in range(0, 20, 5)] == [15, 7, 0, 11]


@given(st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 10_000))
def test_a_probe_is_one_of_the_events(turn: int, segments: int, events: int) -> None:
    """The number is an index, whatever the ledger remembered."""
    assert 0 <= probe_event(turn, segments, events) < events
    assert 0 <= probe_segment(turn, segments) < segments


def test_what_borders_on_accepted_events_is_tried_first_then_the_largest() -> None:
    """Good events come in runs; and no small range holds back a large one."""
    small = Announced(start=10, end=20, count=1)
    large, late = (Announced(start=at, end=at + 90, count=9) for at in (30, 200))
    waiting = [("a", large), ("a", small), ("a", late), ("b", small)]
    bad = Announced(start=60, end=70, count=1, windows=1)
    more = [*waiting, ("b", bad)]

    def first(waiting: list[tuple[str, Announced]], good: set[tuple[str, int]]) -> str:
        name, known = next_range(waiting, good, single_first=False)
        return f"{name} {known.start}"

    assert first(more, set()) == "a 200"
    assert first(more[:2], set()) == "a 30"
    assert first(more, {("a", 30)}) == "a 30"
    assert first(more, {("a", 20)}) == "a 10"
    assert first(more, {("b", 10), ("c", 30)}) == "b 10"
    assert next_range(more, {("a", 30)}, single_first=True) == ("b", bad)
    assert next_range(waiting, {("a", 30)}, single_first=True) == ("a", large)
