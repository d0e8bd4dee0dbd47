"""Short programs that record an event and exit, and the flushers they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path


ROOT = str(Path(__file__).resolve().parents[2])
# What a small command-line program does; its settings come from the environment.
PROGRAM = """
import sys, telemetry
telemetry.configure("app", version="1.0", **eval(sys.argv[1]))
print(telemetry.track(telemetry.ToolEvent(action="call", tool_name=sys.argv[2])))
"""


def plugins(*names: str) -> list[str]:
    """What tells pytest to load these plugins: their entry points do where installed.

    It takes none of them twice.
    """
    installed = {plugin.value for plugin in entry_points(group="pytest11")}
    return [part for name in names if name not in installed for part in ("-p", name)]


def environment_of(directory: Path, endpoint: str = "", **more: str) -> dict[str, str]:
    """The environment of a program whose home is `directory`/app."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TELEMETRY_")
        and name not in {"CI", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST"}
    }
    ours = {
        "TELEMETRY_HOME": str(directory),
        "TELEMETRY_ENDPOINT": endpoint,
        "TELEMETRY_API_KEY": "key",
        "PYTHONPATH": ROOT,
    }
    return {**kept, **ours, **more}


def launch(
    environment: dict[str, str], tool: str = "tool", **settings: object
) -> subprocess.Popen[str]:
    """A program that records one event, started and not waited for."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repr(settings), tool],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment: dict[str, str], tool: str = "tool", **settings: object) -> None:
    """A program that records one event, run to its end."""
    with launch(environment, tool, **settings) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "True\n", ""), err


def flushers(directory: Path, *, also_starting: bool = False) -> list[int]:
    """The pids of the detached flushers whose home is below `directory`.

    `also_starting`: and of those that are still the shell which becomes one.
    """
    found = []
    mark = os.fsencode(f"TELEMETRY_HOME={directory}\0")
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            environ = Path(f"/proc/{name}/environ").read_bytes()
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        # The shell that starts one has the same arguments; it is gone at once.
        is_shell = command.startswith(b"/bin/sh") and not also_starting
        if mark in environ + b"\0" and b"\0-I\0-c\0" in command and not is_shell:
            found.append(int(name))
    return found


def await_no_flusher(directory: Path, timeout_s: float = 60.0) -> None:
    """Return once no flusher runs; fails after `timeout_s` seconds."""
    until = time.monotonic() + timeout_s
    while flushers(directory, also_starting=True):
        assert time.monotonic() < until, "a flusher runs on"
        time.sleep(0.02)
