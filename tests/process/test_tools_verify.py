"""`verify`: finds every damage, names its place, and is quick about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from telemetry.paths import Home
from telemetry.spool.frame import encode
from telemetry.spool.reader import segment_names
from tests.support.delivering import client_of, record, rejecting
from tests.support.loopback import Server
from tests.support.tooling import process, tool
from tests.support.writers import holding, plant, segment_of


EVENTS = [b'{"event":"tool","number":%d}' % number for number in range(9)]
WHOLE = segment_of(*EVENTS)
ENDS = [len(segment_of(*EVENTS[: n + 1])) for n in range(9)]
NAME = f"{10**18:020d}-00000000.v1.jseq"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home without a segment."""
    home = tmp_path / "home"
    with client_of(home, "", events=1):
        pass
    there = Home(str(home))
    Path(there.segment(segment_names(there)[0])).unlink()
    return home


def test_a_whole_spool_is_said_to_be_whole(home: Path) -> None:
    """Every record was looked at, also those that are delivered."""
    with Server() as server, client_of(home, server.url, events=10) as client:
        client.flush(timeout_s=60)
        record(client, 20)
        done = tool("verify", home=home)
    assert (done.code, done.err) == (0, "")
    line = done.line
    assert (line["records"], line["segments"], line["findings"]) == (30, 1, 0)
    assert line["bytes"] == sum(p.stat().st_size for p in (home / "spool").iterdir())


@pytest.mark.parametrize(
    ("content", "found", "records", "missing"),
    [
        (
            WHOLE[: ENDS[2] + 20] + b"?" + WHOLE[ENDS[2] + 21 :],
            [(ENDS[2], ENDS[3] - ENDS[2], "no whole record")],
            8,
            1,
        ),
        (
            WHOLE[: ENDS[2]] + WHOLE[ENDS[4] :],
            [(ENDS[2], 0, "2 records missing before")],
            7,
            2,
        ),
        (WHOLE[:-3], [(ENDS[7], len(WHOLE) - 3 - ENDS[7], "torn")], 8, 0),
        (
            WHOLE[: ENDS[2]] + b"\0" * 100 + WHOLE[ENDS[2] :],
            [(ENDS[2], 100, "no whole record, 0 numbers missing")],
            9,
            0,
        ),
        (b"\0" * 500, [(0, 500, "torn")], 0, 0),
        (b"\x89PNG\r\n\x1a\n" * 9, [(0, 72, "torn")], 0, 0),
        (
            WHOLE + WHOLE,
            [(len(WHOLE), 0, "number that was there")],
            18,
            0,
        ),
        (
            WHOLE[: ENDS[2]] + WHOLE[ENDS[1] : ENDS[2]] + WHOLE[ENDS[2] :],
            [(ENDS[2], 0, "number that was there")],
            10,
            0,
        ),
        (b"", [], 0, 0),
        (encode(7, b"{}"), [(0, 0, "7 records missing before")], 1, 7),
    ],
    ids=[
        "flipped",
        "two left out",
        "cut",
        "zeros inside",
        "only zeros",
        "foreign",
        "doubled",
        "one twice",
        "empty",
        "the first ones gone",
    ],
)
def test_every_damage_is_found_at_its_place(
    content: bytes,
    found: list[tuple[int, int, str]],
    records: int,
    missing: int,
    home: Path,
) -> None:
    """By segment and offset, so that it can be looked at with any other tool."""
    name = plant(Home(str(home)), 10**18, content)
    done = tool("verify", home=home)
    *findings, tally = done.lines
    assert done.code == (1 if found else 0)
    assert [(each["offset"], each["bytes"]) for each in findings] == [
        each[:2] for each in found
    ]
    for each, (_, _, problem) in zip(findings, found, strict=True):
        assert problem in each["problem"]
        assert each["segment"] == name
    assert (tally["records"], tally["missing_records"]) == (records, missing)
    assert done.err == ""


def test_damage_that_was_put_away_is_said_to_be(home: Path) -> None:
    """What the flusher has passed is no news."""
    with Server() as server, client_of(home, server.url) as client:
        record(client, 5)
        (name,) = segment_names(Home(str(home)))
        path = Path(Home(str(home)).segment(name))
        content = path.read_bytes()
        path.write_bytes(content[:100] + b"?" + content[101:])
        client.flush(timeout_s=60)
        finding, tally = tool("verify", home=home).lines
    assert finding["problem"] == "no whole record, 1 number missing; in quarantine"
    assert tally["quarantined_files"] == 1
    assert tally["quarantined_bytes"] == finding["bytes"]


def test_a_record_that_is_being_written_is_no_damage(home: Path) -> None:
    """Half-written records are seen by one look in five."""
    name = plant(Home(str(home)), 10**18, WHOLE[:-3])
    with holding(Home(str(home)).segment(name)):
        assert tool("verify", home=home).code == 0
        assert tool("status", home=home).line["damaged"] == 0
    assert tool("verify", home=home).code == 1


def test_the_ledger_is_looked_at_too(home: Path) -> None:
    """A spool is more than its segments."""
    with Server() as server, client_of(home, server.url, events=1) as client:
        client.flush(timeout_s=60)
    assert tool("verify", home=home).code == 0
    (home / "ledger" / "cache.db").write_bytes(b"garbage" * 1000)
    done = tool("verify", home=home)
    assert done.code == 1
    assert "cache.db" in done.err


def test_a_damaged_dead_letter_is_a_finding(home: Path) -> None:
    """Its event is lost, and nobody else would say so."""
    with (
        Server(choose=rejecting("tool-1", "tool-3")) as server,
        client_of(home, server.url, events=5) as client,
    ):
        assert client.flush(timeout_s=60).dead == 2
    assert tool("verify", home=home).code == 0
    (file,) = (home / "dead").iterdir()
    file.write_bytes(file.read_bytes().replace(b"tool-1", b"tool-?"))
    done = tool("verify", home=home)
    finding, tally = done.lines
    assert (done.code, tally["findings"]) == (1, 1)
    assert finding == {
        "segment": f"dead/{file.name}",
        "offset": None,
        "bytes": 0,
        "problem": "a letter is damaged",
    }


def test_files_of_another_version_are_left_alone(home: Path) -> None:
    """They are no damage; whoever wrote them will read them."""
    (home / "spool" / NAME.replace(".v1.", ".v2.")).write_bytes(b"anything")
    done = tool("verify", home=home)
    assert (done.code, done.line["foreign_files"]) == (0, 1)
    assert tool("status", home=home).line["foreign"] == [NAME.replace(".v1.", ".v2.")]


def test_reading_ten_times_as_much_takes_no_more_memory(home: Path) -> None:
    """Largest sizes are asked of processes, where nothing else was loaded before."""
    sizes = []
    for segments in (2, 20):
        for number in range(segments):
            plant(
                Home(str(home)),
                10**18 + number,
                segment_of(*[b'{"fill":"%b"}' % (b"x" * 400)] * 4000),
            )
        running = process("verify", home=home)
        with running:
            assert running.stdout is not None
            assert b'"findings":0' in running.stdout.read()
            _, status, usage = os.wait4(running.pid, 0)
            running.returncode = os.waitstatus_to_exitcode(status)
        sizes.append(usage.ru_maxrss)
    assert sizes[1] < sizes[0] * 1.3
