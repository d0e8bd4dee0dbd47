"""What `track` has answered True for survives SIGKILL at any instruction."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader, segment_names
from tests.support.writers import (
    Numbered,
    Peer,
    child,
    client_of,
    numbered,
    spooled_items,
)


ROUNDS = 300
WRITERS = 3
# A home is read to its end and left after so many rounds.
ROUNDS_A_HOME = 50
# From its birth, a child needs about five for its first event.
KILLED_AFTER_MS_MAX = 30.0


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment of the tests turns it off."""
    for name in ("DO_NOT_TRACK", "TELEMETRY_ENABLED", "TELEMETRY_TAGS", "CI"):
        monkeypatch.delenv(name, raising=False)


def write_on(
    home: Home, by: str, fill: int, segment_bytes_max: int
) -> Callable[[Peer], None]:
    """A program that records until it is killed, and tells what it was answered."""

    def work(peer: Peer) -> None:
        client = client_of(home, segment_bytes_max=segment_bytes_max)
        number = 0
        while True:
            if client.track(Numbered(number, by, "x" * fill)):
                peer.tell(str(number))
            number += 1

    return work


def kill_one_round(
    home: Home, name: str, chance: random.Random
) -> dict[str, list[int]]:
    """Three writers at once, each killed at a moment of its own; who was told what."""
    told = {}
    fill = chance.choice([0, 100, 5_000, 60_000])
    segment_bytes_max = chance.choice([1_000, 50_000, 4 << 20])
    works = {
        f"{name}-{n}": write_on(home, f"{name}-{n}", fill, segment_bytes_max)
        for n in range(WRITERS)
    }
    delays = sorted(chance.random() * KILLED_AFTER_MS_MAX / 1000 for _ in works)
    with contextlib.ExitStack() as stack:
        peers = {by: stack.enter_context(child(work)) for by, work in works.items()}
        begun = time.monotonic()
        for by, delay_s in zip(chance.sample([*peers], WRITERS), delays, strict=True):
            # The moment itself is what is tried; nothing is waited for.
            time.sleep(max(begun + delay_s - time.monotonic(), 0))
            peers[by].kill()
        for by, peer in peers.items():
            told[by] = [int(line) for line in peer.rest().split("\n")[:-1]]
    return told


def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The one promise that everything else is for."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    begun = time.monotonic()
    acknowledged = recorded = torn = 0
    for first in itertools.count(0, ROUNDS_A_HOME):
        if first >= ROUNDS and acknowledged > 1000:
            break
        home = Home(str(tmp_path / str(first)))
        told: dict[str, list[int]] = {}
        for round_ in range(first, first + ROUNDS_A_HOME):
            told.update(kill_one_round(home, str(round_), chance))
        found = numbered(home)
        twice = [each for each, count in Counter(found).items() if count > 1]
        assert twice == []
        there = set(found)
        answered = {(by, n) for by in told for n in told[by]}
        assert answered - there == set()
        # Each kill may have come between the write and the answer, no more.
        unanswered = Counter(by for by, _ in there - answered)
        assert all(count == 1 for count in unanswered.values())
        acknowledged += sum(map(len, told.values()))
        recorded += len(found)
        torn += torn_tails(home)
    print(
        f"{first * WRITERS} kills, {acknowledged} acknowledged, {recorded} recorded, "
        f"{torn} torn tails, {time.monotonic() - begun:.1f} s"
    )


def torn_tails(home: Home) -> int:
    """Segments that end in half a record; nothing else is wrong with any."""
    count = 0
    for name in segment_names(home):
        items = spooled_items(home, name)
        # Nobody writes behind a torn tail, and each segment has one writer at a time.
        assert not any(isinstance(item, Damage) for item in items)
        numbers = [item.seq for item in items if isinstance(item, Record)]
        assert numbers == list(range(len(numbers)))
        reader = SegmentReader(home, name)
        assert reader.lock(), "a lock has outlived its owner"
        count += reader.size() > (items[-1].end if items else 0)
        reader.close()
    return count
