"""How tests meet time: they wait for events, and bounds tell a hang from a pause."""

from __future__ import annotations

import time
from collections.abc import Callable


# Only what hangs takes longer, however busy the machine is.
PATIENCE_S = 60.0


def quickest_s(call: Callable[[], object], *, below_s: float, tries: int = 20) -> float:
    """The seconds of the quickest call; stops at the first that took less than `below_s`.

    A busy machine makes some calls slow. A call that waits for something it must not
    wait for is slow each time.
    """
    best_s = PATIENCE_S
    for _ in range(tries):
        began = time.monotonic()
        call()
        best_s = min(best_s, time.monotonic() - began)
        if best_s < below_s:
            break
    return best_s
