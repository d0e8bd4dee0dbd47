"""A drain beside syslog-ng's: the same events, the same batches, the same server.

syslog-ng is Debian's, in C. It first takes the events into its reliable
disk-buffer while nobody listens; both drains are then timed at the server, from
the first request's first byte to the last one's answer, so starting up is on
neither's bill.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

from tests.bench.bench import Bench, remove, wait_until
from tests.bench.comparison import NOT_INSTALLED
from tests.bench.drain import BATCH_EVENTS, flushed
from tests.bench.filling import EVENT_BYTES, event
from tests.bench.measuring import in_turns
from tests.bench.rows import Row, ahead, left_out, ratios, spread
from tests.bench.sink import Sink


WHAT = "drain beside syslog-ng"
EVENTS = 300_000
# One connection and as many events a request as ours; the file is read in bulk,
# which only matters while the buffer fills.
CONFIG = """@version: 3.38
options {{ stats-freq(0); stats-level(1); }};
source s_file {{ file("{place}/events" flags(no-parse) follow-freq(0.1)
    log-fetch-limit(10000) log-iw-size(100000) log-msg-size(65536)); }};
destination d_http {{ http(url("http://127.0.0.1:{port}/") method("POST") workers(1)
    persist-name("bench") headers("Content-Type: application/json", "x-api-key: k")
    batch-lines({batch}) batch-bytes(0) batch-timeout(100)
    body-prefix('{{"records":[') delimiter(",") body-suffix("]}}") body("$MSG")
    timeout(30) time-reopen(1)
    disk-buffer(reliable(yes) disk-buf-size(2147483648) mem-buf-size(67108864)
        dir("{place}/buffer"))); }};
log {{ source(s_file); destination(d_http); flags(flow-control); }};
"""


def rows(bench: Bench) -> Iterator[Row]:
    """How many times longer syslog-ng takes."""
    if not shutil.which("syslog-ng"):
        why = NOT_INSTALLED if shutil.which("apt-get") else "not on this system"
        yield left_out(WHAT, why)
        return
    events = bench.pick(EVENTS, 20_000)
    with Sink() as sink:
        there = _Syslog(f"{bench.directory}/syslog", sink.port)
        # The port of a sink that is not there: one that has gone.
    there.take(events)
    with Sink(there.port) as sink:

        def theirs() -> float:
            return there.drain(sink, events)

        def ours() -> float:
            home = bench.filled_home(events)
            flushed(bench, home, sink)
            remove(home)
            received = sink.received()
            assert received.events(EVENT_BYTES) == events, "all were delivered"
            return received.seconds

        them, us = in_turns(bench.pick(5, 2), theirs, ours)
    yield ahead(
        WHAT,
        f"time at the server, {events:,} events: syslog-ng ÷ ours",
        ratios(them, us),
        note=f"{events / spread(them).median:,.0f} events/s beside"
        f" {events / spread(us).median:,.0f}",
    )


class _Syslog:
    """syslog-ng with a place of its own, and a buffer that can be had again."""

    def __init__(self, place: str, port: int) -> None:
        self.port = port
        self._place = place
        os.makedirs(f"{place}/buffer")
        config = CONFIG.format(place=place, port=port, batch=BATCH_EVENTS)
        with open(f"{place}/syslog-ng.conf", "w", encoding="utf-8") as file:
            file.write(config)

    def take(self, events: int) -> None:
        """`events` events are in the buffer, and a copy of it is kept."""
        with open(f"{self._place}/events", "wb", buffering=1 << 20) as file:
            file.writelines(event(number) + b"\n" for number in range(events))
        running = self._start()
        wait_until(lambda: self._queued() >= events)
        self._stop(running)
        for name in ("buffer", "persist"):
            _copy(f"{self._place}/{name}", f"{self._place}/kept-{name}")

    def drain(self, sink: Sink, events: int) -> float:
        """Seconds at the server for what the buffer holds."""
        for name in ("buffer", "persist"):
            _copy(f"{self._place}/kept-{name}", f"{self._place}/{name}")
        sink.received()
        running = self._start()
        # Its last batch is short of lines and waits for its timeout: not counted.
        wait_until(lambda: self._queued() == 0)
        self._stop(running)
        received = sink.received()
        assert received.events(EVENT_BYTES) >= events, "all were delivered"
        return received.seconds

    def _start(self) -> subprocess.Popen[bytes]:
        place = self._place
        running = subprocess.Popen(
            [
                shutil.which("syslog-ng") or "",
                "--foreground",
                "--no-caps",
                f"--cfgfile={place}/syslog-ng.conf",
                f"--persist-file={place}/persist",
                f"--control={place}/control",
                f"--pidfile={place}/pid",
            ],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: os.path.exists(f"{place}/control"))
        return running

    def _stop(self, running: subprocess.Popen[bytes]) -> None:
        running.terminate()
        running.wait(timeout=60)
        if os.path.exists(f"{self._place}/control"):
            os.unlink(f"{self._place}/control")

    def _queued(self) -> int:
        """How many events wait in it; -1 where it cannot say yet."""
        time.sleep(0.1)  # asking is work for it, too
        told = subprocess.run(
            ["syslog-ng-ctl", "stats", f"--control={self._place}/control"],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in told.stdout.splitlines():
            kind, _, _, _, name, number = (line.split(";") + [""] * 6)[:6]
            if kind == "dst.http" and name == "queued":
                return int(number)
        return -1


def _copy(source: str, target: str) -> None:
    if os.path.isdir(source):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
