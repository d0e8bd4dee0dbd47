"""The examples of the README, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launching import ROOT


README = Path(ROOT, "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# What the program of each example is, before the three lines are added to it.
(SESSION,) = [block for block in BLOCKS if block.startswith("import telemetry")]
PROGRAMS = {
    "# argparse": """
import argparse, sys
parser = argparse.ArgumentParser(prog="frobnicate")
parser.add_argument("--loud", action="store_true")
def main(args):
    return 3
""",
    "# click": """
import click, sys
@click.command()
@click.option("--loud", is_flag=True)
def cli(loud):
    sys.exit(3)
""",
    "# typer": """
import typer, sys
app = typer.Typer()
@app.command()
def build(loud: bool = False):
    sys.exit(3)
""",
}


def _recorded(tmp_path: Path, program: str) -> tuple[int, list[dict[str, object]]]:
    """The exit code of a program, and the events that it left behind."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ROOT,
        "TELEMETRY_HOME": str(tmp_path),
        "TELEMETRY_FLUSH": "manual",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, "--loud"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    events = []
    for path in tmp_path.glob("*/spool/*.jseq"):
        texts = path.read_text(encoding="utf-8").split("\x1e")[1:]
        events += [json.loads(text)["rec"] for text in texts]
    return done.returncode, events


@pytest.mark.parametrize("name", PROGRAMS)
def test_three_lines_record_a_command(name: str, tmp_path: Path) -> None:
    """They are copied as they stand, so they have to work as they stand."""
    (block,) = [block for block in BLOCKS if block.startswith(name)]
    lines = [line for line in block.splitlines() if line and line != name]
    assert len(lines) == 3
    code, (event,) = _recorded(tmp_path, PROGRAMS[name] + block)
    assert code == 3
    assert event["event"] == "command"
    properties = event["properties"]
    assert isinstance(properties, dict)
    assert properties["flags"] == ["--loud"]
    assert properties["is_success"] is False


def test_the_example_with_a_session_records_what_it_says(tmp_path: Path) -> None:
    """A session with its tokens, and a command."""
    code, events = _recorded(tmp_path, SESSION)
    assert code == 0
    assert [event["event"] for event in events] == [
        "command",
        "session",
        "token",
        "session",
    ]


def test_the_commands_of_the_readme_are_one_line_each() -> None:
    """One sets up and runs the demo, one sets up and runs the tests."""
    demo, tests = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert demo.endswith("-m spool_tools demo")
    assert tests.endswith("-m pytest -n 2")


def test_jq_reads_a_live_spool(tmp_path: Path) -> None:
    """The format is one that other tools know."""
    assert _recorded(tmp_path, SESSION)[0] == 0
    paths = [str(path) for path in tmp_path.glob("*/spool/*.jseq")]
    try:
        done = subprocess.run(
            ["jq", "--seq", "-c", ".rec.event", *paths],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("no jq here")
    assert done.stdout.count('"session"') == 2
