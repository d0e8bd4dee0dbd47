"""Invariant tested: what was planted in a text is never in what the scrubber makes of
it, whatever stands before and behind it; scrubbing twice is scrubbing once; nothing is
raised; nothing more than doubles.

An input is three bytes and a text: which canary, in which disguise, in which kind of
text (bit 0), and in how many places; the text is cut at its first NUL, and the canary
stands there, with a blank on each side: `a/home/alice` is no absolute path.
"""

from __future__ import annotations

import telemetry.privacy.scrub  # noqa: F401 - loaded late, and to be traced
from telemetry.privacy import Scrubber
from tests.support.canaries import (
    CANARIES,
    DISGUISES,
    HOMES,
    USERS,
    undisguised,
)


_PLAIN = tuple(DISGUISES.values())


def one(data: bytes) -> None:
    """One canary in one text."""
    if len(data) < 3:
        return
    canary = CANARIES[data[0] % len(CANARIES)]
    planted = _PLAIN[data[1] % len(_PLAIN)](canary.text)
    before, _, behind = data[3:].decode("utf-8", "surrogateescape").partition("\0")
    scrubber = Scrubber(homes=HOMES, users=USERS)
    scrub = scrubber.free_text if canary.free or data[2] & 1 == 0 else scrubber.text

    # What stands around may hold the same by itself, undone or scrubbed differently.
    around = scrub(f"{before}  {behind}")
    text = f"{before} {planted} {behind}"
    out = scrub(text)
    left = undisguised(out)
    for trace in canary.traces:
        if trace.lower() not in undisguised(around) + undisguised(before + behind):
            assert trace.lower() not in left, (canary.name, trace, text, out)
    assert scrub(out) == out, (text, out, scrub(out))
    assert len(out) <= 2 * len(text) + 32, (text, out)
