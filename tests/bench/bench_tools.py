"""What the inspecting tools take on a spool of a million events. Asserts nothing.

    python tests/bench/bench_tools.py [--events 1000000] [--repeat 7] [--home DIR]

Each figure is that of a whole process, start and imports included: the median of
the repetitions, and the quickest. Memory is the largest resident size. The spool
is in the page cache, as it is after it was written.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from telemetry.paths import Home
from telemetry.pipeline import prepare
from telemetry.spool.frame import encode


SEGMENT_BYTES = 4 * 1024 * 1024
BEGAN_MS = 1_790_000_000_000
# What a tool call looks like on disk; 400 bytes with its record.
EVENT = (
    '{"event":"tool","event_timestamp":%d,"source":"frobnicate","properties":{'
    '"action":"call","agent_name":"root-agent","duration_ms":%d,'
    '"event_id":"01930000-0000-7000-8000-%012x","is_success":true,'
    '"os":"linux","os_language":"en_US.UTF-8",'
    '"session_id":"5d2d8b0e-0a31-4c0e-9e51-0b6d3c1b7a10",'
    '"tool_name":"read_file_%d",'
    '"user_uuid":"8f14e45f-ceea-467f-a8d6-0f6f5b4f1c2d","version":"1.2.3"}}'
)


class Taken(NamedTuple):
    """One run: seconds to its first line and to its end, and its memory."""

    first_s: float
    all_s: float
    memory_bytes: int


def fill(home: Home, events: int) -> None:
    """A spool of `events` tool calls, in segments as a writer would leave them."""
    prepare(home)
    number = 0
    while number < events:
        path = home.segment(f"{number:020d}-00000000.v1.jseq")
        with open(path, "wb", buffering=1 << 20) as segment:
            size = seq = 0
            while number < events and size < SEGMENT_BYTES:
                told = (BEGAN_MS + number, number % 977, number, number % 40)
                size += segment.write(encode(seq, (EVENT % told).encode()))
                number += 1
                seq += 1


def run(command: list[str]) -> Taken:
    """One tool in a process of its own; its output is read to the end."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "spool_tools", *command], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first_s = time.perf_counter() - began
        while process.stdout.read(1 << 20):
            pass
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    all_s = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    return Taken(first_s, all_s, usage.ru_maxrss * unit)


@contextlib.contextmanager
def spool(directory: str | None, events: int) -> Iterator[Home]:
    """A filled home; one that was given is kept, and used again."""
    with tempfile.TemporaryDirectory(prefix="bench-tools-") as private:
        home = Home(os.path.abspath(directory or f"{private}/home"))
        if not os.path.isdir(home.spool):
            fill(home, events)
        yield home


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--home")
    args = parser.parse_args()
    with spool(args.home, args.events) as home:
        size = sum(each.stat().st_size for each in Path(home.spool).iterdir())
        load = os.getloadavg()[0]
        print(f"{args.events:,} events, {size / 1e6:,.0f} MB; load {load:.1f}")
        print(f"{'':28}{'median':>12}{'best':>12}{'memory':>12}")
        where = ["--home", home.root]
        seconds = "{:.3f} s".format
        for title, command, of, shown in (
            ("status", ["status", *where], "all_s", seconds),
            ("dump: first line", ["dump", *where, "--limit", "1"], "first_s", seconds),
            ("dump: all", ["dump", *where], "all_s", seconds),
            ("dump --since: all", ["dump", *where, "--since", "2h"], "all_s", seconds),
            ("dump --as-sent: all", ["dump", *where, "--as-sent"], "all_s", seconds),
            ("verify", ["verify", *where], "all_s", seconds),
            ("verify, events/s", ["verify", *where], "all_s", _rate(args.events)),
        ):
            taken = [run(command) for _ in range(args.repeat)]
            figures = [getattr(each, of) for each in taken]
            memory = max(each.memory_bytes for each in taken)
            print(
                f"{title:28}{shown(statistics.median(figures)):>12}"
                f"{shown(min(figures)):>12}{memory / 1e6:>9.0f} MB"
            )


def _rate(events: int) -> Callable[[float], str]:
    return lambda seconds: f"{events / seconds:,.0f}"


if __name__ == "__main__":
    main()
