"""Writers that go on while something else happens to their spool."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import telemetry
from tests.support.delivering import client_of
from tests.support.writers import Peer, child


# Between two times five events. As fast as they could, they would fill the spool and
# leave nobody else a processor.
PAUSE_S = 0.002
_AT_ONCE = 5


class Writers:
    """Processes that record without pause, and how much they were promised."""

    def __init__(self, peers: list[Peer]) -> None:
        self._peers = peers
        self.acknowledged = 0

    def stop(self) -> None:
        """They have let go of their segments on return; `acknowledged` counts all."""
        for peer in self._peers:
            peer.tell("stop")
        for peer in self._peers:
            self.acknowledged += int(peer.hear())
            peer.finish()
        self._peers = []


@contextlib.contextmanager
def writers_that_go_on(
    home: Path, count: int = 4, *, pause_s: float = PAUSE_S, **settings: Any
) -> Iterator[Writers]:
    """`count` processes that record into `home` until they are told to stop."""

    def write(peer: Peer) -> None:
        event = telemetry.ToolEvent(action="call", tool_name="tool", success=True)
        acknowledged = 0
        with client_of(home, "", **settings) as client:
            peer.tell("began") if client.track(event) else peer.tell("refused")
            acknowledged += 1
            while not select.select([peer._talk], [], [], pause_s)[0]:
                acknowledged += sum(client.track(event) for _ in range(_AT_ONCE))
        peer.hear()
        peer.tell(str(acknowledged))

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(child(write)) for _ in range(count)]
        for peer in peers:
            assert peer.hear() == "began"
        yield Writers(peers)
