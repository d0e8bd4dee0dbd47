"""Where output goes: pipes, full disks, closed streams, narrow codings, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bad_places import COMMANDS, ran_in
from tests.support.delivering import client_of
from tests.support.terminals import at_terminal
from tests.support.tooling import environment, process, ran


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool whose path and content are in no narrow coding."""
    home = tmp_path / "hömé-漢-\udcff"
    with client_of(home, "", events=3):
        pass
    (home / "spool" / "nöt-óurs-\udcfe").touch()
    return home


def test_a_pipe_that_is_closed_ends_it_quietly(tmp_path: Path) -> None:
    """`spool-tools dump | head -1` is the first thing that everybody types."""
    with client_of(tmp_path / "home", "", events=3000):
        pass
    with process("dump", home=tmp_path / "home") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith(b'{"event":"tool"')
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0


def test_help_into_a_closed_pipe_ends_quietly() -> None:
    """Not even the shortest text may end in a complaint of Python's."""
    ours, its = os.pipe()
    os.close(ours)
    for arguments in (["--help"], ["dump", "--help"], ["events"]):
        done = subprocess.run(
            [sys.executable, "-m", "spool_tools", *arguments],
            env=environment(),
            stdout=its,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
    os.close(its)


def test_an_output_that_takes_nothing_is_told(home: Path) -> None:
    """A dump that was not written whole must not look as if it were."""
    for arguments in (["dump", "--home", str(home)], ["--help"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "spool_tools", *arguments],
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 1
        assert b"No space left" in done.stderr
        assert b"Traceback" not in done.stderr


def test_closed_streams_are_no_fault(home: Path) -> None:
    """A daemon's children often have none."""
    command = f"{sys.executable} -m spool_tools status --home {home}"
    for closing, code in ((">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0)):
        done = subprocess.run(
            ["/bin/sh", "-c", f"{command} {closing}"],
            env=environment(),
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, b"")


def test_ctrl_c_is_exit_code_130(home: Path) -> None:
    """The shell's own convention."""
    with process("dump", "--follow", home=home) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b""
    assert running.returncode == 130


def test_ctrl_c_while_it_loads_is_no_traceback(home: Path) -> None:
    """On a cold disk that is a second in which people change their minds."""
    loading = """
import sys
class Interrupted:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "argparse":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted)
"""
    seen = at_terminal("status", home=home, prelude=loading)
    assert (seen.code, seen.raw) == (130, b"")
    # An extension module whose loading is cut short may crash: it is loaded first.
    whole = """
import atexit, os, signal, sys
class Interrupting:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "msgspec._core":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
atexit.register(lambda: print("msgspec._core" in sys.modules))
"""
    seen = at_terminal("status", home=home, prelude=whole)
    assert (seen.code, seen.text) == (130, "True\n")


@pytest.mark.parametrize("coding", ["ascii", "latin-1"])
def test_any_text_can_be_shown_in_any_coding(coding: str, home: Path) -> None:
    """An old terminal must not end a tool with an error about characters."""
    (home / "spool" / "héé\u202e.v1.jseq").touch()
    told = ran("status", home=home, PYTHONIOENCODING=coding)
    assert (told.code, told.err) == (0, "")
    told = ran("dump", "--format", "table", home=home, PYTHONIOENCODING=coding)
    assert (told.code, told.err) == (0, "")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_output_is_told_and_is_no_success(
    command: tuple[str, ...], home: Path
) -> None:
    """What could not be written whole must not look as if it were."""
    with open("/dev/full", "wb") as full:
        done = ran_in(*command, home=home, stdout=full)
    if command != ("dead", "list"):  # which has nothing to say
        assert done.code == 1
        assert "No space left on device" in done.err


def test_where_nobody_can_be_told_the_exit_code_still_says_it(home: Path) -> None:
    """A log that is full must not turn a warning into a success, or into a crash."""
    with open("/dev/full", "wb") as full:
        ours, its = os.pipe()
        os.close(ours)
        for nobody in (full, its):
            for arguments, code in (
                (("flush", "--timeout", "0.2"), 1),
                (("dump", "--what"), 2),
                (("dead", "drop"), 2),
                (("stauts",), 2),
            ):
                assert ran_in(*arguments, home=home, stderr=nobody).code == code
            assert ran_in("status", home=home / "not", stderr=nobody).code == 3
        os.close(its)


NARROW = {
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_narrow_coding_changes_no_exit_code(
    command: tuple[str, ...], home: Path
) -> None:
    """`LANG=C` is what a service, a container and a cron job have."""
    done = ran_in(*command, home=home, variables=NARROW)
    assert done.code == (1 if command[0] == "flush" else 0), done
    if "table" not in command:
        assert done.lines or command == ("dead", "list")


def test_texts_of_every_kind_pass_a_narrow_coding(home: Path) -> None:
    """Help and catalogue are no exception."""
    for arguments in (("--help",), ("dump", "--help"), ("events",)):
        assert ran_in(*arguments, home=None, variables=NARROW).code == 0
    assert ran_in("events", "--markdown", home=None, variables=NARROW).out
    told = ran_in("status", home=home / "né", variables=NARROW)
    assert (told.code, told.out) == (3, b"")
