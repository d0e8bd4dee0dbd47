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


# Read for a report, while the host waits: about 5 ms. What is beyond is counted by
# first and last number, which is exact but for damage.
_REPORT_BYTES = 4 * 1024 * 1024


class Posted(Protocol):
    """What is read of a poster."""

    requests: int


class Settled(Protocol):
    """What is read of a settlement."""

    delivered: int
    damaged: int


class Progress:
    """The flush at work, and the books as it last had them."""

    def __init__(self) -> None:
        self.poster: Posted | None = None
        self.settlement: Settled | None = None
        self.snapshot = Snapshot()

    def report(self, home: Home, stopped: Stopped) -> FlushReport:
        """What has come of it so far; `disk` where what is left cannot be counted."""
        poster, settlement = self.poster, self.settlement
        pending = dead = 0
        try:
            pending = count_pending_quickly(
                home, self.snapshot, bytes_max=_REPORT_BYTES
            )
            dead = count_letters(home, self.snapshot)[0]
        except OSError:
            stopped = "disk"
        return FlushReport(
            delivered=settlement.delivered if settlement else 0,
            pending=pending,
            dead=dead,
            damaged=settlement.damaged if settlement else 0,
            requests=poster.requests if poster else 0,
            stopped=stopped,
            next_attempt=schedule.read(home.next_flush),
        )
