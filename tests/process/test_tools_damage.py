"""Tools on damage: an exit code and a message, and never a traceback.

`proofs/test_tools.py` tries every command on every damage.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spool_tools.page.server import PageServer
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.damaged_homes import DAMAGES
from tests.support.delivering import KEY, client_of, record
from tests.support.loopback import Server
from tests.support.terminals import at_terminal
from tests.support.tooling import Ran, fingerprint, tool
from tests.support.writers import plant, segment_of, within


# Loaded before the forks, or each of them would do it again.
importlib.import_module("telemetry.delivery.flush")
importlib.import_module("rich.progress")

INSPECTING = (
    ("dump",),
    ("dump", "--state", "all"),
    ("dump", "--state", "damaged"),
    ("dump", "--as-sent"),
    ("dump", "--state", "all", "--format", "table"),
    ("dump", "--event", "tool", "--since", "1h"),
    ("status",),
    ("status", "--explain"),
    ("verify",),
    ("dead", "list"),
)
CHANGING = (
    ("dead", "retry", "--all"),
    ("dead", "drop", "--all"),
    ("flush", "--timeout", "5"),
    ("enable",),
    ("purge", "--yes"),
    ("disable",),
)
# All commands on one damage take half a second. What hangs is ended, and fails.
PATIENCE_S = 60
# Off a terminal a line is exactly its bytes, so an event may hold what it likes; what
# no line of any kind may hold is what ends it, or what a terminal obeys.
RAW = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool with delivered, dead, pending and quarantined events."""
    home = tmp_path_factory.mktemp("sound") / "home"
    with Server(bad.reply(422)) as server:
        for number in range(5):
            with client_of(home, server.url, events=0 if number else 1) as client:
                client.flush(timeout_s=60)
    with client_of(home, "", events=5):
        pass
    (name,) = segment_names(Home(str(home)))
    content = (home / "spool" / name).read_bytes()
    (home / "spool" / name).write_bytes(content[:700] + b"?" + content[701:])
    with Server() as server:
        with client_of(home, server.url) as client:
            client.flush(timeout_s=60)
        with client_of(home, server.url, events=5) as client:
            client.flush(timeout_s=60)
            record(client, 20)
    status = tool("status", home=home).line
    assert [status[name] for name in ("delivered", "dead", "damaged", "pending")] == [
        9,
        1,
        1,
        20,
    ]
    return home


def damaged(sound: Path, name: str, directory: Path) -> Path:
    """A home that is damaged in this way."""
    home = directory / "home"
    shutil.copytree(sound, home, symlinks=True)
    DAMAGES[name](home)
    return home


def _ended_sensibly(command: tuple[str, ...], home: Path, endpoint: str) -> Ran:
    """What a tool came to, once it is looked at."""
    secrets = {"TELEMETRY_ENDPOINT": endpoint, "TELEMETRY_API_KEY": KEY}
    done = tool(*command, home=home, **secrets)
    told = (command, done)
    assert done.code in {0, 1, 3}, told
    assert done.code == 0 or done.err or done.out, told
    assert done.code != 3 or not segment_names(Home(str(home))), told
    complaints = done.err.splitlines()
    assert all(each.startswith(f"spool-tools {command[0]}: ") for each in complaints)
    assert KEY.encode() not in done.out + done.err.encode(), told
    lines = [*done.out.splitlines(), *done.err.encode().splitlines()]
    assert not any(map(RAW.search, lines)), told
    if "table" not in command and done.code != 3:
        assert done.lines or not done.out, told
    return done


def looks_sensibly(commands: tuple[tuple[str, ...], ...], home: Path) -> None:
    """These commands and the page on a damaged home, which stays as it was."""
    before = fingerprint(home)
    for command in commands:
        _ended_sensibly(command, home, "")
    with PageServer(Home(str(home)), "frobnicate", []) as page:
        assert page.page().endswith("</html>\n")
    assert fingerprint(home) == before


def changes_sensibly(command: tuple[str, ...], home: Path) -> None:
    """A command that changes a damaged home, what follows it, and the same again."""
    with Server() as server:
        for each in (command, ("status",), ("verify",), command):
            _ended_sensibly(each, home, server.url)


def _within_patience(name: str, work: Callable[[], object]) -> None:
    try:
        within(PATIENCE_S, work)
    except BaseException as error:
        raise AssertionError(f"on this damage: {name}") from error


CODES = [
    ("nothing at all", "dump", 0),
    ("nothing at all", "status", 0),
    ("nothing at all", "verify", 0),
    ("nothing at all", "dead list", 0),
    ("segment: flipped", "verify", 1),
    ("segment: flipped", "dump", 0),
    ("segment: flipped", "status", 0),
    ("segment: flipped", "flush", 1),
    ("segment: a directory", "verify", 1),
    ("segment: a directory", "purge --yes", 1),
    ("segment: a link", "status", 1),
    ("segment: a FIFO", "dump", 1),
    ("segment: a FIFO", "flush", 1),
    ("ledger: foreign bytes", "status", 1),
    ("ledger: foreign bytes", "dump", 1),
    ("ledger: nothing", "verify", 0),
    ("letter: foreign bytes", "verify", 1),
    ("letter: foreign bytes", "dead drop --all", 1),
    ("letter: empty", "dead list", 1),
    ("letter: empty", "dead retry --all", 1),
    ("consent: foreign bytes", "status", 0),
    ("flush.lock: a FIFO", "flush", 1),
    ("flush.lock: a FIFO", "disable", 1),
    ("user-uuid: a FIFO", "verify", 0),
    ("spool/: a link", "dump", 0),
    ("spool/: a link", "status", 1),
    ("spool/: a link", "purge --yes", 1),
    ("spool/: a file", "verify", 1),
    ("spool/: a file", "flush", 1),
    ("spool/: a FIFO", "disable", 0),
    ("a home with nothing in it but an id", "dump", 0),
    ("a home with nothing in it but an id", "flush", 0),
]


def test_the_exit_code_says_whether_somebody_has_to_look(
    sound: Path, tmp_path: Path
) -> None:
    """For who asks by a script."""
    for number, (name, command, code) in enumerate(CODES):
        home = damaged(sound, name, tmp_path / str(number))

        def work(home: Path = home, command: str = command, code: int = code) -> None:
            with Server() as server:
                done = _ended_sensibly(tuple(command.split()), home, server.url)
            assert done.code == code, done

        _within_patience(f"{name}, {command}", work)


# Records whose checksum is right, so nobody calls them damaged.
ODD_EVENTS = [
    b"null",
    b"[]",
    b"{}",
    b'"\x1b[31m"',
    b"\xff\xfe",
    b"{" * 50_000,
    b"[" * 50_000 + b"]" * 50_000,
    b'{"event":{"a":[]},"properties":[]}',
    b'{"event":null,"event_timestamp":null,"properties":null}',
    b'{"event":"\\ud800","properties":{"\\udfff":"\\u001b"}}',
    b'{"event_timestamp":1e999,"properties":{"a":1e999,"b":-0.0}}',
    b'{"event_timestamp":-9223372036854775808}',
    b'{"event_timestamp":99999999999999999999999999}',
    b'{"event_timestamp":true,"properties":{"event_id":{}}}',
    b'{"event":"a","properties":{"event_id":7,"x":"%b"}}' % ("漢\u202e" * 999).encode(),
]


def test_events_of_any_kind_are_shown(tmp_path: Path) -> None:
    """Whoever writes a segment by another library writes what it likes."""
    home = tmp_path / "home"
    with client_of(home, "", events=1):
        pass
    plant(Home(str(home)), 1, segment_of(*ODD_EVENTS))
    number = len(ODD_EVENTS) + 1
    dumped = tool("dump", home=home)
    assert (dumped.code, dumped.err) == (0, "")
    assert dumped.out.splitlines()[:-1] == ODD_EVENTS
    assert tool("status", home=home).line["pending"] == number
    assert tool("verify", home=home).line["records"] == number
    for command in (
        ("dump",),
        ("dump", "--format", "jsonl"),
        ("dump", "--event", "a", "--since", "1d"),
        ("dump", "--state", "all"),
        ("dump", "--as-sent"),
        ("status",),
    ):
        seen = at_terminal(*command, home=home)
        assert seen.code == 0, seen
        seen.safe()


def test_whatever_cannot_be_read_is_told_once(sound: Path, tmp_path: Path) -> None:
    """Twice the same is read as two faults; none at all as no fault."""
    home = damaged(sound, "segment: a directory", tmp_path / "segment")
    seen = at_terminal("status", home=home)
    assert seen.safe().count("is no regular file") == 1
    told = tool("status", home=home).line
    assert len(told["unreadable"]) == 1
    assert "what `unreadable` names is neither sent nor counted" in told["why"]
    assert "byte 0" not in at_terminal("verify", home=home).safe()
    home = damaged(sound, "ledger: a file", tmp_path / "ledger")
    seen = at_terminal("verify", home=home)
    assert "NOT ALL COULD BE READ" in seen.safe()
    assert "all is whole" not in seen.text
    assert at_terminal("status", home=home).safe().count("is no directory") == 1
    home = damaged(sound, "flush.lock: a directory", tmp_path / "lock")
    assert "Errno" not in tool("purge", "--yes", home=home).err


def test_nothing_is_read_or_removed_through_a_link(sound: Path, tmp_path: Path) -> None:
    """Somebody else's files would be shown, sent, or deleted."""
    home, outside = tmp_path / "home", tmp_path / "outside"
    shutil.copytree(sound, home, symlinks=True)
    for name in ("spool", "dead"):
        shutil.copytree(sound / name, outside / name)
        shutil.rmtree(home / name)
        (home / name).symlink_to(outside / name)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    assert len(before) > 1
    assert tool("dump", home=home).out == b""
    assert tool("dump", "--state", "dead", home=home).out == b""
    assert tool("dead", "list", home=home).out == b""
    assert tool("purge", "--yes", home=home).code == 1
    with Server() as server:
        secrets = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        tool("flush", home=home, **secrets)
        assert server.requests == []
    # What the links led to is named once: it is not ours to remove.
    done = tool("disable", home=home)
    assert (done.code, f"{outside}/" in done.err) == (1, True), done
    assert tool("disable", home=home).code == 0
    after = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    assert after == before
