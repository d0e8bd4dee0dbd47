"""What telemetry adds to a program's start: CPU of whole processes.

The launch that is measured is the usual one: the home is there, events wait, an
endpoint and its key are known, and the next flush is not due.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetry.paths import Home
from tests.bench.bench import KEY, Bench, remove
from tests.bench.filling import fill
from tests.bench.measuring import in_turns
from tests.bench.rows import Row, at_most, ratios, spread


RECORD = """
import sys, telemetry
telemetry.configure("bench", version="1.2.3", home=sys.argv[1], endpoint=sys.argv[2],
    api_key=sys.argv[3], spool_bytes_max=1 << 40)
telemetry.track_command("build", [])
"""
BASE = "import msgspec"
BARE = "pass"
OFF = {"TELEMETRY_ENABLED": "0"}
EVENTS_WAITING = 300_000


def rows(bench: Bench) -> Iterator[Row]:
    """Cold start on, off, and with many events waiting."""
    rounds = bench.pick(60, 8)
    endpoint = bench.closed_endpoint

    def record(home: Home, **variables: str) -> float:
        arguments = (home.root, endpoint, KEY)
        return bench.python(RECORD, *arguments, variables=variables).cpu_s

    home, full = bench.new_home(), bench.new_home()
    for each in (home, full):
        bench.not_due(each, endpoint)
    on, off, base, bare = in_turns(
        rounds,
        lambda: record(home),
        lambda: record(home, **OFF),
        lambda: bench.python(BASE).cpu_s,
        lambda: bench.python(BARE).cpu_s,
    )
    yield at_most(
        "cold start",
        "CPU: configure and record a command ÷ only import msgspec",
        ratios(on, base),
        1.20,
        note=f"{_ms(on)} beside {_ms(base)}",
    )
    yield at_most(
        "cold start, telemetry off",
        "CPU: the same ÷ an empty program",
        ratios(off, bare),
        1.20,
        note=f"{_ms(off)} beside {_ms(bare)}",
    )
    events = bench.pick(EVENTS_WAITING, EVENTS_WAITING // 5)
    fill(full, events)
    with_many, with_none = in_turns(rounds, lambda: record(full), lambda: record(home))
    yield at_most(
        f"cold start with {events:,} events waiting",
        "CPU: recording a command ÷ with none waiting",
        ratios(with_many, with_none),
        1.05,
        note=f"{_ms(with_many)} beside {_ms(with_none)}",
    )
    remove(full)
    remove(home)


def _ms(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1000:.1f} ms"
