"""The Pythons whose launch is measured: the oldest and the newest here, and this one.

Each is an environment of its own that has what the project depends on and nothing
else, as where a program was installed. `--install` makes them; without it the one
that runs the benchmark is measured, as it is.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple


OLDEST = (3, 10)
_NEEDED = ("msgspec", "diskcache", "urllib3", "tenacity")
# Where tools that install Pythons put them; others are on the path.
_PLACES = (
    "~/.pyenv/versions/*/bin/python",
    "~/.local/share/uv/python/cpython-*/bin/python3",
)
_VERSION = "import sys; print(*sys.version_info[:2])"


class Interpreter(NamedTuple):
    """A Python whose launch is measured."""

    version: str
    path: str


def installed(cache: str) -> list[Interpreter]:
    """Those that `install` made, the oldest first; else the one that runs this."""
    made = glob.glob(f"{cache}/launch-*/complete")
    numbers = sorted(
        tuple(map(int, re.findall(r"\d+", place.split("/launch-")[-1])))
        for place in made
    )
    names = [".".join(map(str, each)) for each in numbers]
    if not names:
        return [Interpreter("{}.{}".format(*sys.version_info), sys.executable)]
    return [Interpreter(name, f"{cache}/launch-{name}/bin/python") for name in names]


def install(cache: str) -> None:
    """An environment of each of the three is there. Raises OSError and its like."""
    here = _here()
    for version in sorted({min(here), max(here), sys.version_info[:2]}):
        place = f"{cache}/launch-{version[0]}.{version[1]}"
        if os.path.exists(f"{place}/complete"):
            continue
        print(f"making {place}", flush=True)
        subprocess.run([here[version], "-m", "venv", "--clear", place], check=True)
        subprocess.run(
            [f"{place}/bin/python", "-m", "pip", "install", "-qq", *_NEEDED],
            check=True,
            timeout=900,
        )
        with open(f"{place}/complete", "w", encoding="utf-8"):
            pass


def _here() -> dict[tuple[int, int], str]:
    """The Pythons of this machine that are new enough, by version."""
    paths = [
        found for place in _PLACES for found in glob.glob(os.path.expanduser(place))
    ]
    paths += [
        found
        for minor in range(OLDEST[1], 30)
        if (found := shutil.which(f"python3.{minor}")) is not None
    ]
    found: dict[tuple[int, int], str] = {}
    for path in paths:
        said = subprocess.run(
            [path, "-c", _VERSION], capture_output=True, text=True, check=False
        )
        # A shim of a version that is not chosen says nothing of itself.
        if said.returncode == 0:
            major, minor = map(int, said.stdout.split())
            if (major, minor) >= OLDEST:
                found.setdefault((major, minor), path)
    found[sys.version_info[:2]] = sys.executable
    return found
