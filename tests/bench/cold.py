"""What telemetry adds to a program's start: CPU of whole processes.

The launch that is measured is the usual one: the home is there, events wait, an
endpoint and its key are known, and the next flush is not due.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from telemetry.paths import Home
from tests.bench.bench import KEY, Bench, remove
from tests.bench.filling import fill, fill_dead
from tests.bench.measuring import in_turns, run
from tests.bench.pythons import Interpreter
from tests.bench.rows import Row, at_most, left_out, ratios, spread


RECORD = """
import sys, telemetry
telemetry.configure("bench", version="1.2.3", home=sys.argv[1], endpoint=sys.argv[2],
    api_key=sys.argv[3], spool_bytes_max=1 << 40)
telemetry.track_command("build", [])
"""
FIRST = """
import sys, time, telemetry
telemetry.configure("bench", version="1.2.3", home=sys.argv[1], endpoint=sys.argv[2],
    api_key=sys.argv[3], spool_bytes_max=1 << 40)
began = time.perf_counter()
telemetry.track_command("build", [])
print(time.perf_counter() - began)
"""
BASE = "import msgspec"
BARE = "pass"
OFF = {"TELEMETRY_ENABLED": "0"}
EVENTS_WAITING = 300_000
DEAD, SEGMENTS = 20_000, 10_000
_BAR_ON, _BAR_OFF = 1.12, 1.06
# `import msgspec` loads it where it is installed, which makes that a third dearer.
_EXTENSIONS = "typing_extensions"


def rows(bench: Bench) -> Iterator[Row]:
    """Cold start on and off with each Python, and with much that waits or is dead."""
    home = bench.new_home()
    bench.not_due(home, bench.closed_endpoint)
    for python in bench.pythons:
        bench.compile_for(python)
    taken = {python: _times(bench, home, python) for python in bench.pythons}
    for python, (on, _, base, _) in taken.items():
        yield at_most(
            f"cold start, Python {python.version}",
            "CPU: configure and record a command ÷ only import msgspec",
            ratios(on, base),
            _BAR_ON,
            note=f"{_ms(on)} beside {_ms(base)}",
        )
    for python, (_, off, _, bare) in taken.items():
        yield at_most(
            f"cold start, telemetry off, Python {python.version}",
            "CPU: the same program, off by environment ÷ an empty one",
            ratios(off, bare),
            _BAR_OFF,
            note=f"{_ms(off)} beside {_ms(bare)}",
        )
    yield from _instructions(bench, home)
    remove(home)
    yield _many_events(bench)
    yield _much_beside(bench)


def _times(bench: Bench, home: Home, python: Interpreter) -> list[list[float]]:
    """Seconds of processor: on, off, only msgspec, and an empty program."""

    def cpu_s(source: str, **variables: str) -> float:
        arguments = (home.root, bench.closed_endpoint, KEY)
        return bench.python(
            source, *arguments, variables=variables, python=python
        ).cpu_s

    return in_turns(
        bench.pick(40, 6),
        lambda: cpu_s(RECORD),
        lambda: cpu_s(RECORD, **OFF),
        lambda: cpu_s(BASE),
        lambda: cpu_s(BARE),
    )


def _many_events(bench: Bench) -> Row:
    """A launch beside what has not been delivered yet."""
    none = bench.new_home()
    events = bench.pick(EVENTS_WAITING, EVENTS_WAITING // 5)
    many = bench.filled_home(events)
    for each in (none, many):
        bench.not_due(each, bench.closed_endpoint)

    def record(home: Home) -> float:
        return bench.python(RECORD, home.root, bench.closed_endpoint, KEY).cpu_s

    with_many, with_none = in_turns(
        bench.pick(40, 8), lambda: record(many), lambda: record(none)
    )
    remove(many)
    remove(none)
    return at_most(
        f"cold start with {events:,} events waiting",
        "CPU: recording a command ÷ with none waiting",
        ratios(with_many, with_none),
        1.05,
        note=f"{_ms(with_many)} beside {_ms(with_none)}",
    )


def _much_beside(bench: Bench) -> Row:
    """The first `track()` beside more files than a launch should have to look at."""
    none, much = bench.new_home(), bench.new_home()
    fill(much, SEGMENTS, segment_bytes=1)
    fill_dead(much, DEAD)
    # It was not made within the last seconds.
    os.utime(much.spool, (time.time() - 3600, time.time() - 3600))
    for each in (none, much):
        bench.not_due(each, bench.closed_endpoint)

    def first_s(home: Home) -> float:
        arguments = (home.root, bench.closed_endpoint, KEY)
        return float(bench.python(FIRST, *arguments).output)

    with_much, with_none = in_turns(
        bench.pick(30, 4), lambda: first_s(much), lambda: first_s(none)
    )
    remove(much)
    remove(none)
    return at_most(
        f"first `track()`, {DEAD:,} dead letters, {SEGMENTS:,} segments",
        "wall time of that call in a launch ÷ with none",
        ratios(with_much, with_none),
        1.1,
        note=f"{_ms(with_much)} beside {_ms(with_none)}",
    )


def _instructions(bench: Bench, home: Home) -> Iterator[Row]:
    """The same in instructions, which hardly differ from run to run."""
    if not shutil.which("valgrind"):
        yield left_out("cold start in instructions", "valgrind is not installed")
        return
    arguments = (home.root, bench.closed_endpoint, KEY)
    counted = [
        (python, beside, path)
        for python in bench.pythons
        for beside, path in _with_and_without(bench, python)
    ]
    programs: list[tuple[str, dict[str, str]]] = [
        (RECORD, {}),
        (RECORD, OFF),
        (BASE, {}),
        (BARE, {}),
    ]
    # A count is the same however many run beside it.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = [
            [
                pool.submit(
                    _count, bench, python, path, source, *arguments, **variables
                )
                for source, variables in programs
            ]
            for python, _, path in counted
        ]
        told = [[each.result() for each in four] for four in counts]
    for side, ours, theirs, bar in (
        ("on", 0, 2, _BAR_ON),
        ("off", 1, 3, _BAR_OFF),
    ):
        for (python, beside, _), four in zip(counted, told, strict=True):
            yield at_most(
                f"cold start in instructions, {side}, Python {python.version}{beside}",
                f"callgrind: the same ratio, {side}",
                spread([four[ours] / four[theirs]]),
                bar,
                note=f"{four[ours] / 1e6:.1f} beside {four[theirs] / 1e6:.1f} million",
            )


def _with_and_without(bench: Bench, python: Interpreter) -> list[tuple[str, str]]:
    """How an interpreter is named without `typing_extensions` and with it, and its path.

    One that has it of itself is only measured so.
    """
    looked = f"import importlib.util as u; print(u.find_spec({_EXTENSIONS!r}) is None)"
    with_it = f" with {_EXTENSIONS}"
    if bench.python(looked, python=python).output.strip() != "True":
        return [(with_it, bench.code)]
    ours = importlib.util.find_spec(_EXTENSIONS)
    if ours is None or ours.origin is None:
        return [("", bench.code)]
    beside = f"{bench.directory}/beside"
    os.makedirs(beside, exist_ok=True)
    shutil.copy(ours.origin, beside)
    return [("", bench.code), (with_it, f"{beside}{os.pathsep}{bench.code}")]


def _count(
    bench: Bench,
    python: Interpreter,
    path: str,
    source: str,
    *arguments: str,
    **variables: str,
) -> int:
    """The instructions of a Python that runs `source`, the second time."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    with tempfile.NamedTemporaryFile(dir=bench.directory) as log:
        for prefix in ([], [*valgrind, f"--log-file={log.name}"]):
            run(
                [*prefix, python.path, "-c", source, *arguments],
                environment=bench.environment(
                    PYTHONPATH=path, PYTHONHASHSEED="0", **variables
                ),
                directory=bench.directory,
            )
        found = re.search(rb"Collected : (\d+)", log.read())
    assert found is not None, "callgrind counted nothing"
    return int(found[1])


def _ms(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1000:.1f} ms"
