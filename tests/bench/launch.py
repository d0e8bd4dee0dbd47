"""What it costs the host to start a detached flusher: wall time of its process."""

from __future__ import annotations

import os
from collections.abc import Iterator

from telemetry.delivery.schedule import flush_lock
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.bench.bench import KEY, Bench, remove, wait_until
from tests.bench.cold import RECORD
from tests.bench.filling import fill
from tests.bench.measuring import in_turns
from tests.bench.rows import Row, at_most, spread
from tests.bench.sink import Sink


def rows(bench: Bench) -> Iterator[Row]:
    """A launch that starts a flusher beside one that does not."""
    home = bench.new_home()
    with Sink() as sink:

        def launch(*, starts: bool) -> float:
            if not segment_names(home):
                fill(home, 1)
            (bench.due if starts else bench.not_due)(home, sink.endpoint)
            wall_s = bench.python(RECORD, home.root, sink.endpoint, KEY).wall_s
            wait_until(lambda: _nobody_flushes(home))
            # It was started, and it did its work; or neither.
            assert (sink.received().requests > 0) is starts, "started a flusher"
            return wall_s * 1000

        starting, other = in_turns(
            bench.pick(40, 6),
            lambda: launch(starts=True),
            lambda: launch(starts=False),
        )
    yield at_most(
        "launch that starts a flusher",
        "wall time over that of a launch that does not",
        spread([a - b for a, b in zip(starting, other, strict=True)]),
        3,
        unit=" ms",
        note=f"{spread(starting).median:.1f} ms beside {spread(other).median:.1f} ms",
    )
    remove(home)


def _nobody_flushes(home: Home) -> bool:
    lock = flush_lock(home)
    if lock is not None:
        os.close(lock)
    return lock is not None
