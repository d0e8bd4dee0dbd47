"""The switches that turn telemetry off before anything of it is loaded.

    do-not-track   DO_NOT_TRACK is set to anything but empty, 0, false, no, off
    environment    TELEMETRY_ENABLED is false, 0, no or off, in any case

Small on purpose: a program with telemetry off pays for this module
and its client alone. The rules that come after them are in `consent.py`.
"""

from __future__ import annotations

import os


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OFF_WORDS = frozenset({"false", "0", "no", "off"})
# The table behind `os.environ`, and the switches as they stand in it: a look at that
# costs no decoding.
_TABLE = getattr(os.environ, "_data", os.environ)
_TRACK, _ENABLED = (
    os.fsencode(name) if os.name == "posix" else name
    for name in ("DO_NOT_TRACK", "TELEMETRY_ENABLED")
)


class Decision:
    """On or off, the rule that decided, and a sentence about it.

    `is_finished` is False where an opt-out has left something to be removed.
    """

    __slots__ = ("is_finished", "on", "reason", "rule")

    def __init__(self, rule: str, reason: str, *, on: bool) -> None:
        self.on = on
        self.rule = rule
        self.reason = reason
        self.is_finished = True

    def __repr__(self) -> str:
        return f"Decision({'on' if self.on else 'off'}, {self.rule}: {self.reason})"


def is_off(word: str) -> bool:
    """Whether a setting's text says off: false, 0, no, off, in any case."""
    return word.lower() in OFF_WORDS


# What `telemetry.testing` sets: tests change the environment as they like, and
# record nothing all the same.
guard: Decision | None = None


def is_switched_off() -> bool:
    """Whether the environment of this process turns it off now.

    Asked at each event, for a program that turns it off by its own `--no-telemetry`:
    two look-ups where neither switch is set.
    """
    if guard is None and _TRACK not in _TABLE and _ENABLED not in _TABLE:
        return False
    return environment_decision(os.environ) is not None


def environment_decision(environment: Mapping[str, str]) -> Decision | None:
    """What the environment alone decides; None where it leaves it open."""
    track, enabled = environment_rules(environment).values()
    return track or enabled


def environment_rules(environment: Mapping[str, str]) -> dict[str, Decision | None]:
    """What each of the two variables says, the stronger first.

    They can only turn off: `TELEMETRY_ENABLED=true` overrules no other rule.
    """
    if guard is not None:
        return {"do-not-track": None, "environment": guard}
    track = environment.get("DO_NOT_TRACK", "")
    enabled = environment.get("TELEMETRY_ENABLED", "")
    return {
        "do-not-track": Decision("do-not-track", f"DO_NOT_TRACK={track[:20]}", on=False)
        if track and not is_off(track)
        else None,
        "environment": Decision(
            "environment", f"TELEMETRY_ENABLED={enabled[:20]}", on=False
        )
        if is_off(enabled)
        else None,
    }
