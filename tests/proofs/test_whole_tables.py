"""Tables of which the everyday tests try a part, tried whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_consent_matrix import CASES, hold


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_consent_is_what_a_person_expects_in_every_world(tmp_path: Path) -> None:
    """The half of `unit/test_consent_matrix.py` crosses any six of its seven axes."""
    hold(enumerate(CASES), tmp_path)
