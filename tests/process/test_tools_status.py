"""`status`: the equation, what happens next, and why it is on or off."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.delivery import schedule
from telemetry.delivery.census import QUICK_BYTES, Census, take_census
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of, record
from tests.support.loopback import Behaviour, Received, Server
from tests.support.terminals import at_terminal
from tests.support.tooling import tool
from tests.support.writers import plant, segment_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a spool is made."""
    return tmp_path / "home"


def equation(line: dict[str, int]) -> tuple[int, ...]:
    """The numbers of the conservation equation, in its order."""
    names = ("recorded", "pending", "delivered", "dead", "damaged", "purged")
    return tuple(line[name] for name in names)


def test_a_refusal_is_of_the_past_once_a_later_event_is_recorded(home: Path) -> None:
    """A limit of file sizes in one run is no full disk, and no flush may come for hours."""
    with client_of(home, "", events=1):
        pass
    refusals.count(str(home / "refused"), [("disk_error", 1)])
    segment = home / "spool" / segment_names(Home(str(home)))[0]
    os.utime(segment, ns=(1, 1))
    assert "new events are refused" in tool("status", home=home).line["why"]
    with client_of(home, "", events=1):
        pass
    os.utime(home / "refused", ns=(1, 1))
    assert "; later ones are recorded; " in tool("status", home=home).line["why"]


def test_it_says_what_was_recorded_and_what_became_of_it(home: Path) -> None:
    """The first question of whoever looks after a spool."""
    with Server() as server, client_of(home, server.url, events=5) as client:
        before_ms = time.time() * 1000
        client.flush(timeout_s=60)
        record(client, 3)
        with pytest.raises(AssertionError):
            record_too_big(client)
        status = tool("status", home=home)
    assert (status.code, status.err) == (0, "")
    line = status.line
    assert equation(line) == (8, 3, 5, 0, 0, 0)
    assert line["balanced"]
    assert line["refused"] == {"too_big": 1}
    assert line["segments"] == len(segment_names(Home(str(home))))
    assert line["spool_bytes"] == sum(
        path.stat().st_size for path in (home / "spool").iterdir()
    )
    assert 0 <= line["oldest_event_age_s"] < 60
    assert before_ms - 1 <= line["last_success_ms"] <= time.time() * 1000
    assert (line["last_error"], line["failures"], line["requests"]) == (None, 0, 1)
    assert line["last_flush"] == "drained"
    # After a flush that emptied the spool the next one is a minute ahead.
    assert 50 < line["next_flush_ms"] / 1000 - time.time() < 70
    assert (line["telemetry"], line["rule"], line["flusher"]) == (
        "on",
        "default",
        "none",
    )


def record_too_big(client: telemetry.Client) -> None:
    """An event above the bound."""
    event = telemetry.ToolEvent(action="call", tool_name="x " * 300_000)
    assert client.track(event)


def test_what_went_wrong_is_told(home: Path) -> None:
    """And when it will be tried again."""
    with Server(bad.reply(503, b"try later", {"Retry-After": "7200"})) as server:
        with client_of(home, server.url, events=2) as client:
            client.flush(timeout_s=60)
        line = tool("status", home=home).line
    assert "503" in line["last_error"]
    assert time.time() * 1000 - line["last_error_ms"] < 60_000
    assert (line["failures"], line["last_flush"]) == (1, "waiting")
    # What the server asked for is spread to up to twice of it.
    assert 7100 < line["next_flush_ms"] / 1000 - time.time() < 14500
    assert line["why_code"] == "server"
    assert "does not accept: HTTP 503: try later; the next flush may" in line["why"]
    assert "hours (1 in a row failed)" in line["why"]
    assert line["why"] in at_terminal("status", home=home, columns=400).text


def test_refusals_are_counted_once_folded_or_not(home: Path) -> None:
    """They are in a file of their own until a flusher takes note of them."""
    with Server() as server, client_of(home, server.url, events=1) as client:
        refusals.add(str(home / "refused"), {"spool_full": 3})
        assert tool("status", home=home).line["refused"] == {"spool_full": 3}
        client.flush(timeout_s=60)
        assert tool("status", home=home).line["refused"] == {"spool_full": 3}
        refusals.add(str(home / "refused"), {"spool_full": 2, "busy": 1})
        expected = {"spool_full": 5, "busy": 1}
        assert tool("status", home=home).line["refused"] == expected


def test_a_spool_that_is_full_is_told_however_the_last_flush_ended(home: Path) -> None:
    """A flush takes note of refusals, and makes no room where it fails."""
    with Server(bad.reply(503)) as server:
        bounds = {"spool_bytes_max": 65536, "segment_bytes_max": 65536}
        with client_of(home, server.url, events=0, **bounds) as client:
            while client.track("filled", {"text": "x" * 500}):
                pass
            said = "new events are refused, as the spool is full; "
            assert said in tool("status", home=home).line["why"]
            client.flush(timeout_s=60)
            status = tool("status", home=home).line
    assert status["refused"] == {"spool_full": 1}
    assert "new events may be refused, as the spool is full" in status["why"]
    assert status["why_code"] == "server"


def test_books_that_do_not_balance_are_told(home: Path) -> None:
    """A dead letter that somebody removed by hand is an event nobody knows about."""
    with Server(bad.reply(422)) as server:
        for number in range(5):
            with client_of(home, server.url, events=0 if number else 1) as client:
                client.flush(timeout_s=60)
    (letter,) = (home / "dead").iterdir()
    assert tool("status", home=home).code == 0
    letter.unlink()
    status = tool("status", home=home)
    assert (status.code, status.line["balanced"]) == (1, False)
    seen = at_terminal("status", home=home)
    assert seen.code == 1
    assert "THE BOOKS DO NOT BALANCE" in seen.text


def test_nothing_is_promised_while_it_is_off(home: Path) -> None:
    """A time of a next flush would be read as `it goes on`."""
    with Server() as server, client_of(home, server.url, events=1) as client:
        client.flush(timeout_s=60)
    tool("disable", home=home)
    assert tool("status", home=home).line["why_code"] == "off"
    seen = at_terminal("status", home=home)
    assert "next flush" not in seen.text
    assert "last flush    none so far" in seen.text


def test_a_flusher_that_settles_at_every_look_is_no_imbalance(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger and the files are of different moments then: nothing is missing."""
    with Server(choose=_rejects_all) as server, client_of(home, server.url) as client:
        client.track(telemetry.CommandEvent(action="run"))
        client.flush(timeout_s=60)
        calls = []

        def look(*args: Any, **named: Any) -> Census:
            calls.append(1)
            if len(calls) < 9:
                with client_of(home, server.url, events=2):
                    pass
                client.flush(timeout_s=60)
            return take_census(*args, **named)

        monkeypatch.setattr("spool_tools.status.take_census", look)
        status = tool("status", home=home)
        assert (status.code, status.line["balanced"]) == (0, True)
        # A difference that is there while nothing is settled is told at the first look.
        calls += [1] * 9
        looks = len(calls)
        next((home / "dead").iterdir()).unlink()
        assert tool("status", home=home).code == 1
        assert len(calls) == looks + 1


def _rejects_all(request: Received) -> Behaviour:
    events = json.loads(request.plain_body)["records"]
    named = [
        {"event_id": event["properties"]["event_id"], "reason": "no"}
        for event in events
    ]
    return bad.reply(200, json.dumps({"rejected": named}).encode())


def test_counting_by_numbers_agrees_with_counting_by_reading(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool above the usual bound is counted by the numbers of its last records."""
    with Server() as server, client_of(home, server.url, segment_bytes_max=9000) as it:
        record(it, 100)
        it.flush(timeout_s=60)
        record(it, 250)
        by_marks = tool("status", home=home).line
        monkeypatch.setattr("telemetry.delivery.census.QUICK_BYTES", 20_000)
        mixed = tool("status", home=home).line
        monkeypatch.setattr("telemetry.delivery.census.QUICK_BYTES", 0)
        by_numbers = tool("status", home=home).line
    assert equation(by_marks) == equation(mixed) == equation(by_numbers)
    assert equation(by_marks) == (350, 250, 100, 0, 0, 0)
    assert census_of(home).pending == 250
    assert telemetry.Config(app="x").spool_bytes_max <= QUICK_BYTES


def test_missing_and_torn_records_are_counted_as_damaged(home: Path) -> None:
    """The same as a flusher will count when it comes to them."""
    with client_of(home, "", events=1):
        pass
    there = Home(str(home))
    (name,) = segment_names(there)
    Path(there.segment(name)).unlink()
    whole = segment_of(*[b'{"n":%d}' % n for n in range(6)])
    records = whole.split(b"\n")
    without = b"\n".join([records[0], *records[3:]])
    plant(there, 10**18, without[:-5])
    line = tool("status", home=home).line
    assert equation(line) == (6, 3, 0, 0, 3, 0)
    assert line["balanced"]
    assert census_of(home).damaged == 3


def test_the_newest_record_may_be_longer_than_one_read(home: Path) -> None:
    """The number of the last record is looked for as far back as one can be long."""
    there = Home(str(home))
    home.mkdir(mode=0o700)
    (home / "spool").mkdir(mode=0o700)
    long = b'{"text":"%b"}' % (b"x" * 700_000)
    plant(there, 10**18, segment_of(b"{}", long) + b"\x1e{torn")
    assert equation(tool("status", home=home).line) == (3, 2, 0, 0, 1, 0)


def test_json_is_one_line_on_a_terminal_too(home: Path) -> None:
    """A person may want the names of all fields."""
    with client_of(home, "", events=1):
        pass
    seen = at_terminal("status", "--json", home=home)
    assert seen.text.count("\n") == 1
    assert '"pending":1' in seen.text


def test_a_clock_that_was_wrong_is_no_reason_to_wait(home: Path) -> None:
    """A time that nothing here ever sets counts as due."""
    with client_of(home, "", events=1):
        pass
    where = {"TELEMETRY_ENDPOINT": "https://x.example/", "TELEMETRY_API_KEY": KEY}
    for spoil in (
        lambda path: os.utime(path, (2**33, 2**33)),
        lambda path: path.unlink(),
    ):
        spoil(home / "next-flush")
        assert tool("status", home=home, **where).line["why_code"] == "due"
    assert tool("status", home=home).line["next_flush_ms"] is None
    schedule.make(str(home / "next-flush"))
    with Server(bad.reply(401)) as server, client_of(home, server.url) as client:
        client.flush(timeout_s=60)
    line = tool("status", home=home).line
    assert line["why_code"] == "paused"
    assert "paused until endpoint, key, header, format or gzip change" in line["why"]


@pytest.mark.parametrize(
    "held", [["BEGIN IMMEDIATE"], ["BEGIN EXCLUSIVE"], ["BEGIN", "SELECT * FROM Cache"]]
)
def test_a_ledger_that_another_program_holds_is_told(
    home: Path, held: list[str]
) -> None:
    """A browser of databases that was left open keeps every flush from its books."""
    with Server() as server, client_of(home, server.url, events=5) as client:
        client.flush(timeout_s=60)
        record(client, 1)
    holding = sqlite3.connect(home / "ledger" / "cache.db", isolation_level=None)
    with contextlib.closing(holding):
        read = [holding.execute(each) for each in held][-1]
        read.fetchone()
        told = tool("status", "--json", home=home).line
        assert told["why_code"] == "unusable"
        assert "another program holds the ledger (database is locked)" in told["why"]
        assert "`chown`" not in told["why"]
        read.close()
    assert tool("status", "--json", home=home).line["why_code"] != "unusable"


def test_a_ledger_with_another_kind_of_journal_is_looked_at_and_left(
    home: Path, tmp_path: Path
) -> None:
    """Somebody's browser of databases changed it; to open it for writing would as well."""
    with Server() as server, client_of(home, server.url, events=5) as client:
        client.flush(timeout_s=60)
    ledger, browsed = home / "ledger", tmp_path / "browsed"
    browsing = sqlite3.connect(ledger / "cache.db", isolation_level=None)
    with contextlib.closing(browsing):
        browsing.execute("PRAGMA journal_mode = wal")
        browsing.execute("CREATE TABLE theirs (row)")
        shutil.copytree(ledger, browsed)
    shutil.rmtree(ledger)
    shutil.copytree(browsed, ledger)
    files = ledger / "cache.db", ledger / "cache.db-wal"
    before = [file.read_bytes() for file in files]
    assert all(before)
    tool("status", home=home)
    assert [file.read_bytes() for file in files] == before


def test_without_a_spool_it_says_what_turned_it_off(tmp_path: Path) -> None:
    """Off by environment, nothing is ever created: that nothing is there has a reason."""
    told = tool("status", home=tmp_path / "none", DO_NOT_TRACK="1")
    assert told.code == 3
    assert "telemetry is off: DO_NOT_TRACK=1" in told.err


@pytest.mark.skipif(os.name == "nt", reason="the limit is another one there")
def test_a_path_that_is_too_long_for_the_ledger_is_told(tmp_path: Path) -> None:
    """Events are recorded there, and no flush can note what it sent."""
    names = ["h" * 100] * 5
    for home, is_told in ((tmp_path / "h", False), (tmp_path.joinpath(*names), True)):
        with client_of(home, "https://127.0.0.1:9/", events=1) as client:
            stopped = client.flush(timeout_s=5).stopped
        found = tool("status", home=home).line
        assert (found["why_code"] == "unusable") == is_told, found
        assert (stopped == "disk") == is_told
        assert ("set TELEMETRY_HOME to a shorter one" in found["why"]) == is_told
