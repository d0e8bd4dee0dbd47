"""A session: what happened between its start and its end, and the values it is given.

Rules: a tool call counts always, tokens count always; an error counts only inside a
session that has both ids and has not ended; an end is recorded once. A start without
an end before it begins anew and records no end.

It knows no clock but the one that is passed in. The caller holds a lock around each call.
Whatever a program hands over, nothing but InvalidEventError comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.errors import InvalidEventError
from telemetry.events import SessionEndEvent, TokenEvent, ToolEvent


if TYPE_CHECKING:
    from datetime import timedelta


# The messages that an end carries; the count goes on. Without a bound a session
# of a thousand errors would end in an event that is too large to be recorded.
ERRORS_MAX = 100


class SessionTokenUsage(msgspec.Struct):
    """The tokens of a session, and their price in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class SessionState(msgspec.Struct):
    """One session so far. `start_time` is `time.monotonic()` at its start, seconds."""

    id: str = ""
    agent_name: str = ""
    start_time: float = 0.0
    tool_calls: int = 0
    token_usage: SessionTokenUsage = msgspec.field(default_factory=SessionTokenUsage)
    error_count: int = 0
    error: list[str] | None = None
    session_ended: bool = False

    def is_open(self) -> bool:
        """Whether it has both ids and has not ended."""
        return bool(not self.session_ended and self.agent_name and self.id)

    def count_tool_call(
        self,
        tool_name: str,
        session_id: str,
        agent_name: str,
        duration: timedelta,
        error: BaseException | str | None,
    ) -> ToolEvent:
        """The event of a tool call, which is counted. Raises InvalidEventError."""
        text, duration_ms = message(error), milliseconds(duration)
        self.tool_calls += 1
        if text is not None:
            self._add_error(text)
        return ToolEvent(
            action="call",
            tool_name=tool_name,
            session_id=session_id,
            agent_name=agent_name,
            duration_ms=duration_ms,
            success=text is None,
            error=text or "",
        )

    def count_tokens(
        self, model: str, input_tokens: int, output_tokens: int, cost: float
    ) -> TokenEvent:
        """The event of a model's use, which is counted. Raises InvalidEventError."""
        # Before anything is counted: one bad number must not spoil the sums.
        input_tokens = _number("input_tokens", input_tokens, index)
        output_tokens = _number("output_tokens", output_tokens, index)
        cost = _number("cost", cost, float)
        usage = self.token_usage
        usage.input_tokens += input_tokens
        usage.output_tokens += output_tokens
        usage.cost += cost
        return TokenEvent(
            action="usage",
            model_name=model,
            session_id=self.id,
            agent_name=self.agent_name,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cost=cost,
        )

    def count_error(self, error: BaseException | str | None) -> None:
        """An error of the session itself; outside of one it does not count."""
        text = message(error) or ""
        if self.is_open():
            self._add_error(text)

    def end(self, now: float) -> SessionEndEvent | None:
        """The event of its end, once; None if there is none.

        `now` is `time.monotonic()`, seconds. The duration is cut toward zero.
        """
        if not self.is_open():
            return None
        self.session_ended = True
        usage = self.token_usage
        return SessionEndEvent(
            action="end",
            session_id=self.id,
            agent_name=self.agent_name,
            duration_ms=int((now - self.start_time) * 1000),
            tool_calls=self.tool_calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
            error_count=self.error_count,
            cost=usage.cost,
            is_success=self.error_count == 0,
            error=self.error,
        )

    def _add_error(self, text: str) -> None:
        self.error_count += 1
        kept = self.error or []
        if len(kept) < ERRORS_MAX:
            self.error = [*kept, text]


def start(session_id: str, agent_name: str, now: float) -> SessionState:
    """A new session; `now` is `time.monotonic()`, seconds."""
    return SessionState(id=session_id, agent_name=agent_name, start_time=now, error=[])


def message(error: BaseException | str | None) -> str | None:
    """The text of an error; None where there is none. Scrubbed when it is recorded."""
    if error is None or isinstance(error, str):
        return error
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - the `__str__` of others
        from telemetry.interrupts import pass_on

        pass_on(failure)
        text = ""
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _number(name: str, value: Any, exact: Callable[[Any], Any]) -> Any:
    """The plain number that a value is. Raises InvalidEventError."""
    try:
        return exact(value)
    except (TypeError, ValueError, OverflowError) as error:
        # Not its text: a log is pasted, and the value may be anything.
        kind = type(value).__name__
        raise InvalidEventError(f"{name}: a {kind} is no such number") from error


def milliseconds(duration: timedelta) -> int:
    """Whole milliseconds, cut toward zero. Raises InvalidEventError."""
    try:
        microseconds = (
            duration.days * 86_400_000_000
            + duration.seconds * 1_000_000
            + duration.microseconds
        )
    except AttributeError as error:
        kind = type(duration).__name__
        raise InvalidEventError(f"duration: a {kind} is no timedelta") from error
    return int(abs(microseconds) // 1000) * (1 if microseconds >= 0 else -1)
