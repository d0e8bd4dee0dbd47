"""What one event costs a program that is already running."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from telemetry.client import Client
from telemetry.config import Config
from telemetry.events import ToolEvent
from telemetry.files import sync
from telemetry.paths import Home
from telemetry.spool import power
from telemetry.spool.frame import OVERHEAD
from telemetry.spool.reader import segment_names
from tests.bench.bench import Bench, remove
from tests.bench.measuring import in_turns, timed
from tests.bench.rows import Row, at_least, at_most, in_blocks, ratios, spread


if TYPE_CHECKING:
    from typing_extensions import Self


_THREADS = 8
_EVENTS_A_SYNC = 4


def tool_event(number: int) -> ToolEvent:
    """A tool call: names recur, durations do not, the session is one."""
    return ToolEvent(
        action="call",
        tool_name=f"read_file_{number % 40}",
        session_id="5d2d8b0e-0a31-4c0e-9e51-0b6d3c1b7a10",
        agent_name="root-agent",
        duration_ms=number % 977,
        success=True,
    )


def rows(bench: Bench) -> Iterator[Row]:
    """One event against the system calls that it cannot do without."""
    yield _one_event(bench)
    yield _one_durable_event(bench)
    yield _events_a_sync(bench)


def client_of(home: Home, **fields: object) -> Client:
    """A client with the defaults of a program, but that nothing is flushed."""
    settings = {"flush": "manual", "spool_bytes_max": 1 << 40, "strict": True}
    config = Config(app="bench", home=home.root, **(settings | fields))  # type: ignore[arg-type]
    return Client(config)


def _one_event(bench: Bench) -> Row:
    with _Written(bench, "process") as here:
        chunk = 40
        events, writes = in_turns(
            bench.pick(3000, 500),
            lambda: timed(chunk, here.track),
            lambda: timed(chunk, here.write),
        )
    each_us = f"{_quiet(events) / chunk * 1e6:.1f} µs"
    write_us = f"{_quiet(writes) / chunk * 1e6:.1f} µs"
    return at_most(
        "one event",
        "Client.track(ToolEvent), scrubbed ÷ os.write of the same bytes",
        ratios(in_blocks(events), in_blocks(writes)),
        6,
        note=f"undisturbed {each_us} beside {write_us} for {here.record_bytes} bytes",
    )


def _one_durable_event(bench: Bench) -> Row:
    with _Written(bench, "power") as here:
        chunk = 4

        def durably() -> None:
            here.write()
            sync(here.descriptor)

        events, writes = in_turns(
            bench.pick(360, 48),
            lambda: timed(chunk, here.track),
            lambda: timed(chunk, durably),
        )
    each_us = f"{spread(events).median / chunk * 1e6:.0f} µs"
    return at_most(
        'one event, durability="power"',
        "Client.track ÷ os.write and fdatasync of the same bytes",
        ratios(in_blocks(events), in_blocks(writes)),
        1.2,
        note=f"{each_us} an event",
    )


def _events_a_sync(bench: Bench) -> Row:
    """Threads share syncs: how many events one covers."""
    each = bench.pick(400, 100)
    home = bench.new_home()
    syncs = 0
    # The name that the module calls by, so that each of its syncs is counted.
    module: Any = power
    plain = module.sync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1  # one at a time: whoever syncs has the turn
        plain(descriptor)

    module.sync = counted
    try:
        with client_of(home, durability="power") as client:
            threads = [
                threading.Thread(
                    target=lambda: timed(each, lambda: client.track(tool_event(7)))
                )
                for _ in range(_THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        module.sync = plain
    remove(home)
    return at_least(
        'eight threads, durability="power"',
        "events a sync",
        spread([_THREADS * each / syncs]),
        _EVENTS_A_SYNC,
    )


def _quiet(seconds: list[float]) -> float:
    """What it takes when nobody disturbs: the twentieth of the rounds."""
    return sorted(seconds)[len(seconds) // 20]


class _Written:
    """A client, and a file beside it that takes the same bytes without one.

    `track` records one event, `write` is one system call with a record's bytes.
    """

    def __init__(self, bench: Bench, durability: str) -> None:
        self._home = bench.new_home()
        self._client = client_of(self._home, durability=durability)
        events = cycle([tool_event(number) for number in range(977)])
        track = self._client.track
        self.track = lambda: track(next(events))
        self.descriptor = os.open(
            f"{self._home.root}/beside", os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
        self._client.track(tool_event(976))
        (name,) = segment_names(self._home)
        with open(self._home.segment(name), "rb") as segment:
            content = segment.read()
        self.record_bytes = len(content)
        assert self.record_bytes > OVERHEAD
        self.write = partial(os.write, self.descriptor, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.close()
        os.close(self.descriptor)
        remove(self._home)
