"""Eight processes that record into one home at once, beside one process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bench.bench import Bench, remove
from tests.bench.filling import EVENT_BYTES
from tests.bench.measuring import ChildError, in_turns
from tests.bench.rows import Row, at_least, ratios, spread


PROCESSES = 8
# The clients are open before the start is given: imports are another row.
RECORDER = """
import sys, telemetry
client = telemetry.Client(telemetry.Config(app="bench", home=sys.argv[1],
    flush="manual", spool_bytes_max=1 << 40, strict=True))
events = [telemetry.ToolEvent(action="call", tool_name=f"read_file_{n % 40}",
    session_id="5d2d8b0e-0a31-4c0e-9e51-0b6d3c1b7a10", agent_name="root-agent",
    duration_ms=n, success=True) for n in range(int(sys.argv[2]))]
client.track(events[0])
print("ready", flush=True)
sys.stdin.readline()
for event in events:
    client.track(event)
print("done", flush=True)
sys.stdin.readline()
"""


def rows(bench: Bench) -> Iterator[Row]:
    """Events a second of eight processes and of one."""
    events = bench.pick(20_000, 3_000)
    eight, one = in_turns(
        bench.pick(9, 3),
        lambda: _events_a_second(bench, PROCESSES, events),
        lambda: _events_a_second(bench, 1, 2 * events),
    )
    cores = os.cpu_count() or 1
    row = at_least(
        "eight processes at once",
        f"events/s ÷ those of one process, on {cores} cores",
        ratios(eight, one),
        1.5,
        note=f"{spread(eight).median:,.0f} events/s beside {spread(one).median:,.0f}",
    )
    # The bar is that of two cores; one core cannot run two processes at once.
    yield row if cores > 1 else row._replace(met=None)


def _events_a_second(bench: Bench, processes: int, events: int) -> float:
    home = bench.new_home()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, home.root, str(events)],
            env=bench.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(processes)
    ]
    try:
        for child in children:
            _hear(child, b"ready\n")
        began = time.perf_counter()
        for child in children:
            _tell(child)
        for child in children:
            _hear(child, b"done\n")
        seconds = time.perf_counter() - began
        for child in children:
            _tell(child)
    finally:
        for child in children:
            child.communicate()
    written = sum(each.stat().st_size for each in os.scandir(home.spool))
    assert written > processes * events * EVENT_BYTES * 0.8, "an event is missing"
    remove(home)
    return processes * events / seconds


def _hear(child: subprocess.Popen[bytes], word: bytes) -> None:
    assert child.stdout is not None
    if child.stdout.readline() != word:
        raise ChildError("a recorder ended early")


def _tell(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
