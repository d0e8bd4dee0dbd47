"""Every error of the library, and what each leaves behind.

    TelemetryError
     +-- ConfigError           a setting that cannot be used
     |    +-- EndpointError    ... because no request can be sent there
     +-- RefusedError          one event was not recorded; `reason` says why
     |    +-- InvalidEventError    "invalid"     no sound form of it exists
     |    +-- EventTooBigError     "too_big"     above `event_bytes_max`
     |    +-- SpoolFullError       "spool_full"  above `spool_bytes_max`
     |    +-- DiskError            "disk_error"  the disk said no
     |    +-- BusyError            "busy"        an event inside an event
     |    +-- HomeError            "no_home"     no directory to keep it in
     |    +-- OffError             "off"         the user opted out meanwhile
     +-- SpoolError            a segment cannot be read at a place
     +-- LedgerError           the ledger cannot be used now; nothing was changed
     |    +-- LedgerMalformedError   it is no ledger any more and may be set aside
     +-- LaunchError           a flusher could not be started; all is kept

A host program meets these only with `Config(strict=True)`: otherwise `track`
answers False and counts the loss under `RefusedError.reason`.
"""

from __future__ import annotations


class TelemetryError(Exception):
    """Whatever this library raises. Nothing recorded before it is affected."""


class ConfigError(TelemetryError):
    """A setting cannot be used. Nothing was created; correct `field`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class EndpointError(ConfigError):
    """No request can go to this endpoint. Events are kept until it is corrected."""


class RefusedError(TelemetryError):
    """One event was not recorded; those before and after it are not affected.

    `reason` is the name under which the loss is counted.
    """

    reason = "refused"


class InvalidEventError(RefusedError):
    """The event has no sound form as JSON: a field of the wrong type, most often."""

    reason = "invalid"


class EventTooBigError(RefusedError):
    """The event is larger than `event_bytes_max` bytes once serialised."""

    reason = "too_big"

    def __init__(self, size_bytes: int, bound_bytes: int) -> None:
        super().__init__(
            f"an event of {size_bytes} bytes is above the bound of {bound_bytes}; "
            "it was not recorded (Config.event_bytes_max)"
        )
        self.size_bytes = size_bytes
        self.bound_bytes = bound_bytes


class SpoolFullError(RefusedError):
    """The spool is at its bound. What it holds is kept; the newest event is not.

    It takes events again once a flush has delivered some.
    """

    reason = "spool_full"

    def __init__(self, size_bytes: int, bound_bytes: int) -> None:
        super().__init__(
            f"the spool holds {size_bytes} bytes, its bound is {bound_bytes}; "
            "flush it, or raise Config.spool_bytes_max"
        )
        self.size_bytes = size_bytes
        self.bound_bytes = bound_bytes


class DiskError(RefusedError):
    """The disk refused. At most a half-written record is left, which no reader takes.

    `path` is the file, `problem` what the system said of it.
    """

    reason = "disk_error"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}; the event was not recorded")
        self.path = path
        self.problem = problem


class BusyError(RefusedError):
    """An event came from inside `track` of the same thread (a signal handler)."""

    reason = "busy"


class HomeError(RefusedError):
    """There is no directory that is safe to keep events in. Nothing was created."""

    reason = "no_home"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'home'}: {problem}")
        self.path = path
        self.problem = problem


class OffError(RefusedError):
    """The user opted out while the program ran. This is no loss and is not counted."""

    reason = "off"


class SpoolError(TelemetryError):
    """A segment cannot be read at `offset` of `path`. Other segments can."""

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
    """What stands there is no ledger. Set aside, it costs duplicates, never events."""


class LaunchError(TelemetryError):
    """No flusher could be started. Events are kept; the next launch tries again."""
