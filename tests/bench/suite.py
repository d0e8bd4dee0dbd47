"""How long the tests take that README.md has everybody run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from tests.bench.bench import REPOSITORY, Bench
from tests.bench.measuring import run
from tests.bench.rows import Row, at_most, left_out, spread


WHAT = "README's test command"
BAR_S = 180.0


def rows(bench: Bench) -> Iterator[Row]:
    """One run of it, in an environment as it makes one; without the installation."""
    if bench.is_short:
        yield left_out(WHAT, "not in a short run")
        return
    with tempfile.TemporaryDirectory() as directory:
        python = f"{directory}/bin/python"
        install = [python, "-m", "pip", "install", "-q"]
        try:
            for command in (
                [sys.executable, "-m", "venv", directory],
                [*install, "--upgrade", "pip"],
                [*install, "-e", ".", "--group", "tests"],
            ):
                subprocess.run(command, cwd=REPOSITORY, check=True, timeout=300)
        except subprocess.SubprocessError:
            yield left_out(WHAT, "the dependency group `tests` cannot be installed")
            return
        taken = run(
            [python, "-m", "pytest", "-q", "-n", "4", "--dist", "worksteal"],
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
