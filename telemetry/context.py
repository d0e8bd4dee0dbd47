"""The client that a context variable carries, and its methods as functions.

A plain thread begins without one. Where no client is carried, the functions of this
module do nothing.
"""

from __future__ import annotations

from contextvars import ContextVar, Token


TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

    from telemetry.client import Client


_CLIENT: ContextVar[Client | None] = ContextVar("telemetry_client", default=None)


class with_client:  # noqa: N801 - used as a function, like contextlib.suppress
    """Within `with with_client(client):`, `from_context()` answers that client."""

    def __init__(self, client: Client | None) -> None:
        self._client = client
        self._tokens: list[Token[Client | None]] = []

    def __enter__(self) -> Client | None:
        self._tokens.append(_CLIENT.set(self._client))
        return self._client

    def __exit__(self, *_: object) -> None:
        _CLIENT.reset(self._tokens.pop())


def from_context() -> Client | None:
    """The client of this context; None where none is carried."""
    return _CLIENT.get()


def record_session_start(agent_name: str, session_id: str) -> str:
    """Begin a session; answers `session_id`. See `Client.record_session_start`."""
    if (client := _CLIENT.get()) is not None:
        client.record_session_start(agent_name, session_id)
    return session_id


def record_tool_call(
    tool_name: str,
    session_id: str,
    agent_name: str,
    duration: timedelta,
    error: BaseException | str | None = None,
) -> None:
    """Record a tool call. See `Client.record_tool_call`."""
    if (client := _CLIENT.get()) is not None:
        client.record_tool_call(tool_name, session_id, agent_name, duration, error)


def record_token_usage(
    model: str, input_tokens: int, output_tokens: int, cost: float
) -> None:
    """Record token usage, `cost` in US dollars. See `Client.record_token_usage`."""
    if (client := _CLIENT.get()) is not None:
        client.record_token_usage(model, input_tokens, output_tokens, cost)


def record_error(message: str) -> None:
    """Count an error of the session. See `Client.record_error`."""
    if (client := _CLIENT.get()) is not None:
        client.record_error(message)


def record_session_end() -> None:
    """Record the end of the session, once. See `Client.record_session_end`."""
    if (client := _CLIENT.get()) is not None:
        client.record_session_end()
