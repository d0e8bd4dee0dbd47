"""Hundreds of secrets, paths and names, planted for real and looked for everywhere.

A program of its own hands them to the whole public interface; what it leaves behind
is read byte by byte, and so is what it sends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
import pytest

import telemetry
from telemetry.delivery.launch import VARIABLE
from telemetry.envelope import Envelope
from telemetry.privacy import Scrubber
from tests.support import misbehaving as bad
from tests.support.canaries import (
    DISGUISES,
    HOME,
    HOMES,
    SURROUNDINGS,
    USER,
    USERS,
)
from tests.support.launching import await_no_flusher, flushers
from tests.support.loopback import Exchange, Received, Server
from tests.support.ordinary import ORDINARY
from tests.support.planting import CANARY_SEARCH, KEPT, PLANTED, PROMPTS
from tests.support.planting_program import DOOMED
from tests.support.surroundings import (
    PATIENCE_S,
    REPOSITORY,
    bare_environment,
    only_environment,
    spooled,
)
from tests.support.tooling import ran, tool


KEY = "sesame-0123456789"
# Every form in which a tool shows events, and what is said about them.
BEFORE = (
    "dump",
    "dump --format table",
    "dump --as-sent",
    f"dump --event {KEPT}",
    "dump --limit 9",
    "status",
    "status --json",
    "status --json --explain",
    "verify",
)
AFTER = (
    *(f"dump --state {state}" for state in ("pending", "dead", "damaged", "all")),
    *(f"dump --format table --state {state}" for state in ("dead", "damaged", "all")),
    "dump --as-sent",
    "dead list",
    "status",
    "status --json --explain",
    "verify",
)


class Story(NamedTuple):
    """All bytes that came of it, by the place where they were found."""

    places: dict[str, list[bytes]]
    outcome: dict[str, dict[str, int]]

    def found(self, place: str) -> set[str]:
        return {
            f"{name} in {content[:60]!r}…"
            for content in self.places[place]
            for name in CANARY_SEARCH(content) - {KEPT}
        }


def _plant(directory: Path, step: str, *arguments: str, **variables: str) -> bytes:
    """What the program says, and its outcome last."""
    # No pipe: in debug mode a flusher keeps the program's standard error.
    complaints = directory / "stderr"
    complaints.touch()
    before = complaints.stat().st_size
    with (
        complaints.open("ab") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.planting_program", step, *arguments],
            env=bare_environment(
                Path(HOME),
                USER=USER,
                LANG="C.UTF-8",
                PYTHONPATH=str(REPOSITORY),
                TELEMETRY_HOME=str(directory),
                PLANTING_LOG=str(directory / "log"),
                **{"TELEMETRY_FLUSH": "manual", **variables},
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as program,
    ):
        out, _ = program.communicate(timeout=10 * PATIENCE_S)
    err = complaints.read_bytes()[before:]
    assert program.returncode == 0, err.decode()[-2000:]
    assert b"Traceback" not in err or step == "commands", err.decode()[-2000:]
    return out + err if step != "commands" else out.splitlines()[-1]


def _files(directory: Path) -> list[bytes]:
    return [
        # Its name is as public as its content.
        str(path.relative_to(directory)).encode() + b"\n" + path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    ]


def _told(commands: tuple[str, ...], home: Path) -> Iterator[bytes]:
    for command in commands:
        told = tool(*command.split(), home=home, HOME=HOME, USER=USER)
        assert told.code in (0, 1), (command, told.err)
        yield told.out + told.err.encode()


def _damage(home: Path) -> None:
    """One byte of one record is another one; its event's name is whole."""
    for path in sorted((home / "spool").iterdir()):
        content = bytearray(path.read_bytes())
        place = content.find(KEPT.encode(), len(content) // 2)
        if place > 0:
            content[content.rfind(b'"crc":"', 0, place) + 7] ^= 1
            path.write_bytes(content)
            return
    raise AssertionError("nothing to damage")


def _send(directory: Path, places: dict[str, list[bytes]]) -> None:
    """A flusher of its own sends all, is looked at while it does, and is read."""
    going_on = threading.Event()

    def held(exchange: Exchange) -> None:
        going_on.wait(PATIENCE_S)
        bad.reply(200)(exchange)

    def choose(request: Received) -> bad.Behaviour:
        if request.number == 0:
            return held
        named = [
            {"event_id": event["properties"]["event_id"], "reason": "not wanted"}
            for event in json.loads(request.plain_body)["records"]
            if event["properties"].get("action") == DOOMED
        ]
        return bad.reply(200, json.dumps({"rejected": named}).encode())

    with Server(choose=choose) as server:
        sending = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        _plant(
            directory,
            "launch",
            *("--note", PROMPTS[0], "run", PROMPTS[1]),
            TELEMETRY_FLUSH="launch",
            **sending,
        )
        until = time.monotonic() + 5 * PATIENCE_S
        while not server.requests and time.monotonic() < until:
            time.sleep(0.01)
        (flusher,) = flushers(directory)
        places["argv"] = [Path(f"/proc/{flusher}/cmdline").read_bytes()]
        environ = Path(f"/proc/{flusher}/environ").read_bytes().split(b"\0")
        # The rest is the user's own environment, as it was.
        places["environ"] = [e for e in environ if e.startswith(VARIABLE.encode())]
        places["in flight"] = _files(directory / "app")
        going_on.set()
        await_no_flusher(directory, PATIENCE_S)
        for _ in range(5):
            if not list((directory / "app" / "spool").iterdir()):
                break
            tool("flush", "--timeout", "20", home=directory / "app", **sending)
        places["wire"] = [r.raw for r in server.requests]
        places["wire"] += [r.plain_body for r in server.requests]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    directory = tmp_path_factory.mktemp("all")
    home = directory / "app"
    places: dict[str, list[bytes]] = {"said": []}
    outcome = {}
    for step in ("plant", "refuse", "commands"):
        said = _plant(directory, step)
        outcome[step] = json.loads(said.splitlines()[-1])
        places["said"].append(said)
    places["spool"] = _files(home)
    places["dump before"] = list(_told(BEFORE, home))
    places["dump before"].append(ran("dump", home=home).out)
    _damage(home)
    _send(directory, places)
    places["home after"] = _files(home)
    for name in ("dead", "quarantine", "ledger"):
        places[name] = _files(home / name)
    places["dump after"] = list(_told(AFTER, home))
    places["dump after"].append(tool("events").out)
    places["log"] = [(directory / "log").read_bytes()]
    return Story(places, outcome)


@pytest.mark.parametrize(
    "place",
    [
        *("said", "spool", "dump before", "argv", "environ", "in flight", "wire"),
        *("home after", "dead", "quarantine", "ledger", "dump after", "log"),
    ],
)
def test_no_canary_is_in(place: str, story: Story) -> None:
    """One find is one too many, wherever somebody else may read it."""
    assert any(story.places[place])
    assert story.found(place) == set()


def test_the_story_went_as_it_should(story: Story) -> None:
    """Nothing is found where nothing was; so everything has to be there."""
    planted = story.outcome["plant"]
    assert planted == {"recorded True": len(PLANTED) * 8}
    # Of a text that is too long the beginning is kept, scrubbed; of an error its class.
    assert story.outcome["refuse"] == {
        "recorded True": len(PLANTED) * 2,
        "recorded False": len(PLANTED) * 6,
    }
    assert story.outcome["commands"] == {"recorded True": len(PROMPTS) * 30}
    assert len(PLANTED) > 280
    assert sum(letters.count(b"\x1e") for letters in story.places["dead"]) > 30
    assert len(story.places["quarantine"]) == 1
    assert b"not recorded" in story.places["log"][0]
    on_the_wire = sum(body.count(b'"event_id"') for body in story.places["wire"])
    assert on_the_wire > len(PLANTED) * 8


@pytest.mark.parametrize(
    "place",
    [
        *("spool", "dump before", "in flight", "wire", "dead", "quarantine"),
        *("home after", "dump after"),
    ],
)
def test_what_is_kept_on_purpose_is_found_in(place: str, story: Story) -> None:
    """A search that finds nothing anywhere proves nothing."""
    assert any(KEPT in CANARY_SEARCH(content) for content in story.places[place])


def test_without_a_scrubber_every_canary_is_found(tmp_path: Path) -> None:
    """The same program and the same search: each of them can be told."""
    _plant(tmp_path, "plant", "identity")
    found = frozenset().union(*map(CANARY_SEARCH, _files(tmp_path / "app")))
    missed = {f"{c.name} {n}" for n, c in enumerate(PLANTED)} - found
    assert missed == set()


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text,
        lambda text: text[::-1],
        lambda text: quote(text, safe=""),
        lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
        lambda text: json.dumps(json.dumps(text)),
        lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(b"a" + text.encode() + b"bc").decode(),
        lambda text: base64.b64encode(b"ab" + text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(b"abc" + text.encode() + b"d").decode(),
    ],
)
def test_a_prompt_is_found_however_it_is_written(written) -> None:
    """Nobody hides them on purpose; a layer below may write them in its own way."""
    for prompt in PROMPTS:
        assert CANARY_SEARCH(b"\0\xff" + written(prompt).encode() + b"\0") == {prompt}


@pytest.mark.proof
def test_every_disguise_in_all_surroundings_through_an_envelope() -> None:
    """The whole crossing: each canary, each disguise, each surrounding."""
    envelope = Envelope(
        source="app",
        version="1",
        user_uuid="id",
        scrub=Scrubber(homes=HOMES, users=USERS),
        event_bytes_max=1 << 20,
        environment={},
    )
    leaks = set()
    for canary in PLANTED:
        for name, disguise in DISGUISES.items():
            planted = disguise(canary.text)
            texts = [around.format(planted) for around in SURROUNDINGS]
            event = telemetry.CommandEvent(
                "run", args=texts, flags=None if canary.free else texts
            )
            found = CANARY_SEARCH(envelope.seal(event))
            leaks |= {(name, canary.text, each) for each in found}
    assert leaks == set()


def test_a_tag_is_known_by_its_name(tmp_path: Path) -> None:
    """Whoever puts a key into TELEMETRY_TAGS meant it for nobody."""
    variables = {"TELEMETRY_TAGS": "team=blue,api_key=hunter,db_password=x y"}
    with only_environment(bare_environment(tmp_path, **variables)):
        config = telemetry.Config(
            app="app", home=str(tmp_path / "home"), flush="manual"
        )
        with telemetry.Client(config) as client:
            assert client.track(telemetry.CommandEvent(action="run"))
    (event,) = spooled(tmp_path / "home")
    told = event["properties"]
    assert isinstance(told, dict)
    assert told["team"] == "blue"
    assert told["api_key"] == told["db_password"] == "<secret>"


def test_ordinary_texts_come_through(tmp_path: Path) -> None:
    """In every string of every event, free text or not."""
    assert len(ORDINARY) > 900
    environment = bare_environment(Path(HOME), USER=USER, LANG="C.UTF-8")
    sent = []
    with only_environment(environment), contextlib.ExitStack() as stack:
        config = telemetry.Config(
            app="app", home=str(tmp_path / "home"), flush="manual", strict=True
        )
        client = stack.enter_context(telemetry.Client(config))
        for text in ORDINARY:
            os.environ["TELEMETRY_TAGS"] = f"note={text}".partition(",")[0]
            for event in (
                telemetry.CommandEvent(text, [text, text], error=text, flags=[text]),
                telemetry.ToolEvent(text, text, text, text, error=text),
                telemetry.TokenEvent(text, text, text, text),
                telemetry.SessionStartEvent(text, text, text),
                telemetry.SessionEndEvent(text, text, text, error=[text]),
            ):
                assert client.track(event)
                sent.append((text, event.to_structured_properties()))
    recorded = spooled(tmp_path / "home")
    assert len(recorded) == len(sent)
    for (text, payload), event in zip(sent, recorded, strict=True):
        properties = event["properties"]
        assert isinstance(properties, dict)
        assert properties["note"] == text.partition(",")[0].strip()
        expected = msgspec.to_builtins(payload)
        assert {name: properties[name] for name in expected} == expected
