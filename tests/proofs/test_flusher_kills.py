"""Flushers that are killed in the middle of a drain."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import urllib3

import telemetry
from spool_tools.collector.store import Store
from telemetry.delivery.flush import flush
from telemetry.paths import Home
from tests.support.delivering import KEY, census_of, client_of, record
from tests.support.patience import PATIENCE_S


EVENTS = 20_000
KILLS = 200


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A collector in a process of its own, so that this one can fork."""
    database = tmp_path / "collected.db"
    command = [sys.executable, "-m", "spool_tools", "collect"]
    with subprocess.Popen(
        [*command, "--database", str(database)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), database
        process.terminate()


def _flush_in_child(home: Path, endpoint: str) -> int:
    """The pid of a forked child that flushes once and exits."""
    pid = os.fork()
    if pid:
        return pid
    try:
        config = telemetry.Config(app="app", endpoint=endpoint, api_key=KEY)
        flush(
            config,
            Home(str(home)),
            timeout_s=PATIENCE_S,
            environment={},
            allowed=lambda: True,
        )
    finally:
        os._exit(0)


@pytest.mark.proof
def test_two_hundred_killed_flushers_lose_nothing_and_change_nothing(
    tmp_path: Path, collector: tuple[str, Path]
) -> None:
    """The machine goes down whenever it likes; everything arrives, the books hold."""
    endpoint, database = collector
    home = tmp_path / "home"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    moments = random.Random(seed)
    urllib3.PoolManager()  # loaded before the forks, as everything else is
    # Recording goes on between the kills, so that the drain never runs dry.
    kills = 0
    recorded = 0
    with client_of(home, endpoint, segment_bytes_max=256 * 1024) as client:
        while kills < KILLS:
            share = min(EVENTS - recorded, 2 * EVENTS // KILLS)
            record(client, share, first=recorded)
            recorded += share
            pid = _flush_in_child(home, endpoint)
            # Some at once, some late: on a busy machine nothing is sent before.
            time.sleep(moments.uniform(0.0, 0.05) * (1 + kills % 8))
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            kills += os.WIFSIGNALED(status)
            census = census_of(home)
            assert census.holds(), census
            assert census.recorded == recorded
    assert recorded == EVENTS
    _, status = os.waitpid(_flush_in_child(home, endpoint), 0)
    assert status == 0
    census = census_of(home)
    assert (census.pending, census.delivered, census.holds()) == (0, EVENTS, True)

    with contextlib.closing(Store(str(database))) as store:
        copies = store.copies()
        requests = store.requests()
        tools = Counter(
            msgspec.json.decode(text)["properties"]["tool_name"]
            for text in store.texts()
        )
    assert len(copies) == EVENTS
    assert set(tools.values()) == {1}
    bodies = {}
    for request in requests:
        assert bodies.setdefault(request.idempotency_key, request.sha256) == (
            request.sha256
        )
    # Some were retried: else nothing was killed where it could have hurt.
    assert sum(copies.values()) > EVENTS
