"""One recorded event, read back from its bytes. Pure.

For formats that do not post an event as it stands. It raises nothing: what cannot be read
(nested deeper than the interpreter follows, or not written by this library) is carried as
text, under the ids that can be found in it, for the server to judge.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec


# In the year 2262: later times are no nanoseconds in 63 bits.
_TIME_MS_MAX = 9_223_372_036_854
_FOUND = re.compile(
    rb'"(event_id|user_uuid|version)":"([^"\\]{1,200})"|"event_timestamp":([0-9]{1,15})'
)
UNREADABLE = "unreadable"


class Event(msgspec.Struct, gc=False):
    """An event by its parts. `event_timestamp` is milliseconds, 1970 to 2262."""

    event: str
    event_timestamp: int
    source: str
    properties: dict[str, Any]

    def text(self, name: str) -> str:
        """A property that is text; empty where it is not."""
        value = self.properties.get(name)
        return value if isinstance(value, str) else ""


_decode = msgspec.json.Decoder(Event).decode


def read(content: bytes) -> Event:
    """The event that these bytes hold."""
    try:
        event = _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        event = _unreadable(content)
    event.event_timestamp = min(max(event.event_timestamp, 0), _TIME_MS_MAX)
    return event


def _unreadable(content: bytes) -> Event:
    time_ms = 0
    properties = {UNREADABLE: content.decode("utf-8", "replace")}
    for name, value, digits in _FOUND.findall(content):
        time_ms = int(digits) if digits else time_ms
        if name:
            properties[name.decode()] = value.decode("utf-8", "replace")
    return Event(UNREADABLE, time_ms, UNREADABLE, properties)
