"""The events that nearly every launch records: a command, and a program's own.

Apart from the others in `events.py`, as each class is made anew at each launch. Their
annotations are no texts here: msgspec would compile each one before the first event.
The rules are those of `events.py`.
"""

from typing import Any

import msgspec


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.events import EventType


class CommandPayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command was run.

    action: the command's path, without arguments
    is_success: whether it ended well
    args: arguments that the program's policy permits; none by default
    error: the class of what went wrong, or a scrubbed message; left out when empty
    flags: the names of the flags given, never their values; left out when empty
    duration_ms: how long it took, whole milliseconds; left out when not measured
    exit_code: the status that the shell sees; left out when not known
    """

    action: str
    is_success: bool
    args: list[str] | None = None
    error: str = ""
    flags: list[str] | None = None
    duration_ms: int | None = None
    exit_code: int | None = None


class CommandEvent(msgspec.Struct, frozen=True):
    """A command that was run. `duration_ms` is in whole milliseconds."""

    action: str = ""
    args: list[str] | None = None
    success: bool = False
    error: str = ""
    flags: list[str] | None = None
    duration_ms: int | None = None
    exit_code: int | None = None

    def get_event_type(self) -> "EventType":
        """`command`."""
        from telemetry.events import EventType

        return EventType.COMMAND

    def to_structured_properties(self) -> CommandPayload:
        """The payload; empty `args`, `error` and `flags` are left out of it."""
        return CommandPayload(
            self.action,
            self.success,
            self.args or None,
            self.error,
            self.flags or None,
            self.duration_ms,
            self.exit_code,
        )


class NamedEvent(msgspec.Struct, frozen=True):
    """An event of the program's own, as `track(name, properties)` makes it."""

    name: str
    properties: Any

    def get_event_type(self) -> str:
        """The name it was given."""
        return self.name

    def to_structured_properties(self) -> dict[str, Any]:
        """The properties it was given."""
        return dict(self.properties)


class CommandInfo(msgspec.Struct, frozen=True):
    """What was run: the command's path, and the arguments and flags that are permitted."""

    action: str
    args: list[str] = []
    flags: list[str] = []
