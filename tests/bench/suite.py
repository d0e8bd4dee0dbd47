"""How long the tests take that README.md has everybody run."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator

from tests.bench.bench import REPOSITORY, Bench
from tests.bench.measuring import run
from tests.bench.rows import Row, at_most, left_out, spread


WHAT = "README's test command"
BAR_S = 180.0


def rows(bench: Bench) -> Iterator[Row]:
    """One run of it, without the installation before it."""
    if bench.is_short:
        yield left_out(WHAT, "not in a short run")
        return
    if not importlib.util.find_spec("xdist"):
        yield left_out(WHAT, "the dependency group `tests` is not installed")
        return
    taken = run(
        [sys.executable, "-m", "pytest", "-q", "-n", "4", "--dist", "worksteal"],
        environment=dict(os.environ),
        directory=str(REPOSITORY),
        patience_s=900,
    )
    last = taken.output.strip().splitlines()[-1].partition(" in ")[0].strip("= ")
    yield at_most(
        WHAT,
        "wall time of `pytest -n 4 --dist worksteal`",
        spread([taken.wall_s]),
        BAR_S,
        unit=" s",
        note=last,
    )
