"""What the traced programs and their judge agree on: events, damage, settings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.config import Config
from telemetry.paths import Home
from telemetry.wire.batch import event_id_of
from tests.support.loopback import Exchange, Server


if TYPE_CHECKING:
    from typing_extensions import Self

# The collector takes each request and names the events of this one as rejected.
POISON = "poison"
# No part of a record, and long enough to cross a sector.
STRETCH = b"no record but kept " * 40


def config_of(home: Home, endpoint: str, **settings: Any) -> Config:
    """Small segments, so that a writer rolls over."""
    told: dict[str, Any] = {
        "flush": "manual",
        "scrub": False,
        "segment_bytes_max": 900,
        **settings,
    }
    return Config(
        app="app", home=home.root, endpoint=endpoint, api_key="a-secret-key", **told
    )


def number_in(event: dict[str, Any]) -> int:
    """The how manyth event of its story this is."""
    number: int = event["properties"]["number"]
    return number


def number_of(event: bytes) -> int:
    """The same, from its bytes."""
    return number_in(msgspec.json.decode(event))


class Collector:
    """A server on loopback that keeps what it took. A context.

    With `rejects`, it names poison as rejected, the first time that it sees it.
    """

    def __init__(self, *, rejects: bool) -> None:
        self.bodies: list[bytes] = []
        self._rejects = rejects
        self._rejected: set[bytes] = set()
        self.server = Server(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def take(self) -> list[bytes]:
        """The events that came since this was last asked, as they came."""
        bodies, self.bodies = self.bodies, []
        self.server.requests.clear()
        return [
            bytes(event)
            for body in bodies
            for event in msgspec.json.decode(body, type=_Body).records
        ]

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        assert request is not None
        self.bodies.append(request.body)
        reply = b"{}"
        if self._rejects:
            records = msgspec.json.decode(request.body, type=_Body).records
            named = [
                {"event_id": event_id_of(bytes(event)), "reason": "poison"}
                for event in records
                if b'"by":"%b"' % POISON.encode() in bytes(event)
                and bytes(event) not in self._rejected
            ]
            self._rejected.update(map(bytes, records))
            reply = msgspec.json.encode({"rejected": named})
        with contextlib.suppress(OSError):
            exchange.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(reply), reply)
            )
            exchange.keep = True


class _Body(msgspec.Struct):
    records: list[msgspec.Raw]
