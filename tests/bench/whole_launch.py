"""A whole launch beside other libraries, where nothing can be reached.

Import, set up, record one event, end: the wall time that a person waits for. All
are told to send to a closed port of this machine, with their defaults in all
else, and run without a network but loopback. Whether an event outlives its
process is looked up: how many stand in a file afterwards? Ours all do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from tests.bench import comparison
from tests.bench.bench import REPOSITORY, Bench
from tests.bench.measuring import run
from tests.bench.rows import Row, ahead, left_out, ratios, spread


OURS = "telemetry"
# A word that is in no library, to be found in the files of whoever keeps the event.
MARK = "zanzibarMarker"
# HOST, PORT and MARK are put in; each is what its documentation shows first. The
# flusher that ours leaves behind is told to end soon, so that it can be waited for.
PROGRAMS = {
    OURS: """
import telemetry
telemetry.configure("bench", version="1", endpoint="http://HOST:PORT/", api_key="k",
    flusher_lifetime_s=5.0)
telemetry.track_command("MARK", [])
""",
    "sentry-sdk": """
import sentry_sdk
sentry_sdk.init(dsn="http://key@HOST:PORT/1")
sentry_sdk.capture_message("MARK")
""",
    "posthog": """
import posthog
client = posthog.Posthog("key", host="http://HOST:PORT")
client.capture("MARK", distinct_id="someone")
""",
    "segment-analytics-python": """
import segment.analytics as analytics
analytics.write_key = "key"
analytics.host = "http://HOST:PORT"
analytics.track("someone", "MARK")
""",
    "OpenTelemetry OTLP/HTTP logs": """
import logging
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
provider = LoggerProvider()
exporter = OTLPLogExporter(endpoint="http://HOST:PORT/v1/logs")
provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
logging.getLogger().warning("MARK")
""",
    "snowplow-tracker": """
from snowplow_tracker import Snowplow, StructuredEvent
tracker = Snowplow.create_tracker(namespace="bench", endpoint="http://HOST:PORT")
tracker.track(StructuredEvent(category="command", action="MARK"))
tracker.flush()
""",
    "azure-cli-telemetry": """
import json, os
from azure.cli.telemetry import DEFAULT_INSTRUMENTATION_KEY, save
event = {"name": "command", "properties": {"action": "MARK"}}
save(os.environ["HOME"], json.dumps({DEFAULT_INSTRUMENTATION_KEY: [event]}))
""",
}
# It has one address, which cannot be changed: it never runs where it could reach it.
NEEDS_ISOLATION = {"azure-cli-telemetry"}


def rows(bench: Bench) -> Iterator[Row]:
    """How many times longer each launch takes than ours."""
    names = [name for name in PROGRAMS if name != OURS]
    if not bench.comparison:
        for name in names:
            yield left_out(_what(name), comparison.NOT_INSTALLED)
        return
    isolation = comparison.isolation()
    if not isolation:
        names = [name for name in names if name not in NEEDS_ISOLATION]
        for name in NEEDS_ISOLATION:
            yield left_out(_what(name), "no namespace to lock it in")
    told: dict[str, Any] = {
        "programs": {name: _program(bench, name) for name in (OURS, *names)},
        "rounds": bench.pick(5, 1),
        "warm": not bench.is_short,
    }
    taken = run(
        [*isolation, bench.comparison, "-m", "tests.bench.alone"],
        environment=bench.environment(PYTHONPATH=f"{bench.code}:{REPOSITORY}"),
        directory=str(REPOSITORY),
        given=json.dumps(told),
        patience_s=1800,
    )
    figures: dict[str, list[float]] = json.loads(taken.output)
    ours = figures.pop(OURS)
    launches = len(ours) + told["warm"]
    assert _kept(bench, OURS) == launches, "our own events are not on disk"
    for name, theirs in figures.items():
        yield ahead(
            _what(name),
            "wall time of theirs ÷ ours, nothing to be reached",
            ratios(theirs, ours),
            note=f"{_ms(theirs)} beside {_ms(ours)}; of {launches} events it keeps"
            f" {_kept(bench, name)}",
        )


def _what(name: str) -> str:
    return f"whole launch beside {name}"


def _program(bench: Bench, name: str) -> tuple[list[str], dict[str, str]]:
    home = _home(bench, name)
    os.makedirs(home)
    host, _, port = bench.closed_endpoint[len("http://") : -1].partition(":")
    source = PROGRAMS[name]
    for word, value in (("HOST", host), ("PORT", port), ("MARK", MARK)):
        source = source.replace(word, value)
    places = {"HOME": home, "TMPDIR": home, "PYTHONWARNINGS": "ignore"}
    return [bench.comparison, "-c", source], bench.environment(**places)


def _home(bench: Bench, name: str) -> str:
    return f"{bench.directory}/launches/{name.split(maxsplit=1)[0]}"


def _kept(bench: Bench, name: str) -> int:
    """How many events are in files of that program."""
    found = 0
    for place, _, files in os.walk(_home(bench, name)):
        for file in files:
            with open(os.path.join(place, file), "rb") as opened:
                found += opened.read().count(MARK.encode())
    return found


def _ms(seconds: list[float]) -> str:
    return f"{spread(seconds).median * 1000:.0f} ms"
