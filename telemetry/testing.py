"""For those who embed the library: a recording client, and a pytest plugin.

The plugin is found by pytest once the package is installed, and by itself keeps
every test from writing or sending anything real, in the process and in those
it starts: telemetry is off by environment. The fixture `telemetry_events` turns
it on for one test, in a directory of that test, and nothing is ever sent:

    def test_build_is_recorded(telemetry_events):
        run_my_program(["build"])            # or a subprocess
        (event,) = telemetry_events()
        assert event["properties"]["action"] == "build"

The fixture `telemetry_collector`, a server on loopback that can misbehave, comes
with `spool_tools`. What escapes the plugin is a subprocess that is started
without the environment of the test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from telemetry import api, switches
from telemetry.client import Client
from telemetry.delivery.census import segment_records
from telemetry.paths import Home


if TYPE_CHECKING:
    from pathlib import Path

    from telemetry.events import StructuredEvent

# What could turn telemetry on, off, or elsewhere from outside of a test.
_VARIABLES = (
    "CI",
    "DO_NOT_TRACK",
    "TELEMETRY_API_KEY",
    "TELEMETRY_DEBUG",
    "TELEMETRY_ENABLED",
    "TELEMETRY_ENDPOINT",
    "TELEMETRY_FLUSH",
    "TELEMETRY_HEADER",
    "TELEMETRY_HOME",
    "TELEMETRY_TAGS",
)


class RecordingClient(Client):
    """A client that keeps events in `events` and writes nothing anywhere."""

    def __init__(self) -> None:
        super().__init__(_nowhere())
        self.events: list[StructuredEvent] = []

    def track(self, event: StructuredEvent) -> bool:
        """Keep the event; always True."""
        self.events.append(event)
        return True


class RecordedEvents:
    """What was recorded below a directory, by whatever process: call it for a list."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __call__(self, name: str | None = None) -> list[dict[str, Any]]:
        """The events as they would be posted, oldest first; only those called `name`."""
        found = [
            msgspec.json.decode(record.event)
            for app in sorted(os.listdir(self._directory))
            for record in segment_records(Home(os.path.join(self._directory, app)))
        ]
        return [event for event in found if name is None or event["event"] == name]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Off, before any conftest is imported: it may import the program."""
    pytest_configure()


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Off, before any test module is imported, here and in every subprocess.

    In this process whatever a test makes of its environment; in subprocesses by
    the environment.
    """
    switches.guard = switches.Decision(
        "environment", "tests record nothing; see telemetry.testing", on=False
    )
    for variable in _VARIABLES:
        os.environ.pop(variable, None)
    os.environ["TELEMETRY_ENABLED"] = "false"


@pytest.fixture
def telemetry_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RecordedEvents]:
    """Telemetry is on for this test, in a directory of its own; answers what it got."""
    directory = tmp_path / "telemetry"
    directory.mkdir()
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TELEMETRY_HOME", str(directory))
    monkeypatch.setenv("TELEMETRY_FLUSH", "manual")
    monkeypatch.setattr(switches, "guard", None)
    api.forget_client()
    yield RecordedEvents(str(directory))
    api.forget_client()


def _nowhere() -> Any:
    from telemetry.config import Config

    return Config(app="recording", enabled=False)
