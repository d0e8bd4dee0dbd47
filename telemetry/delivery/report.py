"""What one flush came to. Pure; loads nothing heavy.

What a flush has come to so far, for whoever does not wait for its end.

Written by the flush's thread and read by another one: whole values are put in
place of others, so a reader sees an old one or a new one. Loads nothing heavy.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from telemetry.books.entries import Snapshot
from telemetry.delivery import schedule
from telemetry.delivery.census import count_letters, count_pending_quickly
from telemetry.paths import Home
from telemetry.wire.verdict import Stopped


class FlushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one flush came to.

    delivered: events that the server accepted in this flush
    pending: events that are left, counted by reading the spool
    dead: dead letters that are kept
    damaged: damaged records that this flush found
    requests: requests that were made
    stopped: why it ended: `drained` nothing is left; `deadline` its time was up;
        `waiting` the server or the network is not ready; `paused` the server refuses
        this endpoint, key or header; `busy` another flusher is at work; `off`
        telemetry is off, or there is nowhere to send; `disk` the disk said no
    next_attempt: the earliest time of the next one by itself, seconds since 1970;
        None where it may be at once
    """

    delivered: int = 0
    pending: int = 0
    dead: int = 0
    damaged: int = 0
    requests: int = 0
    stopped: Stopped = "drained"
    next_attempt: float | None = None


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
