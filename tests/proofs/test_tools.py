"""The tools in every state, and beside everything at once; a part is in `process/`."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from spool_tools.changing import open_books
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import take_census
from telemetry.delivery.purge import purge
from telemetry.files import names_in
from telemetry.paths import Home
from tests.process import test_tools_rights
from tests.process.test_tools_damage import (
    CHANGING,
    INSPECTING,
    PATIENCE_S,
    changes_sensibly,
    damaged,
    looks_sensibly,
    sound,
)
from tests.process.test_tools_live import flusher_that_goes_on, rejects_one_in_a_batch
from tests.support.damaged_homes import DAMAGES
from tests.support.delivering import census_of, client_of, record
from tests.support.going_on import writers_that_go_on
from tests.support.loopback import Server
from tests.support.terminals import at_terminal
from tests.support.tooling import ran, tool
from tests.support.writers import Peer, child, within


LOOKS = 100
KILLS = 40

__all__ = ["sound"]  # a fixture


@pytest.mark.parametrize("name", DAMAGES)
def test_every_command_ends_sensibly_on(name: str, sound: Path, tmp_path: Path) -> None:
    """Each looking command on each damage; each changing one, and again on what it left."""

    def work() -> None:
        looks_sensibly(INSPECTING, damaged(sound, name, tmp_path / "looked at"))
        for command in CHANGING:
            home = damaged(sound, name, tmp_path / "-".join(command))
            changes_sensibly(command, home)

    within(PATIENCE_S, work)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_terminal_is_told_sensibly_of(name: str, sound: Path, tmp_path: Path) -> None:
    """A person sees other lines than a program does, made in other places."""
    home = damaged(sound, name, tmp_path)
    for command in (("dump", "--state", "all"), ("status",), ("verify",)):
        seen = at_terminal(*command, home=home)
        assert seen.code in {0, 1, 3}
        assert seen.safe()
    seen = at_terminal("dead", "list", home=home)
    assert seen.code in {0, 1, 3}
    assert seen.safe()


def test_beside_writers_and_a_flusher_every_look_is_a_sound_one(
    tmp_path: Path,
) -> None:
    """A spool is looked at while it is used; there is no other time."""
    home = tmp_path / "home"
    pending = delivered = 0
    with (
        Server(choose=rejects_one_in_a_batch) as server,
        writers_that_go_on(home, pause_s=0.05, segment_bytes_max=8000) as writers,
        flusher_that_goes_on(home, server.url),
    ):
        for number in range(LOOKS):
            run = ran if number % 25 == 0 else tool
            for command in (("dump",), ("status",), ("verify",)):
                done = run(*command, home=home)
                assert (done.code, done.err) == (0, ""), (command, done.err)
                if command == ("status",):
                    status = done.line
                    assert status["balanced"], status
                    assert (status["damaged"], status["unreadable"]) == (0, [])
                    assert status["delivered"] >= delivered
                    delivered = status["delivered"]
                    pending = max(pending, status["pending"])
                elif command == ("verify",):
                    assert done.lines[-1]["findings"] == 0
                else:
                    assert all(line["event"] == "tool" for line in done.lines)
        writers.stop()
    assert min(pending, delivered) > 0
    census = census_of(home)
    assert census.holds()
    # Nothing was made to look lost or damaged by being looked at.
    assert (census.recorded, census.damaged) == (writers.acknowledged, 0)
    assert census.dead > 0


def test_a_purge_that_is_killed_loses_no_count(tmp_path: Path) -> None:
    """Whatever it had removed by then is counted, and whatever it had not is there."""
    home = tmp_path / "home"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    moments = random.Random(seed)
    killed = 0
    # Found out by trying: how long a purge takes is the machine's affair.
    latest_s = 0.04
    there = Home(str(home))
    with writers_that_go_on(home, segment_bytes_max=32 * 1024) as writers:
        for _ in range(KILLS):
            with client_of(home, "") as client:
                record(client, 30)
            was_killed = _purge_and_kill(home, moments.uniform(0, latest_s))
            killed += was_killed
            latest_s *= 1.1 if was_killed else 0.6
            census = take_census(there, read_snapshot(there.ledger), quickly=True)
            assert census.holds()
        writers.stop()
    census = census_of(home)
    assert census.holds()
    assert census.purged > 0
    assert killed > KILLS // 4
    recorded = writers.acknowledged + 30 * KILLS
    assert recorded <= census.recorded <= recorded + 4 * KILLS
    # What was left behind is swept up by whoever comes next.
    assert tool("purge", "--yes", home=home).code == 0
    assert census_of(home).pending == 0
    assert names_in(there.quarantine) == []


def _purge_and_kill(home: Path, after_s: float) -> bool:
    """Whether a purge was killed, so long after it began to remove."""

    def work(peer: Peer) -> None:
        there = Home(str(home))
        with open_books(there) as books:
            peer.tell("opened")
            purge(there, books)

    with child(work) as peer:
        assert peer.hear() == "opened"
        time.sleep(after_s)
        os.kill(peer.pid, signal.SIGKILL)
        return peer.wait() != 0


def test_looking_beside_a_disable_ends_sensibly(tmp_path: Path) -> None:
    """Everything is removed under the eyes of whoever looks."""

    def disable(home: Path) -> None:
        done = tool("disable", home=home)
        assert (done.code, done.err) == (0, ""), done

    def look(home: Path, command: tuple[str, ...]) -> None:
        is_removed = False
        while not is_removed:
            is_removed = not (home / "ledger").exists()  # which goes last
            test_tools_rights.is_sensible(command, tool(*command, home=home))

    for number in range(3):
        home = tmp_path / str(number)
        with client_of(home, "", events=300, segment_bytes_max=2000):
            pass
        with contextlib.ExitStack() as running:
            children = [
                running.enter_context(child(lambda _, h=home: disable(h))),
                *(
                    running.enter_context(child(lambda _, h=home, c=c: look(h, c)))
                    for c in test_tools_rights.INSPECTING
                ),
            ]
            for each in children:
                each.finish()


def test_four_writers_go_on_while_it_is_purged_again_and_again(tmp_path: Path) -> None:
    """Each event that was promised is counted exactly once, purged or pending."""
    home = tmp_path / "home"
    removed = purges = 0
    with writers_that_go_on(home, segment_bytes_max=64 * 1024) as writers:
        while purges < 15 or removed <= 500:
            purges += 1
            done = tool("purge", "--yes", home=home)
            assert done.code == 0
            removed += done.line["events"]
            assert census_of(home).holds()
        writers.stop()
    census = census_of(home)
    assert census.holds()
    assert census.purged == removed
    assert census.damaged == 0
    # One that was written to a segment with two names is written again elsewhere.
    assert writers.acknowledged <= census.recorded <= writers.acknowledged + purges * 4
