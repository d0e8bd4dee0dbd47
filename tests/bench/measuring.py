"""Runs what is measured: children one at a time, sides in turns.

Rules: sides that are compared take turns within one run, A B then B A, so that
whatever else the machine does meets both. The first round is thrown away, it
warms caches. A child that fails ends the row with what it said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat, starmap
from typing import NamedTuple


# No child of a benchmark runs longer, unless it is told so.
PATIENCE_S = 120.0


class ChildError(Exception):
    """A child ended with another status than 0. It says what it wrote."""


class Taken(NamedTuple):
    """What one child took. `cpu_s` is user and system, its own children's included."""

    wall_s: float
    cpu_s: float
    memory_bytes: int
    output: str


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
    given: str = "",
    patience_s: float = PATIENCE_S,
) -> Taken:
    """One child from its start to its end; `given` is its standard input."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complained:
        with tempfile.TemporaryFile() as heard:
            heard.write(given.encode())
            heard.seek(0)
            began = time.perf_counter()
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=directory,
                stdin=heard,
                stdout=told,
                stderr=complained,
            )
            timer = threading.Timer(patience_s, process.kill)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - began
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        complained.seek(0)
        if process.returncode:
            lines = complained.read().decode("utf-8", "replace").strip().splitlines()
            raise ChildError(
                f"status {process.returncode}: {lines[-1] if lines else 'said nothing'}"
            )
        told.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return Taken(
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            memory_bytes=usage.ru_maxrss * unit,
            output=told.read().decode(),
        )


def in_turns(
    rounds: int, *sides: Callable[[], float], warm: bool = True
) -> list[list[float]]:
    """What each side gave in each of `rounds` rounds.

    With `warm`, after one more that does not count.
    """
    taken: list[list[float]] = [[] for _ in sides]
    numbers = list(range(len(sides)))
    for round_number in range(-1 if warm else 0, rounds):
        for number in reversed(numbers) if round_number % 2 else numbers:
            figure = sides[number]()
            if round_number >= 0:
                taken[number].append(figure)
    return taken


def timed(count: int, step: Callable[[], object]) -> float:
    """Seconds for `count` steps, with as little around them as Python allows.

    Where other programs run beside, a stretch longer than a scheduler's slice of
    some milliseconds measures them, too: take short ones, and many.
    """
    steps = starmap(step, repeat((), count))
    began = time.perf_counter()
    for _ in steps:
        pass
    return time.perf_counter() - began
