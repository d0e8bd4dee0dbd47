"""`dead`: what a server refused for good, and what somebody decides about it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from telemetry.books.view import read_snapshot
from telemetry.delivery import dead_letters
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support.delivering import (
    KEY,
    census_of,
    client_of,
    letters_of,
    rejecting,
    write_early_letter,
)
from tests.support.loopback import Server
from tests.support.terminals import at_terminal
from tests.support.tooling import tool
from tests.support.writers import holding


BAD = ("tool-3", "tool-9", "tool-11")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool that has delivered 17 events, and made three letters."""
    home = tmp_path / "home"
    with (
        Server(choose=rejecting(*BAD)) as server,
        client_of(home, server.url, events=20) as client,
    ):
        assert client.flush(timeout_s=60).dead == 3
    return home


def names_of(home: Path) -> list[str]:
    return [letter.name for letter in letters_of(home)]


def test_the_list_says_why_when_and_how_often(home: Path) -> None:
    """Enough to see whether it is the event's fault or the server's."""
    listed = tool("dead", "list", home=home)
    assert (listed.code, listed.err) == (0, "")
    first, *others = listed.lines
    assert len(others) == 2
    assert first["name"] == names_of(home)[0]
    assert (first["reason"], first["reply"]) == ("rejected", "no such tool")
    assert time.time() * 1000 - first["time_ms"] < 60_000
    assert first["attempts"] == 1
    assert first["event"]["properties"]["tool_name"] == "tool-3"
    assert first["event_id"] == first["event"]["properties"]["event_id"]


def test_a_person_sees_the_name_and_the_reason(home: Path) -> None:
    """The name is what the other commands want."""
    seen = at_terminal("dead", "list", home=home, columns=120).text
    name, why, *_ = seen.splitlines()
    assert name == names_of(home)[0]
    assert why.startswith("  tool, refused ")
    assert "request: rejected: no such tool" in why


def test_a_retried_letter_is_pending_as_one_event_and_is_delivered(home: Path) -> None:
    """The server has learnt what it did not know."""
    ids = {letter["event_id"] for letter in tool("dead", "list", home=home).lines}
    done = tool("dead", "retry", "--all", home=home)
    assert (done.code, done.line) == (0, {"retried": 3, "dropped": 0})
    census = census_of(home)
    assert (census.recorded, census.pending, census.dead) == (20, 3, 0)
    assert census.holds()
    assert tool("dead", "list", home=home).out == b""
    with Server() as server:
        secrets = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url}
        flushed = tool("flush", home=home, **secrets)
        events = json.loads(server.requests[0].plain_body)["records"]
    assert (flushed.code, flushed.line["delivered"]) == (0, 3)
    assert {event["properties"]["event_id"] for event in events} == ids
    census = census_of(home)
    assert (census.recorded, census.delivered, census.dead) == (20, 20, 0)
    assert census.holds()


def test_a_segment_of_retried_letters_is_written_further(home: Path) -> None:
    """A program may go on in it: only what it adds is recorded anew."""
    tool("dead", "retry", "--all", home=home)
    with client_of(home, "", events=4):
        pass
    census = census_of(home)
    assert (census.recorded, census.pending, census.holds()) == (24, 7, True)
    with Server() as server, client_of(home, server.url) as client:
        assert client.flush(timeout_s=60).delivered == 7
    census = census_of(home)
    assert (census.recorded, census.delivered, census.holds()) == (24, 24, True)


@pytest.mark.parametrize("action", ["retry", "drop"])
@pytest.mark.parametrize("killed_at", ["before the commit", "behind it", "the rename"])
def test_a_letter_that_leaves_is_neither_lost_nor_counted_twice(
    home: Path, killed_at: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two steps, the next flush finishes or undoes it."""
    there = Home(str(home))
    name = names_of(home)[1]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    from spool_tools.changing import open_books

    change = dead_letters.retry if action == "retry" else dead_letters.drop
    with monkeypatch.context() as only, open_books(there) as books:
        if killed_at == "before the commit":
            only.setattr(books, "commit", killed)
        elif killed_at == "behind it":
            only.setattr(dead_letters, "finish_moves", killed)
        else:
            only.setattr(dead_letters, "sync_directory", killed)
        with pytest.raises(KeyboardInterrupt):
            change(there, books, {name})
    census = census_of(home)
    assert census.holds(), census
    assert census.recorded == 20
    with Server() as server, client_of(home, server.url) as client:
        report = client.flush(timeout_s=60)
    undone = killed_at == "before the commit"
    assert report.dead == (3 if undone else 2)
    assert report.delivered == (1 if action == "retry" and not undone else 0)
    census = census_of(home)
    assert (census.recorded, census.pending, census.holds()) == (20, 0, True)
    assert [each for each in (home / "spool").iterdir() if ".tmp-" in each.name] == []
    assert [each for each in (home / "dead").iterdir() if ".tmp-" in each.name] == []


def test_a_dropped_letter_is_gone_and_counted(home: Path) -> None:
    """An event that somebody gave up is not one that got lost."""
    names = names_of(home)
    done = tool("dead", "drop", names[1], home=home)
    assert (done.code, done.line) == (0, {"retried": 0, "dropped": 1})
    assert names_of(home) == [names[0], names[2]]
    # Nothing of it is left on disk.
    (file,) = (home / "dead").iterdir()
    assert b"tool-9" not in file.read_bytes()
    census = census_of(home)
    assert (census.purged, census.dead, census.holds()) == (1, 2, True)
    assert tool("dead", "drop", "--all", home=home).line["dropped"] == 2
    assert census_of(home).holds()
    assert list((home / "dead").iterdir()) == []
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
        listed = tool("dead", "list", word, home=home).lines
        assert [line["name"] for line in listed] == [name]
    assert tool("dead", "retry", second["event_id"], home=home).line["retried"] == 1
    assert names_of(home) == [first["name"], third["name"]]


def test_a_letter_that_is_not_there_is_wrong_usage(home: Path) -> None:
    """Nothing is dropped if one of the names is a mistake."""
    name = names_of(home)[0]
    done = tool("dead", "drop", name, "no-such-letter", home=home)
    assert (done.code, done.out) == (2, b"")
    assert "there is no letter no-such-letter" in done.err
    assert census_of(home).dead == 3


def test_damage_costs_the_damaged_letter_alone(home: Path) -> None:
    """It counts as damaged; the others can be sent again."""
    (file,) = (home / "dead").iterdir()
    file.write_bytes(file.read_bytes().replace(b"tool-9", b"tool-?"))
    listed = tool("dead", "list", home=home)
    assert (listed.code, len(listed.lines)) == (1, 2)
    assert "is damaged" in listed.err
    assert tool("verify", home=home).code == 1
    census = census_of(home)
    assert (census.dead, census.damaged, census.holds()) == (2, 1, True)
    assert tool("dead", "retry", "--all", home=home).line["retried"] == 2
    census = census_of(home)
    assert (census.pending, census.damaged, census.holds()) == (2, 1, True)


def test_a_file_of_letters_that_is_gone_leaves_the_equation_whole(home: Path) -> None:
    """Somebody removed it by hand."""
    (file,) = (home / "dead").iterdir()
    file.unlink()
    with Server() as server, client_of(home, server.url) as client:
        client.flush(timeout_s=5)
    census = census_of(home)
    assert (census.dead, census.damaged, census.holds()) == (0, 3, True)


def test_a_letter_of_an_event_that_is_not_settled_is_none_yet(home: Path) -> None:
    """Its event is still pending: to retry it would send it twice."""
    with client_of(home, "", events=1):
        pass
    (name,) = segment_names(Home(str(home)))
    early = write_early_letter(home, name)
    assert len(tool("dead", "list", home=home).lines) == 3
    assert census_of(home).holds()
    assert tool("dead", "retry", "--all", home=home).line["retried"] == 3
    assert not early.exists()
    census = census_of(home)
    assert (census.recorded, census.pending, census.holds()) == (21, 4, True)


def test_beyond_its_bound_a_letter_keeps_its_reason_and_loses_its_event(
    tmp_path: Path,
) -> None:
    """What is dead must not fill the disk, and must not keep out what is new."""
    home = tmp_path / "home"
    tools = [f"tool-{number}" for number in range(200)]
    with (
        Server(choose=rejecting(*tools)) as server,
        client_of(home, server.url, events=200, spool_bytes_max=200_000) as client,
    ):
        assert client.flush(timeout_s=60).dead == 200
    kept = [letter.has_event for letter in letters_of(home)]
    assert 10 < sum(kept) < 190
    assert kept == sorted(kept, reverse=True)
    assert all(letter.reason == "rejected" for letter in letters_of(home))
    assert tool("dead", "retry", "--all", home=home).line["retried"] == sum(kept)
    assert census_of(home).holds()


def test_letters_fill_a_file_and_then_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is rewritten when a letter leaves it, so it stays small."""
    monkeypatch.setattr(dead_letters, "FILE_BYTES", 3000)
    tools = [f"tool-{number}" for number in range(20)]
    with (
        Server(choose=rejecting(*tools)) as server,
        client_of(home, server.url, events=20) as client,
    ):
        assert client.flush(timeout_s=60).dead == 23
    there = Home(str(home))
    files = segment_names(there, there.dead)
    assert len(files) > 2
    assert set(files) == set(read_snapshot(there.ledger).dead_files)
    assert len(set(names_of(home))) == 23


def test_dropping_waits_for_a_flusher(home: Path) -> None:
    """Only whoever holds the flush lock writes the books."""
    with holding(str(home / "flush.lock")):
        done = tool("dead", "drop", "--all", "--wait", "0.1", home=home)
    assert (done.code, done.out) == (1, b"")
    assert "a flusher is at work" in done.err
    assert census_of(home).dead == 3
