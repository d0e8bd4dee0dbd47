"""Four short-lived writers race a flusher and a purge, on real files, for real.

    python -m tests.proofs.races --seconds 20 [--without link|name|end …] [--beside …]
    python -m tests.proofs.races --acknowledged 1000000 --beside all [--opt-outs 20]

Each writer process records a few events and exits, again and again. The flusher
empties segments as fast as it can: read, accept at once, lock, read the end once
more, delete. Beside them, every now and then:

    purge    every segment is unlinked under its writers
    backup   a segment is given a second name
    names    the home is moved, `spool/` is replaced, segments are renamed, or given
             a second name and unlinked
    opt-out  the user turns telemetry off, and on again when all is removed
    all      any of these
    nothing

At the end each acknowledged event has been accepted, still waits, or stood in a
file when that was taken away. None that was begun after an opt-out had returned was
acknowledged, or stands in `spool/`, before telemetry was on again. What a writer that
had a segment open writes to it once more stands in the directory that was set aside: the
look behind its write says so, it reads the choice and answers False, and the record goes
with that directory. These are counted as `not believed`. `--without` takes
one of the checks out that this rests on, and then events are lost, if somebody does
what the check is for:

    link   after its write a writer looks whether the path still leads to its file:
           beside purge, names and opt-out
    name   after its lock a writer looks the same: beside backups; elsewhere `link`
           finds the same one write later
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

from telemetry.consent import Choice, consent, remember_choice
from telemetry.delivery.opt_out import directories_set_aside, finish_opt_out, opt_out
from telemetry.errors import DiskError, HomeError, OffError
from telemetry.files import make_home, names_in
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
BESIDE = ("purge", "backup", "names", "opt-out", "all", "nothing")
# One pass in so many takes away what it would have drained.
PASSES_A_PURGE = 40
# So long a program may take to notice an opt-out, if it notices at all.
NOTICE_S = 0.005
# So many second names there are at a time.
BACKUPS_MAX = 50
NO_BOUND = 1 << 60
# What ends a race that counts: at each of so many passes the logs are measured, whose
# lines have a number of at least six digits and two times in nanoseconds.
ENOUGH = "enough"
PASSES_A_LOOK = 100
LOG_LINE_BYTES = 38
LONGEST_S = 24 * 3600.0


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
            allowed=lambda: consent(home, {}).on,
        )
        for _ in range(chance.randint(1, EVENTS_A_SESSION_MAX)):
            begun = time.monotonic_ns()
            try:
                writer.append(b'{"number":%d,"begun":%d}' % (number, begun))
            except (OffError, HomeError, DiskError):
                continue  # turned off, or taken away as it was made
            line = b"%d %d %d\n" % (number, begun, time.monotonic_ns())
            os.write(log, line)
            number += 1
        writer.close()


def write_again_and_again(
    home: Home, log_path: str, writer: int, writers: int, until: float
) -> None:
    """Processes, one after the other, each with numbers of its own."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    step = SESSIONS_A_PROCESS * EVENTS_A_SESSION_MAX
    turn = writer
    enough = f"{os.path.dirname(log_path)}/{ENOUGH}"
    while time.monotonic() < until and not os.path.exists(enough):
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
        turn += writers


class Flusher:
    """Drains and purges; remembers what became of every event that it saw."""

    def __init__(
        self, home: Home, checks_left_out: Collection[str], beside: str
    ) -> None:
        self._home = home
        self._chance = random.Random(beside)
        self._disturbances = {
            "purge": [self.purge],
            "names": [self.move, self.swap, self.rename, self.link_and_unlink],
            "opt-out": [self.opt_out],
        }.get(beside, [])
        self._backups = beside in {"backup", "all"}
        if beside == "all":
            self._disturbances = [
                self.purge,
                self.move,
                self.swap,
                self.rename,
                self.link_and_unlink,
                self.opt_out,
            ]
        self._taken = 0
        # When an opt-out had returned, and when telemetry was to be on again.
        self.off: list[tuple[int, int]] = []
        # Events that were begun after an opt-out had returned and were written: to
        # `spool/`, and to what was set aside.
        self.after = 0
        self.not_believed: set[bytes] = set()
        self.passes = 0
        self._names: list[str] = []
        self._reads_the_end = "end" not in checks_left_out
        self._settled: dict[str, int] = {}
        self.accepted: list[bytes] = []
        self.purged: list[bytes] = []
        self.deleted = 0

    def one_pass(self) -> None:
        """Drain, or disturb."""
        self.passes += 1
        if self._disturbances and self.passes % PASSES_A_PURGE == 0:
            self._chance.choice(self._disturbances)()
            self._settled.clear()
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
            if self._backups and self.passes % 2:
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
        directory = os.path.dirname(self._home.root)
        name = f"{directory}/backup-{len(self._names)}-{reader.name}"
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
            self.purged += events_of(descriptor)
            os.close(descriptor)

    def move(self) -> None:
        """The home is another directory from here on, as in a desktop's trash."""
        self._take_away(self._home.root, "spool")

    def swap(self) -> None:
        """`spool/` is another directory from here on."""
        self._take_away(self._home.spool, "")

    def _take_away(self, place: str, below: str) -> None:
        aside = self._aside()
        try:
            os.rename(place, aside)
        except FileNotFoundError:
            return  # nothing was written since the last time
        for name in names_in(f"{aside}/{below}"):
            self._read_aside(f"{aside}/{below}/{name}")

    def rename(self) -> None:
        """Every segment has another name from here on."""
        for name in segment_names(self._home):
            aside = self._aside()
            os.rename(self._home.segment(name), aside)
            self._read_aside(aside)

    def link_and_unlink(self) -> None:
        """A backup by hard links, and then a purge."""
        for name in segment_names(self._home):
            aside = self._aside()
            os.link(self._home.segment(name), aside)
            os.unlink(self._home.segment(name))
            self._read_aside(aside)

    def opt_out(self) -> None:
        """Off, all that was kept removed, and on again."""
        home = self._home
        try:
            make_home(home.root)
            opt_out(home)
        except FileNotFoundError:
            return
        returned = time.monotonic_ns()
        for directory in directories_set_aside(home):
            for name in names_in(directory):
                self._read_aside(f"{directory}/{name}")
        time.sleep(NOTICE_S)
        for directory in directories_set_aside(home):
            for name in names_in(directory):
                written = _events_at(f"{directory}/{name}")
                self.not_believed.update(
                    e for e in written if json.loads(e)["begun"] > returned
                )
        # A writer that has one of those open writes to it once more, is not believed,
        # and reads the choice: that event goes with them.
        for name in names_in(home.spool):
            written = _events_at(home.segment(name))
            self.after += sum(
                json.loads(event)["begun"] > returned for event in written
            )
        while not finish_opt_out(home):
            pass
        self.off.append((returned, time.monotonic_ns()))
        remember_choice(home.consent, Choice(on=True, date="2026-01-01"))

    def _aside(self) -> str:
        self._taken += 1
        return f"{os.path.dirname(self._home.root)}/aside-{self._taken}"

    def _read_aside(self, path: str) -> None:
        self.purged += _events_at(path)


def _events_at(path: str) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return events_of(descriptor)
    finally:
        os.close(descriptor)


def events_of(descriptor: int) -> list[bytes]:
    """The events of an open segment."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    found = scan(content, at=0, answered=0).items
    return [item.event for item in found if isinstance(item, Record)]


def race(
    directory: str,
    *,
    seconds: float,
    without: Collection[str],
    beside: str,
    writers: int = WRITERS,
    acknowledged: int = 0,
    purged: int = 0,
    opt_outs: int = 0,
) -> dict[str, object]:
    """One race, and its figures.

    It ends after so many seconds, or once about so many events were acknowledged, so
    many were purged and the user has opted out so often.
    """
    home = Home(f"{directory}/home")
    prepare(home)
    until = time.monotonic() + seconds
    pids = []
    for writer in range(writers):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                take_out(without)
                write_again_and_again(
                    home, f"{directory}/log{writer}", writer, writers, until
                )
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    flusher = Flusher(home, without, beside)
    running, failed = set(pids), 0
    try:
        while running:
            flusher.one_pass()
            if acknowledged and flusher.passes % PASSES_A_LOOK == 0:
                size = sum(
                    os.path.getsize(f"{directory}/{name}")
                    for name in os.listdir(directory)
                    if name.startswith("log")
                )
                if (
                    size > acknowledged * LOG_LINE_BYTES
                    and len(flusher.purged) >= purged
                    and len(flusher.off) >= opt_outs
                ):
                    open(f"{directory}/{ENOUGH}", "w").close()
            pid, status = os.waitpid(-1, os.WNOHANG)
            running.discard(pid)
            failed += pid != 0 and status != 0
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
    flusher.drain()
    told = []
    after = flusher.after
    for writer in range(writers):
        with open(f"{directory}/log{writer}", "rb") as file:
            for line in file.read().splitlines():
                number, begun, ended = map(int, line.split())
                told.append(b'{"number":%d,"begun":%d}' % (number, begun))
                after += any(off < begun and ended < on for off, on in flusher.off)
    after += len(flusher.not_believed.intersection(told))
    safe = {*flusher.accepted, *flusher.purged}
    return {
        "without": sorted(without),
        "beside": beside,
        "acknowledged": len(told),
        "lost": len(set(told) - safe),
        "opted out": len(flusher.off),
        "after it": after,
        "not believed": len(flusher.not_believed),
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
    parser.add_argument("--acknowledged", type=int, default=0)
    parser.add_argument("--purged", type=int, default=0)
    parser.add_argument("--opt-outs", type=int, default=0)
    parser.add_argument("--without", choices=CHECKS, action="append", default=[])
    parser.add_argument("--beside", choices=BESIDE, default="purge")
    parser.add_argument("--writers", type=int, default=WRITERS)
    args = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="races-")
    try:
        figures = race(
            directory,
            seconds=LONGEST_S if args.acknowledged else args.seconds,
            acknowledged=args.acknowledged,
            purged=args.purged,
            opt_outs=args.opt_outs,
            without=args.without,
            beside=args.beside,
            writers=args.writers,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(figures))
    wrong = figures["lost"], figures["after it"], figures["failed"]
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
