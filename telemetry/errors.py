"""Every error of the library, and what it leaves behind.

    TelemetryError
     +-- ConfigError           a setting cannot be used
     |    +-- EndpointError    ... and it is where requests would go
     +-- RefusedError          one event was not recorded; `reason` says why
     |    +-- InvalidEventError    "invalid"     it has no sound form as JSON
     |    +-- EventTooBigError     "too_big"     it is above `event_bytes_max`
     |    +-- SpoolFullError       "spool_full"  the spool is at `spool_bytes_max`
     |    +-- DiskError            "disk_error"  the disk refused it
     |    +-- BusyError            "busy"        it came from inside an event
     |    +-- HomeError            "no_home"     no directory is safe to keep it in
     |    +-- OffError             "off"         the user opted out meanwhile
     +-- SpoolError            a segment cannot be read at a place
     +-- LedgerError           the ledger cannot be used now
     |    +-- LedgerMalformedError   its content is damaged: it may be set aside
     +-- LaunchError           a flusher could not be started

A host program meets these only with `Config(strict=True)`. Otherwise `track` answers
False, and the loss is counted under `RefusedError.reason`. No error affects what was
recorded before it.
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class TelemetryError(Exception):
    """The base of every error that this library raises."""


class ConfigError(TelemetryError):
    """The setting `field` cannot be used; `problem` says why. Nothing was created."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class EndpointError(ConfigError):
    """No request can go to this endpoint. Events are kept until it is corrected."""


class RefusedError(TelemetryError):
    """One event was not recorded, and is counted under `reason`. The next one may be."""

    reason = "refused"


class InvalidEventError(RefusedError):
    """The event has no sound form as JSON, most often a field of the wrong type."""

    reason = "invalid"


class EventTooBigError(RefusedError):
    """The event has `size_bytes` as JSON; the bound is `bound_bytes`."""

    reason = "too_big"

    def __init__(self, size_bytes: int, bound_bytes: int) -> None:
        super().__init__(
            f"an event of {size_bytes} bytes is above the bound of {bound_bytes}; "
            "it was not recorded (Config.event_bytes_max)"
        )
        self.size_bytes = size_bytes
        self.bound_bytes = bound_bytes


class SpoolFullError(RefusedError):
    """The spool holds `size_bytes`; the bound is `bound_bytes`.

    It keeps what it holds, and takes events again once a flush has delivered some.
    """

    reason = "spool_full"

    def __init__(self, size_bytes: int, bound_bytes: int) -> None:
        super().__init__(size_bytes, bound_bytes)
        self.size_bytes = size_bytes
        self.bound_bytes = bound_bytes

    def __str__(self) -> str:
        # Made for a person alone: one is raised for each event that is refused.
        return (
            f"the spool holds {self.size_bytes} bytes, its bound is {self.bound_bytes}; "
            "flush it, or raise Config.spool_bytes_max"
        )


class DiskError(RefusedError):
    """The system refused to write or sync the file `path`; `problem` says why.

    At most a part of the record is left. No reader takes it for an event.
    """

    reason = "disk_error"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}; the event was not recorded")
        self.path = path
        self.problem = problem


class BusyError(RefusedError):
    """An event came from inside `track` in the same thread, as from a signal handler."""

    reason = "busy"


class HomeError(RefusedError):
    """The home `path` is not safe to keep events in. Nothing was created."""

    reason = "no_home"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'home'}: {problem}")
        self.path = path
        self.problem = problem


class OffError(RefusedError):
    """The user opted out while the program ran. This is not counted as a loss."""

    reason = "off"


class SpoolError(TelemetryError):
    """The segment `path` cannot be read from byte `offset` on. Other segments can."""

    def __init__(self, path: str, offset: int, problem: str) -> None:
        super().__init__(f"{path} at byte {offset}: {problem}")
        self.path = path
        self.offset = offset
        self.problem = problem


class LedgerError(TelemetryError):
    """The ledger cannot be read or written now. It is as it was; try again later."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class LedgerMalformedError(LedgerError):
    """The ledger's content is damaged. Setting it aside costs duplicates, no event."""


class LaunchError(TelemetryError):
    """No flusher was started. Events are kept; the next launch tries again."""


def quietly(call: Callable[[], object]) -> None:
    """Call it at exit: what comes out of there Python prints, and no code can catch it.

    Ctrl-C, or a handler of the host's that raises: the end is wanted now.
    """
    try:
        call()
    except BaseException:  # noqa: BLE001, S110
        pass


def raise_the_hosts(error: BaseException) -> None:
    """Raise a TimeoutError of the host's alarm again, where it is caught as an OSError.

    The system's own errors have a number, and this one has none.
    """
    if isinstance(error, OSError) and error.errno is None:
        raise error
