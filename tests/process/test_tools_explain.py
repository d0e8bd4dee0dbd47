"""`status --explain`: which rule decided that telemetry is on or off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.delivering import client_of
from tests.support.terminals import at_terminal
from tests.support.tooling import tool


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a spool is made."""
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("variables", "command", "telling"),
    [
        ({"DO_NOT_TRACK": "1"}, None, ("off", "do-not-track", "DO_NOT_TRACK=1")),
        (
            {"DO_NOT_TRACK": "1", "TELEMETRY_ENABLED": "off"},
            None,
            ("off", "do-not-track", "DO_NOT_TRACK=1"),
        ),
        (
            {"DO_NOT_TRACK": "0", "TELEMETRY_ENABLED": "Off"},
            None,
            ("off", "environment", "TELEMETRY_ENABLED=Off"),
        ),
        ({"TELEMETRY_ENABLED": "no"}, "enable", ("off", "environment", "…=no")),
        ({}, "disable", ("off", "remembered", "the user turned it off")),
        ({}, "enable", ("on", "remembered", "the user left it on")),
        ({"TELEMETRY_ENABLED": "true"}, "disable", ("off", "remembered", "the user")),
        ({}, None, ("on", "default", "no rule turned it off")),
    ],
)
def test_it_explains_which_rule_decided(
    variables: dict[str, str],
    command: str | None,
    telling: tuple[str, str, str],
    home: Path,
) -> None:
    """Whoever finds it on, or off, wants to know by whom."""
    with client_of(home, ""):
        pass
    if command:
        tool(command, home=home)
    told = tool("status", "--explain", home=home, **variables)
    assert (told.code, told.err) == (0, "")
    line = told.line
    assert (line["telemetry"], line["rule"]) == telling[:2]
    assert telling[2].lstrip("…") in line["reason"]
    assert [each["rule"] for each in line["rules"]] == [
        "do-not-track",
        "environment",
        "program",
        "notice",
        "remembered",
        "build",
        "default",
    ]
    seen = at_terminal("status", "--explain", home=home, variables=variables)
    assert f"telemetry is {telling[0]}: " in seen.text
    assert f"->  {telling[1]}" in seen.text


def test_why_it_is_on_can_be_asked_before_there_is_a_spool(home: Path) -> None:
    """And asking makes none."""
    told = tool("status", "--explain", home=home, DO_NOT_TRACK="yes")
    assert told.line["rule"] == "do-not-track"
    assert not home.exists()
    assert tool("status", home=home).code == 3


def test_a_variable_that_is_ignored_is_named(home: Path) -> None:
    """Whoever set it looks for the events where they are not."""
    variables = {"XDG_STATE_HOME": "state", "TELEMETRY_FLUSH": "manuel"}
    told = tool("status", "--explain", home=home, **variables)
    names = [text.partition(":")[0] for text in told.line["mistakes"]]
    assert names == ["XDG_STATE_HOME", "TELEMETRY_FLUSH"]
    told = tool("status", "--app", "no-such-program", **variables)
    assert "XDG_STATE_HOME: is relative; it is ignored" in told.err
    assert told.code == 3


def test_a_text_of_the_environment_cannot_reach_the_terminal_raw(home: Path) -> None:
    """An environment is as foreign as any other input."""
    variables = {"DO_NOT_TRACK": "\x1b[31mred", "TELEMETRY_ENABLED": "\x1b[32m"}
    seen = at_terminal(
        "status", "--explain", home=home, variables=variables, rich=False
    )
    assert b"\x1b" not in seen.raw
    assert "\\u001b[31mred" in seen.text
