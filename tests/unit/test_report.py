"""Whether a flush came to an end of its own, from how it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.consent import Choice, remember_choice
from telemetry.delivery import report
from telemetry.delivery.report import FlushReport, Progress
from telemetry.paths import Home
from telemetry.wire.verdict import Stopped


def finished(
    home: Home, stopped: Stopped, *, on: bool, concluded: bool = False
) -> bool:
    progress = Progress()
    progress.is_concluded = concluded
    ended = FlushReport(
        delivered=0,
        pending=0,
        dead=0,
        damaged=0,
        requests=0,
        stopped=stopped,
        next_attempt=None,
    )
    return progress.is_finished(ended, home, lambda: on)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path))


def test_a_flush_that_wrote_nothing_down_has_not_finished(home: Home) -> None:
    """Unless what came of it is on disk all the same."""
    assert finished(home, "deadline", on=True)
    assert not finished(home, "disk", on=True)
    assert finished(home, "disk", on=True, concluded=True)


def test_off_is_an_end_only_where_the_user_said_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor no choice is read, which counts as off."""
    remember_choice(home.consent, Choice(on=False, date="2026-01-01"))
    assert finished(home, "off", on=False)
    assert not finished(home, "off", on=True)
    assert finished(home, "off", on=True, concluded=True)
    unread = Choice(on=False, is_readable=False, is_transient=True)
    monkeypatch.setattr(report, "read_choice", lambda _: unread)
    assert not finished(home, "off", on=False)
