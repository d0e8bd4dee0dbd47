"""Where the programs of a proof begin: a home as it stood, and what it held.

A scene is made once (`stage.py`) and copied for each run, times of files included. `told` is what
its program is told besides; `held` are the events of its home by id, byte for byte, each of
which was acknowledged and has to arrive.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from telemetry.client import Client
from telemetry.config import Config
from telemetry.delivery.census import Census, segment_records
from telemetry.delivery.flush import flush
from telemetry.delivery.report import FlushReport
from telemetry.paths import Home
from telemetry.pipeline import prepare
from telemetry.wire.batch import event_id_of
from tests.proofs.system_calls.programs import KEY
from tests.support.delivering import letters_of
from tests.support.loopback import Exchange, Server
from tests.support.writers import Numbered


# An event with this in it is refused by the collector, alone or among others.
POISON = "poison"
# The number of the first event of a program that is disturbed.
FIRST = 1000
# Where the home stands below the directory of one run.
HOME = "state/home"


class Scene(NamedTuple):
    """See above. `directory` holds what is copied.

    start: the census before anything was delivered of what is held
    accepted: events that the collector has by now, settled or not
    """

    name: str
    program: str
    directory: str
    told: dict[str, object]
    held: dict[str, bytes]
    start: Census
    accepted: frozenset[str] = frozenset()

    @property
    def writes(self) -> bool:
        """Whether its program records events."""
        return self.program == "record"


class Collector:
    """A collector on loopback that keeps what it took.

    It refuses poison with 400, and asks whoever has another key to come back later.
    """

    def __init__(self) -> None:
        self.server = Server(self._answer)
        self.accepted: list[bytes] = []
        self.bodies: dict[str, bytes] = {}
        self.changed: list[str] = []

    def forget(self) -> None:
        """Begin anew."""
        self.accepted, self.bodies, self.changed = [], {}, []
        self.server.requests.clear()

    def arrived(self) -> dict[str, bytes]:
        """What it took, by id; where it took two versions, the first."""
        arrived: dict[str, bytes] = {}
        for event in self._events():
            arrived.setdefault(event_id_of(event), event)
        return arrived

    def differing(self) -> list[str]:
        """The ids of events that it took in more than one version."""
        arrived = self.arrived()
        return [
            event_id_of(event)
            for event in self._events()
            if arrived[event_id_of(event)] != event
        ]

    def _events(self) -> list[bytes]:
        return [
            bytes(event)
            for body in self.accepted
            for event in msgspec.json.decode(body, type=_Body).records
        ]

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        assert request is not None
        key = request.headers["idempotency-key"]
        if self.bodies.setdefault(key, request.body) != request.body:
            self.changed.append(key)
        if request.headers["x-api-key"] != KEY:
            status = b"503 Service Unavailable\r\nRetry-After: 3600"
        elif POISON.encode() in request.body:
            status = b"400 Bad Request"
        else:
            status = b"200 OK"
            self.accepted.append(request.body)
        exchange.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
        exchange.keep = True


class _Body(msgspec.Struct):
    records: list[msgspec.Raw]


def config_of(home: Home, endpoint: str, **settings: Any) -> Config:
    """The config of a clean run."""
    told: dict[str, Any] = {"flush": "manual", "scrub": False, **settings}
    return Config(app="app", home=home.root, endpoint=endpoint, api_key=KEY, **told)


def record(home: Home, numbers: range, by: str, fill: str = "x" * 300) -> None:
    """Events of a program that nothing disturbs, in a segment of their own."""
    with Client(config_of(home, "", segment_bytes_max=1 << 20)) as client:
        for number in numbers:
            assert client.track(Numbered(number, by, fill))


def clean_flush(home: Home, endpoint: str, **settings: Any) -> FlushReport:
    """A flush that nothing disturbs, in a home that a launch has looked after."""
    prepare(home)
    return flush(
        config_of(home, endpoint, **settings),
        home,
        timeout_s=30.0,
        environment={},
        allowed=lambda: True,
    )


def held_in(home: Home) -> dict[str, bytes]:
    """Every event of the spool and of the letters, by its id."""
    events = [record.event for record in segment_records(home)]
    events += [bytes(letter.event) for letter in letters_of(Path(home.root))]
    return {event_id_of(event): event for event in events}


def play(scene: Scene, directory: str) -> Home:
    """A copy of a scene's home in `directory`, which is new."""
    shutil.copytree(scene.directory, directory, symlinks=True)
    return Home(f"{directory}/{HOME}")
