"""The misbehaving collector as a pytest fixture.

    def test_delivery(telemetry_collector):
        telemetry_collector.faults = Faults(status=503, times=2)
        …
        assert telemetry_collector.wait(events=1)

`Faults` is in `spool_tools.misbehaviour`. Each test has a collector of its own,
on a free port of the loopback interface, with its database in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spool_tools.collector import Collector


@pytest.fixture
def telemetry_collector() -> Iterator[Collector]:
    """A collector on loopback: `.url`, `.events()`, `.requests()`, `.faults`."""
    with Collector() as collector:
        yield collector
