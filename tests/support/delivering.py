"""Clients on homes of their own for delivery tests, and what is left afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import telemetry
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import Census, take_census
from telemetry.paths import Home


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
