"""The switches that turn telemetry off before anything of it is loaded.

    do-not-track   DO_NOT_TRACK is set to anything but empty, 0, false, no, off
    environment    TELEMETRY_ENABLED is false, 0, no or off, in any case

Pure, and small on purpose: a program with telemetry off pays for this module
and its client alone. The rules that come after them are in `consent.py`.
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OFF_WORDS = frozenset({"false", "0", "no", "off"})


class Decision:
    """On or off, the rule that decided, and a sentence about it."""

    __slots__ = ("on", "reason", "rule")

    def __init__(self, rule: str, reason: str, *, on: bool) -> None:
        self.on = on
        self.rule = rule
        self.reason = reason

    def __repr__(self) -> str:
        return f"Decision({'on' if self.on else 'off'}, {self.rule}: {self.reason})"


def is_off(word: str) -> bool:
    """Whether a setting's text says off: false, 0, no, off, in any case."""
    return word.lower() in OFF_WORDS


def environment_decision(environment: Mapping[str, str]) -> Decision | None:
    """What the environment alone decides; None where it leaves it open.

    It can only turn off: `TELEMETRY_ENABLED=true` overrules no other rule.
    """
    track = environment.get("DO_NOT_TRACK", "")
    if track and not is_off(track):
        return Decision("do-not-track", f"DO_NOT_TRACK={track[:20]}", on=False)
    enabled = environment.get("TELEMETRY_ENABLED", "")
    if is_off(enabled):
        return Decision("environment", f"TELEMETRY_ENABLED={enabled[:20]}", on=False)
    return None
