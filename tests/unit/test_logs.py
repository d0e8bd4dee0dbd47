"""Lines of debug mode, and where they go."""

from __future__ import annotations

import io
import sys

import pytest

from telemetry.logs import quiet_logger


def test_a_standard_error_of_the_hosts_own_gets_the_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether it replaced Python's, or was there before, with no descriptor behind it."""
    for names in (("stderr",), ("stderr", "__stderr__")):
        stream = io.StringIO()
        for name in names:
            monkeypatch.setattr(sys, name, stream)
        logger = quiet_logger(debug=True)
        assert logger is not None
        logger.debug("%d bytes", 3)
        assert stream.getvalue() == "[Telemetry] 3 bytes\n"


def test_without_standard_error_nothing_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program without a window (`pythonw`) has none."""
    for name in ("stderr", "__stderr__"):
        monkeypatch.setattr(sys, name, None)
    logger = quiet_logger(debug=True)
    assert logger is not None
    logger.warning("nobody reads this")
