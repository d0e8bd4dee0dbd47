"""What a test stands on: an environment, a home, the one client of the process.

Nothing of the machine that runs the tests is seen by what is tested: no LANG, no
TELEMETRY_*, no CI, no state directory of a real user.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

import telemetry
from telemetry import api
from telemetry.paths import Home, home_of
from telemetry.spool.frame import Record, scan
from telemetry.spool.reader import segment_names


REPOSITORY = Path(__file__).resolve().parents[2]
# What an interpreter needs to start at all.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
# No child of a test runs longer.
PATIENCE_S = 60.0


def bare_environment(home: Path, **variables: str) -> dict[str, str]:
    """An environment that says where the user lives, and nothing else."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), **variables}


@contextlib.contextmanager
def only_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Within, the environment of this process is exactly this one."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def fresh_process() -> Iterator[None]:
    """Within, nobody has asked for the client of this process yet."""
    before, api._process = api._process, api._Process()
    try:
        yield
    finally:
        made = api._process.client
        if made is not None:
            made.close()
        api._process = before


def run_python(
    source: str,
    *arguments: str,
    environment: Mapping[str, str],
    directory: Path | None = None,
    **options: int | str,
) -> subprocess.CompletedProcess[str]:
    """A Python of its own that runs `source`, able to import what is tested here."""
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        env={"PYTHONPATH": str(REPOSITORY), **environment},
        cwd=directory or REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )


def home_in(user_home: Path, app: str = "app") -> Home:
    """Where a program called `app` keeps its events, by the rules of this system."""
    return home_of(
        app, home=None, environment={"HOME": str(user_home)}, platform=sys.platform
    )


def spooled(home: Home | Path) -> list[dict[str, object]]:
    """The events that wait in a home, oldest segment first, decoded."""
    return [msgspec.json.decode(event) for event in spooled_bytes(home)]


def spooled_bytes(home: Home | Path) -> list[bytes]:
    """The events that wait in a home, byte for byte."""
    home = home if isinstance(home, Home) else Home(str(home))
    events = []
    for name in segment_names(home):
        content = Path(home.segment(name)).read_bytes()
        found = scan(content, at=0, answered=0)
        assert found.answered == len(content)
        events += [item.event for item in found.items if isinstance(item, Record)]
    return events


def quiet_config(home: Path, **fields: object) -> telemetry.Config:
    """A config that keeps everything in `home` and starts nothing by itself."""
    return telemetry.Config(
        **{"app": "app", "home": str(home), "flush": "manual", "scrub": False, **fields}  # type: ignore[arg-type]
    )
