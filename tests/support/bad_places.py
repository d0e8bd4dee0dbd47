"""Running the tools in bad surroundings, and what no surroundings excuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.delivering import KEY
from tests.support.tooling import Ran, environment


# Nobody is asked anything, and nothing is sent: the endpoint is nobody's.
COMMANDS = (
    ("dump",),
    ("dump", "--format", "table"),
    ("dump", "--as-sent"),
    ("status",),
    ("status", "--explain"),
    ("verify",),
    ("dead", "list"),
    ("dead", "retry", "--all"),
    ("flush", "--timeout", "0.2"),
    ("enable",),
    ("purge", "--yes"),
    ("disable",),
)
NOBODY = "http://127.0.0.1:9/"


def ran_in(
    *arguments: str,
    home: Path | None,
    python: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> Ran:
    """A tool that is run in bad surroundings, to its end."""
    target = ["--home", str(home)] if home else []
    command = [sys.executable, *python, "-m", "spool_tools", *arguments, *target]
    return ended(command, variables=variables or {}, **options)


# Prints the exit codes last. Nothing is left for the end of the process to close.
_ONE_BY_ONE = """
import gc, sys
from spool_tools.cli import main
codes = []
for line in sys.argv[2:]:
    try:
        codes.append(main([*line.split(), "--home", sys.argv[1]]))
    except SystemExit as exit_:
        codes.append(int(exit_.code or 0))
    gc.collect()
print("\\n", *codes)
"""


def all_ran_in(
    *commands: tuple[str, ...],
    home: Path,
    before: str = "",
    python: tuple[str, ...] = (),
    **options: Any,
) -> tuple[list[int], str]:
    """The exit codes of commands run one by one in one process, and their complaints.

    `before` is what the process does first.
    """
    lines = [" ".join(command) for command in commands]
    source = before + _ONE_BY_ONE
    command = [sys.executable, *python, "-c", source, str(home), *lines]
    done = ended(command, variables={}, **options)
    assert done.code == 0, done
    return [int(word) for word in done.out.splitlines()[-1].split()], done.err


def ended(command: list[str], *, variables: Mapping[str, str], **options: Any) -> Ran:
    """What a command came to; it said nothing that it must not say."""
    secrets = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": NOBODY}
    told: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }
    env = {**environment(**secrets), **variables}
    done = subprocess.run(command, env=env, timeout=60, check=False, **told)
    said = (done.stdout or b"") + (done.stderr or b"")
    assert b"Traceback" not in said, said
    assert b"Exception" not in said, said
    assert KEY.encode() not in said
    return Ran(done.returncode, done.stdout or b"", os.fsdecode(done.stderr or b""))
