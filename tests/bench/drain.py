"""What draining a spool takes, beside posting the same bodies without one."""

from __future__ import annotations

from collections.abc import Iterator

from telemetry.paths import Home
from tests.bench.bench import KEY, REPOSITORY, Bench, remove
from tests.bench.filling import EVENT_BYTES, fill_bytes
from tests.bench.measuring import Taken, in_turns
from tests.bench.rows import Row, at_most, ratios, spread
from tests.bench.sink import Sink


BATCH_EVENTS = 500
# What a flush needs is loaded first: imports are another row.
FLUSH = """
import sys, time
from telemetry.config import Config
from telemetry.delivery.flush import flush
from telemetry.paths import Home
config = Config(app="bench", home=sys.argv[1], endpoint=sys.argv[2], api_key=sys.argv[3],
    spool_bytes_max=1 << 40)
began = time.perf_counter()
report = flush(config, Home(sys.argv[1]), timeout_s=600, environment={}, allowed=lambda: True)
seconds = time.perf_counter() - began
assert report.stopped == "drained" and report.pending == 0, report
print(seconds)
"""
# The yardstick: urllib3 alone, with the same headers, and bodies that are ready.
POST = """
import sys, time, urllib3
from tests.bench.filling import event
events, size = int(sys.argv[3]), int(sys.argv[4])
count = events // size
bodies = [b'{"records":[%b]}' % b",".join(event(n) for n in range(at, at + size))
    for at in range(0, min(events, 100_000), size)]
headers = {"Content-Type": "application/json", "x-api-key": sys.argv[2],
    "User-Agent": "bench/1.2.3", "Idempotency-Key": "0" * 32}
pool = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False)
began = time.perf_counter()
for number in range(count):
    reply = pool.request("POST", sys.argv[1], body=bodies[number % len(bodies)],
        headers=headers, redirect=False, retries=False)
    assert reply.status == 200
print(time.perf_counter() - began)
"""


def rows(bench: Bench) -> Iterator[Row]:
    """A drain beside urllib3."""
    events = bench.pick(1_000_000, 30_000)
    cpu: dict[str, list[float]] = {"drain": [], "post": []}
    with Sink() as sink:

        def drain() -> float:
            home = bench.filled_home(events)
            taken = flushed(bench, home, sink)
            assert sink.received().events(EVENT_BYTES) == events, "all were delivered"
            remove(home)
            cpu["drain"].append(taken.cpu_s)
            return float(taken.output)

        def post() -> float:
            taken = bench.python(
                POST,
                sink.endpoint,
                KEY,
                str(events),
                str(BATCH_EVENTS),
                variables={"PYTHONPATH": f"{bench.code}:{REPOSITORY}"},
            )
            assert sink.received().events(EVENT_BYTES) == events, "all were posted"
            return float(taken.output)

        drains, posts = in_turns(bench.pick(5, 3), drain, post)
    a_second = events / spread(drains).median
    yield at_most(
        f"drain of {events:,} events, 500 a batch",
        "wall time ÷ urllib3 posting the same bodies",
        ratios(drains, posts),
        3,
        note=f"{a_second:,.0f} events/s; {spread(drains).median:.2f} s beside"
        f" {spread(posts).median:.2f} s",
    )

    for delay_s, bar_s in ((0.05, 6), (0.2, 20)):
        yield _far_away(bench, delay_s, bar_s)


def _far_away(bench: Bench, delay_s: float, bar_s: float) -> Row:
    """A full spool, and a server that each answer takes so long from."""
    bytes_max = bench.pick(64 * 2**20, 8 * 2**20)
    with Sink(delay_s=delay_s) as sink:

        def drain() -> float:
            home = bench.new_home()
            fill_bytes(home, bytes_max)
            seconds = float(flushed(bench, home, sink).output)
            remove(home)
            return seconds

        figures = [drain() for _ in range(bench.pick(2, 1))]
        requests = sink.received().requests
    return at_most(
        f"drain of {bytes_max >> 20} MiB, {delay_s * 1000:.0f} ms to the server",
        "wall time",
        spread(figures),
        bar_s,
        unit=" s",
        note=f"{requests / len(figures):.0f} requests",
    )


def flushed(bench: Bench, home: Home, sink: Sink, source: str = FLUSH) -> Taken:
    """One flush of a home in a process of its own."""
    return bench.python(source, home.root, sink.endpoint, KEY, patience_s=600)
