"""The logger, whose messages start with `[Telemetry] `, and when there is one.

The standard `logging` package is loaded only where the host has loaded it already or
debug mode is on: a launch does not pay for lines that have no reader. Nothing is
printed: without a handler of the host's, messages go nowhere.
"""

from __future__ import annotations

import sys
from _thread import get_ident


TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

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
        self._say(self._logger.debug, message, args)

    def info(self, message: str, *args: object) -> None:
        """Log at level INFO."""
        self._say(self._logger.info, message, args)

    def warning(self, message: str, *args: object) -> None:
        """Log at level WARNING."""
        self._say(self._logger.warning, message, args)

    def error(self, message: str, *args: object) -> None:
        """Log at level ERROR."""
        self._say(self._logger.error, message, args)

    @staticmethod
    def _say(say: Callable[..., None], message: str, args: tuple[object, ...]) -> None:
        thread = get_ident()
        if thread in _speaking:
            return
        _speaking.add(thread)
        try:
            say(PREFIX + message, *args)
        except Exception as error:  # noqa: BLE001 - a handler of the host's that raises
            # It must not reach the host by way of us, nor end a flush.
            from telemetry.interrupts import pass_on

            pass_on(error)
        finally:
            _speaking.discard(thread)

    def is_enabled_for(self, level: int) -> bool:
        """Whether a message of `level` (as in `logging`) would be seen."""
        return self._logger.isEnabledFor(level)


def new_telemetry_logger(logger: logging.Logger) -> TelemetryLogger:
    """A prefixed logger that writes through `logger`."""
    return TelemetryLogger(logger)


def quiet_logger(*, debug: bool) -> TelemetryLogger | None:
    """The library's own logger; None if logging is not set up.

    It has a NullHandler, so that a program that never set up logging does not
    find warnings of ours on its standard error.
    """
    if not debug and "logging" not in sys.modules:
        return None
    import logging

    logger = logging.getLogger(LOGGER_NAME)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return TelemetryLogger(logger)
