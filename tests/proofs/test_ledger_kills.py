"""A process that is killed at any moment of a commit, or of the birth of a ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.process.test_ledger_faults import run


if TYPE_CHECKING:
    from pathlib import Path


KILLS = """
import os, random, signal, sys, time
from telemetry.books.entries import SegmentEntry, Snapshot, Totals
from telemetry.books.ledger import Ledger
from telemetry.books.view import is_hot, read_snapshot

place, kills = sys.argv[1], int(sys.argv[2])
dice = random.Random(7)
Ledger(place).close()
acknowledged = hot = 0
for kill in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        ledger = Ledger(place, power=False)
        count = ledger.snapshot.totals.recorded
        while True:
            count += 1
            entry = SegmentEntry(offset=count, crc="x" * (count % 7 * 400))
            ledger.commit(
                Snapshot(
                    segments={str(n): entry for n in range(5)},
                    totals=Totals(recorded=count),
                )
            )
            os.write(writing, b"%d\\n" % count)
    os.close(writing)
    os.read(reading, 1)  # it commits by now
    time.sleep(dice.random() * 0.004)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    text = b"\\n"
    while chunk := os.read(reading, 65536):
        text += chunk
    os.close(reading)
    # The first byte read above is a digit of the child's first line.
    lines = text.split(b"\\n")
    if len(lines) > 3:
        acknowledged = int(lines[-2])
    hot += is_hot(place + "/cache.db")
    seen = read_snapshot(place)
    ledger = Ledger(place)
    read = ledger.snapshot
    ledger.close()
    assert seen == read, (seen, read)
    count = read.totals.recorded
    assert {entry.offset for entry in read.segments.values()} == {count}, read
    assert len(read.segments) == 5
    assert acknowledged <= count, (acknowledged, count)
    acknowledged = count
print(acknowledged, hot)
"""


def test_a_killed_commit_is_whole_or_absent(tmp_path: Path) -> None:
    """It settles one batch and announces the next: half of it sends a batch twice
    under two keys, or never. What was acknowledged stays."""
    commits, hot = run(KILLS, f"{tmp_path}/ledger", "25").split()
    assert int(commits) >= 25
    assert int(hot) >= 1
    assert os.listdir(tmp_path) == ["ledger"]


BIRTHS = """
import os, random, signal, sys, time
from telemetry.books.entries import Snapshot
from telemetry.books.ledger import Ledger, open_ledger
from telemetry.books.view import read_snapshot, set_aside_names

place, kills = sys.argv[1], int(sys.argv[2])
dice = random.Random(7)
begun = 0
for kill in range(kills):
    child = os.fork()
    if child == 0:
        Ledger(place, power=False)
        os._exit(0)
    time.sleep(dice.random() * 0.006)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    begun += os.path.exists(place)
    assert read_snapshot(place) == Snapshot()
    ledger = open_ledger(place, power=False)
    assert ledger.snapshot == Snapshot()
    assert set_aside_names(place) == []
    ledger.close()
    for name in os.listdir(place):
        os.unlink(f"{place}/{name}")
    os.rmdir(place)
print(begun)
"""


def test_a_killed_birth_leaves_a_ledger_or_none(tmp_path: Path) -> None:
    """The first flush of all may be killed like any other: nothing is set aside."""
    assert int(run(BIRTHS, f"{tmp_path}/ledger", "40")) >= 5
