"""Clients on homes of their own for delivery tests, and what is left afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import telemetry
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import Census, take_census
from telemetry.delivery.dead_letters import DeadLetter, read_letters
from telemetry.paths import Home
from telemetry.spool import frame
from tests.support import misbehaving as bad
from tests.support.loopback import Behaviour, Received


KEY = "a-secret-key-of-some-length"


@contextlib.contextmanager
def client_of(
    home: Path, endpoint: str, *, events: int = 0, **settings: Any
) -> Iterator[telemetry.Client]:
    """A client in manual mode that has recorded `events` tool calls."""
    told: dict[str, Any] = {"flush": "manual", "api_key": KEY, **settings}
    config = telemetry.Config(app="app", home=str(home), endpoint=endpoint, **told)
    with telemetry.Client(config) as client:
        record(client, events)
        yield client


def record(client: telemetry.Client, events: int, *, first: int = 0) -> None:
    """Tool calls named `tool-<number>`."""
    for number in range(first, first + events):
        assert client.track(
            telemetry.ToolEvent(
                action="call", tool_name=f"tool-{number}", success=True, duration_ms=1
            )
        )


def census_of(home: Path) -> Census:
    """The conservation equation of a home, counted now."""
    there = Home(str(home))
    return take_census(there, read_snapshot(there.ledger))


def rejecting(
    *tools: str, reason: str = "no such tool"
) -> Callable[[Received], Behaviour]:
    """A server that accepts everything and names the events of these tools as rejected.

    So they are dead after one flush.
    """

    def choose(request: Received) -> Behaviour:
        named = [
            {"event_id": event["properties"]["event_id"], "reason": reason}
            for event in json.loads(request.plain_body)["records"]
            if event["properties"].get("tool_name") in tools
        ]
        return bad.reply(200, json.dumps({"rejected": named}).encode())

    return choose


def letters_of(home: Path) -> list[DeadLetter]:
    """The dead letters that count, oldest first; a damaged one fails the test."""
    there = Home(str(home))
    found = [each.letter for each in read_letters(there, read_snapshot(there.ledger))]
    assert None not in found
    return [letter for letter in found if letter is not None]


def write_early_letter(home: Path, segment: str, offset: int = 0) -> Path:
    """What a flusher leaves that is killed between a letter and its commit."""
    content = {
        "event": {"event": "tool", "properties": {}},
        "reason": "rejected",
        "status": 0,
        "reply": "",
        "time_ms": 1,
        "attempts": 1,
        "segment": segment,
        "offset": offset,
    }
    path = home / "dead" / "00000000000000000007-00000007.v1.jseq"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(frame.encode(0, json.dumps(content).encode()))
    return path
