"""`events`: the catalogue says no less than what is sent, field by field."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import telemetry
from spool_tools.events import PAYLOADS, catalogue, markdown
from telemetry import events, light_events
from telemetry.delivery.unfinished import SessionUnfinishedPayload
from telemetry.errors import TelemetryError
from tests.support.delivering import client_of
from tests.support.launching import ROOT
from tests.support.surroundings import spooled
from tests.support.terminals import at_terminal
from tests.support.tooling import tool


def test_every_field_of_every_payload_has_a_description() -> None:
    """A field that nobody describes is a field that nobody was asked about."""
    for entry in catalogue():
        assert entry.meaning
        assert entry.fields
        for field in entry.fields:
            assert len(field.meaning) > 5, f"{entry.title()}: {field.name}"
            assert field.meaning[-1] != "."


def test_a_field_without_a_description_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever adds one learns of it before it is sent to anybody."""

    class Undescribed(msgspec.Struct):
        """Something happened.

        told: what it was
        """

        told: str
        untold: str

    monkeypatch.setattr("spool_tools.events.PAYLOADS", [("x", "", Undescribed)])
    with pytest.raises(TelemetryError, match=r"Undescribed\.untold has no description"):
        catalogue()
    done = tool("events", "--markdown")
    assert (done.code, done.out) == (1, b"")
    assert "Undescribed.untold has no description" in done.err


def test_no_payload_is_left_out() -> None:
    """One that is not in the catalogue would be collected in silence."""
    payloads = {
        each
        for name, each in (*vars(events).items(), *vars(light_events).items())
        if isinstance(each, type)
        and issubclass(each, msgspec.Struct)
        and name.endswith(("Payload", "Properties"))
    }
    # What carries a payload is described by the payload itself.
    told = {payload for _, _, payload in PAYLOADS}
    assert payloads - {events.EventPayload} == told - {SessionUnfinishedPayload}


def test_nothing_is_sent_that_the_catalogue_does_not_name(tmp_path: Path) -> None:
    """Each event, with every field that it can have."""
    home = tmp_path / "home"
    with client_of(home, "", strict=True) as client:
        client.record_session_start("agent", "session")
        client.record_token_usage("model", 1, 2, 0.5)
        client.track(
            telemetry.ToolEvent(action="call", tool_name="tool", error="it failed")
        )
        client.track(
            telemetry.CommandEvent(
                action="run",
                args=["a"],
                error="no",
                flags=["--x"],
                duration_ms=1,
                exit_code=1,
            )
        )
        client.record_error("it failed")
        client.record_session_end()
    named = {
        (entry.event, entry.action): {field.name for field in entry.fields}
        for entry in catalogue()
    }
    system = named["every event", ""]
    seen = spooled(home)
    assert len(seen) == 5
    for event in seen:
        properties = event["properties"]
        assert isinstance(properties, dict)
        name = str(event["event"])
        fields = named.get((name, properties["action"])) or named[name, ""]
        assert set(properties) == fields | system, name


def test_the_page_is_a_table_for_each_event() -> None:
    """What a program publishes is made by the library that does the collecting."""
    page = markdown(catalogue())
    assert tool("events", "--markdown").out.decode() == page + "\n"
    assert page.startswith("# What is collected\n")
    for title in ("command", "session (start)", "session (end)", "token", "tool"):
        assert f"\n## {title}\n" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(entry.fields) for entry in catalogue())
    assert all(row.count("|") == 4 for row in rows)


def test_off_a_terminal_it_is_json_and_on_one_a_table() -> None:
    """A program may compare it with what it was told last time."""
    lines = tool("events").lines
    assert [line["event"] for line in lines] == [
        "command",
        "session",
        "session",
        "session",
        "token",
        "tool",
        "every event",
    ]
    seen = at_terminal("events", columns=120).text
    assert "session (end)" in seen
    assert "session (unfinished)" in seen
    assert "tool_name" in seen


OWN = '''
import dataclasses, msgspec

class Deployed(msgspec.Struct):
    """What is told of a deployment.

    region: the region's name
    seconds: how long it took
    """

    region: str
    seconds: float = 0.0

class DeployEvent:
    """Something was deployed."""

    def get_event_type(self) -> str:
        return "deploy"

    def to_structured_properties(self) -> Deployed:
        return Deployed("eu")

@dataclasses.dataclass
class Imported:
    """Rows were imported.

    rows: how many
    """

    rows: int

    def get_event_type(self) -> str:
        return "import"

    def to_structured_properties(self) -> "Imported":
        return self
'''


def test_a_programs_own_events_join_the_catalogue(tmp_path: Path) -> None:
    """What a program publishes names all that it collects, its own events as well."""
    (tmp_path / "frob_events.py").write_text(OWN)
    done = subprocess.run(
        [sys.executable, "-m", "spool_tools", "events", "--of", "frob_events"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    own = {entry["event"]: entry for entry in entries[-2:]}
    assert own.keys() == {"deploy", "import"}
    assert own["deploy"]["meaning"] == "Something was deployed."
    told = [(f["name"], f["type"], f["meaning"]) for f in own["deploy"]["fields"]]
    assert told == [
        ("region", "str", "the region's name"),
        ("seconds", "float", "how long it took"),
    ]
    assert own["import"]["fields"][0]["meaning"] == "how many"
    failed = tool("events", "--of", "no.such.module")
    assert failed.code == 1
    assert "no.such.module cannot be imported" in failed.err
