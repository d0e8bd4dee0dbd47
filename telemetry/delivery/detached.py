"""The flusher's own process: one flush, then the end.

It has nothing of the program's that started it but the flush lock. It prints
nothing, ends itself a little before its lifetime, and the alarm that was set
before anything was loaded ends it at the latest.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from telemetry.consent import consent
from telemetry.delivery.flush import flush
from telemetry.delivery.launch import Told
from telemetry.paths import Home


# For the last request to end and the books to be written.
_MARGIN_S = 5.0


def main(told_values: dict[str, Any]) -> None:
    """Flush as told. Never returns: the process ends here."""
    told = msgspec.convert(told_values, Told)
    home = Home(told.home)
    lifetime_s = float(told.lifetime_s)
    flush(
        told.config,
        home,
        timeout_s=max(lifetime_s - _MARGIN_S, lifetime_s / 2),
        environment=os.environ,
        allowed=lambda: consent(home, os.environ, told.config).on,
        lock=told.lock,
    )
    sys.exit(0)
