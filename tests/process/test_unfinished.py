"""A session that is cut off is told by a later flush, once, and never while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import telemetry
from spool_tools.collector import Collector
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import take_census
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support.surroundings import REPOSITORY, bare_environment, quiet_config
from tests.support.tooling import tool


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


def test_a_session_that_goes_on_in_another_file_is_not_told(tmp_path: Path) -> None:
    """A flush by hand goes by the program's bounds, and without them it tells nothing."""
    home = tmp_path / "home"
    with Collector(key="k") as collector:
        config = quiet_config(
            home, endpoint=collector.url, api_key="k", segment_bytes_max=300_000
        )

        def flush_by_hand() -> list[str]:
            named = {"TELEMETRY_ENDPOINT": collector.url, "TELEMETRY_API_KEY": "k"}
            assert tool("flush", home=home, **named).code == 0
            return told(collector)

        def run(session: str, events: int) -> None:
            with telemetry.Client(config) as client:
                client.record_session_start("root", session)
                for _ in range(events):
                    client.record_tool_call("x" * 500, session, "root", timedelta())
                if events:
                    assert len(segment_names(Home(str(home)))) > 1
                    client.record_session_end()

        run("before any flush", 0)
        assert flush_by_hand() == ["start"]
        with telemetry.Client(config) as client:
            assert client.flush(timeout_s=60).stopped == "drained"
        run("long", 700)
        # Several requests are under way at once: their order is no promise.
        assert Counter(flush_by_hand()) == {"start": 2, "call": 700, "end": 1}
        run("cut off", 0)
        assert flush_by_hand()[-2:] == ["start", "unfinished"]


def test_the_smallest_bound_of_the_programs_of_a_home_says_which_segment_is_full(
    tmp_path: Path,
) -> None:
    """Another version of the program flushes for all, and takes no full one for cut off."""
    home = tmp_path / "home"
    with Collector(key="k") as collector:
        small, large = (
            quiet_config(
                home, endpoint=collector.url, api_key="k", segment_bytes_max=bound
            )
            for bound in (300_000, 4_000_000)
        )
        for config in (large, small):
            with telemetry.Client(config) as client:
                assert client.flush(timeout_s=60).stopped == "drained"
        with telemetry.Client(small) as client:
            client.record_session_start("root", "long")
            for _ in range(700):
                client.record_tool_call("x" * 500, "long", "root", timedelta())
            client.record_session_end()
        assert len(segment_names(Home(str(home)))) > 1
        with telemetry.Client(large) as client:
            for _ in range(2):
                assert client.flush(timeout_s=60).stopped == "drained"
        assert Counter(told(collector)) == {"start": 1, "call": 700, "end": 1}


def sessions(collector: Collector) -> list[dict[str, Any]]:
    return [event["properties"] for event in collector.events()]


def told(collector: Collector) -> list[str]:
    return [each["action"] for each in sessions(collector)]
