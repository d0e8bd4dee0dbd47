"""What telemetry adds to a program's start: CPU of whole processes.

The launch that is measured is the usual one: the home is there, events wait, an
endpoint and its key are known, and the next flush is not due.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator

from telemetry.paths import Home
from tests.bench.bench import KEY, Bench, remove
from tests.bench.filling import fill
from tests.bench.measuring import in_turns, run
from tests.bench.rows import Row, at_most, left_out, ratios, spread


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
_BAR_ON, _BAR_OFF = 1.12, 1.06
# `import msgspec` loads it where it is installed, which makes that a third dearer.
_EXTENSIONS = "typing_extensions"


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
        _BAR_ON,
        note=f"{_ms(on)} beside {_ms(base)}",
    )
    yield at_most(
        "cold start, telemetry off",
        "CPU: the same ÷ an empty program",
        ratios(off, bare),
        _BAR_OFF,
        note=f"{_ms(off)} beside {_ms(bare)}",
    )
    yield from _instructions(bench, home)
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


def _instructions(bench: Bench, home: Home) -> Iterator[Row]:
    """The same in instructions, which hardly differ from run to run."""
    what = "cold start in instructions"
    if not shutil.which("valgrind"):
        yield left_out(what, "valgrind is not installed")
        return
    hidden = f"{bench.directory}/hidden"
    os.makedirs(hidden)
    with open(f"{hidden}/{_EXTENSIONS}.py", "w", encoding="ascii") as file:
        file.write("raise ImportError")
    arguments = (home.root, bench.closed_endpoint, KEY)
    paths = {f", without {_EXTENSIONS}": f"{hidden}{os.pathsep}{bench.code}"}
    if importlib.util.find_spec(_EXTENSIONS):
        paths[f", with {_EXTENSIONS}"] = bench.code
    for which, path in paths.items():
        on = _count(bench, path, RECORD, *arguments)
        off = _count(bench, path, RECORD, *arguments, **OFF)
        base, bare = _count(bench, path, BASE), _count(bench, path, BARE)
        for side, ours, theirs, bar in (
            ("", on, base, _BAR_ON),
            (", off", off, bare, _BAR_OFF),
        ):
            yield at_most(
                f"{what}{side}{which}",
                "callgrind: the same ratio",
                spread([ours / theirs]),
                bar,
                note=f"{ours / 1e6:.1f} beside {theirs / 1e6:.1f} million",
            )


def _count(
    bench: Bench, path: str, source: str, *arguments: str, **variables: str
) -> int:
    """The instructions of a Python that runs `source`, the second time."""
    log = f"{bench.directory}/callgrind.log"
    valgrind = ["valgrind", "--tool=callgrind", f"--log-file={log}"]
    valgrind.append("--callgrind-out-file=/dev/null")
    for prefix in ([], valgrind):
        run(
            [*prefix, sys.executable, "-c", source, *arguments],
            environment=bench.environment(PYTHONPATH=path, **variables),
            directory=bench.directory,
        )
    with open(log, encoding="utf-8") as file:
        found = re.search(r"Collected : (\d+)", file.read())
    assert found is not None, "callgrind counted nothing"
    return int(found[1])


def _ms(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1000:.1f} ms"
