"""What it takes to write a batch in each format."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from telemetry.wire.formats import FORMATS
from tests.bench.bench import Bench
from tests.bench.filling import event
from tests.bench.measuring import in_turns
from tests.bench.rows import Row, at_least, ratios, spread


BATCH_EVENTS = 500
# What makes a body anew decodes and encodes each event: so many times that is its price.
_PLAIN = "plain decode and encode"
_BARS = {"otlp-json": 40.0, "posthog": 50.0}


def rows(bench: Bench) -> Iterator[Row]:
    """Bodies of 500 events, beside a plain decode and encode of them."""
    events = [event(number) for number in range(BATCH_EVENTS)]

    def plain() -> float:
        began = time.perf_counter()
        for each in events:
            msgspec.json.encode(msgspec.json.decode(each))
        return time.perf_counter() - began

    def writing(name: str) -> float:
        began = time.perf_counter()
        FORMATS[name].body_of(events)
        return time.perf_counter() - began

    sides = [plain, *((lambda name=name: writing(name)) for name in FORMATS)]
    plains, *all_taken = in_turns(bench.pick(100, 10), *sides)
    for name, taken in zip(FORMATS, all_taken, strict=True):
        thousands = spread([BATCH_EVENTS / each / 1000 for each in taken])
        times = ratios(taken, plains).median
        note = f"{times:.1f} times a {_PLAIN}"
        what, measured = f"a body of 500 events, `{name}`", "thousand events/s"
        if name in _BARS:
            yield at_least(what, measured, thousands, _BARS[name], note=note)
        else:
            yield Row(what, measured, f"{thousands.median:,.0f}", "-", None, note)
