"""`disable` and `enable`: the user's choice, and that all programs keep to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

import telemetry
from telemetry.consent import consent, read_choice
from telemetry.delivery.census import segment_records
from telemetry.delivery.flush import flush
from telemetry.delivery.opt_out import finish_opt_out, opt_out, set_aside
from telemetry.identity import user_uuid
from telemetry.paths import Home
from telemetry.spool.writer import SpoolWriter
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of, letters_of, record
from tests.support.going_on import writers_that_go_on
from tests.support.loopback import Exchange, Server
from tests.support.terminals import at_terminal
from tests.support.tooling import process, tool
from tests.support.writers import Peer, child, holding, wait_until


# What may be left of a home once somebody has opted out: nothing about events.
LEFT = {"consent", "flush.lock", "next-flush", "spool", "dead", "quarantine"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool that has delivered, with a dead letter, a damaged and waiting events."""
    home = tmp_path / "home"
    with Server(bad.reply(422)) as server:
        for _ in range(5):
            with client_of(home, server.url, events=0 if home.exists() else 1) as it:
                it.flush(timeout_s=60)
    assert len(letters_of(home)) == 1
    with client_of(home, "", events=5):
        pass
    (home / "quarantine").mkdir(mode=0o700)
    (home / "quarantine" / "x.v1.jseq-0").write_bytes(b"damaged")
    (home / "ledger.malformed-1").mkdir()
    (home / "ledger.malformed-1" / "cache.db").write_bytes(b"garbage")
    (home / "user-uuid.tmp-123-00").write_text("an id that was never put in place")
    return home


def assert_forgotten(home: Path) -> None:
    """Nothing is left of anything that was recorded, nor of who recorded it."""
    assert {path.name for path in home.iterdir()} <= LEFT
    for name in ("spool", "dead", "quarantine"):
        assert not (home / name).exists() or list((home / name).iterdir()) == []


def test_opting_out_removes_everything_that_was_kept(home: Path) -> None:
    """Somebody who says no does not want to be remembered by an id or by counts."""
    identity = (home / "user-uuid").read_text()
    assert uuid.UUID(identity).version in {4, 8}  # 8: made in CI
    done = tool("disable", home=home)
    assert (done.code, done.err) == (0, "")
    assert done.line == {"telemetry": "off", "consent": str(home / "consent")}
    assert_forgotten(home)
    everything = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    assert identity.encode() not in everything
    # It may be said twice, and by somebody who never had a spool.
    assert tool("disable", home=home).code == 0
    fresh = home.parent / "fresh" / "home"
    assert tool("disable", home=fresh).code == 0
    assert {path.name for path in fresh.iterdir()} == {"consent", "flush.lock"}
    assert (fresh.stat().st_mode & 0o777, (fresh / "consent").stat().st_mode) == (
        0o700,
        0o100600,
    )
    # A name that no program has may be a typing error.
    for said in ("there was no spool in", ""):
        variables = {"TELEMETRY_HOME": str(home.parent / "programs")}
        told = tool("disable", "--app", "frub", **variables)
        assert (told.code, said in told.err) == (0, True)
    assert told.err == ""


def test_a_program_that_starts_afterwards_records_nothing(home: Path) -> None:
    """Neither at once nor by way of the pieces that were left."""
    tool("disable", home=home)
    with client_of(home, "") as client:
        assert not client.track(telemetry.CommandEvent(action="run"))
        assert client.decision().rule == "remembered"
    assert_forgotten(home)


def test_running_processes_see_it_at_their_next_event(tmp_path: Path) -> None:
    """A shell that runs for weeks must not go on for weeks."""
    home = tmp_path / "home"
    event = telemetry.CommandEvent(action="run", success=True)

    def work(peer: Peer) -> None:
        with client_of(home, "") as client:
            while client.track(event):
                peer.tell("recorded")
                peer.hear()
            peer.tell(client.decision().rule)

    with child(work) as first, child(work) as second:
        assert (first.hear(), second.hear()) == ("recorded", "recorded")
        assert census_of(home).pending == 2
        assert tool("disable", home=home).code == 0
        for peer in (first, second):
            peer.tell("again")
            assert peer.hear() == "remembered"
            peer.finish()
    assert_forgotten(home)


def test_opting_out_beside_writers_that_never_pause(tmp_path: Path) -> None:
    """Each of them stops; what they write meanwhile goes, too."""
    home = tmp_path / "home"
    with writers_that_go_on(home, segment_bytes_max=16 * 1024) as writers:
        done = tool("disable", home=home)
        writers.stop()
    assert done.code == 0, done.err
    left = [path for path in (home / "spool").iterdir() if path.stat().st_size]
    assert left == []
    assert not (home / "ledger").exists()
    assert not (home / "user-uuid").exists()


def test_an_id_that_was_made_right_behind_an_opt_out_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch read the choice before it was written, and made the id after."""
    home = tmp_path / "home"
    ask = SpoolWriter._ask

    def opted_out(writer: SpoolWriter) -> None:
        ask(writer)
        monkeypatch.setattr(SpoolWriter, "_ask", ask)
        assert tool("disable", home=home).code == 0
        user_uuid(str(home / "user-uuid"))

    monkeypatch.setattr(SpoolWriter, "_ask", opted_out)
    with client_of(home, "") as client:
        assert not client.track("late")
    assert not (home / "user-uuid").exists()


def test_a_running_flusher_stops_before_its_next_request(tmp_path: Path) -> None:
    """What is on the wire cannot be called back; what follows can."""
    home = tmp_path / "home"
    answer = threading.Event()

    def hold(exchange: Exchange) -> None:
        answer.wait(30)
        bad.reply(200)(exchange)

    with client_of(home, "", events=1200):
        pass
    with Server(hold) as server:
        secrets = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url}
        with process("flush", home=home, **secrets) as flusher:
            wait_until(lambda: len(server.requests) == 1)
            with process("disable", home=home) as disabling:
                wait_until((home / "consent").exists)
                answer.set()
                out, err = disabling.communicate(timeout=60)
            flusher.communicate(timeout=60)
        assert (disabling.returncode, out.count(b"\n")) == (0, 1), err
        assert flusher.returncode == 1
        assert len(server.requests) == 1
    assert_forgotten(home)


def test_a_flusher_that_finishes_before_the_rename_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the choice as soon as that is written, and `spool/` is renamed then."""
    home = tmp_path / "home"
    with client_of(home, "", events=3):
        pass
    name = "telemetry.delivery.opt_out.set_aside"

    def late(there: Home) -> None:
        assert finish_opt_out(there)
        set_aside(there)

    monkeypatch.setattr(name, late)
    assert tool("disable", home=home).code == 0
    assert_forgotten(home)


@pytest.mark.parametrize("finisher", ["launch", "flusher", "tool", "enable"])
def test_a_flusher_that_does_not_end_holds_back_the_removal_alone(
    finisher: str, home: Path
) -> None:
    """Recording has stopped at once, and whoever comes next removes what was kept."""
    event = telemetry.CommandEvent(action="run", success=True)
    with client_of(home, "") as running:
        assert running.track(event)
        with holding(str(home / "flush.lock")):
            done = tool("disable", "--wait", "0.1", home=home)
            assert done.code == 1
            assert "nothing more is recorded or sent" in done.err
            assert "a flusher has not ended yet" in done.err
            assert not any(running.track(event) for _ in range(3))
            choice = read_choice(str(home / "consent"))
            assert choice is not None
            assert (choice.on, choice.is_finished) == (False, False)
            assert (home / "user-uuid").exists()
            busy = tool("enable", "--wait", "0.1", home=home)
            assert busy.code == 1
            assert "the choice is not written, nothing changed" in busy.err
            assert running.decision().rule == "remembered"
    if finisher == "launch":
        with client_of(home, "") as client:
            assert not client.track(event)
    elif finisher == "flusher":
        report = flush(
            telemetry.Config(app="app"),
            Home(str(home)),
            timeout_s=5.0,
            environment={},
            allowed=lambda: consent(Home(str(home)), {}).on,
        )
        assert report.stopped == "off"
    elif finisher == "tool":
        secrets = {
            "TELEMETRY_API_KEY": KEY,
            "TELEMETRY_ENDPOINT": "https://example.com",
        }
        assert tool("flush", home=home, **secrets).code == 1
    else:
        assert tool("enable", home=home).code == 0
    assert_forgotten(home)
    choice = read_choice(str(home / "consent"))
    assert choice is not None
    assert choice.is_finished


def test_an_interrupted_opt_out_says_what_holds(home: Path) -> None:
    """Ctrl-C while it waits takes back nothing."""
    with holding(str(home / "flush.lock")):
        with process("disable", home=home) as waiting:
            assert waiting.stderr is not None
            assert b"a flusher is at work; waiting" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert b"nothing more is recorded or sent, but this was interrupted" in err
    assert tool("disable", home=home).code == 0
    assert_forgotten(home)


@pytest.mark.parametrize("step", ["replace", "rename", "fsync"])
def test_an_interrupt_at_any_step_leaves_no_program_recording(
    step: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has a segment open reads the choice only once that is taken away."""
    there = Home(str(home))
    sound = getattr(os, step)

    def interrupted(*args: object, **named: object) -> object:
        monkeypatch.setattr(os, step, sound)
        answer = sound(*args, **named)
        if not consent(there, {}).on:
            raise KeyboardInterrupt
        return answer

    with client_of(home, "") as running:
        assert running.track(telemetry.CommandEvent(action="run"))
        monkeypatch.setattr(os, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            opt_out(there)
        assert not running.track(telemetry.CommandEvent(action="run"))
    assert finish_opt_out(there)
    assert_forgotten(home)


INTERRUPTED = """
import os, signal, sys
from telemetry.delivery import opt_out
from telemetry.paths import Home

def interrupted(home, set_aside=opt_out.set_aside):
    os.kill(os.getpid(), signal.SIG{name})
    set_aside(home)

opt_out.set_aside = interrupted
opt_out.opt_out(Home(sys.argv[1]))
"""


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_a_signal_waits_until_no_program_records(home: Path, name: str) -> None:
    """It came right behind the choice, and a program that ran went on recording."""
    code = INTERRUPTED.format(name=name)
    with client_of(home, "") as running:
        assert running.track(telemetry.CommandEvent(action="run"))
        done = subprocess.run(
            [sys.executable, "-c", code, home],
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == -getattr(signal, f"SIG{name}")
        assert not running.track(telemetry.CommandEvent(action="run"))
    assert finish_opt_out(Home(str(home)))


def test_a_full_disk_takes_a_choice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve is there for what must be possible without room."""
    there = Home(str(home))
    Path(there.reserve).write_bytes(b"\0" * 1000)
    sound = os.write

    def full(descriptor: int, content: bytes) -> int:
        if os.path.exists(there.reserve):
            raise OSError(errno.ENOSPC, "No space left on device")
        return sound(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    opt_out(there)
    assert not consent(there, {}).on


def test_what_cannot_be_removed_is_named(home: Path) -> None:
    """Something that is not ours stands in the way; the choice holds all the same."""
    (home / "dead" / "theirs").mkdir()
    (home / "dead" / "theirs" / "file").write_text("")
    done = tool("disable", home=home)
    assert done.code == 1
    assert "not all is removed" in done.err
    assert "theirs" in done.err
    with client_of(home, "") as client:
        assert not client.track(telemetry.CommandEvent(action="run"))
    shutil.rmtree(home / "dead" / "theirs")
    assert tool("disable", home=home).code == 0
    assert_forgotten(home)


def test_enabling_again_begins_anew(home: Path) -> None:
    """With another id, and with counts from zero."""
    identity = (home / "user-uuid").read_text()
    tool("disable", home=home)
    done = tool("enable", home=home)
    assert (done.code, done.err) == (0, "")
    assert done.line == {"telemetry": "on", "consent": str(home / "consent")}
    with client_of(home, "") as client:
        record(client, 1)
    assert (home / "user-uuid").read_text() != identity
    census = census_of(home)
    assert (census.recorded, census.pending, census.delivered) == (1, 1, 0)


@pytest.mark.parametrize(
    ("name", "value"), [("DO_NOT_TRACK", "1"), ("TELEMETRY_ENABLED", "off")]
)
def test_enabling_says_what_overrules_it(name: str, value: str, home: Path) -> None:
    """Or somebody would wonder for a long time why nothing is recorded."""
    done = tool("enable", home=home, **{name: value})
    assert done.code == 1
    assert f"{name}={value} in the environment overrules it" in done.err
    assert done.line["telemetry"] == "off"
    choice = read_choice(str(home / "consent"))
    assert choice is not None
    assert choice.on


def test_the_notice_that_was_read_is_remembered(home: Path) -> None:
    """Whoever turns it on by hand is not asked again."""
    (home / "consent").write_text("off 2026-01-01 7\n")
    assert tool("enable", home=home).code == 0
    choice = read_choice(str(home / "consent"))
    assert choice is not None
    assert (choice.on, choice.notice_version) == (True, "7")


@pytest.mark.parametrize("command", ["disable", "enable"])
def test_a_choice_that_cannot_be_written_is_told(command: str, home: Path) -> None:
    """Nothing is removed before the choice is safe."""
    (home / "consent").mkdir()
    (home / "consent" / "theirs").touch()
    done = tool(command, home=home)
    assert (done.code, done.out) == (1, b"")
    assert f"{home}/consent: Directory not empty" in done.err
    assert "the choice is not written, nothing" in done.err
    assert len(list((home / "spool").iterdir())) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("disable",),
        ("enable",),
        ("purge", "--yes"),
        ("flush",),
        ("dead",),
        ("reset",),
    ],
)
def test_a_home_of_somebody_else_is_never_changed(
    command: tuple[str, ...], home: Path
) -> None:
    """`sudo spool-tools purge` would leave files that the owner's programs refuse."""
    if os.geteuid() != 0:
        pytest.skip("only root may give a directory away")
    os.chown(home, 12345, 12345)
    before = sorted(home.rglob("*"))
    if command == ("dead",):
        command = ("dead", "drop", "--all")
    done = tool(*command, home=home)
    assert (done.code, done.out) == (2, b"")
    assert "belongs to user 12345" in done.err
    assert sorted(home.rglob("*")) == before


def test_whoever_sits_at_a_terminal_reads_a_sentence(home: Path) -> None:
    """A person is told what happened; a program gets JSON."""
    assert "telemetry is on\n" in at_terminal("enable", home=home).text
    off = at_terminal("disable", home=home).text
    assert "telemetry is off, and everything that was kept is removed" in off


def test_another_id_is_used_from_the_next_program_on(home: Path) -> None:
    """A user who stays in may still not want to be the one of last year."""
    before = (home / "user-uuid").read_text()
    done = tool("reset", home=home)
    assert (done.code, done.err) == (0, "")
    assert uuid.UUID(done.line["user_uuid"]).version == 4
    assert (home / "user-uuid").read_text() == done.line["user_uuid"] != before
    with client_of(home, "", events=1):
        pass
    ids = [
        json.loads(record.event)["properties"]["user_uuid"]
        for record in segment_records(Home(str(home)))
    ]
    assert ids[-1] == done.line["user_uuid"]
    assert set(ids[:-1]) == {before}
    assert tool("reset", home=home.parent / "nowhere").code == 3


def test_no_id_is_made_while_it_is_off(home: Path) -> None:
    """An opt-out has removed the one there was."""
    assert tool("disable", home=home).code == 0
    done = tool("reset", home=home)
    assert (done.code, done.err, done.line) == (0, "", {"user_uuid": None})
    assert not (home / "user-uuid").exists()


def test_a_directory_in_the_place_of_the_choice_is_no_end(home: Path) -> None:
    """Docker makes one of a file that it is to mount, and that is not there."""
    there = Home(str(home))
    Path(there.consent).mkdir()
    assert tool("status", home=home).line["why_code"] == "off"
    assert tool("enable", home=home).code == 0
    assert consent(there, {}).on
