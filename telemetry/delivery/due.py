"""Whether a launch has a flush to begin, and may: asked by every launch.

Nearly every one ends here, so this is light and reads one file. Taking the lock
and starting the flusher is `launch.py`, which is loaded only then.
"""

from __future__ import annotations

import os
import sys

from telemetry.delivery import schedule


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.config import Config
    from telemetry.paths import Home

# What puts a flusher into the background.
SHELL = "/bin/sh"


def can_send(config: Config) -> bool:
    """Whether there is somewhere to send: an endpoint, and its key if one is asked for."""
    return bool(config.endpoint and (config.api_key or not config.header))


def can_spawn() -> bool:
    """Whether `sys.executable` is a Python that runs what it is given."""
    name = os.path.basename(sys.executable or "").lower()
    return (
        name.startswith(("python", "pypy"))
        and not getattr(sys, "frozen", False)
        # The first process of a container inherits every orphan: a `wait` of its own
        # would meet our flusher.
        and os.getpid() != 1
        and hasattr(os, "posix_spawn")
        and os.access(SHELL, os.X_OK)
    )


def is_due(config: Config, home: Home, now: float) -> bool:
    """Whether the next flush may begin at `now`, in seconds since 1970."""
    return can_send(config) and schedule.is_due(
        home.next_flush, now, identity_of(config)
    )


def identity_of(config: Config) -> str:
    """What a time for the next flush is set for."""
    return schedule.identity_of(config.endpoint, config.header, config.api_key)
