"""What one line of a dump shows: a pending event, a dead one, a damaged stretch.

An event's bytes are passed on as they stand; they are decoded only to choose by
name or time, or to be shown in a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from spool_tools.output import as_json
from spool_tools.reading import Spool


STATES = ("pending", "dead", "damaged", "all")
# Every event has them, so that in a table they would say nothing; nor does an empty text.
_SYSTEM = frozenset({"event_id", "os", "os_language", "user_uuid", "version"})
# Times that a calendar has a form for, milliseconds since 1970.
_TIME_MS_MAX = 1 << 47
# More than a terminal is wide.
_DETAIL_CHARACTERS = 500


class Shown(NamedTuple):
    """One line: its state, and its JSON."""

    state: str
    text: bytes

    def wrapped(self) -> bytes:
        """The JSON together with the state, for lines of several states."""
        member = "stretch" if self.state == "damaged" else "event"
        return b'{"state":"%b","%b":%b}' % (
            self.state.encode(),
            member.encode(),
            self.text,
        )

    def row(self) -> tuple[str, str, str, str]:
        """Time, state, name and properties, as cells of a table."""
        event = _decoded(self.text)
        properties = event.get("properties", event)
        if not isinstance(properties, dict):
            properties = {}
        pairs = (
            f"{k}={_shown(v)}"
            for k, v in properties.items()
            if k not in _SYSTEM and v != ""
        )
        return (
            _moment(event.get("event_timestamp")),
            self.state,
            str(event.get("event", "")),
            " ".join(pairs)[:_DETAIL_CHARACTERS],
        )


def lines(spool: Spool, state: str) -> Iterator[Shown]:
    """Everything that a dump of this state shows, in order."""
    if state in {"pending", "all"}:
        for event in spool.pending():
            yield Shown("pending", event)
    if state in {"dead", "all"}:
        for _, letter in spool.letters("dead"):
            yield Shown("dead", bytes(letter.event))
    if state in {"damaged", "all"}:
        for stretch in spool.damaged():
            yield Shown("damaged", as_json(stretch))


class _Head(msgspec.Struct):
    event: Any = None
    event_timestamp: Any = None


def wanted(name: str | None, since_s: float | None) -> Callable[[Shown], bool]:
    """Whether a line is an event of this name, recorded since (seconds since 1970)."""
    if name is None and since_s is None:
        return lambda _: True
    decoder = msgspec.json.Decoder(_Head)

    def is_wanted(line: Shown) -> bool:
        try:
            head = decoder.decode(line.text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        if name is not None and head.event != name:
            return False
        recorded_ms = head.event_timestamp
        return since_s is None or (
            isinstance(recorded_ms, (int, float)) and recorded_ms >= since_s * 1000
        )

    return is_wanted


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _moment(recorded_ms: object) -> str:
    if not isinstance(recorded_ms, int) or not 0 <= recorded_ms < _TIME_MS_MAX:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(recorded_ms // 1000))


def _shown(value: object) -> str:
    """A value as JSON has it, texts without their quotes."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
