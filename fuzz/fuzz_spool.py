"""Invariant tested: whatever a home holds, every tool ends with a documented exit code
and a line for whoever reads it; those that inspect change nothing, follow no link, show
every whole record that is not settled, and answer for every byte of every segment; no
control character reaches a terminal; and a flush, a purge, a retry, a drop raise nothing,
and lose nothing that they did not count.

An input is a line of letters, then files, each after a line `%%`. Of the letters, `T`
is a terminal, `L` a sound ledger that has settled the first record of the first
segment, `N` a directory that is nobody's home unless files make it one, a digit is one
more look (of `TURNS`), and `F`, `P`, `R`, `D`, `E`, `X` is what is done at last: flush,
purge, retry, drop, enable, disable.

A file is a letter for its place, one for what it is (`s`: checksums made right; `d`,
`l`, `p`: a directory, a link, a pipe; any other: as it is), and its content. For the
places from `q` on, the name comes before the content, up to the first line's end.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from zlib import crc32

from fuzz.homes import Input, records, segment_files, sound_ledger, state_of
from spool_tools import (  # noqa: F401 - loaded late, and to be traced
    dead,
    disable,
    dump,
    enable,
    purge,
    status,
    verify,
)
from spool_tools.cli import main
from telemetry.books.view import read_snapshot
from telemetry.config import Config
from telemetry.delivery.census import take_census
from telemetry.delivery.flush import flush
from telemetry.paths import Home


# Of the second, one is run on each input: a look at them all takes twice the time.
INSPECTIONS = (("status",), ("verify",), ("dump",))
TURNS = (
    ("status", "--explain"),
    ("dump", "--state", "all"),
    ("dump", "--state", "damaged"),
    ("dump", "--as-sent"),
    ("dead", "list"),
)
ACTIONS = {
    "P": ("purge", "--yes", "--wait", "0"),
    "R": ("dead", "retry", "--all"),
    "D": ("dead", "drop", "--all", "--wait", "0"),
    "E": ("enable",),
    "X": ("disable", "--wait", "0"),
}
_ENDPOINT = "http://127.0.0.1:9/v1"
_FLUSH_S = 20.0


class Ran(NamedTuple):
    """What a run of a tool came to."""

    code: int
    out: bytes
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """The output, of which each line is one JSON object."""
        return [json.loads(line) for line in self.out.splitlines()]


class Stream(io.TextIOWrapper):
    """An output of a tool, at a terminal or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.content = io.BytesIO()
        self._is_terminal = is_terminal
        super().__init__(self.content, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return self._is_terminal


def ran(*arguments: str, root: str, is_terminal: bool = False) -> Ran:
    """A tool in this process."""
    out, err = Stream(is_terminal=is_terminal), Stream(is_terminal=is_terminal)
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([*arguments, "--home", root])
    told = Ran(code, out.content.getvalue(), err.content.getvalue().decode())
    shown = told.out.decode() if is_terminal else ""
    for line in (shown + told.err).split("\n"):
        assert line.isprintable(), (arguments, line)
    return told


def turn_of(letters: str, data: bytes) -> tuple[str, ...]:
    """The one more look: as the letters say, else each in its turn."""
    digits = [int(each) for each in letters if each in "01234"]
    return TURNS[digits[0] if digits else crc32(data) % len(TURNS)]


def look(given: Input, turn: tuple[str, ...]) -> None:
    """The inspecting tools, as a person or as a program sees them."""
    is_terminal = "T" in given.letters
    told = [
        ran(*arguments, root=str(given.root), is_terminal=is_terminal)
        for arguments in (*INSPECTIONS, turn)
    ]
    codes = {0, 1} if given.is_home else {3}
    for each in told[:3]:
        assert each.code in codes, each
    is_explained = "--explain" in turn
    assert told[3].code in ({0} if is_explained else codes), (turn, told[3])
    if not is_terminal and given.is_home:
        check_status(told[0], given)
        check_verify(told[1], given)
        check_dump(told[2], given)
        if is_explained or turn[0] == "dead":
            told[3].lines()


def check_status(ran_: Ran, given: Input) -> None:
    """One object, and code 1 where something is wrong with it."""
    (line,) = ran_.lines()
    is_fine = line["balanced"] and not line["unreadable"]
    assert ran_.code == (0 if is_fine else 1)
    if given.is_plain:
        recorded = sum(line[name] for name in ("pending", "delivered", "damaged"))
        assert line["recorded"] == recorded


def check_verify(ran_: Ran, given: Input) -> None:
    """Valid and damaged bytes are all bytes, and so are the whole records."""
    *findings, tally = ran_.lines()
    assert tally["findings"] == len(findings)
    assert ran_.code == (1 if findings or ran_.err else 0)
    whole = {name: records(content) for name, content in given.segments.items()}
    assert tally["records"] == sum(map(len, whole.values()))
    assert tally["segments"] == len(whole)
    for name, content in given.segments.items():
        damaged = sum(each["bytes"] for each in findings if each["segment"] == name)
        valid = sum(each.end - each.start for each in whole[name])
        assert valid + damaged == len(content), (name, valid, damaged, len(content))


def check_dump(ran_: Ran, given: Input) -> None:
    """Exactly the bytes that will be sent, each event on a line."""
    snapshot = ledger_of(given)
    if snapshot is None:
        return
    events = given.pending(snapshot)
    lines = ran_.out.split(b"\n")
    assert lines.pop() == b""
    # Letters that are to be sent again come behind.
    assert lines[: len(events)] == events, (lines, events)
    assert len(lines) == len(events) or not given.is_plain


def ledger_of(given: Input) -> Any:
    """What the ledger says; None where it is not the one that was put there."""
    for name in ("cache.db", "cache.db-journal"):
        path = given.root / "ledger" / name
        expected = sound_ledger()[name] if given.has_ledger else None
        if os.path.lexists(path) != (expected is not None):
            return None
        if expected is not None and path.read_bytes() != expected:
            return None
    return read_snapshot(str(given.root / "ledger"))


class Accepted:
    """What it answers."""

    status = 200
    data = b"{}"


class Server:
    """A client whose server takes everything; `events` are the bytes it took."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def request(self, method: str, url: str, *, body: bytes, **_: Any) -> Any:
        self.bodies.append(body)
        return Accepted()

    @property
    def events(self) -> bytes:
        """All events, in the order of their arrival, with commas between."""
        return b",".join(
            each.removeprefix(b'{"records":[').removesuffix(b"]}")
            for each in self.bodies
        )


def flushed(given: Input) -> None:
    """Every whole record is sent, the rest is in quarantine, byte for byte."""
    home, server = Home(str(given.root)), Server()
    snapshot = ledger_of(given)
    report = flush(
        Config(app="fuzz", endpoint=_ENDPOINT, api_key="key"),
        home,
        timeout_s=_FLUSH_S,
        environment={},
        allowed=lambda: True,
        http=server,
    )
    if not given.is_open:
        # Whatever was in the way: what was not sent is where it was.
        kept = server.events + b"".join(
            path.read_bytes() for path in segment_files(given.root)
        )
        expected = given.pending(snapshot) if snapshot else []
        assert all(event in kept for event in expected), report
        return
    assert report.stopped == "drained", report
    # Letters that are to be sent again come behind.
    assert server.events.startswith(b",".join(given.pending(snapshot)))
    assert len(server.bodies) <= len(given.segments) or not given.is_plain
    assert not segment_files(given.root)
    settled = given.settled(snapshot)
    for name, content in given.segments.items():
        rest = records(content)
        cuts = [
            0,
            *(at for each in rest for at in (each.start, each.end)),
            len(content),
        ]
        for start, end in zip(cuts[::2], cuts[1::2], strict=True):
            if start < end and start >= settled[name]:
                stretch = given.root / "quarantine" / f"{name}-{start}"
                assert stretch.read_bytes() == content[start:end]
    if given.is_plain:
        assert take_census(home, read_snapshot(home.ledger)).holds()


def changed(given: Input, arguments: tuple[str, ...]) -> None:
    """A tool that changes the home."""
    told = ran(*arguments, root=str(given.root))
    assert told.code in ({0, 1} if given.is_home else {3}), told
    if arguments[0] == "disable" and told.code == 0:
        left = [given.root / name for name in ("user-uuid", "ledger", "refused")]
        assert not any(map(os.path.lexists, left))
        assert not any((given.root / "spool").iterdir())
    if given.is_plain and given.is_home:
        assert told.code == 0, told
        if arguments[0] == "purge":
            assert not segment_files(given.root)
            home = Home(str(given.root))
            assert take_census(home, read_snapshot(home.ledger)).holds()


def act(given: Input) -> None:
    """What the input says is to be done at last."""
    letter = next((each for each in given.letters if each in {"F", *ACTIONS}), "")
    if letter == "F":
        flushed(given)
    elif letter:
        changed(given, ACTIONS[letter])


def one(data: bytes) -> None:
    """One home: looked at, perhaps changed, and looked at again."""
    # Without colours: what rich draws with is no affair of ours.
    about_terminals = {"TERM": "dumb", "COLUMNS": "80"}
    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch.dict(os.environ, about_terminals),
    ):
        scratch = Path(place)
        victim = scratch / "victim"
        victim.mkdir()
        (victim / "precious").write_bytes(b"precious")
        given = Input(data, scratch)
        before = state_of(scratch)
        look(given, turn_of(given.letters, data))
        assert state_of(scratch) == before
        outside = state_of(victim)
        act(given)
        codes = {0, 1} if given.is_home else {0, 1, 3}
        for arguments in (("status",), ("verify",)):
            assert ran(*arguments, root=str(given.root)).code in codes
        assert state_of(victim) == outside
