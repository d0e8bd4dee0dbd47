"""The command line as such: help, exit codes, pipes, and what it never says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spool_tools.commands import COMMANDS
from tests.support.delivering import KEY, client_of
from tests.support.loopback import Exchange, Received, Server
from tests.support.surroundings import REPOSITORY
from tests.support.tooling import environment, tool


SPOOLS = ("dump", "status", "verify", "flush", "dead", "purge", "disable", "enable")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool with a few events."""
    with client_of(tmp_path / "home", "", events=3):
        return tmp_path / "home"


def test_alone_it_says_what_to_try_first() -> None:
    """Whoever types the bare name wants to know where to begin."""
    alone = tool()
    assert (alone.code, alone.err) == (0, "")
    text = alone.out.decode()
    assert "try first:\n  spool-tools demo" in text
    assert "spool-tools dump --app NAME" in text
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert tool("--help").out == alone.out


def test_every_commands_help_has_an_example() -> None:
    """An example is read before any list of options."""
    for name in COMMANDS:
        helped = tool(name, "--help")
        assert (helped.code, helped.err) == (0, ""), name
        _, _, examples = helped.out.decode().partition("example")
        assert f"spool-tools {name}" in examples
        assert "exit codes" in examples, name


def test_a_misspelt_command_is_guessed() -> None:
    """Errors say what to do next."""
    assert tool("stauts").code == 2
    assert "did you mean 'status'?" in tool("stauts").err
    assert "spool-tools --help" in tool("xyzzy").err


WRONG: list[tuple[str, ...]] = [
    *((name,) for name in SPOOLS if name != "dead"),
    ("dead", "--all"),
    ("dead", "retry", "--home", "."),
    ("dead", "retry", "x", "--all", "--home", "."),
    ("dead", "burn", "--all", "--home", "."),
    ("dump", "--home", ".", "--app", "x"),
    ("dump", "--app", "../etc"),
    ("dump", "--app", ""),
    ("dump", "--home", ".", "--since", "yesterday"),
    ("dump", "--home", ".", "--since", "9" * 10 + "d"),
    ("dump", "--home", ".", "--limit", "-1"),
    ("dump", "--home", ".", "--limit", "²"),
    ("dump", "--home", ".", "--as-sent", "--follow"),
    ("dump", "--home", ".", "--follow", "--state", "dead"),
    ("flush", "--home", ".", "--timeout", "nan"),
    ("flush", "--home", ".", "--timeout", "0"),
    ("demo", "--fast"),
    ("dump", "--homes", "."),
]


def test_wrong_usage_is_exit_code_2() -> None:
    """Scripts tell a mistake of theirs from a fault of the spool."""
    for arguments in WRONG:
        told = tool(*arguments)
        assert (told.code, told.out) == (2, b""), arguments
        assert "spool-tools" in told.err, arguments
        assert "Traceback" not in told.err, arguments


def test_no_such_spool_is_exit_code_3(tmp_path: Path) -> None:
    """It says where it looked; nothing is made there."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes").touch()
    for name in (*SPOOLS, "view"):
        if "able" in name:
            continue
        action = ("list",) if name == "dead" else ()
        for place in (tmp_path / each for each in ("nowhere", "files", "files/notes")):
            told = tool(name, *action, home=place)
            assert (told.code, told.out) == (3, b""), (name, place)
            assert str(place) in told.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["files", "notes"]


def test_a_spool_that_is_a_link_is_named_before_there_is_a_ledger(
    tmp_path: Path,
) -> None:
    """No program makes another one beside it, whatever it records."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "app").mkdir(mode=0o700)
    (tmp_path / "app" / "spool").symlink_to(tmp_path / "elsewhere")
    for name in ("status", "verify"):
        told = tool(name, "--app", "app", TELEMETRY_HOME=str(tmp_path))
        assert told.code == 3
        assert f"{tmp_path}/app/spool is no directory (a symbolic" in told.err
    (tmp_path / "app" / "spool").unlink()
    (tmp_path / "app" / "spool").mkdir(mode=0o700)
    told = tool("status", "--app", "app", TELEMETRY_HOME=str(tmp_path))
    assert (told.code, "Did you mean" in told.err) == (3, False)


def test_a_misspelt_app_is_guessed(tmp_path: Path) -> None:
    """Nobody knows by heart where the state directory is."""
    with client_of(tmp_path / "frobnicate", "", events=1):
        pass
    told = tool("status", "--app", "frobnicat", TELEMETRY_HOME=str(tmp_path))
    assert told.code == 3
    assert "Did you mean --app frobnicate?" in told.err
    told = tool("status", "--app", "xyz", TELEMETRY_HOME=str(tmp_path))
    assert "There is one of: frobnicate" in told.err
    assert tool("status", "--app", "frobnicate", TELEMETRY_HOME=str(tmp_path)).code == 0
    told = tool("status", TELEMETRY_HOME=str(tmp_path))
    assert told.code == 2
    assert (
        "which spool? say --app NAME, or --home DIR. There is one of: frob" in told.err
    )


def test_without_a_home_directory_it_says_what_to_set() -> None:
    """A service's environment is often empty."""
    told = tool("status", "--app", "x", HOME="")
    assert told.code == 3
    assert "set HOME or TELEMETRY_HOME; or name the directory with --home" in told.err


def test_a_home_that_is_a_link_is_not_opened(home: Path, tmp_path: Path) -> None:
    """Whoever may place a link would choose what is read, and what is removed."""
    (tmp_path / "link").symlink_to(home)
    for name in ("dump", "status", "verify", "purge", "disable"):
        told = tool(name, home=tmp_path / "link")
        assert (told.code, told.out) == (3, b"")
        assert "symbolic link" in told.err


def test_both_ways_to_start_it_are_the_same() -> None:
    """`python -m spool_tools` is what works where no script was installed."""
    house = (REPOSITORY / "pyproject.toml").read_text()
    assert '\nspool-tools = "spool_tools.cli:main"\n' in house
    started = subprocess.run(
        [sys.executable, "-m", "spool_tools"],
        env=environment(),
        capture_output=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert started.stdout == tool().out


def _repeats_the_key(request: Received) -> object:
    """A server that tells everybody what it was sent."""
    told = request.headers["x-api-key"].encode()

    def answer(exchange: Exchange) -> None:
        body = b'{"error":"the key %b is wrong for this event"}' % told
        status = b"422" if len(request.body) < 700 else b"400"
        exchange.send(
            b"HTTP/1.1 %b no %b\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (status, told, told, len(body), body)
        )
        exchange.keep = True

    return answer


def test_the_key_is_in_no_output(tmp_path: Path) -> None:
    """What tools print ends in bug reports."""
    home = tmp_path / "home"
    with Server(choose=_repeats_the_key) as server:  # type: ignore[arg-type]
        with client_of(home, server.url, events=1):
            pass
        secrets = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": server.url}
        said = [tool("flush", home=home, **secrets) for _ in range(5)]
    assert len(server.requests) >= 5
    commands = (
        ("dead", "list"),
        ("status",),
        ("status", "--explain"),
        ("dump", "--state", "all"),
        ("dump", "--state", "all", "--format", "table"),
        ("verify",),
        ("dead", "retry", "--all"),
        ("dump", "--as-sent"),
        ("purge", "--yes"),
        ("flush", "--endpoint", "http://example.com/"),
        ("flush", "--endpoint", f"https://user:{KEY}@/"),
        ("disable",),
    )
    said += [tool(*arguments, home=home, **secrets) for arguments in commands]
    # An answer that came too late on a busy machine was asked for again.
    assert said[5].line["attempts"] >= 5
    assert not any(KEY in each.out.decode() + each.err for each in said)


def test_the_version_is_told() -> None:
    """The first thing that a report of a fault has to name."""
    told = tool("--version")
    assert (told.code, told.err) == (0, "")
    assert told.out.decode().startswith("spool-tools ")


def test_help_is_folded_at_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that is cut in a word is read twice."""
    monkeypatch.setenv("COLUMNS", "60")
    for name in COMMANDS:
        text = " ".join(tool(name, "--help", COLUMNS="60").out.decode().split())
        assert text == " ".join(
            tool(name, "--help", COLUMNS="200").out.decode().split()
        )
