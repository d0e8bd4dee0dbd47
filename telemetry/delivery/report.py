"""What one flush came to. Pure; loads nothing heavy."""

from __future__ import annotations

from typing import Literal

import msgspec


Stopped = Literal["drained", "deadline", "waiting", "paused", "busy", "off", "disk"]


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
