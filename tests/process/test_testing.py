"""The kit for those who embed the library, tried on a suite like theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import telemetry
from telemetry.testing import RecordingClient
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
    assert client.flush(timeout_s=10).delivered == 1
    assert telemetry_collector.count() == 1
"""


def _run(directory: Path, suite: str, sink: str) -> tuple[str, str]:
    """What pytest said of a suite, and the system calls that mattered."""
    (directory / "test_theirs.py").write_text(suite)
    (directory / "home").mkdir()
    trace = directory / "trace"
    ours = plugins("telemetry.testing", "spool_tools.pytest_plugin")
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", str(trace), "-e"),
            "trace=connect,openat,mkdir,rename,unlink",
            *(sys.executable, "-m", "pytest", "-q", *ours, "-p", "no:cacheprovider"),
            "test_theirs.py",
        ],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "PYTHONPATH": os.pathsep.join([ROOT, str(directory)]),
            "SINK": sink,
            # Whatever was set outside must not get through.
            "TELEMETRY_ENABLED": "true",
            "TELEMETRY_FLUSH": "exit",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, trace.read_text()


def test_the_plugin_alone_keeps_a_suite_from_writing_and_sending(
    tmp_path: Path,
) -> None:
    """Nobody wants their test suite in their own statistics."""
    out, trace = _run(tmp_path, SUITE, "http://127.0.0.1:9/")
    assert "3 passed" in out
    inet = [line for line in trace.splitlines() if "AF_INET" in line]
    assert inet == []
    assert list((tmp_path / "home").rglob("*")) == []
    assert "theirs/telemetry" not in trace


def test_the_fixtures_say_what_was_recorded(tmp_path: Path) -> None:
    """Also by subprocesses, and one test does not see the events of another."""
    out, _ = _run(tmp_path, SUITE + RECORDING, "http://127.0.0.1:9/")
    assert "6 passed" in out
    assert list((tmp_path / "home").rglob("*")) == []


def test_a_recording_client_keeps_events_and_writes_nothing(tmp_path: Path) -> None:
    """For tests that look at what a function records."""
    client = RecordingClient()
    with telemetry.with_client(client):
        telemetry.record_session_start("agent", "session")
        telemetry.record_session_end()
    assert [type(event).__name__ for event in client.events] == [
        "SessionStartEvent",
        "SessionEndEvent",
    ]
    assert list(tmp_path.iterdir()) == []
