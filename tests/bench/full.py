"""A spool at its bound of 64 MiB beside an empty one: opening, recording, refusing.

The full home has as many segments as the bound takes. For opening and recording
a little room is left below it; for refusing there is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetry.config import MIB
from telemetry.paths import Home
from tests.bench.bench import Bench, remove
from tests.bench.event import client_of, tool_event
from tests.bench.filling import fill_bytes
from tests.bench.measuring import in_turns, timed
from tests.bench.rows import Row, at_most, ratios, spread


BOUND_BYTES = 64 * MIB
# What "no slower" means where two equal things differ by a few percent.
_SLACK = 1.05
_CHUNK = 40


def rows(bench: Bench) -> Iterator[Row]:
    """What a full spool costs that an empty one does not."""
    rounds = bench.pick(100, 20)
    full, empty = bench.new_home(), bench.new_home()
    kept = fill_bytes(full, BOUND_BYTES)
    # Each client leaves a few events behind; there is room for those of all rounds.
    roomy = kept + 32 * MIB

    opened_full, opened_empty = in_turns(
        rounds, lambda: _open(full, roomy), lambda: _open(empty, roomy)
    )
    yield at_most(
        "full to empty: opening",
        "a client's first event, 64 MiB waiting ÷ none",
        ratios(opened_full, opened_empty),
        _SLACK,
        note=f"{_us(opened_full)} beside {_us(opened_empty)}",
    )
    with (
        client_of(full, spool_bytes_max=roomy) as in_full,
        client_of(empty, spool_bytes_max=roomy) as in_empty,
        client_of(full, spool_bytes_max=kept, strict=False) as refusing,
    ):
        event = tool_event(7)
        assert in_full.track(event)
        assert in_empty.track(event)
        assert not refusing.track(event)
        recorded, alike, refused = in_turns(
            10 * rounds,
            lambda: timed(_CHUNK, lambda: in_full.track(event)) / _CHUNK,
            lambda: timed(_CHUNK, lambda: in_empty.track(event)) / _CHUNK,
            lambda: timed(_CHUNK, lambda: refusing.track(event)) / _CHUNK,
        )
    yield at_most(
        "full to empty: recording",
        "an event, 64 MiB waiting ÷ none",
        ratios(recorded, alike),
        _SLACK,
        note=f"{_us(recorded)} beside {_us(alike)}",
    )
    yield at_most(
        "full to empty: refusing",
        "an event that is refused ÷ one that an empty spool takes",
        ratios(refused, alike),
        _SLACK,
        note=f"{_us(refused)} beside {_us(alike)}",
    )
    remove(full)
    remove(empty)


def _open(home: Home, bound_bytes: int) -> float:
    with client_of(home, spool_bytes_max=bound_bytes) as client:
        event = tool_event(7)
        return timed(1, lambda: client.track(event))


def _us(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1e6:.0f} µs"
