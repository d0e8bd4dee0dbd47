"""Durable usage telemetry for command-line programs.

Every event is in a spool on disk before anything else happens; a flusher drains
the spool over HTTP, now or at the next launch; nothing that was recorded is
lost without being counted.

    import telemetry

    telemetry.configure("frobnicate", version="1.2.3")
    telemetry.track_command("build", [])

Names are loaded on first use, so importing this package costs next to nothing;
what is not in `__all__` is private. `telemetry.integrations` and
`telemetry.testing` are public, too. Which file to open for what: the end of
`telemetry/README.md`. The map; each wing's docstring is one of its own:

    spool/         the format on disk; writing and reading it
    wire/          one request and what came of it; formats/: what a body looks like
    books/         what is settled: the ledger and its rows
    delivery/      when a flush runs, and what it does
    privacy/       what is cut from a text before it is written
    integrations/  wrapping a program that argparse, click or typer built

    on or off      switches (the environment), consent (all rules), notice
    an event       events, envelope (its bytes), machine (the system's fields), session
    a client       api (the process's own), client, pipeline, config, mistakes
    the home       paths, files, identity
"""

import sys

# At once: a signal's handler that uses a name while another is loaded asks it.
from telemetry.switches import CANNOT_LOAD, in_place_of, is_loading


__version__ = "0.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.api import configure as configure
    from telemetry.api import (
        ensure_global_telemetry_initialized as ensure_global_telemetry_initialized,
    )
    from telemetry.api import flush as flush
    from telemetry.api import get_global_telemetry_client as get_global_telemetry_client
    from telemetry.api import get_telemetry_enabled as get_telemetry_enabled
    from telemetry.api import (
        set_global_telemetry_debug_mode as set_global_telemetry_debug_mode,
    )
    from telemetry.api import (
        set_global_telemetry_version as set_global_telemetry_version,
    )
    from telemetry.api import track as track
    from telemetry.api import track_command as track_command
    from telemetry.build_values import TELEMETRY_API_KEY as TELEMETRY_API_KEY
    from telemetry.build_values import TELEMETRY_ENABLED as TELEMETRY_ENABLED
    from telemetry.build_values import TELEMETRY_ENDPOINT as TELEMETRY_ENDPOINT
    from telemetry.build_values import TELEMETRY_HEADER as TELEMETRY_HEADER
    from telemetry.client import Client as Client
    from telemetry.commands import NAMES_ONLY as NAMES_ONLY
    from telemetry.config import CommandPolicy as CommandPolicy
    from telemetry.config import Config as Config
    from telemetry.context import from_context as from_context
    from telemetry.context import record_error as record_error
    from telemetry.context import record_session_end as record_session_end
    from telemetry.context import record_session_start as record_session_start
    from telemetry.context import record_token_usage as record_token_usage
    from telemetry.context import record_tool_call as record_tool_call
    from telemetry.context import with_client as with_client
    from telemetry.delivery.report import FlushReport as FlushReport
    from telemetry.errors import BusyError as BusyError
    from telemetry.errors import ConfigError as ConfigError
    from telemetry.errors import DiskError as DiskError
    from telemetry.errors import EndpointError as EndpointError
    from telemetry.errors import EventTooBigError as EventTooBigError
    from telemetry.errors import HomeError as HomeError
    from telemetry.errors import InvalidEventError as InvalidEventError
    from telemetry.errors import LaunchError as LaunchError
    from telemetry.errors import LedgerError as LedgerError
    from telemetry.errors import LedgerMalformedError as LedgerMalformedError
    from telemetry.errors import OffError as OffError
    from telemetry.errors import RefusedError as RefusedError
    from telemetry.errors import SpoolError as SpoolError
    from telemetry.errors import SpoolFullError as SpoolFullError
    from telemetry.errors import TelemetryError as TelemetryError
    from telemetry.events import EventPayload as EventPayload
    from telemetry.events import EventType as EventType
    from telemetry.events import SessionEndEvent as SessionEndEvent
    from telemetry.events import SessionEndPayload as SessionEndPayload
    from telemetry.events import SessionStartEvent as SessionStartEvent
    from telemetry.events import SessionStartPayload as SessionStartPayload
    from telemetry.events import StructuredEvent as StructuredEvent
    from telemetry.events import TokenEvent as TokenEvent
    from telemetry.events import TokenPayload as TokenPayload
    from telemetry.events import ToolEvent as ToolEvent
    from telemetry.events import ToolPayload as ToolPayload
    from telemetry.integrations.command import build_command_info as build_command_info
    from telemetry.light_events import CommandEvent as CommandEvent
    from telemetry.light_events import CommandInfo as CommandInfo
    from telemetry.light_events import CommandPayload as CommandPayload
    from telemetry.logs import TelemetryLogger as TelemetryLogger
    from telemetry.logs import new_telemetry_logger as new_telemetry_logger
    from telemetry.session import SessionState as SessionState
    from telemetry.session import SessionTokenUsage as SessionTokenUsage
    from telemetry.wire.endpoint import HTTPClient as HTTPClient

# Where each public name lives; loaded when it is first asked for.
_HOMES = {
    "api": (
        "configure ensure_global_telemetry_initialized flush "
        "get_global_telemetry_client get_telemetry_enabled "
        "set_global_telemetry_debug_mode set_global_telemetry_version track "
        "track_command"
    ),
    "client": "Client",
    "config": "CommandPolicy Config",
    "commands": "NAMES_ONLY",
    "context": (
        "from_context record_error record_session_end record_session_start "
        "record_token_usage record_tool_call with_client"
    ),
    "build_values": (
        "TELEMETRY_API_KEY TELEMETRY_ENABLED TELEMETRY_ENDPOINT TELEMETRY_HEADER"
    ),
    "events": (
        "EventPayload EventType SessionEndEvent SessionEndPayload SessionStartEvent "
        "SessionStartPayload StructuredEvent TokenEvent TokenPayload ToolEvent "
        "ToolPayload"
    ),
    "light_events": "CommandEvent CommandInfo CommandPayload",
    "session": "SessionState SessionTokenUsage",
    "errors": (
        "BusyError ConfigError DiskError EndpointError EventTooBigError HomeError "
        "InvalidEventError LaunchError LedgerError LedgerMalformedError OffError "
        "RefusedError SpoolError SpoolFullError TelemetryError"
    ),
    "logs": "TelemetryLogger new_telemetry_logger",
    "delivery.report": "FlushReport",
    "wire.endpoint": "HTTPClient",
    "integrations.command": "build_command_info",
}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return " ".join(_HOMES.values()).split()
    of_ours = (home for home, names in _HOMES.items() if name in names.split())
    home = next(of_ours, "")
    if not home:
        raise AttributeError(f"module 'telemetry' has no attribute {name!r}")
    if is_loading():
        return in_place_of(name)  # a signal's handler: only for now
    # `importlib` itself would be the most expensive thing that is loaded.
    home = f"telemetry.{home}"
    try:
        __import__(home)
    except CANNOT_LOAD as error:
        try:
            from telemetry.absent import stand_in

            return stand_in(name, error)
        except CANNOT_LOAD:
            return in_place_of(name)
    value: object = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *" ".join(_HOMES.values()).split()})
