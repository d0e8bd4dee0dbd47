"""The inspecting tools beside writers and a flusher, and that they change nothing."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry.delivery.flush
from spool_tools.changing import flush_lock_holder
from spool_tools.reading import Spool
from spool_tools.status import _silent_s
from telemetry.delivery import schedule
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, client_of, letters_of
from tests.support.disks import mounted
from tests.support.loopback import Behaviour, Received, Server
from tests.support.tooling import environment, fingerprint, killed_at_the_end, ran, tool
from tests.support.writers import Peer, child, plant, segment_of, wait_until


INSPECTING = (
    ("dump",),
    ("dump", "--state", "all"),
    ("dump", "--as-sent"),
    ("dump", "--format", "table"),
    ("status",),
    ("status", "--explain"),
    ("verify",),
    ("dead", "list"),
)


def rejects_one_in_a_batch(request: Received) -> Behaviour:
    """A server that always has something to complain about."""
    events = json.loads(request.plain_body)["records"]
    named = events[len(events) // 2]["properties"]["event_id"]
    body = json.dumps({"rejected": [{"event_id": named, "reason": "not liked"}]})
    return bad.reply(200, body.encode())


@contextlib.contextmanager
def flusher_that_goes_on(home: Path, endpoint: str) -> Iterator[None]:
    """A process that flushes again and again."""

    def flush(peer: Peer) -> None:
        with client_of(home, endpoint) as client:
            while not select.select([peer._talk], [], [], 0)[0]:
                assert client.flush(timeout_s=60).stopped == "drained"
        peer.hear()

    with child(flush) as peer:
        yield
        # If it has failed by then, its own words say why.
        with contextlib.suppress(BrokenPipeError):
            peer.tell("stop")
        peer.finish()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A quiet spool with some of everything, damage included."""
    home = tmp_path / "home"
    with (
        Server(choose=rejects_one_in_a_batch) as server,
        client_of(home, server.url, events=20) as client,
    ):
        client.flush(timeout_s=60)
    with client_of(home, "", events=20):
        pass
    there = Home(str(home))
    plant(there, 10**18, segment_of(b"{}", b"{}")[:-7])
    plant(there, 10**18 + 1, b"garbage" * 100)
    (home / "spool" / "notes").write_text("not ours")
    (home / "dead" / f"{10**18:020d}-00000000.v1.jseq-7").write_text("{")
    (home / "quarantine").mkdir()
    (home / "quarantine" / f"{10**18:020d}-00000000.v1.jseq-7").write_bytes(b"?")
    assert tool("enable", home=home).code == 0
    return home


def test_inspecting_changes_nothing(home: Path) -> None:
    """Not a byte, a time, a link count or a file more, in a process of its own."""
    before = fingerprint(home)
    for command in INSPECTING:
        assert ran(*command, home=home).code in {0, 1}, command
        assert fingerprint(home) == before, command


def test_a_spool_that_nobody_may_write_is_read(home: Path) -> None:
    """A home on a medium that is read-only, or a copy of somebody else's."""
    with mounted(home, "--bind", "-o", "ro", str(home)):
        read = {command: ran(*command, home=home) for command in INSPECTING}
    for command, done_there in read.items():
        again = tool(*command, home=home)
        assert done_there.code in {0, 1}, command
        assert (done_there.code, done_there.err) == (again.code, again.err)
        if command != ("status",):
            assert done_there.out == again.out


def test_a_home_of_somebody_else_is_read_where_that_is_permitted(home: Path) -> None:
    """Whoever helps a user looks first, and changes nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    mine = {command: tool(*command, home=home) for command in INSPECTING}
    for path in (home, *home.rglob("*")):
        os.chown(path, 12345, 12345)
    before = fingerprint(home)
    for command, done in mine.items():
        theirs = tool(*command, home=home)
        assert (theirs.code, theirs.err) == (done.code, done.err), command
        assert fingerprint(home) == before, command


def test_a_commit_that_was_cut_off_is_looked_at_without_being_mended(
    home: Path,
) -> None:
    """The journal of a killed flusher is the flusher's to roll back."""
    with client_of(home, ""):
        pass
    source = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=PERSIST')\n"
        "c.execute('PRAGMA cache_size=1')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute('UPDATE Cache SET value = zeroblob(20000)')\n"
        "c.execute('CREATE TABLE more AS SELECT zeroblob(100000)')\n"
        "print(); sys.stdout.flush(); sys.stdin.read()\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", source, str(home / "ledger" / "cache.db")],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with killed_at_the_end(running):
        assert running.stdout is not None
        running.stdout.readline()
    journal = (home / "ledger" / "cache.db-journal").read_bytes()
    assert journal[:1] not in {b"", b"\0"}, "nothing is left to be rolled back"
    before = fingerprint(home)
    status = tool("status", home=home)
    assert (status.line["delivered"], status.line["balanced"]) == (19, True)
    assert fingerprint(home) == before


def test_the_holder_of_the_flush_lock_is_named(home: Path) -> None:
    """`busy` is no answer without a name."""
    assert tool("status", home=home).line["flusher"] == "none"
    with Server(lambda exchange: exchange.wait_for_end()) as server:
        secrets = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url}
        began = time.monotonic()
        running = subprocess.Popen(
            [sys.executable, "-m", "spool_tools", "flush", "--home", str(home)],
            env=environment(**secrets),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with killed_at_the_end(running):
            wait_until(lambda: len(server.requests) > 0)
            status = tool("status", home=home).line
            assert status["flusher"] == "running"
            if sys.platform.startswith("linux"):
                assert status["flusher_pid"] == running.pid
                running.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, running.pid, os.WSTOPPED)
                stopped = tool("status", home=home).line
                assert stopped["why_code"] == "stopped"
                assert f"process {running.pid} " in stopped["why"]
                running.send_signal(signal.SIGCONT)
                # For how long it has done nothing, whenever somebody last flushed.
                there, now = Home(str(home)), time.time()
                holder = flush_lock_holder(there)
                assert 0 < holder.age_s < time.monotonic() - began + 1
                os.utime(home / "ledger" / "cache.db", (1, 1))
                older = holder._replace(age_s=900.0)
                never = schedule.Schedule()
                assert _silent_s(there, older, never, now) == pytest.approx(900)
                assert _silent_s(there, holder, never, now) == pytest.approx(
                    holder.age_s
                )
                just_now = schedule.load(there.next_flush)
                assert _silent_s(there, older, just_now, now) < 60
            assert status["why_code"] == "flushing"
            busy = tool("flush", home=home, **secrets)
            assert (busy.code, busy.line["stopped"]) == (1, "busy")
    assert tool("status", home=home).line["flusher"] == "none"


def test_a_segment_that_is_gone_by_now_is_no_problem(home: Path) -> None:
    """A flusher deletes one between the look at the names and the look into it."""
    there = Home(str(home))
    spool = Spool(there, "dump")
    names = segment_names(there)
    for name in names:
        Path(there.segment(name)).unlink()
    assert [spool.open(name) for name in names] == [None] * len(names)
    assert spool.problems == []


def test_looking_leaves_locks_as_they_are(home: Path) -> None:
    """A writer goes on in its segment although somebody has looked at it."""
    with client_of(home, "", events=1) as client:
        names = segment_names(Home(str(home)))
        for command in INSPECTING:
            tool(*command, home=home)
        assert client.track(telemetry.CommandEvent(action="run"))
        assert segment_names(Home(str(home))) == names
    assert len(letters_of(home)) > 0
