"""The examples of the README, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support import receivers
from tests.support.launching import ROOT
from tests.support.surroundings import bare_environment, run_python


README = Path(ROOT, "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# What the program of each example is, before the three lines are added to it.
(SESSION,) = [block for block in BLOCKS if block.startswith("import telemetry")]
(WHOLE,) = [block for block in BLOCKS if block.startswith("# frob.py")]
(OWN,) = [block for block in BLOCKS if block.startswith("# events of your own")]
AUTHORS = Path(ROOT, "telemetry", "README.md").read_text(encoding="utf-8")
# For their authors' own tests, which have another's program and a fixture.
AUTHORS_BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", AUTHORS, re.DOTALL)
    if "telemetry_events" not in block
]
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


def test_the_whole_program_is_one(tmp_path: Path) -> None:
    """It is what a reader types first: it records, and shows what it recorded."""
    program = tmp_path / "frob.py"
    program.write_text(WHOLE)

    def frob(*arguments: str) -> str:
        environment = bare_environment(tmp_path, PYTHONPATH=ROOT)
        done = subprocess.run(
            [sys.executable, str(program), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert frob("build", "--fast") == "built\n"
    properties = json.loads(frob("telemetry", "show"))["properties"]
    assert (properties["action"], properties["flags"]) == ("build", ["--fast"])
    assert properties["exit_code"] == 0
    assert "usage data of frob is on" in frob("telemetry", "status")


def test_every_example_for_authors_runs(tmp_path: Path) -> None:
    """They are copied as they stand, so they have to work as they stand."""
    names = []
    assert len(AUTHORS_BLOCKS) == 6
    for number, block in enumerate([OWN, *AUTHORS_BLOCKS]):
        home = tmp_path / str(number)
        code, events = _recorded(home, block)
        assert code == 0, block
        names += [event["event"] for event in events]
    assert names == ["deployed", "opened", "deployed", "deployed"]


def test_links_between_the_pages_lead_somewhere() -> None:
    """A page that was moved leaves its readers behind."""
    for page in ("README.md", "telemetry/README.md"):
        text = Path(ROOT, page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert Path(ROOT, page).parent.joinpath(target).exists(), (page, target)
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert anchor in {h.lower().replace(" ", "-") for h in headings}, anchor
    _, _, to_change = AUTHORS.partition("\n## Where to change what\n")
    named = re.findall(r"`([\w./]+(?:\.py|/))`", to_change)
    assert len(named) >= 14
    for name in named:
        places = ("telemetry", "spool_tools", "telemetry/wire/formats")
        assert any(Path(ROOT, place, name).exists() for place in places), name


def test_the_commands_of_the_readme_are_one_line_each() -> None:
    """One sets up and runs the demo, one sets up and runs the tests."""
    demo, tests = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert demo.endswith("-m spool_tools demo")
    assert tests.endswith("-m pytest -n 4 --dist worksteal")


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


RECEIVERS = {
    "# PostHog": receivers.posthog,
    "# OpenTelemetry": partial(
        receivers.collector, path="/v1/logs", header="authorization"
    ),
    "# ClickHouse": receivers.collector,
    "# Your own server": receivers.collector,
}


def test_events_go_where_the_blocks_send_them(tmp_path: Path) -> None:
    """Each block runs as it stands, but for the host: that is a receiver on loopback."""
    for name, receiver in RECEIVERS.items():
        (block,) = [block for block in BLOCKS if block.startswith(name)]
        home = tmp_path / name.strip("# ")
        home.mkdir()
        with receiver(home) as there:
            origin = there.url.removeprefix("http://").partition("/")[0]
            here = re.sub(r"https://(\w+@)?[^/\"]+", rf"http://\g<1>{origin}", block)
            assert here != block, name
            program = f"import telemetry\n{here}\n{EVENT}"
            environment = bare_environment(
                home, TELEMETRY_API_KEY=receivers.KEY, TELEMETRY_FLUSH="manual"
            )
            done = run_python(program, environment=environment)
            assert done.stdout == "drained 1\n", (name, done)
            assert len(there.ids()) == 1, name


EVENT = """
assert telemetry.track("deployed", {"region": "eu"})
report = telemetry.flush(timeout_s=60)
print(report.stopped, report.delivered)
"""
