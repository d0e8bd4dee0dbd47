"""What is recorded under a tracer: processes that record, flush and purge for real.

    python -m tests.proofs.power_loss.program STORY HOME MARKS URL

Every fact that the outside world learns is written to the file MARKS in the very
moment, so that the trace has it in order with the system calls:

    try N       event N is about to be recorded
    ack N       the host was answered True
    took N …    the collector has accepted these
    refused N   it has named this one as rejected
    stretch     damaged bytes stand in a segment, synced
    purge       whatever stands in the spool may be removed from here on
    retry       the dead letters are about to be pending again
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from telemetry import files
from telemetry.books.books import Books
from telemetry.delivery import dead_letters
from telemetry.delivery.flush import flush
from telemetry.delivery.purge import purge
from telemetry.delivery.schedule import flush_lock
from telemetry.paths import Home
from telemetry.spool import power
from telemetry.spool.reader import segment_names
from tests.proofs.power_loss.events import POISON, STRETCH, config_of, number_in
from tests.support.delivering import letters_of
from tests.support.writers import Numbered


class Teller:
    """The file of marks."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Events that were rejected once: the second time, they are taken.
        self.rejected: set[int] = set()

    def __call__(self, *words: object) -> None:
        os.write(self._descriptor, " ".join(map(str, words)).encode())


class MarkingPool(urllib3.PoolManager):
    """A client that says what the collector has made of each request."""

    def __init__(self, tell: Teller) -> None:
        super().__init__()
        self._tell = tell

    def request(self, *args: Any, **named: Any) -> Any:
        """As it is, and told before the flusher learns of it."""
        response = super().request(*args, **named)
        events = msgspec.json.decode(named["body"])["records"]
        taken = []
        for event in events:
            number = number_in(event)
            if (
                event["properties"]["by"] == POISON
                and number not in self._tell.rejected
            ):
                self._tell.rejected.add(number)
                self._tell("refused", number)
            else:
                taken.append(number)
        self._tell("took", *taken)
        return response


def record(home: Home, tell: Teller, numbers: range, by: str = "w") -> None:
    """One thread of a host."""
    from telemetry.client import Client

    with Client(config_of(home, "", durability="power")) as client:
        _track(client, tell, numbers, by)


def record_at_once(home: Home, tell: Teller, numbers: range, threads: int) -> None:
    """A host whose threads share one client, and its syncs."""
    from telemetry.client import Client

    share = len(numbers) // threads
    with Client(config_of(home, "", durability="power")) as client:
        running = [
            threading.Thread(
                target=_track, args=(client, tell, numbers[n * share :][:share])
            )
            for n in range(threads)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()


def _track(client: Any, tell: Teller, numbers: range, by: str = "w") -> None:
    for number in numbers:
        tell("try", number)
        # Of several sizes, so that records begin and end anywhere in a sector.
        if client.track(Numbered(number, by, "x" * (97 * number % 250))):
            tell("ack", number)


def deliver(home: Home, tell: Teller, url: str, durability: str = "power") -> None:
    """One flush. With `process`, its ledger is not synced."""
    flush(
        config_of(home, url, batch_events_max=3, durability=durability),
        home,
        timeout_s=20.0,
        environment={},
        allowed=lambda: True,
        http=MarkingPool(tell),
    )


def damage(home: Home, tell: Teller) -> None:
    """The newest segment ends in bytes that are no record, and they are synced."""
    path = home.segment(segment_names(home)[-1])
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, STRETCH)
    os.fdatasync(descriptor)
    os.close(descriptor)
    tell("stretch")


def remove(home: Home, tell: Teller) -> None:
    """What `spool-tools purge` does."""
    lock = flush_lock(home)
    assert lock is not None
    tell("purge")
    books = Books(home.ledger, relieve=lambda: None, is_full=lambda: False)
    try:
        purge(home, books)
    finally:
        books.close()
        os.close(lock)


def small(home: Home, tell: Teller, url: str) -> None:
    """One writer that rolls over, then one flush: small enough for every state."""
    record(home, tell, range(4))
    deliver(home, tell, url)


def threads(home: Home, tell: Teller, url: str) -> None:
    """Several threads that share their syncs, over several segments."""
    record_at_once(home, tell, range(15), 3)
    deliver(home, tell, url)


def between(home: Home, tell: Teller, url: str) -> None:
    """A flusher that delivers what was written and not yet synced."""
    really = files.sync
    when = iter(range(100))

    def sync(descriptor: int) -> None:
        if next(when) in {1, 3}:
            deliver(home, tell, url)
        really(descriptor)

    power.sync = sync  # type: ignore[attr-defined]
    record(home, tell, range(5))
    deliver(home, tell, url)


def processes(home: Home, tell: Teller, url: str) -> None:
    """Two hosts of two threads, and a flusher that runs meanwhile."""
    hosts = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.proofs.power_loss.program",
                role,
                *sys.argv[2:],
            ]
        )
        for role in ("host-1", "host-2")
    ]
    while any(host.poll() is None for host in hosts):
        deliver(home, tell, url)
    deliver(home, tell, url)


def story(home: Home, tell: Teller, url: str, durability: str = "power") -> None:
    """A rejected event, a damaged stretch, a purge, and life before and after."""
    record(home, tell, range(3))
    record(home, tell, range(3, 4), POISON)
    damage(home, tell)
    deliver(home, tell, url, durability)
    record(home, tell, range(4, 7))
    remove(home, tell)
    record(home, tell, range(7, 9))
    deliver(home, tell, url, durability)


def unsynced(home: Home, tell: Teller, url: str) -> None:
    """The same, with a flusher that was not told of power: its ledger may be anything."""
    story(home, tell, url, "process")


def again(home: Home, tell: Teller, url: str) -> None:
    """A letter that is sent again, and taken."""
    record(home, tell, range(2))
    record(home, tell, range(2, 3), POISON)
    deliver(home, tell, url)
    names = {letter.name for letter in letters_of(Path(home.root))}
    tell("retry")
    books = Books(home.ledger, relieve=lambda: None, is_full=lambda: False)
    dead_letters.retry(home, books, names)
    books.close()
    deliver(home, tell, url)


STORIES: dict[str, Callable[[Home, Teller, str], None]] = {
    "small": small,
    "threads": threads,
    "between": between,
    "processes": processes,
    "again": again,
    "story": story,
    "unsynced": unsynced,
}
_HOSTS: dict[str, Callable[[Home, Teller, str], None]] = {
    "host-1": lambda home, tell, _: record_at_once(home, tell, range(100, 106), 2),
    "host-2": lambda home, tell, _: record_at_once(home, tell, range(200, 206), 2),
}


if __name__ == "__main__":
    name, root, marks, endpoint = sys.argv[1:]
    {**STORIES, **_HOSTS}[name](Home(root), Teller(marks), endpoint)
