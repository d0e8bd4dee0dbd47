"""What a flush has come to so far, for whoever does not wait for its end.

Written by the flush's thread and read by another one: whole values are put in
place of others, so a reader sees an old one or a new one. Loads nothing heavy.
"""

from __future__ import annotations

from typing import Protocol

from telemetry.delivery import schedule
from telemetry.delivery.books import Snapshot
from telemetry.delivery.census import count_letters, count_pending_quickly
from telemetry.delivery.report import FlushReport, Stopped
from telemetry.paths import Home


class Counts(Protocol):
    """What is read of a flusher."""

    delivered: int
    damaged: int
    requests: int


class Progress:
    """The flusher at work, and the books as it last had them."""

    def __init__(self) -> None:
        self.flusher: Counts | None = None
        self.snapshot = Snapshot()

    def report(self, home: Home, stopped: Stopped) -> FlushReport:
        """What has come of it so far."""
        flusher = self.flusher
        return FlushReport(
            delivered=flusher.delivered if flusher else 0,
            pending=count_pending_quickly(home, self.snapshot),
            dead=count_letters(home, self.snapshot)[0],
            damaged=flusher.damaged if flusher else 0,
            requests=flusher.requests if flusher else 0,
            stopped=stopped,
            next_attempt=schedule.read(home.next_flush),
        )
