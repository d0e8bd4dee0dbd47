"""For the tests of programs that record: nothing is written or sent, unless asked for.

With pytest there is nothing to do: a plugin (`spool_tools.pytest_plugin`) is found
once the package is installed, and keeps every test, and the processes that it
starts, from recording. Its fixture `telemetry_events` turns recording on for one test:

    def test_build_is_recorded(telemetry_events):
        run_my_program(["build"])            # or a subprocess
        (event,) = telemetry_events()
        assert event["properties"]["action"] == "build"

With unittest, `record_nothing()` does what the plugin does, and `recorded` what the
fixture does:

    with tempfile.TemporaryDirectory() as directory, recorded(directory) as events:
        run_my_program(["build"])
        (event,) = events()

Without either, a test records as the program does, but no flush begins by itself
while pytest or unittest runs one; `TELEMETRY_FLUSH` with the name of a mode, or a call
of `flush`, asks for it. A subprocess that is started without the environment of the
test escapes all of this. This module imports no test framework.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry import api, switches
from telemetry.client import Client
from telemetry.config import Config
from telemetry.delivery.census import segment_records
from telemetry.paths import Home


if TYPE_CHECKING:
    from telemetry.events import StructuredEvent

# What could turn telemetry on, off, or elsewhere from outside of a test.
_VARIABLES = (
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
        super().__init__(Config(app="recording", enabled=False))
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


def record_nothing() -> None:
    """Nothing is recorded or sent from now on, here and in every process started here."""
    os.environ["TELEMETRY_ENABLED"] = "false"
    switches.record_nothing()


@contextmanager
def recorded(directory: str | os.PathLike[str]) -> Iterator[RecordedEvents]:
    """Telemetry is on within, in `directory`, which exists; nothing is sent by itself.

    Args:
        directory: where events are recorded, by this process and by those that it
            starts; give each test an empty one.

    Returns:
        A context manager; what it gives answers the events when it is called.
    """
    before = {name: os.environ.pop(name, None) for name in _VARIABLES}
    guard, switches.guard = switches.guard, None
    os.environ["TELEMETRY_HOME"] = os.fspath(directory)
    os.environ["TELEMETRY_FLUSH"] = "manual"
    api.forget_client()
    try:
        yield RecordedEvents(os.fspath(directory))
    finally:
        api.forget_client()
        switches.guard = guard
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
