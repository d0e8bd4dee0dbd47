"""What draining holds in memory, however much waits: the peak of whole processes."""

from __future__ import annotations

from collections.abc import Iterator

from telemetry.config import MIB
from tests.bench.bench import Bench, remove
from tests.bench.drain import FLUSH, flushed
from tests.bench.measuring import in_turns
from tests.bench.rows import Row, at_most, spread
from tests.bench.sink import Sink


# Loads what a flush that drained has loaded, and nothing else.
IMPORTS = """
import sys
for name in sys.argv[1].split():
    __import__(name)
"""
LOADED = '\nprint(*sorted(n for n in sys.modules if n != "__main__"))\n'
# Two peaks that are called the same: an allocator's arena is 1 MiB.
SAME_MIB = 2


def rows(bench: Bench) -> Iterator[Row]:
    """The peak beyond what imports take, of a small spool and of a large one."""
    few, many = 10_000, bench.pick(1_000_000, 50_000)
    with Sink() as sink:

        def drained(events: int, source: str = FLUSH) -> tuple[float, str]:
            home = bench.filled_home(events)
            taken = flushed(bench, home, sink, source)
            remove(home)
            return taken.memory_bytes / MIB, taken.output

        modules = drained(1_000, FLUSH + LOADED)[1].partition("\n")[2]
        imports, small, large = in_turns(
            bench.pick(3, 1),
            lambda: bench.python(IMPORTS, modules).memory_bytes / MIB,
            lambda: drained(few)[0],
            lambda: drained(many)[0],
        )
    for events, peak in ((few, small), (many, large)):
        yield at_most(
            f"drain, memory, {events:,} events",
            "peak less that of a process that only imports the same",
            spread([a - b for a, b in zip(peak, imports, strict=True)]),
            24,
            unit=" MB",
            note=f"{spread(peak).median:.1f} MB in all",
        )
    yield at_most(
        "drain, memory, large beside small",
        f"peak with {many:,} events less that with {few:,}",
        spread([a - b for a, b in zip(large, small, strict=True)]),
        SAME_MIB,
        unit=" MB",
    )
