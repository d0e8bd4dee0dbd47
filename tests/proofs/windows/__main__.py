"""Files as Windows has them: what must hold beside kills, opt-outs, purges, readers.

    python -m tests.proofs.windows [--seconds 60]
    python -m tests.proofs.windows --by .ci/windows-python [--seconds 60]

The second form runs the first by that command: Windows' Python under Wine. Four scenes
share the time, each with four processes that go as fast as they can and are ended by
TerminateProcess (elsewhere SIGKILL) at random:

    drain     writers and a flusher, which is killed as well
    opt-out   writers; off, all that was kept removed, and on again
    purge     writers; all that is kept is purged, or flushed, in turn
    replace   a small file is written whole beside three readers

Lost: acknowledged events that neither arrived nor were purged. After: events that were
begun once an opt-out had returned and acknowledged before telemetry was on again, or
acknowledged before it and sent behind it. Wrong: contents that were neither the one nor
the other, programs that failed by themselves, and books that do not balance.

`--without retire` takes out the line feed that an opt-out appends, on Windows, to a
segment that is in use; then events are found that were acknowledged after it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import telemetry
from spool_tools.changing import open_books
from spool_tools.collector import Collector
from telemetry.books.view import read_snapshot
from telemetry.consent import Choice, remember_choice
from telemetry.delivery.census import take_census
from telemetry.delivery.opt_out import finish_opt_out, opt_out
from telemetry.delivery.purge import purge
from telemetry.delivery.schedule import take_flush_lock
from telemetry.paths import Home
from telemetry.pipeline import prepare
from tests.proofs.windows.programs import CONTENTS, append_in_one_step, config


if TYPE_CHECKING:
    from typing_extensions import Self

REPOSITORY = Path(__file__).parents[3]
WRITERS = [f"write {number}" for number in range(4)]
# A program lives at least so long after its first line, and at most so long.
LIVES_S = 0.1, 4.0
# A scene goes on until it has met so many, however slow the machine is.
LEAST = {"killed": 8, "opted out": 4, "purges": 4}
# What only hangs takes longer. It ends before `until_silent.py` would end all.
PATIENCE_S = 300.0
SHARES = {"drain": 0.4, "opt-out": 0.25, "purge": 0.25, "replace": 0.1}


class Programs:
    """Processes of one scene; who is killed is started anew."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: list[Path] = []
        self.killed = self.failed = self._started = 0
        self._chance = random.Random(1)
        self._ends: dict[str, float] = {}
        self._log_of: dict[str, Path] = {}

    def start(self, role: str, *arguments: str) -> None:
        """A program of this role, with a log of its own behind its arguments."""
        self._started += 1
        log = self.directory / f"log-{self._started}"
        self.logs.append(log)
        self._log_of[role] = log
        kind = role.partition(" ")[0]
        own = {"write": [str(log), str(self._started)], "flush": []}
        self.running[role] = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.proofs.windows.programs", kind),
                *(*arguments, *own.get(kind, [str(log)])),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._ends.pop(role, None)

    def step(self, again: Callable[[str], None]) -> None:
        """Kill whose time has come, and start it anew by `again`."""
        for role, process in list(self.running.items()):
            begun = role.startswith("flush") or (
                (log := self._log_of[role]).exists() and log.stat().st_size
            )
            if process.poll() is not None:
                self.failed += 1
                again(role)
            elif role not in self._ends:
                if begun:
                    lives_s = self._chance.uniform(*LIVES_S)
                    self._ends[role] = time.monotonic() + lives_s
            elif self._ends[role] < time.monotonic():
                process.kill()
                process.wait(PATIENCE_S)
                self.killed += 1
                again(role)
        time.sleep(0.02)

    def start_all(self, start: Callable[[str], None], *roles: str) -> None:
        """Each has begun on return: an interpreter starts slowly where it is emulated."""
        for role in roles:
            start(role)
        logs = [self._log_of[role] for role in roles if role != "flush"]
        for _ in waiting("a program did not start"):
            if all(log.exists() and log.stat().st_size for log in logs):
                return
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(PATIENCE_S)

    def stop(self) -> None:
        """All of them come to an end of their own."""
        (self.directory / "stop").touch()
        for process in self.running.values():
            self.failed += process.wait(PATIENCE_S) != 0

    def told(self) -> list[tuple[str, int, int]]:
        """What was acknowledged; a line that a kill cut was not."""
        found = []
        for log in filter(Path.exists, self.logs):
            for line in log.read_bytes().split(b"\n")[:-1]:
                name, begun, ended = line.split()
                found.append((name.decode(), int(begun), int(ended)))
        return found


def waiting(what: str, seconds: float = 0.0) -> Iterator[None]:
    """Steps of a wait that the caller ends; fails by `what` once only a hang goes on."""
    until = time.monotonic() + seconds + PATIENCE_S
    while time.monotonic() < until:
        yield
    raise TimeoutError(what)


def lasting(seconds: float, kind: str, met: Callable[[], int]) -> Iterator[None]:
    """Steps of a scene: so many seconds, and until it has met what it is to meet."""
    begun = time.monotonic()
    for _ in waiting(f"too few of '{kind}'", seconds):
        if time.monotonic() - begun > seconds and met() >= LEAST[kind]:
            return
        yield


def written(programs: Programs) -> tuple[Home, Callable[[str], None]]:
    """A home in which the writers have begun, and what starts one of them anew."""
    home = Home(str(programs.directory / "home"))
    prepare(home)

    def start(role: str) -> None:
        programs.start(role, home.root)

    programs.start_all(start, *WRITERS)
    return home, start


def named(collector: Collector) -> Counter[str]:
    """The tool names that arrived."""
    return Counter(
        event["properties"].get("tool_name", "") for event in collector.events()
    )


def flush_all(home: Home, collector: Collector) -> None:
    """Everything has arrived on return."""
    with telemetry.Client(config(home.root, collector.url)) as client:
        for _ in waiting("a flush does not drain"):
            report = client.flush(timeout_s=20.0)
            if report.stopped == "drained" and not report.pending:
                return
            print(report, file=sys.stderr)
            time.sleep(0.2)


def books(home: Home, collector: Collector) -> dict[str, int]:
    """The equation, and how often it does not hold."""
    census = take_census(home, read_snapshot(home.ledger))
    holds = census.holds() and not census.pending
    # A flush may be cut off before its answer, and a purge then takes what had arrived.
    arrived = sum(named(collector).values())
    return {
        "recorded": census.recorded,
        "delivered": census.delivered,
        "purged": census.purged,
        "damaged": census.damaged,
        "wrong": (not holds) + (census.delivered + census.purged < arrived),
    }


def drain(programs: Programs, seconds: float) -> dict[str, int]:
    """Four writers and a flusher."""
    home = Home(str(programs.directory / "home"))
    prepare(home)
    with Collector(key="k") as collector:

        def start(role: str) -> None:
            programs.start(role, home.root, *([collector.url] * (role == "flush")))

        programs.start_all(start, *WRITERS, "flush")
        for _ in lasting(seconds, "killed", lambda: programs.killed):
            programs.step(start)
        programs.stop()
        flush_all(home, collector)
        told, arrived = programs.told(), named(collector)
        found = books(home, collector)
    found["lost"] = sum(name not in arrived for name, _, _ in told)
    found["wrong"] += programs.failed
    return {"acknowledged": len(told), "killed": programs.killed, **found}


def opting_out(programs: Programs, seconds: float) -> dict[str, int]:
    """Off, all removed, on again; at last all is sent that may be."""
    home, start = written(programs)
    off: list[tuple[int, int]] = []
    for _ in lasting(seconds, "opted out", lambda: len(off)):
        opt_out(home)
        returned = time.perf_counter_ns()
        for _ in waiting("an opt-out does not finish"):
            if _is_finished(home):
                break
            time.sleep(0.005)
        programs.step(start)
        off.append((returned, time.perf_counter_ns()))
        remember_choice(home.consent, Choice(on=True, date="2026-01-01"))
        pause = time.monotonic() + programs._chance.uniform(0.0, 0.3)
        while time.monotonic() < pause:
            programs.step(start)
    programs.stop()
    told = programs.told()
    with Collector(key="k") as collector:
        flush_all(home, collector)
        arrived = named(collector)
        found = books(home, collector)
    last = off[-1][0]
    inside = sum(
        any(begin < begun and ended < end for begin, end in off)
        for _, begun, ended in told
    )
    sent = sum(ended < last and name in arrived for name, _, ended in told)
    begun_since = [name for name, begun, _ in told if begun > off[-1][1]]
    found["lost"] = sum(name not in arrived for name in begun_since)
    found["wrong"] += programs.failed
    return {
        "acknowledged": len(told),
        "opted out": len(off),
        "killed": programs.killed,
        "after": inside + sent,
        **found,
    }


def _is_finished(home: Home) -> bool:
    try:
        return finish_opt_out(home)
    except OSError:
        return False  # a writer has just made a segment; the next call removes it


def purging(programs: Programs, seconds: float) -> dict[str, int]:
    """All is purged, or flushed, while writers write."""
    home, start = written(programs)
    counts: Counter[str] = Counter()
    with Collector(key="k") as collector:
        with telemetry.Client(config(home.root, collector.url)) as client:
            for _ in lasting(seconds, "purges", lambda: counts["purges"]):
                lock = take_flush_lock(home)
                if lock is None:
                    continue  # the flush that was cut off is at its last step
                with lock, open_books(home) as writable:
                    purge(home, writable)
                counts["purges"] += 1
                programs.step(start)
                client.flush(timeout_s=0.3)
        programs.stop()
        flush_all(home, collector)
        told, arrived = programs.told(), named(collector)
        found = books(home, collector)
    missing = sum(name not in arrived for name, _, _ in told)
    found["lost"] = max(missing - found["purged"], 0)
    found["wrong"] += programs.failed
    return {
        "acknowledged": len(told),
        "purges": counts["purges"],
        "killed": programs.killed,
        **found,
    }


def replacing(programs: Programs, seconds: float) -> dict[str, int]:
    """One writes a small file whole, three read it."""
    path = programs.directory / "file"
    path.write_bytes(CONTENTS[0])

    def start(role: str) -> None:
        programs.start(role, str(path))

    programs.start_all(start, "replace", "read 1", "read 2", "read 3")
    for _ in lasting(seconds, "killed", lambda: programs.killed):
        programs.step(start)
    programs.stop()
    lines = [log.read_bytes().count(b"\n") for log in programs.logs if log.exists()]
    torn = sum(log.read_bytes().count(b"0") for log in programs.logs if log.exists())
    return {
        "reads and writes": sum(lines),
        "killed": programs.killed,
        "wrong": torn + programs.failed,
    }


SCENES = {
    "drain": drain,
    "opt-out": opting_out,
    "purge": purging,
    "replace": replacing,
}


def take_out(check: str) -> None:
    """In this process and in those that it starts, do without a check."""
    if sys.platform == "win32":
        from telemetry import files_windows

        if check == "retire":
            files_windows._retire = lambda _: None  # type: ignore[assignment]


def main() -> int:
    """Run the scenes; 1 where something is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--scene", choices=SCENES, action="append")
    parser.add_argument("--without", choices=["retire"], default="")
    parser.add_argument("--by", help="the command that runs Windows' Python")
    args = parser.parse_args()
    if args.by:
        given = [each for each in sys.argv[1:] if each not in {"--by", args.by}]
        command = [args.by, "-m", "tests.proofs.windows", *given]
        # A scene prints nothing before its end.
        silent_s = int(args.seconds) + 600
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "WINDOWS_SILENT_SECONDS": str(silent_s)},
            check=False,
        )
        return done.returncode
    take_out(args.without)
    append_in_one_step()
    scenes = args.scene or list(SCENES)
    whole = sum(SHARES[scene] for scene in scenes)
    found: dict[str, dict[str, int]] = {}
    for scene in scenes:
        directory = Path(tempfile.mkdtemp(prefix="spool-windows-"))
        try:
            seconds = args.seconds * SHARES[scene] / whole
            with Programs(directory) as programs:
                found[scene] = SCENES[scene](programs, seconds)
            print(scene, found[scene], file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    totals: dict[str, object] = {"system": sys.platform, **found}
    for name in ("lost", "after", "wrong"):
        totals[name] = sum(each.get(name, 0) for each in found.values())
    print(json.dumps(totals))
    return 1 if totals["lost"] or totals["after"] or totals["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
