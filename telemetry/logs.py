"""The logger, whose messages start with `[Telemetry] `, and when there is one.

The standard `logging` package is used only where the host has loaded it: a launch does
not pay for lines that have no reader. Nothing is printed without debug mode; with it,
messages that no handler of the host's would show go to standard error.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident


TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

    from telemetry.privacy import OwnKey

PREFIX = "[Telemetry] "
LOGGER_NAME = "telemetry"
# Threads that are inside a message of ours. What a handler that tracks makes us say
# meanwhile is dropped: it would be handled by that handler again.
_speaking: set[int] = set()


class TelemetryLogger:
    """A logger whose messages all start with `[Telemetry] `.

    Arguments are those of `logging.Logger`: a `%`-style message, then its values.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, *args: object) -> None:
        """Log at level DEBUG."""
        self._say("debug", message, args)

    def info(self, message: str, *args: object) -> None:
        """Log at level INFO."""
        self._say("info", message, args)

    def warning(self, message: str, *args: object) -> None:
        """Log at level WARNING."""
        self._say("warning", message, args)

    def error(self, message: str, *args: object) -> None:
        """Log at level ERROR."""
        self._say("error", message, args)

    def _say(self, level: str, message: str, args: tuple[object, ...]) -> None:
        thread = get_ident()
        if thread in _speaking:
            return
        _speaking.add(thread)
        try:
            getattr(self._logger, level)(PREFIX + message, *args)
        except Exception as error:  # noqa: BLE001 - a handler of the host's that raises
            # It must not reach the host by way of us, nor end a flush.
            from telemetry.interrupts import pass_on

            pass_on(error)
        finally:
            _speaking.discard(thread)

    def is_enabled_for(self, level: int) -> bool:
        """Whether a message of `level` (as in `logging`) would be seen."""
        return self._logger.isEnabledFor(level)


class _Discreet(TelemetryLogger):
    """Says what another one would, less the program's own key."""

    __slots__ = ("_inner", "_own_key")

    def __init__(self, inner: TelemetryLogger, own_key: OwnKey) -> None:
        self._inner = inner
        self._own_key = own_key

    def _say(self, level: str, message: str, args: tuple[object, ...]) -> None:
        try:
            text = message % args if args else message
            clean = self._own_key.without(text)
            if clean != text:
                message, args = "%s", (clean,)
        except Exception:  # noqa: BLE001, S110 - a `repr` of the host's that raises
            pass  # it is said as it would have come to the handler
        getattr(self._inner, level)(message, *args)

    def is_enabled_for(self, level: int) -> bool:
        return self._inner.is_enabled_for(level)


def discreet(logger: TelemetryLogger | None, own_key: OwnKey) -> TelemetryLogger | None:
    """The logger, or one whose lines never hold the program's own key."""
    if logger is None or isinstance(logger, _Discreet) or not own_key:
        return logger
    return _Discreet(logger, own_key)


def new_telemetry_logger(logger: logging.Logger) -> TelemetryLogger:
    """A prefixed logger that writes through `logger`."""
    return TelemetryLogger(logger)


def _descriptor() -> int:
    """That of Python's own standard error in UTF-8; -1 where the host has another."""
    stream = sys.__stderr__
    if stream is None or sys.stderr is not stream or sys.platform == "win32":
        return -1
    try:
        return stream.fileno() if stream.encoding.lower() == "utf-8" else -1
    except (AttributeError, OSError, ValueError):
        return -1


class _StandardError:
    """What `TelemetryLogger` writes through in debug mode; a logger in shape."""

    @staticmethod
    def debug(message: str, *args: object) -> None:
        """One line on standard error, whatever its level.

        Past the buffer of Python's own stream: its lock may be held by a thread that is
        not there in a forked child, and Python exits with 120 if it cannot be written.
        """
        line = f"{message % args if args else message}\n"
        descriptor = _descriptor()
        try:
            if descriptor >= 0:
                os.write(descriptor, line.encode("utf-8", "backslashreplace"))
            else:
                sys.stderr.write(line)
                sys.stderr.flush()
        except (AttributeError, ValueError, OSError):
            pass  # there is no standard error, or it takes nothing more

    info = warning = error = debug

    @staticmethod
    def isEnabledFor(_level: int) -> bool:  # noqa: N802 - as in `logging`
        """Always."""
        return True


def quiet_logger(*, debug: bool) -> TelemetryLogger | None:
    """The library's own logger; None if its lines have no reader."""
    printing = TelemetryLogger(_StandardError) if debug else None  # type: ignore[arg-type]
    if "logging" not in sys.modules:
        return printing
    import logging

    logger = logging.getLogger(LOGGER_NAME)
    if printing and not (logger.hasHandlers() and logger.isEnabledFor(logging.DEBUG)):
        return printing
    if not logger.handlers:  # else Python prints warnings of ours on standard error
        logger.addHandler(logging.NullHandler())
    return TelemetryLogger(logger)
