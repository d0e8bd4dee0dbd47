"""What the inspecting tools take on a spool of a million events.

Each figure is that of a whole process, start and imports included. The spool is
in the page cache, as it is after it was written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from telemetry.paths import Home
from tests.bench.bench import Bench, remove
from tests.bench.measuring import ChildError
from tests.bench.rows import Row, at_least, at_most, spread


ANSWER_S = 0.3
VERIFY_A_SECOND = 300_000
DUMP_A_SECOND = 200_000
MEMORY_MB = 60


class Seen(NamedTuple):
    """One tool: seconds to its first line and to its end, and its largest size."""

    first_s: float
    all_s: float
    memory_mb: float


def rows(bench: Bench) -> Iterator[Row]:
    """How soon `status` and `dump` answer, how fast `dump` and `verify` read."""
    events, times = bench.pick(1_000_000, 50_000), bench.pick(5, 2)
    home = bench.filled_home(events)
    status, first, dump, verify = (
        [_seen(bench, home, *command) for _ in range(times)]
        for command in (
            ("status",),
            ("dump", "--limit", "1"),
            ("dump",),
            ("verify",),
        )
    )
    remove(home)
    many = f"{events:,} events"
    yield at_most(
        f"status, {many}",
        "wall time of the command",
        spread([each.all_s for each in status]),
        ANSWER_S,
        unit=" s",
    )
    yield at_most(
        f"dump, {many}: first line",
        "wall time until it is there",
        spread([each.first_s for each in first]),
        ANSWER_S,
        unit=" s",
    )
    for name, seen, bar in (
        ("verify", verify, VERIFY_A_SECOND),
        ("dump", dump, DUMP_A_SECOND),
    ):
        rates = spread([events / each.all_s for each in seen])
        yield at_least(f"{name}, {many}", "events/s of the command", rates, bar)
    peaks = [each.memory_mb for each in (*status, *first, *dump, *verify)]
    yield at_most(
        f"status, dump, verify, {many}",
        "largest resident size of any",
        spread([max(peaks)]),
        MEMORY_MB,
        unit=" MB",
    )


def _seen(bench: Bench, home: Home, *command: str) -> Seen:
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "spool_tools", *command, "--home", home.root],
        env=bench.environment(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first_s = time.perf_counter() - began
        while process.stdout.read(1 << 20):
            pass
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    all_s = time.perf_counter() - began
    if process.returncode:
        raise ChildError(f"{command[0]} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Seen(first_s, all_s, usage.ru_maxrss * unit / 1e6)
