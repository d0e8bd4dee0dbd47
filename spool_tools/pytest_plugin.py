"""The pytest plugin: tests record and send nothing, and two fixtures that do.

    def test_build_is_recorded(telemetry_events):
        run_my_program(["build"])            # or a subprocess
        (event,) = telemetry_events()

    def test_delivery(telemetry_events, telemetry_collector):
        telemetry_collector.faults = Faults(status=503, times=2)
        …
        assert telemetry_collector.wait(events=1)

`Faults` is in `spool_tools.collector`. A collector is on a free port of the
loopback interface, with its database in memory.

It loads itself wherever the package is installed, also as a dependency of a
dependency, so it changes one variable, takes away none, and imports nothing but
pytest: a project may have a `telemetry` of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest


if TYPE_CHECKING:
    from pathlib import Path

    from spool_tools.collector import Collector


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Off, before any test module is imported, here and in every subprocess.

    In this process `telemetry.switches` sees that this module is loaded.
    """
    os.environ["TELEMETRY_ENABLED"] = "false"
    switches = sys.modules.get("telemetry.switches")
    record_nothing = getattr(switches, "record_nothing", None)
    if record_nothing is not None:
        record_nothing()


# A conftest may import the program, and is imported before that.
pytest_load_initial_conftests = pytest_configure


@pytest.fixture
def telemetry_events(tmp_path: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Telemetry is on for this test, in a directory of its own; answers what it got."""
    from telemetry.testing import recorded

    directory = tmp_path / "telemetry"
    directory.mkdir()
    with recorded(directory) as events:
        yield events


@pytest.fixture
def telemetry_collector() -> Iterator[Collector]:
    """A collector on loopback: `.url`, `.events()`, `.requests()`, `.faults`."""
    from spool_tools.collector import Collector

    with Collector() as collector:
        yield collector
