"""A spool in use: any order of recording, crashing, flushing, damaging, purging.

Hypothesis draws what happens to one home: three clients, forked ones beside them,
a server that answers as it likes, flushers that are killed at a request, and a
person who purges, retries, opts out and in again. After each step the oracle is
asked (`oracle.py`), and the books have to balance. In the end a sound server
takes what is left, and everything that was acknowledged is accounted for.

A longer run, in examples (60 take about a minute) and steps in each:

    USE_EXAMPLES=2000 USE_STEPS=50 python -m pytest tests/proofs/test_use.py

A failure prints the steps, and a line for `@reproduce_failure` that goes above
the class `Use`. Where `CI` is set, every run draws the same examples.
What is ever found is kept below, as a test with a name of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import telemetry
from spool_tools import dead, disable, enable
from spool_tools.changing import flush_lock_held, open_books
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import take_census
from telemetry.delivery.purge import purge
from telemetry.delivery.report import FlushReport
from telemetry.errors import LedgerError
from telemetry.paths import Home
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, letters_of
from tests.support.loopback import PATIENCE_S, Behaviour, Exchange, Received, Server
from tests.support.oracle import Oracle, Request, letters, segments, whole_records


EXAMPLES = int(os.environ.get("USE_EXAMPLES", "60"))
STEPS = int(os.environ.get("USE_STEPS", "25"))
# Tiny segments roll over all the time; the last client has room for everything.
SEGMENT_BYTES = (1500, 3000, 4 << 20)
# Long enough for a retry under backoff now and then, and for the answers drawn.
FLUSH_S = 0.2
# An event says itself what a server that looks at it makes of it.
KINDS = ("fine", "fine", "fine", "refused", "large", "broken", "rejected")
STATUSES = {"refused": 400, "large": 413, "broken": 500}
ANSWERS = ("ok", "judge", "400", "401", "413", "500", "503", "reset", "html")
# The server has it, and the client is not told, or no longer wants it.
ANSWERS += ("lost", "cut", "withdraw")
# What has to have happened in the run, or it has shown nothing.
HAPPENED = (
    "adoption", "blamed", "crash", "damage", "dead letter", "disabled", "duplicate",
    "fork", "killed flusher", "killed writer", "ledger lost", "purge", "retry",
    "letter dropped", "letter sent again", "roll-over", "split", "torn tail",
)  # fmt: skip

numbers = st.integers(min_value=0, max_value=1 << 16)
SEEN: Counter[str] = Counter()


class Use(RuleBasedStateMachine):
    """One home, three clients, one server, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="use-")
        self.home = Home(f"{self.root}/home")
        self.oracle = Oracle(self.home.root)
        self.server = Server(choose=self._choose)
        self.clients = [self._client(size) for size in SEGMENT_BYTES]
        self.number = 0
        self.script: list[str] = []
        self.looks = False
        # The flusher to kill: its process, requests until then, and when.
        self.victim: tuple[int, int, str] | None = None
        # False while the ledger is one that only a flush replaces.
        self.readable = True
        # False once the equation need not hold any more.
        self.balanced = True
        # Records since the ledger's birth; None where that cannot be told.
        self.counted: int | None = 0
        self.purged_by_choice = False
        self.sound = True

    def _client(self, segment_bytes_max: int) -> telemetry.Client:
        return telemetry.Client(
            telemetry.Config(
                app="app",
                home=self.home.root,
                endpoint=self.server.url,
                api_key=KEY,
                flush="manual",
                segment_bytes_max=segment_bytes_max,
                batch_events_max=8,
                request_timeout_s=5.0,
            )
        )

    # What happens to the clients.

    @rule(
        who=st.integers(0, 2),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8),
    )
    def record(self, who: int, kinds: list[str]) -> None:
        client = self.clients[who]
        for kind in kinds:
            before, stood = segment_of(client), {*segments(self.home.root)}
            if not self._record(client, kind, self._acknowledge):
                break
            after = segment_of(client)
            if after != before:
                SEEN["adoption"] += after in stood
                SEEN["roll-over"] += before in stood and after not in stood

    @rule(who=st.integers(0, 2), is_torn=st.booleans(), length=numbers)
    def crash(self, who: int, is_torn: bool, length: int) -> None:
        """Behind an event, or in the write of the next one, a process ends."""
        self.record(who, ["fine"])
        pipeline = self.clients[who]._pipeline
        segment = pipeline.writer._segment if pipeline else None
        if segment is not None:
            whole = whole_records(segment.path)
            if is_torn and whole and os.fstat(segment.descriptor).st_nlink == 1:
                last = whole[-1]
                record = Path(segment.path).read_bytes()[last.start : last.end]
                os.write(segment.descriptor, record[: 1 + length % (len(record) - 1)])
                SEEN["torn tail"] += 1
                self._count(1)
            os.close(segment.descriptor)
            segment.descriptor = -1
            SEEN["crash"] += 1
        self.clients[who] = self._client(SEGMENT_BYTES[who])

    @rule(who=st.integers(0, 2), count=st.integers(1, 4), ends=st.booleans())
    def fork(self, who: int, count: int, ends: bool) -> None:
        """A child goes on with its parent's client, beside it."""
        SEEN["fork"] += 1
        self._in_child(self.clients[who], count, None if ends else count - 1)

    @rule(size=st.sampled_from(SEGMENT_BYTES), after=st.integers(0, 12))
    def kill_a_writer(self, size: int, after: int) -> None:
        """A process is killed somewhere near the event of this number."""
        SEEN["killed writer"] += 1
        self._in_child(self._client(size), 30, after)

    @rule(who=st.integers(0, 2))
    def close(self, who: int) -> None:
        self.clients[who].close()

    # What happens to the spool.

    @rule(which=numbers, record=numbers, byte=numbers, flip=st.integers(1, 255))
    def damage(self, which: int, record: int, byte: int, flip: int) -> None:
        """One byte of one record that is pending is another one."""
        if not self.readable:
            return
        if not segments(self.home.root):
            self.record(which % 3, ["fine", "fine"])
        paths = segments(self.home.root)
        if not paths:
            return  # telemetry is off
        path = paths[which % len(paths)]
        entry = read_snapshot(self.home.ledger).segments.get(os.path.basename(path))
        settled = entry.offset if entry else 0
        whole = [each for each in whole_records(path) if each.start >= settled]
        if not whole:
            return
        hit = whole[record % len(whole)]
        at = hit.start + byte % (hit.end - hit.start)
        with open(path, "r+b") as file:
            file.seek(at)
            (old,) = file.read(1)
            file.seek(at)
            file.write(bytes([old ^ flip]))
        SEEN["damage"] += 1
        self.oracle.damaged.add(hit.tool)
        self.counted = None

    @rule()
    def purge(self) -> None:
        self.record(0, ["fine", "fine"])
        if not self.readable or not self._stands():
            return
        self.oracle.purge()
        with (
            flush_lock_held(self.home, "purge", wait_s=PATIENCE_S),
            open_books(self.home) as books,
        ):
            SEEN["purge"] += purge(self.home, books).events > 0

    @rule(which=numbers, action=st.sampled_from(("retry", "drop")))
    def letter(self, which: int, action: str) -> None:
        """Somebody looks through the dead letters."""
        if not letters(self.home.root):
            self.refuse_some(which % 3, "rejected")
        if not self.readable or not self.balanced:
            return
        # One of a flusher that was killed before it settled the event counts not yet.
        names = sorted(each.name for each in letters_of(Path(self.home.root)))
        if not names:
            return
        name = names[which % len(names)]
        if action == "drop":
            self.oracle.purged.add(letters(self.home.root)[name])
        SEEN[f"letter {'dropped' if action == 'drop' else 'sent again'}"] += 1
        self._tool(dead, action=action, letters=[name], all=False)

    @precondition(lambda self: not self.purged_by_choice)
    @rule(chance=st.integers(0, 1))
    def opt_out(self, chance: int) -> None:
        """Telemetry is off, and what was kept is removed without being counted."""
        if chance:
            return  # a spool that is always empty has little to show
        self.oracle.purge()
        self._tool(disable)
        assert not self.oracle.on_disk()
        SEEN["disabled"] += 1
        self.purged_by_choice = self.readable = self.balanced = True
        self.counted = 0

    @rule()
    def opt_in(self) -> None:
        self._tool(enable)
        self.purged_by_choice = False
        # A client that has learnt of a no is off for good: a new process is on.
        self.clients = [
            self._client(size) if client._off else client
            for client, size in zip(self.clients, SEGMENT_BYTES, strict=True)
        ]

    @rule(way=st.sampled_from(("removed", "garbage")), chance=st.integers(0, 1))
    def lose_the_ledger(self, way: str, chance: int) -> None:
        path = Path(self.home.ledger)
        if chance or not (path / "cache.db").exists():
            return
        SEEN["ledger lost"] += 1
        # Letters of segments that are gone were recorded before the ledger's birth.
        self.balanced = self.balanced and not letters(self.home.root)
        self.counted = None
        if way == "removed":
            shutil.rmtree(path)
            self.readable = True
        else:
            (path / "cache.db").write_bytes(b"no database" * 1000)
            self.readable = False

    @rule(hours=st.sampled_from((-48, -1, 1, 48)))
    def jump_the_clock(self, hours: int) -> None:
        """The next flush is due at a time that a wrong clock has set."""
        if os.path.exists(self.home.next_flush):
            at = time.time() + 3600 * hours
            os.utime(self.home.next_flush, (at, at))

    # What happens to the flushes.

    @rule(
        who=st.integers(0, 2),
        script=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4),
        looks=st.booleans(),
        times=st.sampled_from((1, 1, 1, 1, 1, 6)),
    )
    def flush(self, who: int, script: list[str], looks: bool, times: int) -> None:
        """The server answers by the script, then takes all, or looks at it."""
        self.record(who, ["fine", "fine"])
        self.script, self.looks = list(script), looks
        for _ in range(times):
            before = len(self.oracle.requests)
            report = self._flush(self.clients[who], FLUSH_S)
            if report.stopped == "drained":
                assert report.pending == 0
            if report.stopped == "off":
                break
            SEEN[f"flush {report.stopped}"] += 1
            if len(self.oracle.requests) > before:
                self.readable = True

    @rule(who=st.integers(0, 2), kind=st.sampled_from(("refused", "rejected")))
    def refuse_some(self, who: int, kind: str) -> None:
        """A server that looks at events takes some, and some become letters."""
        self.record(who, ["fine", kind, "fine"])
        self.flush(who, [], looks=True, times=1)

    @rule(
        at=st.integers(1, 2),
        moment=st.sampled_from(("refused", "taken", "answered")),
        looks=st.booleans(),
    )
    def kill_a_flusher(self, at: int, moment: str, looks: bool) -> None:
        """A flusher is killed before, while or after its nth request is answered."""
        self.record(at % 3, ["fine"] * 3)
        self.script, self.looks = [], looks
        client = self._client(SEGMENT_BYTES[0])
        ready, go = os.pipe()
        pid = fork()
        if not pid:
            try:
                os.close(go)
                os.read(ready, 1)
                client.flush(timeout_s=1)
            finally:
                os._exit(0)
        os.close(ready)
        self.victim = (pid, at, moment)
        os.close(go)
        _, status = os.waitpid(pid, 0)
        self.victim = None
        SEEN["killed flusher"] += os.WIFSIGNALED(status)
        self.readable = self._is_readable()

    @invariant()
    def holds(self) -> None:
        self.sound = False
        self.oracle.check()
        if self.readable:
            census = take_census(self.home, read_snapshot(self.home.ledger))
            assert census.holds() or not self.balanced, census
            for name in ("pending", "delivered", "dead", "damaged", "purged"):
                assert getattr(census, name) >= 0, census
        self.sound = True

    def teardown(self) -> None:
        try:
            if self.sound:
                self._finish()
        finally:
            for client in self.clients:
                client.close()
            self.server.close()
            shutil.rmtree(self.root)
            SEEN.update(self.oracle.seen)
            SEEN["blamed"] += len(self.oracle.blamed)
            SEEN["dead letter"] += len(self.oracle.blamed & self.oracle.purged)

    def _finish(self) -> None:
        """A sound server takes everything, and everything is accounted for."""
        self._tool(enable)
        for client in self.clients:
            client.close()
        self.script, self.looks = [], False
        for _ in range(3):
            report = self._flush(self._client(SEGMENT_BYTES[0]), 20)
            if (report.stopped, report.pending) == ("drained", 0):
                break
        assert (report.stopped, report.pending) == ("drained", 0), report
        self.oracle.check_drained()
        dead_tools = letters(self.home.root)
        SEEN["dead letter"] += len(dead_tools)
        census = take_census(self.home, read_snapshot(self.home.ledger))
        assert census.pending == 0
        assert census.dead == len(dead_tools)
        if self.balanced:
            assert census.holds(), census
        if self.balanced and self.counted is not None:
            assert census.recorded == self.counted, census

    def _record(
        self, client: telemetry.Client, kind: str, tell: Callable[[str, bool], None]
    ) -> bool:
        tool = f"{kind}-{self.number}"
        self.number += 1
        tell(tool, False)
        if not client.track(
            telemetry.ToolEvent(
                action="call", tool_name=tool, success=True, duration_ms=1
            )
        ):
            return False
        tell(tool, True)
        return True

    def _acknowledge(self, tool: str, is_recorded: bool) -> None:
        self.oracle.tried.add(tool)
        if is_recorded:
            assert not self.purged_by_choice, "recorded after the user opted out"
            self.oracle.recorded.add(tool)
            self._count(1)

    def _count(self, records: int) -> None:
        if self.counted is not None:
            self.counted += records

    def _in_child(
        self, client: telemetry.Client, count: int, kill_at: int | None
    ) -> None:
        """A child records `count` events, and is killed near the one of a number."""
        told_before = set(self.oracle.tried)
        told, tells = os.pipe()
        pid = fork()
        if not pid:
            try:
                for _ in range(count):
                    self._record(
                        client,
                        "fine",
                        lambda tool, ok: print_to(tells, f"{tool} {ok:d}\n"),
                    )
            finally:
                os._exit(0)
        os.close(tells)
        done = 0
        with open(told, encoding="utf-8") as lines:
            for line in lines:
                if done == kill_at:
                    os.kill(pid, signal.SIGKILL)
                tool, is_recorded = line.split()
                self._acknowledge(tool, is_recorded == "1")
                done += is_recorded == "1"
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            # The last one may be recorded and not told.
            untold = self.oracle.tried - told_before - self.oracle.recorded
            self._count(len(untold & self.oracle.on_disk()))
        self.number += count

    def _flush(self, client: telemetry.Client, timeout_s: float) -> FlushReport:
        report = client.flush(timeout_s=timeout_s)
        if self._stands():
            with flush_lock_held(self.home, "flush", wait_s=PATIENCE_S):
                pass  # one that ran out of time has ended by now
        self.readable = self._is_readable()
        return report

    def _is_readable(self) -> bool:
        """A ledger that was spoilt stays so until a flush has replaced it."""
        if self.readable:
            return True
        try:
            read_snapshot(self.home.ledger)
        except LedgerError:
            return False
        return True

    def _stands(self) -> bool:
        return os.path.isdir(self.home.root)

    def _tool(self, command: Any, **options: Any) -> None:
        args = argparse.Namespace(
            app=None, home=self.home.root, wait=PATIENCE_S, **options
        )
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            assert command.run(args) == 0

    # The server.

    def _choose(self, request: Received) -> Behaviour:
        body = request.plain_body
        properties = [each["properties"] for each in json.loads(body)["records"]]
        tools = [(each["tool_name"], each["event_id"]) for each in properties]
        names = {tool for tool, _ in tools}
        answer = self.script.pop(0) if self.script else "judge" if self.looks else "ok"
        SEEN[f"answer {answer}"] += 1
        behaviour, taken, named = self._answer(answer, tools)
        if self.victim is not None:
            pid, left, moment = self.victim
            self.victim = (pid, left - 1, moment)
            if left == 1:
                behaviour = killing(pid, behaviour, answers=moment == "answered")
                taken = set() if moment == "refused" else taken
        alone = names if len(names) == 1 and not taken else set()
        self.oracle.requests.append(
            Request(
                request.headers["idempotency-key"], body, tools, taken, named | alone
            )
        )
        return behaviour

    def _answer(
        self, answer: str, tools: list[tuple[str, str]]
    ) -> tuple[Behaviour, set[str], set[str]]:
        """How to answer, what is taken, and what is named as rejected."""
        names = {tool for tool, _ in tools}
        if answer == "judge":
            kinds = {tool.split("-")[0] for tool in names}
            for kind, status in STATUSES.items():
                if kind in kinds:
                    return bad.reply(status), set(), set()
            named = [pair for pair in tools if pair[0].startswith("rejected")]
            text = {
                "rejected": [{"event_id": each, "reason": "x"} for _, each in named]
            }
            refused = {tool for tool, _ in named}
            return bad.reply(200, json.dumps(text).encode()), names - refused, refused
        if answer.isdecimal():
            return bad.reply(int(answer)), set(), set()
        if answer == "withdraw":
            return self._withdraw, names, set()
        behaviour = {
            "ok": bad.reply(200),
            "reset": bad.reset_after(),
            "html": bad.html(),
            "lost": bad.reset_after(),
            "cut": bad.cut_short(),
        }[answer]
        return behaviour, names if answer in {"ok", "lost", "cut"} else set(), set()

    def _withdraw(self, exchange: Exchange) -> None:
        """The user says no, by the file alone, before the answer is sent."""
        Path(self.home.consent).write_text("off 2026-01-01 1\n", encoding="utf-8")
        bad.reply(200)(exchange)


def killing(pid: int, behaviour: Behaviour, *, answers: bool) -> Behaviour:
    """Kills the one who asks, before or after the answer."""

    def behave(exchange: Exchange) -> None:
        if answers:
            behaviour(exchange)
            exchange.keep = False
        os.kill(pid, signal.SIGKILL)

    return behave


def fork() -> int:
    """As `os.fork`; the threads that are left behind are the server's, which wait."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def print_to(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode())


def segment_of(client: telemetry.Client) -> str:
    """The path of the segment that a client has open; empty where it has none."""
    pipeline = client._pipeline
    segment = pipeline.writer._segment if pipeline else None
    return segment.path if segment else ""


@pytest.mark.proof
def test_whatever_happens_every_event_is_accounted_for() -> None:
    """Each part is proved alone; users meet them in every order there is."""
    urllib3.PoolManager()  # loaded before the forks
    SEEN.clear()
    run_state_machine_as_test(
        Use,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(json.dumps({"examples": EXAMPLES, **dict(sorted(SEEN.items()))}))
    assert not [what for what in HAPPENED if not SEEN[what]], SEEN
