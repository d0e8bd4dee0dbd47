"""`flush`: delivers what waits, says what came of it, and what to do about the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.delivery import schedule
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of
from tests.support.loopback import Behaviour, Server
from tests.support.terminals import at_terminal
from tests.support.tooling import Ran, tool
from tests.support.writers import holding


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool with 700 events."""
    with client_of(tmp_path / "home", "", events=700):
        return tmp_path / "home"


def flushed(home: Path, *behaviours: Behaviour, arguments: tuple[str, ...] = ()) -> Ran:
    """A flush against a server that behaves like that."""
    with Server(*behaviours) as server:
        return tool(
            "flush",
            *arguments,
            home=home,
            TELEMETRY_ENDPOINT=server.url,
            TELEMETRY_API_KEY=KEY,
        )


def test_everything_is_delivered_and_said_in_one_line(home: Path) -> None:
    """A cron job wants a number, a person a sentence."""
    done = flushed(home)
    assert (done.code, done.err) == (0, "")
    line = done.line
    assert (line["delivered"], line["pending"], line["requests"]) == (700, 0, 2)
    assert line["stopped"] == "drained"
    assert census_of(home).delivered == 700
    with Server() as server:
        variables = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        seen = at_terminal("flush", home=home, variables=variables)
    assert seen.code == 0
    assert "0 delivered, 0 pending, in 0 requests: everything is delivered" in seen.text


def test_what_is_left_is_exit_code_1_with_the_reason(home: Path) -> None:
    """`It does not work` is what one has to tell somebody then."""
    later = {"Retry-After": "7200"}
    for behaviour, stopped, said in (
        (bad.reply(503, headers=later), "waiting", "503"),
        (bad.reply(401), "paused", "401"),
        (bad.reply(301, headers={"Location": "/", **later}), "paused", "301"),
    ):
        done = flushed(home, behaviour)
        assert (done.code, done.line["pending"], done.line["delivered"]) == (1, 700, 0)
        assert (done.line["stopped"], said in done.err) == (stopped, True), done
    assert census_of(home).pending == 700


def test_damage_and_new_dead_letters_are_exit_code_1(home: Path) -> None:
    """Delivered is not all there is to say."""
    (name,) = segment_names(Home(str(home)))
    path = home / "spool" / name
    content = path.read_bytes()
    path.write_bytes(content[:700] + b"?" + content[701:])
    done = flushed(home)
    assert (done.code, done.line["pending"], done.line["damaged"]) == (1, 0, 1)
    # Once it is known it is no news.
    assert flushed(home).code == 0
    with client_of(home, "", events=1):
        pass
    for _ in range(5):
        done = flushed(home, bad.reply(422))
    assert (done.code, done.line["dead"], done.line["pending"]) == (1, 1, 0)
    assert flushed(home).code == 0


def test_what_was_damaged_is_not_said_to_be_delivered(home: Path) -> None:
    """And a person is told where it is."""
    (name,) = segment_names(Home(str(home)))
    content = (home / "spool" / name).read_bytes()
    (home / "spool" / name).write_bytes(content[:700] + b"?" + content[701:])
    with Server() as server:
        variables = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        seen = at_terminal("flush", home=home, columns=88, variables=variables)
    assert seen.code == 1
    # A progress bar stands before it where the machine is slow.
    assert " ".join(seen.text.split()).endswith(
        "699 delivered, 0 pending, 1 damaged, in 2 requests: all that was whole is "
        "delivered, the rest is in quarantine/"
    )


def test_a_refusal_is_told_without_repeating_the_command(home: Path) -> None:
    """`flush: flush:` is read as a fault of the tool."""
    done = flushed(home, bad.reply(401))
    assert done.err.startswith("spool-tools flush: paused: ")


def test_nowhere_to_send_is_wrong_usage(home: Path) -> None:
    """Each message says what to set, and none repeats a secret."""
    key = {"TELEMETRY_API_KEY": KEY}
    for arguments, variables, said in (
        ((), key, "set TELEMETRY_ENDPOINT or --endpoint"),
        (("--endpoint", "https://x.example/"), {}, "set TELEMETRY_API_KEY"),
        (("--endpoint", "http://x.example/"), key, "endpoint: "),
        (("--endpoint", "ftp://x.example/"), key, "endpoint: "),
        (("--endpoint", "https://x.exa\nmple/"), key, "endpoint: "),
        (
            ("--endpoint", "https://127.0.0.1:1/"),
            {"TELEMETRY_API_KEY": "a\nb"},
            "api_key",
        ),
    ):
        done = tool("flush", *arguments, home=home, **variables)
        assert (done.code, done.out) == (2, b""), arguments
        assert said in done.err
        assert KEY not in done.err
    assert census_of(home).pending == 700


def test_there_is_no_key_on_the_command_line(home: Path) -> None:
    """Every user of a machine can read every command line."""
    for option in ("--key", "--api-key", "--api_key", "--header"):
        assert tool("flush", option, KEY, home=home).code == 2
    assert "TELEMETRY_API_KEY" in tool("flush", "--help").out.decode()


def test_the_endpoint_named_is_stronger_than_the_environments(home: Path) -> None:
    """Whoever names it means it."""
    with Server() as named, Server() as other:
        done = tool(
            "flush",
            "--endpoint",
            named.url,
            home=home,
            TELEMETRY_ENDPOINT=other.url,
            TELEMETRY_API_KEY=KEY,
        )
    assert (done.code, len(named.requests), len(other.requests)) == (0, 2, 0)
    assert named.requests[0].headers["x-api-key"] == KEY


def test_it_sends_where_the_program_sent_last(home: Path) -> None:
    """Whoever looks after a spool knows the program, and its key at best."""
    replies = [bad.reply(401)]
    with Server(choose=lambda _: replies[-1]) as server:
        where = {"header": "x-token", "format": "ndjson"}
        with client_of(home, server.url, **where) as client:
            assert client.flush(timeout_s=60).stopped == "paused"
        bare = tool("flush", home=home)
        assert (bare.code, bare.out) == (2, b"")
        assert f"no key for {server.url}; set TELEMETRY_API_KEY" in bare.err
        replies.append(bad.reply(200))
        done = tool("flush", home=home, TELEMETRY_API_KEY=KEY)
    assert (done.code, done.line["pending"]) == (0, 0)
    assert server.requests[-1].headers["x-token"] == KEY
    assert server.requests[-1].headers["content-type"] == "application/x-ndjson"
    assert KEY.encode() not in (home / "ledger" / "cache.db").read_bytes()


def test_where_a_person_sends_once_is_not_where_the_program_sends(home: Path) -> None:
    """Nor is an address that was mistyped."""
    with Server() as server, Server() as other:
        with client_of(home, server.url, format="ndjson") as client:
            client.flush(timeout_s=60)
            program = schedule.load(f"{home}/next-flush").destination
            client.track("later")
        for endpoint in (other.url, "http://127.0.0.1:9/mistyped"):
            named = ("--endpoint", endpoint, "--format", "records", "--timeout", "5")
            tool("flush", *named, home=home, TELEMETRY_API_KEY=KEY)
            status = tool("status", home=home).line
            assert (status["endpoint"], status["last_flush"]) == (server.url, "drained")
            assert status["why_code"] in {"nothing_pending", "scheduled", "due"}
            assert schedule.load(f"{home}/next-flush").destination == program
            with client_of(home, server.url, format="ndjson") as client:
                client.track("last")
        sent = len(server.requests)
        done = tool("flush", home=home, TELEMETRY_API_KEY=KEY)
    assert (done.code, done.line["delivered"]) == (0, 2)
    assert (len(server.requests), len(other.requests)) == (sent + 1, 1)
    assert server.requests[-1].headers["content-type"] == "application/x-ndjson"


def test_what_the_program_takes_for_acceptance_holds_by_hand(home: Path) -> None:
    """It knows a front that answers 200 without storing; a tool does not."""
    with Server(choose=lambda _: bad.reply(200)) as server:
        asking = f"{server.url}/delete"
        # One of them accepts nothing: the person with the tool cannot correct it.
        said = {"accept_statuses": (201, 409), "deletion_endpoint": asking}
        with client_of(home, server.url, **said) as client:
            assert client.flush(timeout_s=60).delivered == 0
        done = tool("flush", home=home, TELEMETRY_API_KEY=KEY)
        assert (done.code, done.line["delivered"], done.line["pending"]) == (1, 0, 700)
        for _ in range(2):
            done = tool("forget", home=home, TELEMETRY_API_KEY=KEY)
            assert (done.code, done.line["server"]) == (1, "waiting")


def test_where_no_program_has_flushed_a_person_is_remembered(home: Path) -> None:
    """A program with flush="manual" leaves all to the tool, which knows the last place."""
    with Server() as server:
        for endpoint in ("http://127.0.0.1:9/mistyped", server.url):
            named = ("--endpoint", endpoint, "--timeout", "5")
            tool("flush", *named, home=home, TELEMETRY_API_KEY=KEY)
            assert tool("status", home=home).line["endpoint"] == endpoint
        with client_of(home, "", events=1):
            pass
        done = tool("flush", home=home, TELEMETRY_API_KEY=KEY)
    assert (done.code, done.line["delivered"]) == (0, 1)


def test_an_address_with_a_secret_in_it_is_not_kept(home: Path) -> None:
    """A query or a password may be a key: it has to be said again."""
    with Server() as server:
        with client_of(home, f"{server.url}?token=abc") as client:
            client.flush(timeout_s=60)
    with client_of(home, "", events=1):
        pass
    done = tool("flush", home=home, TELEMETRY_API_KEY=KEY)
    assert (done.code, done.out) == (2, b"")
    assert "no endpoint; set TELEMETRY_ENDPOINT or --endpoint" in done.err
    assert b"abc" not in (home / "ledger" / "cache.db").read_bytes()


def test_a_format_can_be_named(home: Path) -> None:
    """What another server wants is tried by hand before a program is changed."""
    done = flushed(home, arguments=("--format", "ndjson"))
    assert (done.code, done.line["delivered"]) == (0, 700)


@pytest.mark.parametrize("variable", ["DO_NOT_TRACK", "disable"])
def test_nothing_is_sent_for_somebody_who_said_no(variable: str, home: Path) -> None:
    """Not even by somebody who asks for it by name."""
    said_no = {"DO_NOT_TRACK": "1"} if variable == "DO_NOT_TRACK" else {}
    if not said_no:
        (home / "consent").write_text("off 2026-01-01\n")
    with Server() as server:
        secrets = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        done = tool("flush", home=home, **secrets, **said_no)
    assert (done.code, done.out, server.requests) == (1, b"", [])
    assert "telemetry is off" in done.err
    assert census_of(home).pending == 700


def test_another_flusher_is_not_disturbed(home: Path) -> None:
    """One flusher at a time, also if a person is in a hurry."""
    with holding(str(home / "flush.lock")):
        done = flushed(home)
    assert (done.code, done.line["stopped"], done.line["pending"]) == (1, "busy", 700)


def test_the_time_is_kept(home: Path) -> None:
    """What is left is left for the next one."""
    done = flushed(
        home,
        lambda exchange: exchange.wait_for_end(),
        arguments=("--timeout", "0.3"),
    )
    assert (done.code, done.line["stopped"]) == (1, "deadline")
    assert census_of(home).pending == 700


NO_THREADS = """
import sys, threading
from spool_tools.cli import main
class Thread(threading.Thread):
    def start(self):
        if self.name == "flush":
            raise RuntimeError("can't start new thread")
        super().start()
threading.Thread = Thread
sys.exit(main(sys.argv[1:]))
"""


def test_where_no_thread_can_be_started_it_flushes_all_the_same(home: Path) -> None:
    """The system's limit of threads is met; what can be shown is less."""
    with Server() as server:
        done = subprocess.run(
            [sys.executable, "-c", NO_THREADS, "flush", "--home", home],
            env={
                **os.environ,
                "TELEMETRY_ENDPOINT": server.url,
                "TELEMETRY_API_KEY": KEY,
            },
            capture_output=True,
            check=False,
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["delivered"] == 700
