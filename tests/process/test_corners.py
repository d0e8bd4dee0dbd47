"""Corners of a machine: each costs one debug line, and the program nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import memory_disk
from tests.support.loopback import Server
from tests.support.surroundings import PATIENCE_S, REPOSITORY, bare_environment


PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")
import telemetry
telemetry.configure("app", flush="manual", event_bytes_max=300_000)
size = int(sys.argv[1])
told = [telemetry.track(telemetry.ToolEvent("call", "x " * size)) for _ in range(20)]
print(sum(told))
sys.exit(7)
"""


def _run(size: int = 1, **variables: str) -> tuple[int, list[str]]:
    """How many of twenty events were recorded, and every line that was logged."""
    kept = bare_environment(Path("/nonexistent"), PYTHONPATH=str(REPOSITORY))
    kept.pop("HOME")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(size)],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("[Telemetry] ") for line in lines)
    return int(done.stdout), lines


def test_a_program_without_a_home_says_so_once(tmp_path: Path) -> None:
    """However many events it has; and nothing of them is in a shared directory."""
    told, lines = _run(TMPDIR=str(tmp_path))
    assert (told, len(lines)) == (0, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_made_is_told_once(tmp_path: Path) -> None:
    """A file stands where the state directory would be."""
    (tmp_path / ".local").write_text("")
    told, lines = _run(HOME=str(tmp_path))
    assert (told, len(lines)) == (0, 1)


def test_a_home_that_others_can_write_to_is_told_once(tmp_path: Path) -> None:
    """Also where the events go on and on."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app").chmod(0o777)
    told, lines = _run(TELEMETRY_HOME=str(tmp_path))
    assert (told, len(lines)) == (0, 1)
    assert list((tmp_path / "app").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for what is born with a home, and little more."""
    with memory_disk(tmp_path / "disk", size_kib=336) as place:
        yield place


def test_a_full_disk_is_told_once(small_disk: Path) -> None:
    """Twenty events, of which a few find room: one line for all the others."""
    told, lines = _run(100_000, TELEMETRY_HOME=str(small_disk))
    assert 0 < told < 20
    assert len(lines) == 1
    assert "(disk_error)" in lines[0]


COMPLETED = """
import sys
import click
@click.command()
@click.option("--colour", type=click.Choice(["red", "green"]))
def program(colour):
    click.echo(f"painted {colour}")
if sys.argv.pop(1) == "wrapped":
    import telemetry
    from telemetry.integrations.click import instrument
    telemetry.configure("app", api_key="key", exit_timeout_s=30.0)
    instrument(program)
program(prog_name="program")
"""


def _complete(how: str, server: Server, home: Path, **variables: str) -> tuple:
    done = subprocess.run(
        [sys.executable, "-c", COMPLETED, how, "--colour", "red"],
        env=bare_environment(
            home,
            PYTHONPATH=str(REPOSITORY),
            TELEMETRY_ENDPOINT=server.url,
            CI="true",
            **variables,
        ),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_in_ci_it_is_silent_in_completion_and_delivered_at_exit(tmp_path: Path) -> None:
    """A shell reads what a completion says; a build machine is gone after the program."""
    asked = {
        "_PROGRAM_COMPLETE": "bash_complete",
        "COMP_WORDS": "program --colour r",
        "COMP_CWORD": "2",
    }
    with Server() as server:
        plain = _complete("plain", server, tmp_path, **asked)
        assert _complete("wrapped", server, tmp_path, **asked) == plain
        assert plain[:2] == (0, b"plain,red\n")
        assert server.requests == []
        assert list(tmp_path.iterdir()) == []
        assert _complete("wrapped", server, tmp_path) == (0, b"painted red\n", b"")
        assert len(server.requests) == 1
        assert b'"action":"app"' in server.requests[0].plain_body
