"""A spool at its bound of 64 MiB beside an empty one: opening, recording, refusing.

The full home has as many segments as the bound takes. For opening and recording
a little room is left below it; for refusing there is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetry.config import MIB
from telemetry.paths import Home
from tests.bench.bench import KEY, Bench, remove
from tests.bench.cold import RECORD
from tests.bench.event import client_of, tool_event
from tests.bench.filling import fill_bytes
from tests.bench.measuring import in_turns, timed
from tests.bench.rows import Row, at_most, in_blocks, ratios, spread


BOUND_BYTES = 64 * MIB
# What "no slower" means where two equal things differ by a few percent.
_SLACK = 1.05
_CHUNK = 40


def rows(bench: Bench) -> Iterator[Row]:
    """What a full spool costs that an empty one does not."""
    rounds = bench.pick(1000, 200)
    full, empty = bench.new_home(), bench.new_home()
    kept = fill_bytes(full, BOUND_BYTES)
    # Each client leaves a few events behind; there is room for those of all rounds.
    roomy = kept + 32 * MIB

    yield _opening(bench, full, empty, roomy)
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
            rounds,
            lambda: timed(_CHUNK, lambda: in_full.track(event)) / _CHUNK,
            lambda: timed(_CHUNK, lambda: in_empty.track(event)) / _CHUNK,
            lambda: timed(_CHUNK, lambda: refusing.track(event)) / _CHUNK,
        )
    yield at_most(
        "full to empty: recording",
        "an event, 64 MiB waiting ÷ none",
        ratios(in_blocks(recorded), in_blocks(alike)),
        _SLACK,
        note=f"{_us(recorded)} beside {_us(alike)}",
    )
    yield at_most(
        "full to empty: refusing",
        "an event that is refused ÷ one that an empty spool takes",
        ratios(in_blocks(refused), in_blocks(alike)),
        1.1,
        note=f"{_us(refused)} beside {_us(alike)}",
    )
    remove(full)
    remove(empty)


def _opening(bench: Bench, full: Home, empty: Home, bound_bytes: int) -> Row:
    """A spool is opened once a launch, so a launch is what it is held against."""
    endpoint = bench.closed_endpoint
    for home in (full, empty):
        bench.not_due(home, endpoint)

    def launch(home: Home) -> float:
        return bench.python(RECORD, home.root, endpoint, KEY).cpu_s

    def first_event(home: Home) -> float:
        with client_of(home, spool_bytes_max=bound_bytes) as client:
            return timed(1, lambda: client.track(tool_event(7)))

    launch_full, launch_empty = in_turns(
        bench.pick(40, 8), lambda: launch(full), lambda: launch(empty)
    )
    first_full, first_empty = in_turns(
        bench.pick(500, 100), lambda: first_event(full), lambda: first_event(empty)
    )
    return at_most(
        "full to empty: opening",
        "CPU of a launch, 64 MiB waiting ÷ none",
        ratios(launch_full, launch_empty),
        _SLACK,
        note=f"a client's first event: {_us(first_full)} beside {_us(first_empty)}",
    )


def _us(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1e6:.0f} µs"
