"""`dump --follow`: events as other processes record them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support.delivering import client_of, record
from tests.support.loopback import Server
from tests.support.tooling import killed_at_the_end, process
from tests.support.writers import plant, segment_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a spool is made."""
    return tmp_path / "home"


class _Follower:
    """A `dump --follow` in a process of its own, and what it has said."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.process = process("dump", "--follow", *arguments, home=home)

    def hear(self) -> dict[str, Any]:
        """The next event that it shows."""
        assert self.process.stdout is not None
        event = msgspec.json.decode(self.process.stdout.readline())
        properties: dict[str, Any] = event["properties"]
        return properties


def test_following_shows_events_as_others_record_them(home: Path) -> None:
    """The quickest answer to `is anything recorded at all?`"""
    with client_of(home, "", events=1) as first:
        follower = _Follower(home)
        with killed_at_the_end(follower.process):
            assert follower.hear()["tool_name"] == "tool-0"
            record(first, 2, first=1)
            assert follower.hear()["tool_name"] == "tool-1"
            assert follower.hear()["tool_name"] == "tool-2"
            # Another process, another segment.
            with client_of(home, "") as second:
                record(second, 1, first=10)
                assert follower.hear()["tool_name"] == "tool-10"
                record(first, 1, first=3)
                assert follower.hear()["tool_name"] == "tool-3"
            # Delivered, and its segment deleted: shown once, and what follows is, too.
            first.close()
            with Server() as server, client_of(home, server.url) as third:
                assert third.flush(timeout_s=60).pending == 0
                assert segment_names(Home(str(home))) == []
                record(third, 1, first=20)
                assert follower.hear()["tool_name"] == "tool-20"


def test_following_ends_with_its_limit(home: Path) -> None:
    """`dump --follow --limit 1` waits for the next event, and no longer."""
    with client_of(home, "") as client:
        client.record_session_start("agent", "session")
        follower = _Follower(home, "--event", "tool", "--limit", "1")
        with killed_at_the_end(follower.process):
            record(client, 1)
            assert follower.hear()["tool_name"] == "tool-0"
            assert follower.process.wait(60) == 0


def test_following_ends_when_nobody_reads_any_more(home: Path) -> None:
    """`dump --follow | head -1` must not wait for the next event to notice."""
    with client_of(home, "", events=1):
        follower = _Follower(home)
        with killed_at_the_end(follower.process):
            follower.hear()
            assert follower.process.stdout is not None
            follower.process.stdout.close()
            assert follower.process.wait(60) == 0
            follower.process.stdout = None


def test_following_more_segments_than_files_may_be_open(home: Path) -> None:
    """A spool of a month has hundreds, and a process may have few open."""
    with client_of(home, "", events=1):
        pass
    for number in range(150):
        plant(
            Home(str(home)),
            10**18 + number,
            segment_of(b'{"event":"tool","properties":{"n":%d}}' % number),
        )
    os.utime(home / "spool")
    follower = _Follower(home)
    with killed_at_the_end(follower.process):
        assert [follower.hear()["n"] for _ in range(150)] == list(range(150))
        assert follower.hear()["tool_name"] == "tool-0"
        open_files = os.listdir(f"/proc/{follower.process.pid}/fd")
        assert len(open_files) < 100
        # A writer that still had an old one goes on in it.
        path = Path(Home(str(home)).segment(f"{10**18:020d}-00000000.v1.jseq"))
        with path.open("ab") as segment:
            segment.write(segment_of(b'{"event":"tool","properties":{"n":-1}}', seq=1))
        assert follower.hear()["n"] == -1
