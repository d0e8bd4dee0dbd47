"""What one flush came to, at its end or so far. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from telemetry.books.entries import Snapshot
from telemetry.consent import read_choice
from telemetry.delivery import schedule
from telemetry.delivery.census import count_pending_quickly
from telemetry.delivery.dead_letters import count_letters
from telemetry.paths import Home
from telemetry.wire.verdict import Stopped, Verdict


class FlushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one flush came to.

    delivered: events that the server accepted in this flush
    pending: events that are left, counted by reading the spool
    dead: dead letters that are kept
    damaged: damaged records that this flush found
    requests: requests that were made
    stopped: why it ended: `drained` nothing is left but what was recorded meanwhile;
        `deadline` its time was up; `waiting` the server or the network is not ready;
        `paused` the server refuses all that was sent; `busy` another flusher is at work;
        `off` telemetry is off, or there is nowhere to send; `disk` the disk said no
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


class Kept(Protocol):
    """What is read of the books."""

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""


class Progress:
    """The flush at work: its books and its poster, once it has them.

    Written by the flush's thread and read by another one: whole values are put in the
    place of others, so a reader sees an old one or a new one.
    """

    def __init__(self) -> None:
        self.poster: Posted | None = None
        # What ended the flush before the spool was empty; None if nothing did.
        self.verdict: Verdict | None = None
        # Whether what came of it is on disk.
        self.is_concluded = False
        self._books: Kept | None = None
        self._began = (0, 0)

    def begin(self, books: Kept) -> None:
        """From here on, what the books say more is what this flush did."""
        self._began = _settled(books.snapshot)
        self._books = books

    @property
    def snapshot(self) -> Snapshot:
        """The books as they are now; empty before the flush has them."""
        return self._books.snapshot if self._books else Snapshot()

    def is_finished(
        self, report: FlushReport, home: Home, allowed: Callable[[], bool]
    ) -> bool:
        """Whether the flush came to an end of its own.

        Where it could write nothing, it did not: neither ledger nor schedule know of it.
        Nor where it was off only as no descriptor was left to read the user's choice.
        """
        if report.stopped == "off" and not self.is_concluded:
            choice = read_choice(home.consent)
            is_unread = choice is not None and choice.is_transient
            return not (is_unread or allowed())
        return self.is_concluded or report.stopped != "disk"

    @property
    def delivered(self) -> int:
        """Events that were delivered so far."""
        return _settled(self.snapshot)[0] - self._began[0]

    def report(self, home: Home, stopped: Stopped) -> FlushReport:
        """What has come of it so far; `disk` where what is left cannot be counted."""
        snapshot = self.snapshot
        pending = dead = 0
        try:
            pending = count_pending_quickly(home, snapshot, bytes_max=_REPORT_BYTES)
            dead = count_letters(home, snapshot)
        except OSError:
            stopped = "disk"
        delivered, damaged = _settled(snapshot)
        return FlushReport(
            delivered=delivered - self._began[0],
            pending=pending,
            dead=dead,
            damaged=damaged - self._began[1],
            requests=self.poster.requests if self.poster else 0,
            stopped=stopped,
            next_attempt=schedule.read(home.next_flush),
        )


def _settled(snapshot: Snapshot) -> tuple[int, int]:
    """Events delivered and damaged since the ledger's birth."""
    totals, entries = snapshot.totals, snapshot.segments.values()
    return (
        totals.delivered + sum(entry.delivered for entry in entries),
        totals.damaged + sum(entry.damaged for entry in entries),
    )
