"""Ways around consent, scrubbing and the kit that were found; each failed once."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import telemetry
from telemetry import files
from telemetry.consent import Choice, consent, read_choice, remember_choice
from telemetry.delivery import opt_out
from telemetry.delivery.census import segment_records
from telemetry.integrations.click import instrument
from telemetry.paths import Home
from tests.support.launching import ROOT, plugins


EVENT = telemetry.ToolEvent(action="call")


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DO_NOT_TRACK", "TELEMETRY_ENABLED", "CI", "TELEMETRY_FLUSH"):
        monkeypatch.delenv(name, raising=False)


def _client(home: Path, **more: Any) -> telemetry.Client:
    return telemetry.Client(
        telemetry.Config(app="x", home=str(home), **{"flush": "manual", **more})
    )


def _tool(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spool_tools", *args],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _opted_out(place: Path) -> Home:
    """A home with an event, whose user has said no; what is kept still stands."""
    with _client(place) as client:
        assert client.track(EVENT)
    home = Home(str(place))
    opt_out.opt_out(home)
    return home


def _files(home: Path) -> set[str]:
    return {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}


class Own:
    def __init__(self, payload: Any, name: str = "own") -> None:
        self.payload, self.name = payload, name

    def get_event_type(self) -> str:
        return self.name

    def to_structured_properties(self) -> Any:
        return self.payload


def _sealed(home: Path, event: Any) -> dict[str, Any]:
    with _client(home) as client:
        assert client.track(event)
    return json.loads(list(segment_records(Home(str(home))))[-1].event)


# -- consent -----------------------------------------------------------------


def test_a_refusal_after_an_opt_out_writes_nothing(tmp_path: Path) -> None:
    """`refused` came back at the first invalid event."""
    home = tmp_path / "home"
    client = _client(home)
    assert client.track(EVENT)
    assert _tool("disable", "--home", str(home)).returncode == 0
    before = _files(home)
    assert not client.track(object())  # type: ignore[arg-type]
    assert _files(home) == before


@pytest.mark.parametrize("name", ["DO_NOT_TRACK", "TELEMETRY_ENABLED"])
def test_a_program_that_turns_it_off_by_environment_records_nothing_more(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `--no-telemetry` is often built: the switch is set once arguments are read."""
    home = tmp_path / "home"
    client = _client(home)
    assert client.track(EVENT)
    monkeypatch.setenv(name, "1" if name == "DO_NOT_TRACK" else "off")
    assert not client.track(EVENT)
    assert len(list(segment_records(Home(str(home))))) == 1


def test_an_opt_out_beside_a_link_ends_what_is_recorded_behind_it(
    tmp_path: Path,
) -> None:
    """Whose disk was full moved the spool to another one; a program is still running."""
    home, elsewhere = tmp_path / "home", tmp_path / "large" / "events"
    client = _client(home)
    assert client.track(EVENT)
    elsewhere.parent.mkdir()
    (home / "spool").rename(elsewhere)
    (home / "spool").symlink_to(elsewhere)
    (home / "dead").symlink_to(tmp_path / "large")
    told = _tool("disable", "--home", str(home))
    assert not client.track(EVENT)
    # What others own is named, and not removed.
    assert told.returncode == 1
    assert str(tmp_path / "large") in told.stderr
    assert len(list(elsewhere.iterdir())) == 1
    assert _files(home) == {"consent", "flush.lock", "next-flush"}
    assert _tool("disable", "--home", str(home)).returncode == 0


def test_who_turns_it_on_while_an_opt_out_waits_for_the_lock_is_not_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that finishes an opt-out met an `enable` that had finished it."""
    home = _opted_out(tmp_path / "home")
    lock = opt_out.flush_lock

    def after_an_enable(home: Home) -> int | None:
        monkeypatch.undo()
        assert _tool("enable", "--home", home.root).returncode == 0
        with _client(tmp_path / "home") as client:
            assert client.track(EVENT)
        return lock(home)

    monkeypatch.setattr(opt_out, "flush_lock", after_an_enable)
    assert opt_out.finish_opt_out(home)
    assert consent(home, {}).on
    assert len(list(segment_records(home))) == 1


def test_who_turns_it_on_while_an_opt_out_is_finished_twice_is_not_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two launches finish an opt-out, and an `enable` meets the later one."""
    home = _opted_out(tmp_path / "home")
    lock, read = opt_out.flush_lock, opt_out.stored_choice

    def after_another_launch(home: Home) -> int | None:
        monkeypatch.undo()
        assert opt_out.finish_opt_out(home)
        monkeypatch.setattr(opt_out, "stored_choice", before_an_enable)
        return lock(home)

    def before_an_enable(path: str) -> Choice | None:
        monkeypatch.undo()
        found = read(path)
        assert _tool("enable", "--home", home.root).returncode == 0
        with _client(tmp_path / "home") as client:
            assert client.track(EVENT)
        return found

    monkeypatch.setattr(opt_out, "flush_lock", after_another_launch)
    assert opt_out.finish_opt_out(home)
    assert consent(home, {}).on
    assert len(list(segment_records(home))) == 1


def test_a_choice_is_made_beside_a_launch_that_finishes_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launch sweeps temporary files, and a choice that is being written is one."""
    home = _opted_out(tmp_path / "home")
    sync = files.sync

    def beside_a_launch(descriptor: int) -> None:
        monkeypatch.undo()
        sync(descriptor)
        assert opt_out.finish_opt_out(home)

    monkeypatch.setattr(files, "sync", beside_a_launch)
    remember_choice(home.consent, Choice(on=True, date="2026-01-01"))
    assert consent(home, {}).on


@pytest.mark.parametrize("version", ["", "0"])
def test_who_opts_out_while_the_notice_is_shown_stays_out(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that is stopped holds the notice back as long as it likes."""
    home = Home(str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    if version:
        remember_choice(home.consent, Choice(on=True, notice_version=version))

    class Stopped(io.StringIO):
        def isatty(self) -> bool:
            return True

        def flush(self) -> None:
            opt_out.opt_out(home)

    monkeypatch.setattr(sys, "stderr", Stopped())
    monkeypatch.setattr(sys, "argv", ["theirs"])
    with _client(tmp_path / "home", notice="we count") as client:
        assert not client.track(EVENT)
    assert not consent(home, {}).on


def test_a_notice_that_was_removed_with_its_home_is_due_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    remember_choice(
        str(home / "consent"), Choice(on=True, date="2026-01-01", notice_version="1")
    )
    client = _client(home, notice="we count")
    assert client.track(EVENT)
    shutil.rmtree(home)
    assert not client.track(EVENT)
    assert not home.exists()


# -- The kit -----------------------------------------------------------------

SUITE = """
import http.server, os, sys, threading, time
from unittest import mock
import pytest, telemetry
EVENT = telemetry.ToolEvent(action="call")

def program(**more):
    telemetry.configure("theirs", **more)
    return telemetry.track(EVENT)

def test_a_cleared_environment():
    with mock.patch.dict(os.environ, {"HOME": os.environ["HOME"]}, clear=True):
        assert not program()

def test_an_environment_that_says_on(monkeypatch):
    monkeypatch.setenv("TELEMETRY_ENABLED", "true")
    assert not program()

KEPT = []

def test_nothing_is_sent(telemetry_events):
    posted = []
    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(self.path)
            self.send_response(200); self.end_headers()
    with http.server.HTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        assert program(endpoint=url, api_key="k", flush="thread")
        KEPT.append(telemetry.get_global_telemetry_client())
        time.sleep(1)
        server.shutdown()
    assert posted == []

def test_a_client_kept_from_another_test_is_off():
    assert not KEPT[0].track(EVENT)
"""
CONFTEST = """
import telemetry
assert not telemetry.Client(telemetry.Config(app="conf")).track(
    telemetry.ToolEvent(action="call"))
"""


def test_the_plugin_holds_whatever_a_test_makes_of_its_environment(
    tmp_path: Path,
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "test_theirs.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins("spool_tools.pytest_plugin"),
         "-p", "no:cacheprovider", "test_theirs.py"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"),
             "PYTHONPATH": ROOT},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert _files(tmp_path / "home") == set()


# -- privacy -----------------------------------------------------------------


def test_an_events_name_is_scrubbed(tmp_path: Path) -> None:
    sealed = _sealed(tmp_path / "home", Own({}, "opened bob@example.com"))
    assert sealed["event"] == "opened <email>"


@pytest.mark.parametrize(
    "payload",
    [{"headers": {"Authorization": "token abc"}}, {"headers": {"Cookie": "sid=abc"}},
     {"password": ["abc"]}, {"password": {"value": "abc"}},
     {"env": [{"name": "DB_PASSWORD", "value": "abc"}]}],
)  # fmt: skip
def test_what_a_name_calls_secret_is_secret_below_it_too(
    payload: Any, tmp_path: Path
) -> None:
    properties = _sealed(tmp_path / "home", Own(payload))["properties"]
    assert "abc" not in json.dumps({name: properties[name] for name in payload})


def test_a_command_made_from_what_was_typed_has_no_name() -> None:
    """A group that answers to anything (task runners, `llm 'a prompt'`)."""

    class Anything(click.Group):
        def get_command(self, ctx: click.Context, name: str) -> click.Command:
            return click.Command(name, callback=lambda: None)

    class Tracker:
        def track(self, event: Any) -> bool:
            told.append(event.action)
            return True

    told: list[str] = []
    cli = instrument(Anything("cli"), client=Tracker())
    cli.main(["my secret prompt"], prog_name="cli", standalone_mode=False)
    assert told == ["cli"]
    info = telemetry.build_command_info(cli, ["my secret prompt"], None)
    assert info.action == "cli"


def test_a_choice_that_cannot_be_read_removes_no_id(tmp_path: Path) -> None:
    """A process without a free descriptor holds back; it has chosen nothing."""
    home = Home(str(tmp_path / "home"))
    config = telemetry.Config(app="app", home=home.root, flush="manual")
    with telemetry.Client(config) as client:
        assert client.track("one")
        known = Path(home.user_uuid).read_bytes()
        shutil.rmtree(home.spool)
        Path(home.consent).mkdir()
        assert not client.track("two")
    assert Path(home.user_uuid).read_bytes() == known


@pytest.mark.parametrize(
    "moment", ["remove_kept", "requests_waiting", "remember_choice"]
)
def test_a_wish_to_be_forgotten_is_not_lost_to_an_opt_out_that_is_being_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """`forget` comes before, between and behind what a flusher does to finish `disable`."""
    home = _opted_out(tmp_path / "home")
    real = getattr(opt_out, moment)
    had_id = []

    def beside(*given: Any) -> Any:
        monkeypatch.undo()
        if moment == "remove_kept":
            had_id.append(opt_out.opt_out(home, asks=True))
        found = real(*given)
        if moment != "remove_kept":
            had_id.append(opt_out.opt_out(home, asks=True))
        return found

    monkeypatch.setattr(opt_out, moment, beside)
    assert opt_out.finish_opt_out(home)
    assert opt_out.finish_opt_out(home)
    choice = read_choice(home.consent)
    assert choice is not None
    # Where the id was gone already, nobody is told that a server was asked.
    waits = bool(opt_out.requests_waiting(home))
    assert (choice.on, choice.asks, had_id) == (False, waits, [waits])
    assert waits is (moment == "remove_kept")
    assert not Path(home.user_uuid).exists()
