"""What an event is, and what those of this library are called.

Loaded for type checkers, and where an event is asked for its type: a launch that
records a command does without.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol, runtime_checkable


class EventType(str, Enum):
    """The events that come with the library, by their name on the wire."""

    COMMAND = "command"
    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a kind of event, no password
    TOOL = "tool"


@runtime_checkable
class StructuredEvent(Protocol):
    """What `track` takes."""

    def get_event_type(self) -> EventType | str:
        """The event's name on the wire."""
        ...

    def to_structured_properties(self) -> Any:
        """The payload: a msgspec Struct, a dataclass, or a dict with string keys."""
        ...
