"""Bars: what they say, where they are drawn, and that nothing is left of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import misbehaving as bad
from tests.support.delivering import KEY, client_of
from tests.support.loopback import Exchange, Server
from tests.support.terminals import at_terminal


# A bar is drawn only for what takes a moment; here nothing does.
AT_ONCE = "import spool_tools.screen as it; it._SHOWN_AFTER_S = 0\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool with 28 events."""
    with client_of(tmp_path / "home", "", events=28):
        return tmp_path / "home"


@pytest.mark.parametrize("command", ["dump", "verify", "flush"])
def test_a_bar_shows_rate_and_time_left_and_goes(command: str, home: Path) -> None:
    """Whoever waits wants to know how long; afterwards it is in nobody's way."""

    def slowly(exchange: Exchange) -> None:
        exchange.pause(0.5)
        bad.reply(200)(exchange)

    with Server(slowly) as server:
        variables = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url}
        seen = at_terminal(
            command, home=home, columns=120, prelude=AT_ONCE, variables=variables
        )
        plain = at_terminal(
            command,
            home=home,
            rich=False,
            prelude=AT_ONCE,
            variables=variables,
        )
    assert re.search(rf"{command} [━╸╺]+ +\d+/28", seen.text)
    assert re.search(r"-:--:--|0:00:0\d", seen.text)
    # The bar is wiped, and the cursor is there again.
    assert seen.raw.rindex(b"\x1b[?25h") > seen.raw.rindex(b"\x1b[?25l")
    assert b"\x1b" not in plain.raw


def test_a_dump_into_a_file_draws_its_bar_beside_it(home: Path, tmp_path: Path) -> None:
    """What goes into the file is the events, and nothing else."""
    into = (
        "import os, sys\n"
        f"os.dup2(os.open({str(tmp_path / 'out')!r}, os.O_WRONLY | os.O_CREAT), 1)\n"
    )
    seen = at_terminal("dump", home=home, prelude=AT_ONCE + into)
    assert b"dump" in seen.raw
    lines = (tmp_path / "out").read_bytes().splitlines()
    assert len(lines) == 28
    assert all(line.startswith(b'{"event":"tool"') for line in lines)


def test_what_is_over_at_once_draws_no_bar(home: Path) -> None:
    """A bar that flickers past only makes people wonder what it said."""
    assert b"/28" not in at_terminal("dump", home=home).raw
    assert b"\x1b[?25l" not in at_terminal("verify", home=home).raw


def test_ctrl_c_ends_a_flush_and_leaves_the_terminal_as_it_was(home: Path) -> None:
    """It is as if it had been killed: nothing is lost."""
    with Server(lambda exchange: exchange.wait_for_end()) as server:
        seen = at_terminal(
            "flush",
            home=home,
            prelude=AT_ONCE,
            interrupt_at=b"flush",
            variables={"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url},
        )
    assert seen.code == 130
    assert seen.raw.rindex(b"\x1b[?25h") > seen.raw.rindex(b"\x1b[?25l")
    assert b"Traceback" not in seen.raw


def test_following_draws_each_event_as_it_comes(home: Path) -> None:
    """A table that waited for a hundred rows would show nothing."""
    seen = at_terminal(
        "dump", "--follow", home=home, columns=200, interrupt_at=b"tool-27"
    )
    assert seen.code == 130
    assert "time (UTC)" in seen.text
