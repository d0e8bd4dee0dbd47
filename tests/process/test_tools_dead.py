"""`dead`: what a server refused for good, and what somebody decides about it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from telemetry.delivery import dead_letters
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of
from tests.support.loopback import Behaviour, Received, Server
from tests.support.terminals import at_terminal
from tests.support.tooling import tool
from tests.support.writers import holding


REPLY = b'{"error":"the tool is not known"}'
BAD = ("tool-3", "tool-9", "tool-11")


def _refuses(request: Received) -> Behaviour:
    events = json.loads(request.plain_body)["records"]
    names = {event["properties"].get("tool_name") for event in events}
    return bad.reply(422, REPLY) if names & set(BAD) else bad.reply(200)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool that has delivered 17 events, and made three letters."""
    home = tmp_path / "home"
    with (
        Server(choose=_refuses) as server,
        client_of(home, server.url, events=20) as client,
    ):
        assert client.flush(timeout_s=20).dead == 3
    return home


def test_the_list_says_why_when_and_how_often(home: Path) -> None:
    """Enough to see whether it is the event's fault or the server's."""
    listed = tool("dead", "list", home=home)
    assert (listed.code, listed.err) == (0, "")
    first, *others = listed.lines
    assert len(others) == 2
    assert first["name"] == dead_letters.names(str(home / "dead"))[0]
    assert (first["state"], first["reason"], first["status"]) == ("dead", "422", 422)
    assert "the tool is not known" in first["reply"]
    assert time.time() * 1000 - first["time_ms"] < 60_000
    assert first["attempts"] > 1
    assert first["event"]["properties"]["tool_name"] == "tool-3"
    assert first["event_id"] == first["event"]["properties"]["event_id"]


def test_a_person_sees_the_name_and_the_reason(home: Path) -> None:
    """The name is what the other commands want."""
    seen = at_terminal("dead", "list", home=home, columns=120).text
    name, why, *_ = seen.splitlines()
    assert name == dead_letters.names(str(home / "dead"))[0]
    assert why.startswith("  tool, refused ")
    assert "requests: HTTP 422: " in why
    assert "the tool is not known" in why


def test_a_retried_letter_is_pending_and_is_delivered(home: Path) -> None:
    """The server has learnt what it did not know."""
    done = tool("dead", "retry", "--all", home=home)
    assert (done.code, done.line) == (0, {"retried": 3, "dropped": 0})
    assert {line["state"] for line in tool("dead", "list", home=home).lines} == {
        "retried"
    }
    assert (census_of(home).pending, census_of(home).dead) == (3, 0)
    assert tool("dead", "retry", "--all", home=home).line["retried"] == 0
    with Server() as server:
        secrets = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url}
        flushed = tool("flush", home=home, **secrets)
    assert (flushed.code, flushed.line["delivered"]) == (0, 3)
    census = census_of(home)
    assert (census.recorded, census.delivered, census.dead) == (20, 20, 0)
    assert census.holds()


def test_a_dropped_letter_is_gone_and_counted(home: Path) -> None:
    """An event that somebody gave up is not one that got lost."""
    names = dead_letters.names(str(home / "dead"))
    done = tool("dead", "drop", names[1], home=home)
    assert (done.code, done.line) == (0, {"retried": 0, "dropped": 1})
    assert dead_letters.names(str(home / "dead")) == [names[0], names[2]]
    census = census_of(home)
    assert (census.purged, census.dead, census.holds()) == (1, 2, True)
    # One that was to be sent again can be dropped as well.
    tool("dead", "retry", names[0], home=home)
    assert tool("dead", "drop", "--all", home=home).line["dropped"] == 2
    assert census_of(home).holds()
    assert tool("dead", "list", home=home).out == b""
    assert "there are no dead letters" in at_terminal("dead", "list", home=home).text


def test_letters_are_named_by_pattern_path_or_event(home: Path) -> None:
    """A name of forty characters is not typed."""
    first, second, third = tool("dead", "list", home=home).lines
    for word, name in (
        (f"*{first['name'][-8:]}", first["name"]),
        (second["event_id"], second["name"]),
        (f"*{third['event_id'][-6:]}", third["name"]),
        (str(home / "dead" / first["name"]), first["name"]),
    ):
        assert [
            line["name"] for line in tool("dead", "list", word, home=home).lines
        ] == [name]
    assert tool("dead", "retry", second["event_id"], home=home).line["retried"] == 1
    assert (home / "dead" / f"{second['name']}.retry").exists()


def test_a_letter_that_is_not_there_is_wrong_usage(home: Path) -> None:
    """Nothing is dropped if one of the names is a mistake."""
    name = dead_letters.names(str(home / "dead"))[0]
    done = tool("dead", "drop", name, "no-such-letter", home=home)
    assert (done.code, done.out) == (2, b"")
    assert "there is no letter no-such-letter" in done.err
    assert census_of(home).dead == 3


def test_a_letter_that_cannot_be_read_can_be_dropped(home: Path) -> None:
    """It counts, so it has to be possible to be rid of it."""
    name = dead_letters.names(str(home / "dead"))[0]
    (home / "dead" / name).write_bytes(b"\0" * 50)
    listed = tool("dead", "list", home=home)
    assert (listed.code, len(listed.lines)) == (1, 2)
    assert f"the letter {name} cannot be read; `dead drop` removes it" in listed.err
    retried = tool("dead", "retry", "--all", home=home)
    assert (retried.code, retried.line["retried"]) == (1, 2)
    assert tool("dead", "drop", name, home=home).line["dropped"] == 1
    assert census_of(home).holds()


def test_an_event_that_is_no_text_is_a_damaged_letter(home: Path) -> None:
    """It would be printed, and posted, as JSON that nobody can read."""
    name = dead_letters.names(str(home / "dead"))[0]
    content = (home / "dead" / name).read_bytes()
    (home / "dead" / name).write_bytes(content.replace(b"tool-3", b"tool\xff3"))
    listed = tool("dead", "list", home=home)
    assert (listed.code, len(listed.lines)) == (1, 2)
    assert f"the letter {name} cannot be read" in listed.err
    assert tool("verify", home=home).code == 1


def test_a_letter_of_an_event_that_is_not_settled_is_none_yet(home: Path) -> None:
    """Its event is still pending: to retry it would send it twice."""
    with client_of(home, "", events=1):
        pass
    (name,) = segment_names(Home(str(home)))
    size = (home / "spool" / name).stat().st_size
    some = home / "dead" / dead_letters.names(str(home / "dead"))[0]
    early = home / "dead" / f"{name}-{size - 1}"
    early.write_bytes(some.read_bytes())
    assert len(tool("dead", "list", home=home).lines) == 3
    assert tool("dead", "retry", "--all", home=home).line["retried"] == 3
    assert early.exists()
    assert tool("dead", "drop", "--all", home=home).line["dropped"] == 3
    assert census_of(home).holds()


def test_dropping_waits_for_a_flusher(home: Path) -> None:
    """Only whoever holds the flush lock writes the books."""
    with holding(str(home / "flush.lock")):
        done = tool("dead", "drop", "--all", "--wait", "0.1", home=home)
    assert (done.code, done.out) == (1, b"")
    assert "a flusher is at work" in done.err
    assert census_of(home).dead == 3
