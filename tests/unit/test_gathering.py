"""Which small parts are posted together."""

from __future__ import annotations

from telemetry.delivery.gathering import SEGMENTS_MAX, Gathering
from telemetry.spool import frame
from telemetry.spool.frame import Record


def record(size: int) -> Record:
    text = frame.encode(0, b"x" * (size - 1))[1:]
    return Record(start=7, end=7 + len(text) + 1, seq=0, text=text)


def batches(
    parts: list[list[int]], *, events_max: int = 10, bytes_max: int = 100
) -> list[list[int]]:
    """Which of these parts, lists of sizes, go together: their numbers."""
    gathering: Gathering[int] = Gathering(events_max=events_max, bytes_max=bytes_max)
    found: list[list[int]] = []
    for number, sizes in enumerate(parts):
        found += gathering.add(number, [record(size) for size in sizes])
    return [*found, gathering.take()]


def test_small_parts_go_together_until_a_batch_is_half_full() -> None:
    """In their order; a part is never divided, and neither bound is passed."""
    one, half, most = [1], [1] * 5, [1] * 9
    assert batches([one, one, one]) == [[0, 1, 2]]
    assert batches([most, one, most]) == [[0], [1, 2], []]
    assert batches([half, one, one]) == [[0, 1], [2]]
    assert batches([one, most, one]) == [[0, 1], [2]]
    assert batches([half, most]) == [[0], [1], []]
    assert batches([[51], one]) == [[0], [1]]
    assert batches([[50], [50], one]) == [[0, 1], [2]]
    assert batches([[50], [51]]) == [[0], [1], []]
    assert batches([[200], one]) == [[0], [1]]
    assert batches([one] * (SEGMENTS_MAX + 2), events_max=500) == [
        list(range(SEGMENTS_MAX)),
        [SEGMENTS_MAX, SEGMENTS_MAX + 1],
    ]
