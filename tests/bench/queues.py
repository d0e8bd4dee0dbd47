"""One event beside what others offer to keep an item on disk, in one process.

The same bytes go into each: a sealed event for those that take bytes or text,
the decoded one for the one that takes JSON. Ours seals and scrubs an event
anew each time; the others are handed what is sealed already. Each is opened
with its defaults, and each survives a kill; none is asked to survive a power
loss, though two of them sync by default.

Run as a program (`python -m tests.bench.queues DIRECTORY CHUNK ROUNDS`) it
measures; that is done by the interpreter which has the libraries.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator

from telemetry.paths import Home
from tests.bench import comparison
from tests.bench.bench import REPOSITORY, Bench
from tests.bench.event import client_of, tool_event
from tests.bench.filling import event
from tests.bench.measuring import in_turns, run, timed
from tests.bench.rows import Row, at_least, in_blocks, left_out, ratios, spread


OURS = "Client.track"
_CHUNK = 50
# Steps before each chunk: what ran in between has emptied the processor's caches.
_AGAIN = 5
# How many times ahead of each; ahead at all where nothing more is claimed.
BARS = {
    "diskcache Deque.append": 5.0,
    "litequeue put": 3.0,
    "persist-queue SQLiteQueue.put": 15.0,
    "SQLite INSERT, WAL": 1.0,
    "Azure Monitor LocalFileStorage.put": 1.0,
}


def rows(bench: Bench) -> Iterator[Row]:
    """How many times longer each of the others takes."""
    if not bench.comparison:
        for name in BARS:
            yield left_out(f"one event beside {name}", comparison.NOT_INSTALLED)
        return
    place = f"{bench.directory}/queues"
    os.mkdir(place)
    rounds = bench.pick(60, 8)
    taken = run(
        [bench.comparison, "-m", "tests.bench.queues", place, str(_CHUNK), str(rounds)],
        environment=bench.environment(PYTHONPATH=f"{bench.code}:{REPOSITORY}"),
        directory=bench.directory,
        patience_s=600,
    )
    figures: dict[str, list[float]] = json.loads(taken.output)
    ours = figures.pop(OURS)
    for name, theirs in figures.items():
        yield at_least(
            f"one event beside {name}",
            f"theirs ÷ {OURS}(ToolEvent), {len(event(0))} bytes",
            ratios(in_blocks(theirs), in_blocks(ours)),
            BARS[name],
            note=f"{_us(theirs)} beside {_us(ours)}",
        )


def _us(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1e6:.1f} µs"


def _sides(place: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, by its name."""
    import diskcache
    import litequeue
    import persistqueue
    from azure.monitor.opentelemetry.exporter._storage import LocalFileStorage

    sealed = event(7)
    text, decoded = sealed.decode(), json.loads(sealed)

    os.mkdir(f"{place}/ours")
    client = client_of(Home(f"{place}/ours/home"))
    ours = tool_event(7)
    yield OURS, lambda: client.track(ours)

    deque = diskcache.Deque(directory=f"{place}/diskcache")
    yield "diskcache Deque.append", lambda: deque.append(sealed)

    lite = litequeue.LiteQueue(f"{place}/litequeue.db")
    yield "litequeue put", lambda: lite.put(text)

    persistent = persistqueue.SQLiteQueue(f"{place}/persistqueue", auto_commit=True)
    yield "persist-queue SQLiteQueue.put", lambda: persistent.put(sealed)

    database = sqlite3.connect(f"{place}/plain.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    # No sync at each commit: like ours, it survives a kill.
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, event BLOB)")
    insert = "INSERT INTO events (event) VALUES (?)"
    yield "SQLite INSERT, WAL", lambda: database.execute(insert, (sealed,))

    storage = LocalFileStorage(f"{place}/azure")
    yield "Azure Monitor LocalFileStorage.put", lambda: storage.put([decoded])


def _side(step: Callable[[], object], chunk: int) -> Callable[[], float]:
    """Seconds for one of `chunk` steps, after some that have it loaded again."""

    def taken() -> float:
        timed(_AGAIN, step)
        return timed(chunk, step) / chunk

    return taken


def main() -> None:
    """Print what each took for one event, round by round, in seconds."""
    place, chunk, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    names, steps = zip(*_sides(place), strict=True)
    taken = in_turns(rounds, *(_side(step, chunk) for step in steps))
    print(json.dumps(dict(zip(names, taken, strict=True))))
    sys.stdout.flush()
    os._exit(0)  # some of them have threads that end in their own time


if __name__ == "__main__":
    main()
