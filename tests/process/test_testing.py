"""The kit for those who embed the library, tried on a suite like theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spool_tools.collector import Collector
from tests.support.launching import ROOT, plugins


# A click program, tests that run it in the process and in a subprocess, and one
# that goes out of its way to send.
SUITE = """
import os, subprocess, sys
import click, pytest
from click.testing import CliRunner
import telemetry
from telemetry.integrations.click import instrument

@click.command()
@click.option("--loud", is_flag=True)
def build(loud):
    telemetry.configure("theirs", endpoint=os.environ["SINK"], api_key="k")
    telemetry.track_command("build", [])
    click.echo("built")

instrument(build)

def test_in_the_process():
    assert CliRunner().invoke(build, ["--loud"]).output == "built\\n"

def test_in_a_subprocess():
    code = "import test_theirs; test_theirs.build()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "built\\n", done.stderr

def test_whoever_wants_to_send_cannot():
    client = telemetry.configure("theirs", endpoint=os.environ["SINK"], api_key="k")
    assert not telemetry.track(telemetry.ToolEvent(action="call"))
    assert client.flush(timeout_s=5).stopped == "off"
"""
RECORDING = """
def test_what_is_recorded_can_be_asked_for(telemetry_events):
    CliRunner().invoke(build, [])
    test_in_a_subprocess()
    events = telemetry_events("command")
    assert [event["properties"]["action"] for event in events].count("build") >= 2
    assert telemetry_events("tool") == []

def test_the_next_test_begins_anew(telemetry_events):
    assert telemetry_events() == []

def test_delivery_can_be_tried(telemetry_events, telemetry_collector):
    client = telemetry.configure("theirs", endpoint=telemetry_collector.url, api_key="k")
    assert telemetry.track(telemetry.ToolEvent(action="call"))
    assert client.flush(timeout_s=60).delivered == 1
    assert telemetry_collector.count() == 1
"""


def _run(directory: Path, suite: str, *around: str) -> str:
    """What pytest said of a suite; `around` is a command that runs it."""
    (directory / "test_theirs.py").write_text(suite)
    (directory / "home").mkdir()
    ours = plugins("spool_tools.pytest_plugin")
    done = subprocess.run(
        [
            *around,
            *(sys.executable, "-m", "pytest", "-q", *ours, "-p", "no:cacheprovider"),
            "test_theirs.py",
        ],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "PYTHONPATH": os.pathsep.join([ROOT, str(directory)]),
            "SINK": "http://127.0.0.1:9/",
            # Whatever was set outside must not get through.
            "TELEMETRY_ENABLED": "true",
            "TELEMETRY_FLUSH": "exit",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plugin_alone_keeps_a_suite_from_writing_and_sending(
    tmp_path: Path,
) -> None:
    """Nobody wants their test suite in their own statistics."""
    calls = tmp_path / "calls"
    tracing = (
        "strace",
        "-f",
        "-qq",
        "-o",
        str(calls),
        "-e",
        "trace=connect,openat,mkdir",
    )
    assert "3 passed" in _run(tmp_path, SUITE, *tracing)
    trace = calls.read_text()
    inet = [line for line in trace.splitlines() if "AF_INET" in line]
    assert inet == []
    assert list((tmp_path / "home").rglob("*")) == []
    assert "theirs/telemetry" not in trace


def test_the_fixtures_say_what_was_recorded(tmp_path: Path) -> None:
    """Also by subprocesses, and one test does not see the events of another."""
    assert "6 passed" in _run(tmp_path, SUITE + RECORDING)
    assert list((tmp_path / "home").rglob("*")) == []


THEIR_OWN = """
import os, subprocess, sys
import telemetry

def test_theirs():
    assert telemetry.RATE == 50
    code = "import os; print(os.environ['CI'], os.environ['DO_NOT_TRACK'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["true", "1"]
"""


@pytest.mark.parametrize("layout", ["beside", "package", "src", "module"])
def test_a_project_with_a_telemetry_of_its_own_is_left_alone(
    layout: str, tmp_path: Path
) -> None:
    """Whatever is first on the path when, and it keeps every variable of the host's."""
    place = tmp_path / ("src" if layout == "src" else "")
    place.mkdir(exist_ok=True)
    if layout == "module":
        (place / "telemetry.py").write_text("RATE = 50\n")
    else:
        (place / "telemetry").mkdir()
        (place / "telemetry" / "__init__.py").write_text("RATE = 50\n")
        (place / "telemetry" / "testing.py").write_text("raise SystemExit('loaded')\n")
    if layout == "src":
        insert = "import sys; sys.path.insert(0, 'src')\n"
        (tmp_path / "conftest.py").write_text(insert)
    (tmp_path / "test_theirs.py").write_text(THEIR_OWN)
    command = ["pytest"] if layout == "beside" else [sys.executable, "-m", "pytest"]
    if layout == "beside":
        command = [sys.executable, "-c", "import pytest; pytest.main()"]
    done = subprocess.run(
        [*command, *plugins("spool_tools.pytest_plugin"), "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(place), ROOT]),
            "CI": "true",
            "DO_NOT_TRACK": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


UNITTEST = """
import os, tempfile, time, unittest, unittest.mock
import telemetry
from telemetry.testing import record_nothing, recorded

EVENT = telemetry.ToolEvent(action="call")

class Suite(unittest.TestCase):
    def test_a_program_of_theirs(self):
        with tempfile.TemporaryDirectory() as home:
            for flush in ("thread", "exit", "launch"):
                client = telemetry.configure("theirs", flush=flush, home=home + flush)
                assert client.track(EVENT) and client.track(EVENT)
                client.close()
                assert telemetry.configure("theirs", home=home + flush).track(EVENT)
        time.sleep(0.3)

    def test_recording(self):
        with tempfile.TemporaryDirectory() as directory:
            with recorded(directory) as events:
                telemetry.configure("theirs")
                assert telemetry.track(EVENT)
                assert len(events("tool")) == 1
            with unittest.mock.patch.dict(os.environ):
                record_nothing()
                assert not telemetry.configure("theirs").track(EVENT)

if __name__ == "__main__":
    unittest.main()
"""
ONE_EVENT = """
import telemetry
telemetry.configure("theirs", flush="exit")
assert telemetry.track(telemetry.ToolEvent(action="call"))
"""


def test_nothing_is_posted_from_a_test_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Whatever runs the tests; a wish in the environment is one that is asked for."""
    (tmp_path / "test_suite.py").write_text(UNITTEST)
    (tmp_path / "home").mkdir()

    def run(*command: str, **more: str) -> int:
        with Collector(key="k") as collector:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=tmp_path,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(tmp_path / "home"),
                    "PYTHONPATH": ROOT,
                    "TELEMETRY_ENDPOINT": collector.url,
                    "TELEMETRY_API_KEY": "k",
                    **more,
                },
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return collector.count()

    assert run("-m", "unittest", "-q", "test_suite") == 0
    assert run("test_suite.py") == 0
    assert run("-c", ONE_EVENT, PYTEST_CURRENT_TEST="a test (call)") == 0
    asked = {"PYTEST_CURRENT_TEST": "a test (call)", "TELEMETRY_FLUSH": "exit"}
    assert run("-c", ONE_EVENT, **asked) == 2
    assert run("-c", ONE_EVENT) == 1
