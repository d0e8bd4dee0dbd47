"""What the everyday tests try a part of, tried whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.test_launch import one_flusher_for
from tests.support.examples import VARIABLE
from tests.support.surroundings import REPOSITORY
from tests.unit.test_consent_matrix import CASES, hold


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_consent_is_what_a_person_expects_in_every_world(tmp_path: Path) -> None:
    """A quarter of them, in `unit/test_consent_matrix.py`, crosses any three axes."""
    hold(enumerate(CASES), tmp_path)


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="looks for processes in /proc"
)
def test_fifty_launches_at_once_start_one_flusher(tmp_path: Path) -> None:
    """After an outage every shell prompt and cron job comes back at the same time."""
    one_flusher_for(50, tmp_path)


def test_each_property_holds_for_all_its_examples() -> None:
    """Every day a sixth of them is tried."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis"]
    done = subprocess.run(
        [*command, "tests/unit", "tests/process/test_collector.py"],
        cwd=REPOSITORY,
        env={**os.environ, VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
