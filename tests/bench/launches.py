"""Two hundred launches beside a server that hangs, against the same in manual mode.

    python -m tests.bench.launches [LAUNCHES]

Launches alternate between the two modes, in one run. Printed are the median
wall time of each, their difference, how many flushers were ever seen at once,
and how long after the last launch the last one was gone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.support import misbehaving as bad
from tests.support.launching import environment_of, flushers, run
from tests.support.loopback import Server


LIFETIME_S = 5


def main(launches: int) -> None:
    """Launch, and print what it cost."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Server(bad.silent_after(b"")) as server,
    ):
        place = Path(directory)
        hanging = environment_of(place / "launch", server.url)
        manual = environment_of(place / "manual", server.url, TELEMETRY_FLUSH="manual")
        (place / "launch").mkdir()
        (place / "manual").mkdir()
        run(hanging)
        run(manual)
        seen: list[int] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                seen.append(len(flushers(place / "launch")))

        watcher = threading.Thread(target=watch)
        watcher.start()
        took_s: dict[str, list[float]] = {"launch": [], "manual": []}
        for number in range(launches):
            for name, environment in (("launch", hanging), ("manual", manual)):
                began = time.perf_counter()
                run(environment, f"tool-{number}", flusher_lifetime_s=LIFETIME_S)
                took_s[name].append(time.perf_counter() - began)
        began = time.monotonic()
        while flushers(place / "launch"):
            time.sleep(0.05)
        gone_s = time.monotonic() - began
        ended.set()
        watcher.join()
        medians = {name: statistics.median(each) * 1e3 for name, each in took_s.items()}
        print(f"launches of each kind        {launches}")
        print(f"median, launch mode          {medians['launch']:.2f} ms")
        print(f"median, manual mode          {medians['manual']:.2f} ms")
        print(
            f"difference                   {medians['launch'] - medians['manual']:.2f} ms"
        )
        print(f"requests                     {len(server.requests)}")
        print(f"flushers at once, at most    {max(seen)}")
        print(f"all gone after the last      {gone_s:.1f} s (lifetime {LIFETIME_S} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
