"""The notice of a program: shown once, before anything is written, to a person."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

import telemetry
from telemetry.notice import can_show
from tests.support.surroundings import (
    PATIENCE_S,
    REPOSITORY,
    bare_environment,
    only_environment,
    quiet_config,
)


NOTICE = "theirs counts what it is used for"
# As root, what an event loads is loaded before the rights are given up.
PROGRAM = (
    f"NOTICE = {NOTICE!r}"
    """
import os, sys, tempfile
import telemetry, telemetry.notice
if os.environ.get("BECOME"):
    with tempfile.TemporaryDirectory() as place:
        first = telemetry.Config(app="first", home=place + "/home", flush="manual")
        telemetry.Client(first).track(telemetry.ToolEvent(action="call"))
    os.setgroups([])
    os.setgid(int(os.environ["BECOME"]))
    os.setuid(int(os.environ["BECOME"]))
client = telemetry.configure("theirs", notice=NOTICE, flush="manual")
print(telemetry.track(telemetry.ToolEvent(action="call")), client.decision().rule)
"""
)
NOBODY = 65534


class Seen(NamedTuple):
    """What a program said at a terminal: the answer of `track`, the rule, the rest."""

    answer: str
    terminal: str


def _run(home: Path, *arguments: str, **variables: str) -> Seen:
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=bare_environment(home, PYTHONPATH=str(REPOSITORY), **variables),
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as program:
        out, _ = program.communicate(timeout=PATIENCE_S)
    os.close(terminal)
    os.set_blocking(master, False)
    try:
        shown = os.read(master, 1 << 16).decode()
    except OSError:
        shown = ""  # how Linux says that nothing was
    os.close(master)
    assert program.returncode == 0, shown
    return Seen(out.decode().strip(), shown.replace("\r\n", "\n"))


def test_it_is_shown_once(tmp_path: Path) -> None:
    """The first launch tells, and no other one does."""
    assert _run(tmp_path) == Seen("True remembered", NOTICE + "\n")
    assert _run(tmp_path) == Seen("True remembered", "")
    # Whoever was told is also counted where nobody could be told.
    assert _run(tmp_path, CI="true") == Seen("True remembered", "")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--help"], {}),
        (["build", "-h"], {}),
        (["--version"], {}),
        ([], {"CI": "true"}),
        ([], {"_THEIRS_COMPLETE": "bash_complete"}),
        ([], {"COMP_LINE": "theirs bu"}),
        ([], {"_ARGCOMPLETE": "1"}),
    ],
)
def test_where_nobody_reads_it_nothing_is_shown_recorded_or_written(
    arguments: list[str], variables: dict[str, str], tmp_path: Path
) -> None:
    """Output that is read by a shell, a pipeline, or somebody who asked for help."""
    assert _run(tmp_path, *arguments, **variables) == Seen("False notice", "")
    assert list(tmp_path.iterdir()) == []
    # ... and it is still due.
    assert _run(tmp_path).terminal == NOTICE + "\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_where_it_cannot_be_remembered_it_is_not_shown() -> None:
    """Else a read-only home would show it at each launch."""
    # Another pytest that starts meanwhile closes the parents of `tmp_path` to others.
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o555)
        for _ in range(2):
            assert _run(home, BECOME=str(NOBODY)) == Seen("False notice", "")
        assert list(home.iterdir()) == []


def test_where_the_home_cannot_be_it_is_not_shown(tmp_path: Path) -> None:
    """A file in the home's place is as good as a disk that cannot be written."""
    (tmp_path / ".local").write_text("")
    assert _run(tmp_path) == Seen("False notice", "")


def test_it_is_shown_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts the program when reading it has left nothing behind."""
    home = tmp_path / "home"

    class Terminal:
        shown = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            assert not home.exists()
            self.shown += text

        def flush(self) -> None:
            assert not home.exists()

    terminal = Terminal()
    monkeypatch.setattr(sys, "argv", ["theirs"])
    monkeypatch.setattr(sys, "stderr", terminal)
    config = quiet_config(home, notice=NOTICE)
    with only_environment(bare_environment(tmp_path)):
        with telemetry.Client(config) as client:
            assert client.track(telemetry.ToolEvent(action="call"))
    assert terminal.shown == NOTICE + "\n"
    assert (home / "consent").read_text().startswith("on ")


@pytest.mark.parametrize(
    ("environment", "arguments", "is_terminal", "shown"),
    [
        ({}, [], True, True),
        ({"CI": ""}, ["build", "--helpful"], True, True),
        ({}, [], False, False),
        ({"CI": "1"}, [], True, False),
        ({}, ["x", "--help"], True, False),
        ({"COMP_LINE": ""}, [], True, False),
        ({"_X_COMPLETE": "zsh_source"}, [], True, False),
    ],
)
def test_who_could_read_it_is_decided_by_values_alone(
    environment: dict[str, str], arguments: list[str], is_terminal: bool, shown: bool
) -> None:
    """The table of the above, without a terminal."""
    assert can_show(environment, arguments, is_terminal=is_terminal) is shown
