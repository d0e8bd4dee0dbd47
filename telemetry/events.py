"""What can be recorded: the events, and the payloads that travel for them.

An event is what a program hands to `track`; its payload is what leaves the
machine. The attributes of both are the names on the wire. In the docstring of
a payload each field has one line, `name: meaning`; the published catalogue is
made from these lines, so a field without one fails the tests.

Values are checked when an event is tracked, not when it is made: making one
must not raise in the host. What nearly every launch records stands in
`light_events.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol, runtime_checkable

import msgspec


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


class EventPayload(msgspec.Struct, frozen=True):
    """One event as it is posted.

    event: the event's name
    event_timestamp: when it was recorded, milliseconds since 1970 (UTC)
    source: the program's name
    properties: the payload's fields, then tags, then the system's fields
    """

    event: str
    event_timestamp: int
    source: str
    properties: dict[str, Any]


class SystemProperties(msgspec.Struct, frozen=True):
    """The fields that every event carries, which nothing can override.

    event_id: a UUIDv7 (RFC 9562) that stays with the event for life
    os: linux, darwin or windows
    os_language: the variable LANG as it stands, or en-US where it is empty or a path
    user_uuid: a random id of this installation; a UUIDv8 that begins with c1000000 if
        it was made in continuous integration, where each run may be a new one
    version: the program's version
    arch: the processor's architecture, as the system names it (x86_64, arm64)
    ci: the service of continuous integration (github, gitlab, other), or false
    container: docker, podman, kubernetes, wsl, or false
    install: how the program was installed (pipx, uv-tool, uvx, frozen, zipapp, conda,
        homebrew, nix, snap, venv, system)
    invocation_id: the event_id of the first event of the same process
    os_version: the version of the system's kernel, numbers only
    python: the version of Python, with its implementation if it is not CPython
    sdk: the name and version of this library
    """

    event_id: str
    os: str
    os_language: str
    user_uuid: str
    version: str
    arch: str = ""
    ci: str | bool = False
    container: str | bool = False
    install: str = ""
    invocation_id: str = ""
    os_version: str = ""
    python: str = ""
    sdk: str = ""


class ToolPayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool was called.

    action: always `call` when recorded by `record_tool_call`
    agent_name: the agent that called it
    duration_ms: how long it took, whole milliseconds
    is_success: whether it ended without an error
    session_id: the session it belongs to
    tool_name: the tool's name, never its arguments or its output
    error: what went wrong, scrubbed; left out when empty
    """

    action: str
    agent_name: str
    duration_ms: int
    is_success: bool
    session_id: str
    tool_name: str
    error: str = ""


class ToolEvent(msgspec.Struct, frozen=True):
    """A tool call. `duration_ms` is in whole milliseconds."""

    action: str = ""
    tool_name: str = ""
    session_id: str = ""
    agent_name: str = ""
    duration_ms: int = 0
    success: bool = False
    error: str = ""

    def get_event_type(self) -> EventType:
        """`tool`."""
        return EventType.TOOL

    def to_structured_properties(self) -> ToolPayload:
        """The payload; an empty `error` is left out of it."""
        return ToolPayload(
            self.action,
            self.agent_name,
            self.duration_ms,
            self.success,
            self.session_id,
            self.tool_name,
            self.error,
        )


class TokenPayload(msgspec.Struct, frozen=True):
    """A model was used.

    action: always `usage` when recorded by `record_token_usage`
    agent_name: the agent of the session
    cost: the price in US dollars; null where it was no finite number
    input_tokens: tokens read by the model
    model_name: the model's name
    output_tokens: tokens written by the model
    session_id: the session it belongs to
    total_tokens: both together
    """

    action: str
    agent_name: str
    cost: float
    input_tokens: int
    model_name: str
    output_tokens: int
    session_id: str
    total_tokens: int


class TokenEvent(msgspec.Struct, frozen=True):
    """Token usage. `cost` is in US dollars; `total_tokens` is sent as given."""

    action: str = ""
    model_name: str = ""
    session_id: str = ""
    agent_name: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: float = 0.0

    def get_event_type(self) -> EventType:
        """`token`."""
        return EventType.TOKEN

    def to_structured_properties(self) -> TokenPayload:
        """The payload; every field is always there."""
        return TokenPayload(
            self.action,
            self.agent_name,
            self.cost,
            self.input_tokens,
            self.model_name,
            self.output_tokens,
            self.session_id,
            self.total_tokens,
        )


class SessionStartPayload(msgspec.Struct, frozen=True):
    """A session began.

    action: always `start`
    agent_name: the agent that the session runs
    session_id: the session's id
    """

    action: str
    agent_name: str
    session_id: str


class SessionStartEvent(msgspec.Struct, frozen=True):
    """The start of a session."""

    action: str = ""
    session_id: str = ""
    agent_name: str = ""

    def get_event_type(self) -> EventType:
        """`session`."""
        return EventType.SESSION

    def to_structured_properties(self) -> SessionStartPayload:
        """The payload, whose action is `start` whatever the event says."""
        return SessionStartPayload("start", self.agent_name, self.session_id)


class SessionEndPayload(msgspec.Struct, frozen=True):
    """A session ended.

    action: always `end`
    agent_name: the agent that the session ran
    cost: the price of its tokens in US dollars
    duration_ms: how long it took, whole milliseconds
    error: what went wrong in it, scrubbed, in order
    error_count: how many errors there were
    input_tokens: tokens read by its models
    is_success: whether there was no error
    output_tokens: tokens written by its models
    session_id: the session's id
    tool_calls: how many tools were called
    total_tokens: both kinds of tokens together
    """

    action: str
    agent_name: str
    cost: float
    duration_ms: int
    error: list[str] | None
    error_count: int
    input_tokens: int
    is_success: bool
    output_tokens: int
    session_id: str
    tool_calls: int
    total_tokens: int


class SessionEndEvent(msgspec.Struct, frozen=True):
    """The end of a session. `duration_ms` in milliseconds, `cost` in US dollars."""

    action: str = ""
    session_id: str = ""
    agent_name: str = ""
    duration_ms: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    error_count: int = 0
    cost: float = 0.0
    is_success: bool = False
    error: list[str] | None = None

    def get_event_type(self) -> EventType:
        """`session`."""
        return EventType.SESSION

    def to_structured_properties(self) -> SessionEndPayload:
        """The payload, whose action is `end` whatever the event says."""
        # A subclass may have fields of its own.
        names = SessionEndPayload.__struct_fields__
        fields = {name: getattr(self, name) for name in names}
        return SessionEndPayload(**{**fields, "action": "end"})
