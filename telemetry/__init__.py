"""Durable usage telemetry for command-line programs.

Every event is in a spool on disk before anything else happens; a flusher drains
the spool over HTTP, now or at the next launch; nothing that was recorded is
lost without being counted.

    import telemetry

    telemetry.configure("frobnicate", version="1.2.3")
    telemetry.track_command("build", [])

Names are loaded on first use, so importing this package costs next to nothing;
what is not in `__all__` is private. `telemetry.integrations` and
`telemetry.testing` are public, too. The map; each wing's docstring is one of its own:

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

from __future__ import annotations


__version__ = "0.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.api import (
        configure,
        ensure_global_telemetry_initialized,
        flush,
        get_global_telemetry_client,
        get_telemetry_enabled,
        set_global_telemetry_debug_mode,
        set_global_telemetry_version,
        track,
        track_command,
    )
    from telemetry.build_values import (
        TELEMETRY_API_KEY,
        TELEMETRY_ENABLED,
        TELEMETRY_ENDPOINT,
        TELEMETRY_HEADER,
    )
    from telemetry.client import Client
    from telemetry.commands import NAMES_ONLY
    from telemetry.config import CommandPolicy, Config
    from telemetry.context import (
        from_context,
        record_error,
        record_session_end,
        record_session_start,
        record_token_usage,
        record_tool_call,
        with_client,
    )
    from telemetry.delivery.report import FlushReport
    from telemetry.errors import (
        BusyError,
        ConfigError,
        DiskError,
        EndpointError,
        EventTooBigError,
        HomeError,
        InvalidEventError,
        LaunchError,
        LedgerError,
        LedgerMalformedError,
        OffError,
        RefusedError,
        SpoolError,
        SpoolFullError,
        TelemetryError,
    )
    from telemetry.event_type import EventType, StructuredEvent
    from telemetry.events import (
        EventPayload,
        SessionEndEvent,
        SessionEndPayload,
        SessionStartEvent,
        SessionStartPayload,
        TokenEvent,
        TokenPayload,
        ToolEvent,
        ToolPayload,
    )
    from telemetry.integrations.command import build_command_info
    from telemetry.light_events import CommandEvent, CommandInfo, CommandPayload
    from telemetry.logs import TelemetryLogger, new_telemetry_logger
    from telemetry.session import SessionState, SessionTokenUsage
    from telemetry.wire.endpoint import HTTPClient

__all__ = [
    "NAMES_ONLY",
    "TELEMETRY_API_KEY",
    "TELEMETRY_ENABLED",
    "TELEMETRY_ENDPOINT",
    "TELEMETRY_HEADER",
    "BusyError",
    "Client",
    "CommandEvent",
    "CommandInfo",
    "CommandPayload",
    "CommandPolicy",
    "Config",
    "ConfigError",
    "DiskError",
    "EndpointError",
    "EventPayload",
    "EventTooBigError",
    "EventType",
    "FlushReport",
    "HTTPClient",
    "HomeError",
    "InvalidEventError",
    "LaunchError",
    "LedgerError",
    "LedgerMalformedError",
    "OffError",
    "RefusedError",
    "SessionEndEvent",
    "SessionEndPayload",
    "SessionStartEvent",
    "SessionStartPayload",
    "SessionState",
    "SessionTokenUsage",
    "SpoolError",
    "SpoolFullError",
    "StructuredEvent",
    "TelemetryError",
    "TelemetryLogger",
    "TokenEvent",
    "TokenPayload",
    "ToolEvent",
    "ToolPayload",
    "build_command_info",
    "configure",
    "ensure_global_telemetry_initialized",
    "flush",
    "from_context",
    "get_global_telemetry_client",
    "get_telemetry_enabled",
    "new_telemetry_logger",
    "record_error",
    "record_session_end",
    "record_session_start",
    "record_token_usage",
    "record_tool_call",
    "set_global_telemetry_debug_mode",
    "set_global_telemetry_version",
    "track",
    "track_command",
    "with_client",
]

# Where each name lives; loaded when it is first asked for.
_HOMES = {
    "api": (
        "configure ensure_global_telemetry_initialized flush "
        "get_global_telemetry_client get_telemetry_enabled "
        "set_global_telemetry_debug_mode set_global_telemetry_version track "
        "track_command"
    ),
    "build_values": (
        "TELEMETRY_API_KEY TELEMETRY_ENABLED TELEMETRY_ENDPOINT TELEMETRY_HEADER"
    ),
    "client": "Client",
    "commands": "NAMES_ONLY",
    "config": "CommandPolicy Config",
    "context": (
        "from_context record_error record_session_end record_session_start "
        "record_token_usage record_tool_call with_client"
    ),
    "event_type": "EventType StructuredEvent",
    "wire.endpoint": "HTTPClient",
    "delivery.report": "FlushReport",
    "integrations.command": "build_command_info",
    "light_events": "CommandEvent CommandInfo CommandPayload",
    "logs": "TelemetryLogger new_telemetry_logger",
    "session": "SessionState SessionTokenUsage",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'telemetry' has no attribute {name!r}")
    import sys

    # `importlib` itself would be the most expensive thing that is loaded.
    home = f"telemetry.{_home_of(name)}"
    try:
        __import__(home)
    except ImportError as error:
        if not (error.name or "").startswith("msgspec"):
            raise
        from telemetry.absent import Absent

        return Absent
    value: object = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def _home_of(name: str) -> str:
    for home, names in _HOMES.items():
        if name in names.split():
            return home
    return "errors" if name.endswith("Error") else "events"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
