"""Where a refused batch is cut, and where probes come from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from telemetry.delivery.search import middle, probe_event, probe_segment


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


def test_probes_come_from_every_segment_in_turn() -> None:
    """Eight bad segments must not hide the ninth."""
    assert [probe_segment(turn, 3) for turn in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_probes_of_a_segment_come_to_every_event() -> None:
    """However the bad ones lie in it, a good one is found."""
    places = [probe_event(turn, 1, 16) for turn in range(32)]
    assert places[:8] == [15, 7, 15, 11, 15, 3, 15, 13]
    assert set(places) == set(range(16))
    assert {probe_event(turn, 5, 1) for turn in range(50)} == {0}
    # With five segments each of them is visited every fifth time.
    assert [probe_event(turn, 5, 16) for turn in range(0, 20, 5)] == [15, 7, 15, 11]


@given(st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 10_000))
def test_a_probe_is_one_of_the_events(turn: int, segments: int, events: int) -> None:
    """The number is an index, whatever the ledger remembered."""
    assert 0 <= probe_event(turn, segments, events) < events
    assert 0 <= probe_segment(turn, segments) < segments
