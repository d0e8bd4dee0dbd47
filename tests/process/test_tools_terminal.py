"""What a person sees: with rich and without, in 80 columns and in 120, and safely."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spool_tools.wording import columns
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import client_of
from tests.support.loopback import Exchange, Server
from tests.support.terminals import at_terminal
from tests.support.writers import plant, segment_of


# What a terminal obeys, or what makes a line look like another one: ESC, C1, the
# signs of writing direction, line and paragraph separators, invisible ones.
HOSTILE = "\x1b[31mred\x9b32m\x90\x9d0;title\x07\u202ertl\u2066\u2028\u2029\u200b\ufeff"
COMMANDS = (
    ("dump",),
    ("dump", "--format", "jsonl"),
    ("dump", "--state", "all"),
    ("dump", "--state", "all", "--format", "jsonl"),
    ("dump", "--state", "damaged", "--format", "jsonl"),
    ("dump", "--as-sent"),
    ("status",),
    ("status", "--json"),
    ("status", "--explain"),
    ("verify",),
    ("dead", "list"),
    ("events",),
)


class HostileEvent:
    """An event of a program's own."""

    def get_event_type(self) -> str:
        return HOSTILE

    def to_structured_properties(self) -> dict[str, object]:
        return {"tool_name": HOSTILE, HOSTILE: HOSTILE, "wide": "漢字" * 40}


def _repeats_what_it_was_sent(exchange: Exchange) -> None:
    assert exchange.request is not None
    body = exchange.request.body + HOSTILE.encode()
    bad.reply(422, body)(exchange)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool with everything in it that should not reach a terminal."""
    home = tmp_path_factory.mktemp("hostile") / "home"
    with Server(_repeats_what_it_was_sent) as server:
        for number in range(5):
            with client_of(home, server.url, scrub=False) as client:
                assert number or client.track(HostileEvent())
                client.flush(timeout_s=60)
    with client_of(home, "", scrub=False) as client:
        assert client.track(HostileEvent())
    raw = b'{"event":"raw","properties":{"a":"%b"}}' % HOSTILE.encode()
    plant(Home(str(home)), 10**18, segment_of(raw) + b"torn")
    (home / "spool" / f"{HOSTILE[:20]}\udcff").touch()
    (home / "quarantine").mkdir()
    (home / "quarantine" / f"{HOSTILE[:20]}-7").touch()
    (home / "dead" / f"{HOSTILE[:20]}.v1.jseq-7").write_bytes(
        next((home / "dead").iterdir()).read_bytes()
    )
    return home


@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_nothing_that_a_terminal_obeys_reaches_it(rich: bool, hostile: Path) -> None:
    """An event, a reply and a file's name are written by whoever likes."""
    for command in COMMANDS:
        home = None if command == ("events",) else hostile
        seen = at_terminal(*command, home=home, rich=rich)
        seen.safe()
        assert rich or b"\x1b" not in seen.raw, command


def test_complaints_are_as_safe_as_output(hostile: Path) -> None:
    """What was typed, and what was found, comes back in messages."""
    for arguments in (
        ("dead", "drop", HOSTILE, "--home", str(hostile)),
        (HOSTILE,),
        ("dump", HOSTILE),
        ("dump", "--app", HOSTILE),
        ("dump", "--home", str(hostile), "--state", HOSTILE),
        ("dump", "--home", str(hostile), "--since", HOSTILE),
        ("flush", "--home", str(hostile), "--endpoint", HOSTILE),
        ("collect", "--database", f"/nowhere/{HOSTILE}"),
        ("collect", "--listen", f"{HOSTILE}:80", "--database", ":memory:"),
    ):
        seen = at_terminal(*arguments)
        assert seen.code == 2, seen
        assert seen.safe()
    seen = at_terminal("status", home=hostile / HOSTILE)
    assert seen.code == 3
    assert seen.safe()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool with a dead letter, pending events and some damage."""
    home = tmp_path / "home"
    reply = bad.reply(422, b'{"error":"%b"}' % (b"this is not what I like " * 9))
    with Server(reply) as server:
        for number in range(5):
            with client_of(home, server.url, events=0 if number else 1) as client:
                client.flush(timeout_s=60)
    with client_of(home, "", events=30):
        pass
    path = Path(Home(str(home)).segment(segment_names(Home(str(home)))[0]))
    content = path.read_bytes()
    path.write_bytes(content[:700] + b"?" + content[701:-9])
    return home


@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_no_line_is_wider_than_the_terminal(rich: bool, home: Path) -> None:
    """A line that the terminal breaks is hard to read; a word may not be broken."""
    for command in (
        ("dump",),
        ("dump", "--state", "all"),
        ("status",),
        ("status", "--explain"),
        ("verify",),
        ("dead", "list"),
        ("events",),
    ):
        of = None if command == ("events",) else home
        for width in (80, 120):
            text = at_terminal(*command, home=of, rich=rich, columns=width).text
            lines = [line.replace(str(home), "") for line in text.splitlines()]
            assert width // 2 < max(map(columns, lines)) <= width, (command, width)


@pytest.mark.parametrize("width", [20, 40])
def test_a_narrow_terminal_is_no_error(width: int, home: Path) -> None:
    """A pane is sometimes very small."""
    for command in (("dump",), ("status",), ("verify",), ("dead", "list")):
        seen = at_terminal(*command, home=home, columns=width)
        assert seen.code in {0, 1}
        seen.safe()


def test_colours_are_rich_s_and_can_be_turned_off(home: Path) -> None:
    """https://no-color.org, and terminals that know no colours."""
    assert b"\x1b[" in at_terminal("status", home=home).raw
    assert b"\x1b" not in at_terminal("status", home=home, rich=False).raw
    plain = {"NO_COLOR": "1"}
    assert b"\x1b[3" not in at_terminal("status", home=home, variables=plain).raw


def test_the_same_is_said_with_rich_and_without(home: Path) -> None:
    """Colours are all that is missing."""
    for command in (("dump",), ("verify",), ("dead", "list"), ("status", "--explain")):
        drawn, plain = (
            re.sub(
                r"\d+ s ago", "now", at_terminal(*command, home=home, rich=rich).text
            )
            for rich in (True, False)
        )
        assert drawn == plain
