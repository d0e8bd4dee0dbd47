"""Each format to a receiver of its own, through kills, lost answers and refusals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3

import telemetry
from tests.support import misbehaving as bad
from tests.support import receivers
from tests.support.delivering import census_of, letters_of, record
from tests.support.loopback import Behaviour, Received, Server
from tests.support.receivers import KEY, Receiver, forwarded
from tests.support.surroundings import REPOSITORY


EVENTS = 5000
BATCH = 250
POISONED = 2
# An event that a receiver refuses is dead after so many flushes that delivered others.
WINDOWS = 5
# What goes wrong, by the number of the request: the flusher is killed before or after the
# receiver has the batch, its answer is lost, or the receiver has no time.
FAULTS = {1: "killed after", 4: "lost", 7: "killed before", 9: "busy", 11: "killed after",
    14: "lost", 16: "busy", 18: "killed before"}  # fmt: skip

FLUSHER = """
import sys, telemetry
config = telemetry.Config(**eval(sys.argv[1]))
with telemetry.Client(config) as client:
    client.flush(timeout_s=60)
"""
RECEIVERS: dict[str, tuple[str, Callable[[Path], AbstractContextManager[Receiver]]]] = {
    "records": ("records", receivers.collector),
    "ndjson": ("ndjson", receivers.collector),
    "otlp-json to rotel": ("otlp-json", receivers.rotel),
    "otlp-protobuf to oteltap": ("otlp-protobuf", receivers.oteltap),
    "otlp-protobuf to collect": (
        "otlp-protobuf",
        partial(receivers.collector, path="/v1/logs"),
    ),
    "posthog": ("posthog", receivers.posthog),
    "clickhouse": ("clickhouse", receivers.clickhouse),
    "ndjson to ClickHouse's server": ("ndjson", receivers.old_clickhouse),
}


class Scene:
    """A receiver behind a front at which things go wrong, and a flusher to kill."""

    def __init__(self, receiver: Receiver) -> None:
        self.kills = 0
        self.faults = dict(FAULTS)
        self._flusher: subprocess.Popen[bytes] | None = None
        scheme, _, rest = receiver.url.partition("://")
        place, slash, self._path = rest.partition("/")
        self._origin = f"{scheme}://{place}"
        self._path = slash + self._path
        self._pool = urllib3.PoolManager(retries=False, maxsize=8)
        self._forwarding = 0
        self._changed = threading.Condition()
        self._front = Server(choose=self._answer)
        self.url = f"http://127.0.0.1:{self._front.port}{self._path}"

    def close(self) -> None:
        # A flusher that was killed may have left one behind.
        with self._changed:
            assert self._changed.wait_for(lambda: not self._forwarding, timeout=60)
        self._front.close()
        self._pool.clear()

    def flush(self, settings: dict[str, Any]) -> None:
        """One flusher in a process of its own, to its end or the next kill."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", FLUSHER, repr(settings)]
        with subprocess.Popen(command, env=environment) as self._flusher:
            self._flusher.wait(120)

    def _answer(self, request: Received) -> Behaviour:
        fault = self.faults.pop(request.number, "")
        if fault == "busy":
            return bad.reply(503)
        if fault == "killed before":
            return self._kill()
        self._count(1)
        try:
            answer = forwarded(self._pool, self._origin, request)
        finally:
            self._count(-1)
        if fault == "killed after":
            return self._kill()
        return bad.close_at_once if fault else answer

    def _count(self, change: int) -> None:
        with self._changed:
            self._forwarding += change
            self._changed.notify_all()

    def _kill(self) -> Behaviour:
        assert self._flusher is not None
        self._flusher.send_signal(signal.SIGKILL)
        self.kills += 1
        return bad.close_at_once


@pytest.mark.proof
@pytest.mark.parametrize("name", RECEIVERS)
def test_everything_arrives_once_and_what_is_refused_says_why(
    name: str, tmp_path: Path
) -> None:
    """Rows = unique ids = recorded, and a dead letter has the receiver's reason."""
    format_name, make = RECEIVERS[name]
    home = tmp_path / "home"
    with make(tmp_path) as receiver, contextlib.closing(Scene(receiver)) as scene:
        settings = {
            "app": "app",
            "home": str(home),
            "endpoint": scene.url,
            "api_key": KEY,
            "format": format_name,
            "gzip": receiver.gzip,
            "header": receiver.header,
            "flush": "manual",
            "batch_events_max": BATCH,
        }
        with telemetry.Client(telemetry.Config(**settings)) as client:
            record(client, EVENTS // 2)
            for _ in range(POISONED):
                assert client.track(_named(*receiver.poison))
            record(client, EVENTS // 2, first=EVENTS // 2)
            for _ in range(2 * len(FAULTS)):
                scene.flush(settings)
                if census_of(home).delivered == EVENTS:
                    break
            assert (scene.kills, scene.faults) == (4, {})
            for window in range(WINDOWS + 1):
                record(client, 1, first=EVENTS + window)
                report = client.flush(timeout_s=60)
        events = EVENTS + WINDOWS + 1
        assert (report.delivered, report.dead) == (1, POISONED), report
        census = census_of(home)
        assert census.recorded == events + POISONED
        assert (census.delivered, census.pending) == (events, 0)
        ids = _arrived(receiver, events)
        assert len(set(ids)) == events
        assert len(ids) == events or not receiver.is_once
        letters = letters_of(home)
        assert len(letters) == POISONED
        assert all(receiver.reason in each.reply for each in letters), letters


def _named(name: str, properties: dict[str, Any]) -> Any:
    class Event:
        def get_event_type(self) -> str:
            return name

        def to_structured_properties(self) -> dict[str, Any]:
            return properties

    return Event()


def _arrived(receiver: Receiver, events: int) -> list[str]:
    """What the receiver has, once it has handed on what it took."""
    for _ in range(1200):
        ids = receiver.ids()
        if len(set(ids)) >= events:
            break
        receivers.pause()
    return ids
