"""What a program hands over, as the plain values that an event carries.

Pure. Whatever it is, nothing but InvalidEventError comes out: an object whose
`__str__` raises must not bring down the program that records it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from telemetry.errors import InvalidEventError


if TYPE_CHECKING:
    from datetime import timedelta


def message(error: BaseException | str | None) -> str | None:
    """The text of an error; None where there is none. Scrubbed when it is recorded."""
    if error is None or isinstance(error, str):
        return error
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the `__str__` of others
        text = ""
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def number(name: str, value: Any, exact: Callable[[Any], Any]) -> Any:
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
