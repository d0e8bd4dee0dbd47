"""Signals at every step inside `track`: whatever the handler does, events are kept."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from telemetry.client import Client
from telemetry.paths import Home
from telemetry.spool import refusals
from tests.process.test_fork_threads_signals import home, switched_on
from tests.support.writers import (
    PATIENCE_S,
    Numbered,
    Peer,
    child,
    client_of,
    event_ids,
    numbered,
)


__all__ = ["home", "switched_on"]  # fixtures


def storm(
    home: Home,
    rounds: int,
    strike: Callable[[Client, int], object],
    *,
    twice: bool = False,
) -> list[tuple[str, int]]:
    """Signals at every step inside `track`; what was acknowledged, of the others too.

    Afterwards it still works, in this thread and in another one.
    """

    def work(peer: Peer) -> None:
        client = client_of(home, segment_bytes_max=50_000)
        chance = random.Random(7)
        strikes = number = 0
        told: list[tuple[str, int]] = []
        inside = Client.track.__code__

        def handle(_: int, frame: FrameType | None) -> None:
            nonlocal strikes
            # Only what is interrupted inside of ours is ours to answer for.
            while frame is not None and frame.f_code is not inside:
                frame = frame.f_back
            if frame is not None:
                strikes += 1
                if strike(client, strikes):
                    told.append(("handler", strikes))

        sys.unraisablehook = lambda _: None  # what is interrupted in a `__del__`
        signal.signal(signal.SIGALRM, handle)
        while strikes < rounds:
            number += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + chance.random() * 3e-4)
                if client.track(Numbered(number)):
                    told.append(("w", number))
            except KeyboardInterrupt:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert client.track(Numbered(0, "end"))
        thread = threading.Thread(
            target=client.track, args=(Numbered(1, "end"),), daemon=True
        )
        thread.start()
        thread.join(PATIENCE_S / 4)
        assert not thread.is_alive(), "another thread waits for ever"
        client.close()
        for by, each in [*told, ("end", 0), ("end", 1)]:
            peer.tell(f"{by} {each}")

    with child(work) as peer:
        lines = [line.split() for line in peer.finish().splitlines()]
    told = [(by, int(number)) for by, number in lines]
    found = numbered(home)
    # One that is there twice is known as such by its id.
    assert len(set(event_ids(home))) == len(set(found))
    assert twice or len(found) == len(set(found)), "an event is there twice"
    assert set(told) <= set(found), "an acknowledged event is missing"
    return told


def test_signal_handlers_that_record(home: Home) -> None:
    """An event inside an event is recorded or refused at once, never waited for."""

    def strike(client: Client, strikes: int) -> bool:
        return client.track(Numbered(strikes, "handler"))

    told = storm(home, 1000, strike)
    handlers = sum(by == "handler" for by, _ in told)
    assert sum(by == "w" for by, _ in told) > 300
    assert 0 < handlers < 1000
    # Each is accounted for: recorded, or refused and counted.
    assert refusals.read(home.refused) == {"busy": 1000 - handlers}


def test_interrupts_at_every_step(home: Home) -> None:
    """Ctrl-C belongs to the host; what it must not do is leave a lock behind."""

    def strike(*_: object) -> bool:
        raise KeyboardInterrupt

    told = storm(home, 1500, strike)
    assert len(told) > 100


def test_signal_handlers_that_fork(home: Home) -> None:
    """A child that is born inside an event records its own and loses none of ours."""

    def strike(client: Client, strikes: int) -> bool:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if client.track(Numbered(strikes, "handler")) else 1)
        return os.waitpid(pid, 0)[1] == 0

    told = storm(home, 100, strike)
    assert sum(by == "handler" for by, _ in told) == 100


def test_signal_handlers_that_close(home: Home) -> None:
    """A handler of SIGTERM cleans up, and the event that it interrupted goes on."""

    def strike(client: Client, _: int) -> bool:
        client.close()
        return False

    # The one that it closed upon was perhaps written, and is written once more.
    told = storm(home, 1500, strike, twice=True)
    assert len(told) > 300
