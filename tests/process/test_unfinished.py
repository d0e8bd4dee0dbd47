"""A session that is cut off is told by a later flush, once, and never while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import telemetry
from spool_tools.collector import Collector
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import take_census
from telemetry.paths import Home
from tests.support.surroundings import REPOSITORY, bare_environment, quiet_config


PROGRAM = """
import sys, time, telemetry
config = telemetry.Config(app="app", home=sys.argv[1], flush="manual")
client = telemetry.Client(config)
client.record_session_start("root", "cut off")
client.record_session_start("root", "finished")
client.record_session_end()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_session_that_is_cut_off_is_told_once(tmp_path: Path) -> None:
    """While its process lives it may still end; once that is killed it cannot."""
    with Collector(key="k") as collector:
        config = quiet_config(tmp_path / "home", endpoint=collector.url, api_key="k")
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(config.home)],
            env=bare_environment(tmp_path, PYTHONPATH=str(REPOSITORY)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        with telemetry.Client(config) as client:
            assert client.flush(timeout_s=60).stopped == "drained"
            assert told(collector) == ["start", "start", "end"]
            os.kill(running.pid, signal.SIGKILL)
            running.communicate()
            for _ in range(3):
                assert client.flush(timeout_s=60).stopped == "drained"
        assert told(collector) == ["start", "start", "end", "unfinished"]
        start, *_, unfinished = sessions(collector)
    expected = uuid.uuid5(uuid.UUID(start["event_id"]), "unfinished")
    assert unfinished["event_id"] == str(expected)
    assert unfinished["session_id"] == "cut off"
    home = Home(str(config.home))
    assert take_census(home, read_snapshot(home.ledger)).holds()


def sessions(collector: Collector) -> list[dict[str, Any]]:
    return [event["properties"] for event in collector.events()]


def told(collector: Collector) -> list[str]:
    return [each["action"] for each in sessions(collector)]
