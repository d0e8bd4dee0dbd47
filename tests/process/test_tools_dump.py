"""`dump`: what it shows is what is there, and what it says is sent is what is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import telemetry
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import (
    KEY,
    census_of,
    client_of,
    letters_of,
    record,
    rejecting,
    write_early_letter,
)
from tests.support.loopback import Server
from tests.support.surroundings import spooled_bytes
from tests.support.terminals import at_terminal
from tests.support.tooling import Ran, environment, killed_at_the_end, tool
from tests.support.writers import plant, segment_of, wait_until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a spool is made."""
    return tmp_path / "home"


def delivered_but(home: Path, *tools: str, events: int = 20) -> None:
    """`events` events were sent, and these became dead letters."""
    with (
        Server(choose=rejecting(*tools)) as server,
        client_of(home, server.url, events=events) as client,
    ):
        assert client.flush(timeout_s=60).dead == len(tools)


def names_in(dumped: Ran) -> list[str]:
    """The names of the tools in the lines of a dump."""
    return [line["properties"]["tool_name"] for line in dumped.lines]


def test_off_a_terminal_it_is_exactly_what_will_be_sent(home: Path) -> None:
    """Who looks at a dump must see every byte that would leave the machine."""
    with client_of(home, "", events=700, segment_bytes_max=64 * 1024):
        dumped = tool("dump", home=home)
    assert (dumped.code, dumped.err) == (0, "")
    assert dumped.out.splitlines() == spooled_bytes(home)
    assert len(segment_names(Home(str(home)))) > 3


def test_choosing_by_name_time_and_number(home: Path) -> None:
    """A spool of a month is too long to be read."""
    with client_of(home, "") as client:
        client.record_session_start("agent", "session")
        record(client, 3)
    assert names_in(tool("dump", "--event", "tool", home=home)) == [
        "tool-0",
        "tool-1",
        "tool-2",
    ]
    assert names_in(tool("dump", "--event", "tool", "--limit", "2", home=home)) == [
        "tool-0",
        "tool-1",
    ]
    assert tool("dump", "--event", "nothing", home=home).lines == []
    assert tool("dump", "--limit", "0", home=home).lines == []
    assert len(tool("dump", "--since", "5m", home=home).lines) == 4
    assert len(tool("dump", "--since", "2020-01-31T12:00", home=home).lines) == 4
    assert tool("dump", "--since", "2999-01-31", home=home).lines == []


def test_since_means_the_moment_itself(home: Path) -> None:
    """Off by one zone, it would hide what somebody looks for."""
    home.mkdir(mode=0o700)
    (home / "spool").mkdir(mode=0o700)
    # 2026-01-31T12:00:00Z
    moment_ms = 1_769_860_800_000
    events = [
        b'{"event":"tool","event_timestamp":%d,"n":%d}' % (moment_ms + n, n)
        for n in (-1, 0, 1)
    ]
    plant(Home(str(home)), 10**18, segment_of(*events))
    for told in ("2026-01-31T12:00", "2026-01-31T12:00Z", "2026-01-31T13:00+01:00"):
        dumped = tool("dump", "--since", told, home=home)
        assert [line["n"] for line in dumped.lines] == [0, 1]


def test_dead_letters_and_damage_are_shown_with_their_state(home: Path) -> None:
    """What will not be sent is what somebody has to decide about."""
    delivered_but(home, "tool-3", "tool-9")
    with client_of(home, "", events=3):
        pass
    (name,) = segment_names(Home(str(home)))
    path = Path(Home(str(home)).segment(name))
    whole = path.read_bytes()
    # The second of the three is flipped, the third one cut.
    second = whole.rindex(b"\x1e", 0, whole.rindex(b'"tool-1"'))
    damaged = whole[: second + 60] + b"?" + whole[second + 61 : -5]
    path.write_bytes(damaged)

    assert names_in(tool("dump", "--state", "dead", home=home)) == ["tool-3", "tool-9"]
    assert names_in(tool("dump", "--state", "pending", home=home)) == ["tool-0"]
    assert tool("dump", "--state", "damaged", home=home).line == {
        "segment": name,
        "offset": second,
        "bytes": len(damaged) - second,
        "quarantined": False,
        "file": str(path),
    }
    everything = tool("dump", "--state", "all", home=home).lines
    assert [line["state"] for line in everything] == [
        "pending",
        "dead",
        "dead",
        "damaged",
    ]
    assert everything[0]["event"] == tool("dump", home=home).line
    # What was put away is still shown, and where it is now.
    with Server() as server, client_of(home, server.url) as client:
        assert client.flush(timeout_s=60).damaged == 1
    put_away = tool("dump", "--state", "damaged", home=home).line
    assert put_away["quarantined"]
    assert Path(put_away["file"]).read_bytes() == damaged[second:]


def test_it_shows_as_many_as_status_counts(home: Path) -> None:
    """Two tools that disagree about a spool help nobody."""
    delivered_but(home, "tool-3", "tool-9", "tool-11")
    with client_of(home, "", events=5):
        pass
    first = letters_of(home)[0].name
    assert tool("dead", "retry", first, home=home).line == {"retried": 1, "dropped": 0}
    # A letter of an event that is not settled: its segment still has it.
    name = segment_names(Home(str(home)))[-1]
    write_early_letter(home, name)
    status = tool("status", home=home).line
    assert (status["pending"], status["dead"], status["balanced"]) == (6, 2, True)
    for state in ("pending", "dead"):
        shown = tool("dump", "--state", state, home=home).lines
        assert len(shown) == status[state]


def test_a_table_has_a_line_for_each_event(home: Path) -> None:
    """Columns are for people; asked for, they come off a terminal, too, and uncut."""
    with client_of(home, "", events=2):
        dumped = tool("dump", "--format", "table", home=home)
    heading, *rows = dumped.out.decode().splitlines()
    assert heading.split() == ["time", "(UTC)", "event", "properties"]
    assert len(rows) == 2
    # Empty texts are left out: they would push what is there off the screen.
    assert rows[1].endswith("  call tool_name=tool-1 success=true duration_ms=1")


# Announces a batch of seven and is killed while the server thinks about it.
KILLED = """
import sys, telemetry
config = telemetry.Config(app="app", home=sys.argv[1], endpoint=sys.argv[2],
    api_key=sys.argv[3], flush="manual", batch_events_max=7)
telemetry.Client(config).flush(timeout_s=60)
"""


def test_as_sent_is_byte_for_byte_what_a_collector_receives(home: Path) -> None:
    """Also what a killed flusher had announced, and dead letters that are retried."""
    delivered_but(home, "tool-3", "tool-9", "tool-11")
    assert tool("dead", "retry", "--all", home=home).line["retried"] == 3
    with client_of(home, "", segment_bytes_max=256 * 1024) as client:
        record(client, 1500)
    assert len(segment_names(Home(str(home)))) >= 3
    _announce_and_kill(home)
    with client_of(home, "") as client:
        record(client, 30, first=5000)
    _damage_the_second_segment(home)

    planned = tool("dump", "--as-sent", home=home)
    assert (planned.code, planned.err) == (0, "")
    assert len(planned.lines[0]["records"]) == 7
    with Server() as server:
        flushed = tool(
            "flush",
            home=home,
            TELEMETRY_ENDPOINT=server.url,
            TELEMETRY_API_KEY=KEY,
        )
        assert flushed.line["pending"] == 0
        received = [request.body for request in server.requests]
    # Several requests are under way at once.
    assert sorted(received) == sorted(planned.out.splitlines())
    assert sum(len(line["records"]) for line in planned.lines) == 1529 + 3
    assert tool("dump", "--as-sent", home=home).out == b""
    assert census_of(home).holds()


def test_as_sent_plans_with_the_bounds_of_the_program(tmp_path: Path) -> None:
    """They are known from its last flush, whatever came of it."""
    home = tmp_path / "home"
    bounds = {"batch_events_max": 7, "batch_bytes_max": 2000}
    with Server(bad.reply(401), bad.reply(200)) as server:
        with client_of(home, server.url, events=1, **bounds) as client:
            assert client.flush(timeout_s=60).stopped == "paused"
            record(client, 40)
        planned = tool("dump", "--as-sent", home=home).lines
        sizes = [len(line["records"]) for line in planned]
        assert sum(sizes) == 41
        assert 1 < max(sizes) <= 7
        before = len(server.requests)
        secrets = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": "another"}
        assert tool("flush", home=home, **secrets).line["pending"] == 0
        sent = [json.loads(request.body) for request in server.requests[before:]]
    # Several requests are under way at once.
    assert sorted(sent, key=str) == sorted(planned, key=str)


def _announce_and_kill(home: Path) -> None:
    with Server(lambda exchange: exchange.wait_for_end()) as server:
        running = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(home), server.url, KEY],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with killed_at_the_end(running):
            wait_until(lambda: len(server.requests) > 0)


def _damage_the_second_segment(home: Path) -> None:
    path = Path(Home(str(home)).segment(segment_names(Home(str(home)))[1]))
    content = path.read_bytes()
    path.write_bytes(content[:100_000] + b"?" + content[100_001:])


def test_as_sent_shows_any_format(home: Path) -> None:
    """The one that the program sent in last, unless another is named."""
    with client_of(home, "", events=3):
        pass
    events = tool("dump", home=home).out
    assert len(tool("dump", "--as-sent", home=home).line["records"]) == 3
    assert tool("dump", "--as-sent", "ndjson", home=home).out == events
    with Server() as server, client_of(home, server.url, format="ndjson") as client:
        client.flush(timeout_s=60)
    assert server.requests[0].body.split() == events.split()
    with client_of(home, "", events=1):
        pass
    assert "records" not in tool("dump", "--as-sent", home=home).line
    assert tool("dump", "--as-sent", "xml", home=home).code == 2


def test_a_batch_that_is_no_longer_as_announced_is_planned_anew(home: Path) -> None:
    """What was announced and then damaged is void; the flusher plans it again, too."""
    with client_of(home, "", events=20):
        _announce_and_kill(home)
    (name,) = segment_names(Home(str(home)))
    path = Path(Home(str(home)).segment(name))
    path.write_bytes(path.read_bytes().replace(b"tool-2", b"tool-X"))
    planned = tool("dump", "--as-sent", home=home)
    assert sum(len(line["records"]) for line in planned.lines) == 19
    with Server() as server, client_of(home, server.url) as client:
        assert client.flush(timeout_s=60).delivered == 19
    assert [request.body for request in server.requests] == planned.out.splitlines()


def test_an_event_that_is_no_json_is_shown_and_passes_no_filter(home: Path) -> None:
    """A record's checksum says nothing about what a foreign writer put into it."""
    home.mkdir(mode=0o700)
    (home / "spool").mkdir(mode=0o700)
    odd = [b"{\xff}", b"[" * 5000, b'"text"', b"{}"]
    plant(Home(str(home)), 10**18, segment_of(*odd))
    assert tool("dump", home=home).out.splitlines() == odd
    assert tool("dump", "--event", "tool", home=home).lines == []
    assert tool("dump", "--since", "1h", home=home).lines == []
    table = tool("dump", "--format", "table", home=home)
    assert (table.code, len(table.out.splitlines())) == (0, 5)


def test_a_tools_event_is_kept_as_the_program_wrote_it(home: Path) -> None:
    """Numbers, order and escapes of a program's own events are not touched."""

    class Build:
        def get_event_type(self) -> str:
            return "build"

        def to_structured_properties(self) -> dict[str, object]:
            return {"big": 2**63, "text": "\x1b[31m\u202e\u009b", "none": None}

    with client_of(home, "", scrub=False) as client:
        assert client.track(Build())
    shown = tool("dump", home=home)
    assert shown.line["properties"]["big"] == 2**63
    assert shown.line["properties"]["text"] == "\x1b[31m\u202e\u009b"
    assert b"\x1b" not in shown.out


def test_a_narrow_table_keeps_success_and_flags(home: Path) -> None:
    """Eighty columns are what a terminal has: what went wrong must not be cut off."""
    with client_of(home, "") as client:
        client.track(
            telemetry.CommandEvent(
                action="cluster deploy eu-west-1",
                success=True,
                flags=["--region", "-f"],
            )
        )
    seen = at_terminal("dump", home=home, columns=80, rich=False).text
    assert "cluster deploy eu-w… success=true flags=--region" in seen


def test_a_person_is_told_where_nothing_is_pending(home: Path) -> None:
    """An empty screen leaves open whether it looked; a program gets no line at all."""
    with client_of(home, "", events=1):
        pass
    seen = at_terminal("dump", "--event", "other", home=home)
    assert (seen.code, "there is nothing that is pending" in seen.text) == (0, True)
    done = tool("dump", "--event", "other", home=home)
    assert (done.code, done.out, done.err) == (0, b"", "")
