"""`frob telemetry …`: who installed the program can look and choose by it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

from telemetry.identity import known_uuid
from telemetry.spool.reader import segment_names
from tests.support.surroundings import (
    PATIENCE_S,
    REPOSITORY,
    bare_environment,
    home_in,
    spooled,
)


CONFIGURE = """
import sys, telemetry
def configure():
    telemetry.configure("frob", version="1", flush="manual", api_key="a secret key",
        endpoint="https://collect.invalid/v1")
"""
PROGRAMS = {
    "argparse": """
import argparse
from telemetry.integrations.argparse import command, telemetry_commands
configure()
parser = argparse.ArgumentParser(prog="frob")
commands = parser.add_subparsers(required=True)
commands.add_parser("build")
telemetry_commands(parser)
with command(parser):
    parser.parse_args()
""",
    "click": """
import click
from telemetry.integrations.click import instrument, telemetry_commands
@click.group()
def cli():
    configure()
@cli.command()
def build():
    pass
telemetry_commands(cli)
instrument(cli)
cli(prog_name="frob")
""",
    "typer": """
import typer
from telemetry.integrations.typer import instrument, telemetry_commands
app = typer.Typer()
@app.callback()
def main():
    configure()
@app.command()
def build():
    pass
telemetry_commands(app)
instrument(app)
app(prog_name="frob")
""",
}


class Program:
    """A program in a file, started as its user would start it."""

    def __init__(self, command: list[str], home: Path) -> None:
        self.command = command
        self.home = home

    def __call__(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*self.command, *arguments],
            env=bare_environment(self.home, **variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "a secret key" not in done.stdout + done.stderr
        assert "spool-tools" not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr


def look_and_choose(frob: Program) -> None:
    """What a user does, in order, and what is left on disk after each step."""
    home = home_in(frob.home, "frob")
    code, said, _ = frob("telemetry", "status")
    assert (code, "usage data of frob is on" in said) == (0, True)
    assert "frob telemetry off" in said
    assert frob("telemetry", "show")[:2] == (0, "nothing waits to be sent\n")
    assert not Path(home.root).exists()
    Path(home.root).parent.mkdir(parents=True)
    Path(home.root).touch()
    assert f"{home.root} is no directory" in frob("telemetry")[1]
    Path(home.root).unlink()
    frob("build")
    (event,) = spooled(home)
    code, said, _ = frob("telemetry", "show")
    assert (code, json.loads(said)) == (0, event)
    code, said, _ = frob("telemetry", "status")
    before = known_uuid(home.user_uuid)
    assert before
    for words in ("1 event waiting", home.root, before):
        assert words in said
    assert frob("telemetry", "reset")[0] == 0
    assert known_uuid(home.user_uuid) not in ("", before)
    # None of these is a use of the program.
    assert len(spooled(home)) == 1
    assert frob("telemetry", "off")[:2] == (
        0,
        "telemetry is off, and everything that was kept is removed\n",
    )
    frob("build")
    assert segment_names(home) == []
    code, said, _ = frob("telemetry", "status")
    assert "usage data of frob is off: the user turned it off" in said
    assert "frob telemetry on" in said
    code, said, failure = frob("telemetry", "on", DO_NOT_TRACK="1")
    assert (code, failure.startswith("frob telemetry on: ")) == (1, True)
    assert frob("telemetry", "on")[0] == 0
    frob("build")
    assert len(spooled(home)) == 1
    assert frob("telemetry", "forget")[0] == 0
    assert segment_names(home) == []
    assert frob("telemetry", "sideways")[0] == 2


@pytest.mark.parametrize("framework", PROGRAMS)
def test_a_user_looks_and_chooses_by_the_program_alone(
    framework: str, tmp_path: Path
) -> None:
    """It was installed with pipx or uv: nothing of ours is on the path."""
    program = tmp_path / "program.py"
    paths = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    program.write_text(paths + CONFIGURE + PROGRAMS[framework])
    frob = Program([sys.executable, str(program)], tmp_path)
    if framework == "argparse":
        look_and_choose(frob)
        return
    frob("build")
    code, said, _ = frob("telemetry", "show")
    assert (code, json.loads(said)["event"]) == (0, "command")
    assert "frob telemetry off" in frob("telemetry", "status")[1]
    assert frob("telemetry", "off")[0] == 0
    assert spooled(home_in(tmp_path, "frob")) == []


@pytest.mark.skipif(os.name == "nt", reason="there a closed pipe is another error")
def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    """`frob telemetry status | head -1` says nothing of pipes."""
    program = tmp_path / "program.py"
    paths = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    program.write_text(paths + CONFIGURE + PROGRAMS["argparse"])
    for action in ("status", "show"):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, str(program), "telemetry", action],
            env=bare_environment(tmp_path),
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b""), action


def test_what_cannot_be_looked_at_is_not_said_to_be_empty(tmp_path: Path) -> None:
    """Something else stands in the place of the home, or it is another user's."""
    program = tmp_path / "program.py"
    paths = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    program.write_text(paths + CONFIGURE + PROGRAMS["argparse"])
    home = Path(home_in(tmp_path, "frob").root)
    home.parent.mkdir(parents=True)
    home.touch()
    frob = Program([sys.executable, str(program)], tmp_path)
    code, said, complaint = frob("telemetry", "show")
    assert (code, said) == (1, "")
    assert str(home) in complaint


def test_it_works_where_only_the_program_is_on_the_path(tmp_path: Path) -> None:
    """As `uv tool install` leaves it: an environment elsewhere, and one link to it."""
    place = tmp_path / "uv" / "tools" / "frob"
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    ours = [str(REPOSITORY), *(p for p in sys.path if p.endswith("site-packages"))]
    (packages / "ours.pth").write_text("\n".join(ours))
    (packages / "frob.py").write_text(CONFIGURE + PROGRAMS["click"])
    script = place / "bin" / "frob"
    script.write_text(f"#!{place}/bin/python\nimport frob\n")
    script.chmod(0o755)
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "frob").symlink_to(script)
    frob = Program([str(bin_directory / "frob")], tmp_path)
    assert frob("build", PATH=str(bin_directory))[0] == 0
    code, said, _ = frob("telemetry", "show", PATH=str(bin_directory))
    assert (code, json.loads(said)["properties"]["install"]) == (0, "uv-tool")
    assert frob("telemetry", "off", PATH=str(bin_directory))[0] == 0


FLAT = {
    "argparse": """
import argparse
from telemetry.integrations.argparse import command, telemetry_commands
configure()
parser = argparse.ArgumentParser(prog="frob")
parser.add_argument("file")
telemetry_commands(parser)
with command(parser):
    parser.parse_args()
""",
    "click": """
import click
from telemetry.integrations.click import instrument, telemetry_commands
configure()
@click.command()
@click.argument("file")
def cli(file):
    pass
telemetry_commands(cli)
instrument(cli)
cli(prog_name="frob")
""",
}


@pytest.mark.parametrize("framework", FLAT)
def test_a_program_without_sub_commands_has_an_option(
    framework: str, tmp_path: Path
) -> None:
    """Sub-commands would take the place of its arguments."""
    program = tmp_path / "program.py"
    paths = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    program.write_text(paths + CONFIGURE + FLAT[framework])
    frob = Program([sys.executable, str(program)], tmp_path)
    assert frob("a.txt")[0] == 0
    code, said, _ = frob("--telemetry", "show")
    assert (code, json.loads(said)["event"]) == (0, "command")
    code, said, _ = frob("--telemetry", "status")
    assert "frob --telemetry off" in said
    assert len(spooled(home_in(tmp_path, "frob"))) == 1
    assert os.listdir(tmp_path / ".local" / "state") == ["frob"]


EVENTS = '''
class Deployed:
    """Something was deployed.

    region: where it went to
    """

    region: str

    def get_event_type(self) -> str:
        return "deployed"

    def to_structured_properties(self):
        return {"region": "eu"}
'''


def test_the_page_explains_events_of_the_program(tmp_path: Path) -> None:
    """Nobody but the program's author knows what they mean, and he wrote it down."""
    program = tmp_path / "program.py"
    paths = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    source = PROGRAMS["argparse"].replace("(parser)\n", "(parser, events=OWN)\n", 1)
    source += "    from frob_events import Deployed; telemetry.track(Deployed())\n"
    program.write_text(paths + CONFIGURE + "OWN = ['frob_events']\n" + source)
    (tmp_path / "frob_events.py").write_text(EVENTS)
    Program([sys.executable, str(program)], tmp_path)("build")
    serving = subprocess.Popen(
        [sys.executable, str(program), "telemetry", "show", "--page"],
        env=bare_environment(tmp_path, BROWSER="true"),
        stdout=subprocess.PIPE,
        text=True,
    )
    with serving:
        assert serving.stdout is not None
        try:
            with urllib.request.urlopen(serving.stdout.readline().strip()) as answer:
                text = answer.read().decode()
        finally:
            serving.kill()
    assert "<td>where it went to</td>" in text
