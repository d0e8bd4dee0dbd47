"""Four short-lived writers race a flusher and a purge, on real files, for real.

    python -m tests.proofs.races --seconds 20 [--without link|name|end …] [--beside …]

Each writer process records a few events and exits, again and again. The flusher
empties segments as fast as it can: read, accept at once, lock, read the end once
more, delete. Beside them somebody purges now and then (unlinks every segment
under its writers), or makes backups (gives a segment a second name), or nobody
does anything.

At the end each acknowledged event has been accepted, still waits, or stood in a
file when that was purged. `--without` takes one of the checks out that this
rests on, and then events are lost, if somebody does what the check is for:

    link   after its write a writer looks whether the file still has its name:
           beside a purge
    name   after its lock a writer looks whether the name still leads to the file:
           beside backups; elsewhere `link` finds the same one write later
    end    under its lock the flusher reads the end once more: always
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection

from telemetry.paths import Home
from telemetry.pipeline import prepare
from telemetry.spool import segment
from telemetry.spool.frame import Record, scan
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.spool.writer import SpoolWriter


WRITERS = 4
CHECKS = ("link", "name", "end")
# What one process records before it exits; more openings make more races.
SESSIONS_A_PROCESS = 20
EVENTS_A_SESSION_MAX = 4
BESIDE = ("purge", "backup", "nothing")
# One pass in so many unlinks what it would have drained.
PASSES_A_PURGE = 40
# So many second names there are at a time.
BACKUPS_MAX = 50
NO_BOUND = 1 << 60


def take_out(checks: Collection[str]) -> None:
    """In this process, writers do without these checks."""
    if "link" in checks:
        sound = segment.Segment.append

        def append(self: segment.Segment, event: bytes) -> bool:
            before = self.seq
            return sound(self, event) or self.seq > before

        segment.Segment.append = append  # type: ignore[method-assign]
    if "name" in checks:
        segment.has_its_name = lambda *_: True


def write_sessions(home: Home, log: int, first: int, seed: int) -> None:
    """One short-lived process; `log` gets the numbers of what was acknowledged."""
    chance = random.Random(seed)
    number = first
    for _ in range(SESSIONS_A_PROCESS):
        writer = SpoolWriter(
            home,
            spool_bytes_max=1 << 40,
            segment_bytes_max=chance.choice([200, 4 << 20]),
            power=False,
            prepare=lambda: prepare(home),
            allowed=lambda: True,
        )
        for _ in range(chance.randint(1, EVENTS_A_SESSION_MAX)):
            writer.append(b'{"number":%d}' % number)
            os.write(log, b"%d\n" % number)
            number += 1
        writer.close()


def write_again_and_again(home: Home, log_path: str, writer: int, until: float) -> None:
    """Processes, one after the other, each with numbers of its own."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    step = SESSIONS_A_PROCESS * EVENTS_A_SESSION_MAX
    turn = writer
    while time.monotonic() < until:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                write_sessions(home, log, turn * step, turn)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a writer failed")
        turn += WRITERS


class Flusher:
    """Drains and purges; remembers what became of every event that it saw."""

    def __init__(
        self, home: Home, checks_left_out: Collection[str], beside: str
    ) -> None:
        self._home = home
        self._purges = beside == "purge"
        self._backups = beside == "backup"
        self._passes = 0
        self._names: list[str] = []
        self._reads_the_end = "end" not in checks_left_out
        self._settled: dict[str, int] = {}
        self.accepted: list[bytes] = []
        self.purged: list[bytes] = []
        self.deleted = 0

    def one_pass(self) -> None:
        """Drain or purge."""
        self._passes += 1
        if self._purges and self._passes % PASSES_A_PURGE == 0:
            self.purge()
        else:
            self.drain()

    def drain(self) -> None:
        """Once over all segments: all are read, then all that can be are deleted.

        In between, a request takes its time.
        """
        readers = [
            SegmentReader(self._home, name) for name in segment_names(self._home)
        ]
        for reader in readers:
            self._accept(reader)
        for reader in readers:
            if self._backups and self._passes % 2:
                self._back_up(reader)
            if reader.lock():
                self._delete(reader)
            reader.close()

    def _delete(self, reader: SegmentReader) -> None:
        if self._reads_the_end:
            self._accept(reader)
            gone = reader.delete(self._settled.get(reader.name, 0))
        else:
            os.unlink(reader.path)
            gone = True
        if gone:
            self.deleted += 1
            self._settled.pop(reader.name, None)

    def _back_up(self, reader: SegmentReader) -> None:
        name = f"{self._home.root}/backup-{len(self._names)}-{reader.name}"
        os.link(reader.path, name)
        self._names.append(name)
        if len(self._names) > BACKUPS_MAX:
            os.unlink(self._names[-BACKUPS_MAX - 1])

    def _accept(self, reader: SegmentReader) -> None:
        reader.start_at(self._settled.get(reader.name, 0))
        while items := reader.take(500, NO_BOUND):
            self.accepted += [item.event for item in items if isinstance(item, Record)]
            self._settled[reader.name] = items[-1].end

    def purge(self) -> None:
        """Unlink every segment, whoever writes to it.

        What stands in it at that moment is purged. What is written to it
        afterwards was not there, and its writer has to notice.
        """
        for name in segment_names(self._home):
            path = self._home.segment(name)
            descriptor = os.open(path, os.O_RDONLY)
            os.unlink(path)
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            os.close(descriptor)
            found = scan(content, at=0, answered=0).items
            self.purged += [item.event for item in found if isinstance(item, Record)]
            self._settled.pop(name, None)


def race(
    directory: str, *, seconds: float, without: Collection[str], beside: str
) -> dict[str, object]:
    """One race, and its figures."""
    home = Home(f"{directory}/home")
    prepare(home)
    until = time.monotonic() + seconds
    pids = []
    for writer in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                take_out(without)
                write_again_and_again(home, f"{directory}/log{writer}", writer, until)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    flusher = Flusher(home, without, beside)
    running, failed = set(pids), 0
    try:
        while running:
            flusher.one_pass()
            pid, status = os.waitpid(-1, os.WNOHANG)
            running.discard(pid)
            failed += pid != 0 and status != 0
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
    flusher.drain()
    told = []
    for writer in range(WRITERS):
        with open(f"{directory}/log{writer}", "rb") as file:
            told += [b'{"number":%b}' % line for line in file.read().split()]
    safe = {*flusher.accepted, *flusher.purged}
    return {
        "without": sorted(without),
        "beside": beside,
        "acknowledged": len(told),
        "lost": len(set(told) - safe),
        "accepted": len(flusher.accepted),
        "purged": len(flusher.purged),
        "twice": len(flusher.accepted) - len(set(flusher.accepted)),
        "segments": flusher.deleted,
        "left": len(segment_names(home)),
        "failed": failed,
    }


def main() -> int:
    """Race once, say the figures in one line of JSON; 1 where an event was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--without", choices=CHECKS, action="append", default=[])
    parser.add_argument("--beside", choices=BESIDE, default="purge")
    args = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="races-")
    try:
        figures = race(
            directory,
            seconds=args.seconds,
            without=args.without,
            beside=args.beside,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(figures))
    return 1 if figures["lost"] or figures["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
