"""A fleet in small: real programs and their flushers, an outage, a recovery.

    python -m tests.proofs.fleet                             200 programs against `collect`
    python -m tests.proofs.fleet --receiver clickhouse       against ClickHouse's engine
    python -m tests.proofs.fleet --programs 20 --spread 2

Each program has a home of its own and is launched once while the receiver is well, twice
while it answers 503, and from then on as long as it has something left, each time by
chance. Of the batches that the receiver has stored, some answers are lost, and some
flushers are killed before they have theirs. Times are short: `--spread` stands for the five
minutes over which flushers that follow a failure arrive, the minute that a killed flusher
costs is over at once, the other times of the schedule are seconds.

In the end every event that a program recorded is at the receiver, once by its id. Totals
are one line of JSON on standard output; the exit code is 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3

from spool_tools.collector import Collector
from spool_tools.recipe import texts
from spool_tools.server import Answer, Request, Server
from tests.support.clickhouse import running_clickhouse
from tests.support.delivering import census_of
from tests.support.launching import await_no_flusher, environment_of, flushers


KEY = "key"
EVENTS_A_LAUNCH = 3
# Launches at a time. More would measure this machine's patience.
_AT_ONCE = 6
# A fleet of any size that is not done by then never is.
_PATIENCE_S = 600.0
# Of so many batches that are stored, one answer is lost; of so many, one flusher is killed.
# They have no common factor, so they seldom meet.
_LOST_EVERY, _KILLED_EVERY = 7, 11
PROGRAM = """
import sys, telemetry
format, spread_s, name, launch, events = sys.argv[1:]
telemetry.configure("app", version="1.0", flush="launch", format=format, source=name,
    retry_first_s=1.0, retry_max_s=4.0, flush_interval_s=0.5, flusher_lifetime_s=4.0,
    failure_spread_s=float(spread_s))
for number in range(int(events)):
    assert telemetry.track("ran", {"mark": f"{name}-{launch}-{number}"})
"""


class Gate:
    """The receiver's door: it counts who comes, answers 503 while there is an outage, and
    keeps some answers from those who wait for them.

    `kill` ends the flusher of the program that it is given the name of.
    """

    def __init__(self, forward: Callable[[Request], Answer]) -> None:
        self.is_down = False
        self.kill: Callable[[str], int] = lambda _name: 0
        self.lost = self.killed = 0
        self._stored = 0
        self._forward = forward
        self._mutex = threading.Lock()
        self._seen: list[tuple[float, int]] = []
        self._server = Server("127.0.0.1", 0, take=self._take)
        self.origin = f"http://127.0.0.1:{self._server.address[1]}"

    def _take(self, request: Request) -> Answer:
        answer = Answer(status=503) if self.is_down else self._forward(request)
        with self._mutex:
            self._seen.append((time.monotonic(), answer.status))
            self._stored += answer.status == 200
            stored = self._stored if answer.status == 200 else 0
        if stored and self._hurts(request, stored):
            return Answer(delivery="reset")
        return answer

    def _hurts(self, request: Request, stored: int) -> bool:
        """Whether the sender goes without its answer, the `stored`-th that is good."""
        with self._mutex:
            if stored // _KILLED_EVERY > self.killed:
                name = request.headers["user-agent"].partition("/")[0]
                # None: the program flushes by itself, which the next one may not.
                if self.kill(name):
                    self.killed += 1
                    return True
            self.lost += (is_lost := stored % _LOST_EVERY == 0)
            return is_lost

    def close(self) -> None:
        self._server.close()

    def told(self, since: float) -> dict[str, object]:
        """Requests by their answer, and the busiest second, of all and since a moment."""
        with self._mutex:
            seen = list(self._seen)
        after = [at for at, _ in seen if at >= since]
        return {
            "requests": len(seen),
            "answers": dict(Counter(status for _, status in seen)),
            "answers lost": self.lost,
            "flushers killed": self.killed,
            "peak a second": _peak(at for at, _ in seen),
            "after the recovery": len(after),
            "peak a second after the recovery": _peak(after),
        }


def _peak(times: Any) -> int:
    return max(Counter(int(at) for at in times).values(), default=0)


class Receiver:
    """A gate, and what has come through it: the marks of the events, by their ids."""

    def __init__(
        self,
        gate: Gate,
        endpoint: str,
        form: str,
        stored: Callable[[], list[tuple[str, str]]],
    ) -> None:
        self.gate, self.endpoint, self.form, self.stored = gate, endpoint, form, stored


@contextlib.contextmanager
def collect(form: str = "records") -> Iterator[Receiver]:
    """The collector of `spool-tools collect`."""
    with Collector(key=KEY) as collector:

        def stored() -> list[tuple[str, str]]:
            found = (event["properties"] for event in collector.events())
            return [(each["event_id"], each["mark"]) for each in found]

        with contextlib.closing(Gate(collector._take)) as gate:
            yield Receiver(gate, f"{gate.origin}/in", form, stored)


@contextlib.contextmanager
def clickhouse(directory: Path) -> Iterator[Receiver]:
    """ClickHouse's engine, with the schema of the recipe."""
    with running_clickhouse(directory / "clickhouse", key=KEY) as server:
        server.script(texts()["clickhouse"])
        pool = urllib3.PoolManager(retries=False, maxsize=64)

        def forward(request: Request) -> Answer:
            try:
                reply = pool.request(
                    request.method,
                    server.url + request.target.lstrip("/"),
                    body=request.body,
                    headers=request.headers,
                    timeout=60.0,
                )
            except urllib3.exceptions.HTTPError:
                return Answer(status=503)
            code = reply.headers.get("X-ClickHouse-Exception-Code")
            headers = (("X-ClickHouse-Exception-Code", code),) if code else ()
            return Answer(status=reply.status, body=reply.data, headers=headers)

        def stored() -> list[tuple[str, str]]:
            rows = server.query(
                "SELECT toString(event_id), toString(properties.mark) FROM telemetry.once"
            )
            return [(event_id, mark) for event_id, mark in rows]

        with contextlib.closing(Gate(forward)) as gate:
            yield Receiver(gate, f"{gate.origin}/", "clickhouse", stored)


class Fleet:
    """So many programs, each with a home below `directory`."""

    def __init__(
        self, programs: int, directory: Path, receiver: Receiver, *, spread_s: float
    ) -> None:
        self.names = [f"p{number}" for number in range(programs)]
        self.recorded: list[str] = []
        self._directory = directory
        self._receiver = receiver
        self._spread_s = spread_s
        self._launches: Counter[str] = Counter()
        self._random = random.Random(1)
        receiver.gate.kill = self._kill

    def launch(self, names: list[str]) -> None:
        """Each of them once, in an order by chance; returns when all have ended."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for marks in threads.map(
                self._launch, self._random.sample(names, len(names))
            ):
                self.recorded += marks

    def _launch(self, name: str) -> list[str]:
        self._launches[name] += 1
        launch = self._launches[name]
        told = (self._receiver.form, str(self._spread_s), name, str(launch))
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *told, str(EVENTS_A_LAUNCH)],
            env=environment_of(self._directory / name, self._receiver.endpoint),
            check=True,
            timeout=_PATIENCE_S,
        )
        return [f"{name}-{launch}-{number}" for number in range(EVENTS_A_LAUNCH)]

    def _kill(self, name: str) -> int:
        pids = flushers(self._directory / name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.utime(self._directory / name / "app" / "next-flush", (0, 0))
        return len(pids)

    def waiting(self) -> list[str]:
        """The programs that have something left, as `status` says it.

        A segment that is settled may stay: a launch goes on in it beside its flusher.
        """
        return [
            name
            for name in self.names
            if census_of(self._directory / name / "app").pending
        ]

    def flushers_end(self) -> None:
        for name in self.names:
            await_no_flusher(self._directory / name, timeout_s=_PATIENCE_S)


def story(fleet: Fleet, receiver: Receiver) -> dict[str, object]:
    """A day of the fleet, and what came of it. `missing` and `twice` have to be 0."""
    gate = receiver.gate
    fleet.launch(fleet.names)
    gate.is_down = True
    fleet.launch(fleet.names)
    fleet.launch(fleet.names)
    fleet.flushers_end()
    gate.is_down = False
    recovered = time.monotonic()
    waited = len(fleet.waiting())
    rounds = 0
    while left := fleet.waiting():
        assert time.monotonic() < recovered + _PATIENCE_S, f"{len(left)} are left"
        fleet.launch(left)
        fleet.flushers_end()
        rounds += 1
    took_s = time.monotonic() - recovered
    stored = receiver.stored()
    marks = Counter(mark for _, mark in stored)
    return {
        "programs": len(fleet.names),
        "recorded": len(fleet.recorded),
        "stored": len(stored),
        "missing": len(set(fleet.recorded) - marks.keys()),
        "twice": sum(count > 1 for count in marks.values()),
        "with something left at the recovery": waited,
        "rounds of launches until all had arrived": rounds,
        "seconds": round(took_s, 1),
        **gate.told(recovered),
    }


def main(arguments: list[str]) -> int:
    """Run the story and print its totals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument(
        "--receiver", choices=("collect", "clickhouse"), default="collect"
    )
    parser.add_argument("--spread", type=float, default=20.0, metavar="SECONDS")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        made = clickhouse(directory) if args.receiver == "clickhouse" else collect()
        with made as receiver:
            fleet = Fleet(args.programs, directory, receiver, spread_s=args.spread)
            totals = story(fleet, receiver)
    print(json.dumps({"receiver": args.receiver, **totals}))
    return 1 if totals["missing"] or totals["twice"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
