"""What users write. It is type-checked, never run.

A change that makes this file fail breaks somebody's program at its next check.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
from datetime import timedelta

import msgspec
import urllib3

import telemetry
from telemetry import (
    NAMES_ONLY,
    Client,
    CommandEvent,
    CommandInfo,
    CommandPayload,
    CommandPolicy,
    Config,
    EventPayload,
    EventType,
    FlushReport,
    HTTPClient,
    SessionEndEvent,
    SessionEndPayload,
    SessionStartEvent,
    SessionStartPayload,
    SessionState,
    SessionTokenUsage,
    StructuredEvent,
    TelemetryLogger,
    TokenEvent,
    TokenPayload,
    ToolEvent,
    ToolPayload,
    build_command_info,
    from_context,
    new_telemetry_logger,
    with_client,
)


# The smallest program there is.
telemetry.configure("frobnicate", version="1.2.3")
telemetry.track_command("build", ["--release"])

# A program that names what it has to.
configured: Client = telemetry.configure(
    "frobnicate",
    version="1.2.3",
    endpoint="https://telemetry.example.com/v1",
    api_key="key",
    header="x-api-key",
    source="frob",
    flush="exit",
    durability="power",
    notice="frobnicate counts which commands are run. See https://example.com/privacy",
    spool_bytes_max=16 * 1024 * 1024,
    flush_interval_s=300.0,
    logger=new_telemetry_logger(logging.getLogger("frobnicate")),
)

# Every setting is a keyword of its own, so a checker sees what is misspelt.
telemetry.configure("frobnicate", tags={"channel": "beta", "ring": 2}, context="none")
telemetry.configure("frobnicate", verison="1.2.3")  # type: ignore[call-arg]
telemetry.configure("frobnicate", flush="lauch")  # type: ignore[arg-type]
telemetry.configure("frobnicate", durability="disk")  # type: ignore[arg-type]
telemetry.configure("frobnicate", format="xml")  # type: ignore[arg-type]
telemetry.configure("frobnicate", context="all")  # type: ignore[arg-type]
telemetry.configure("frobnicate", tags=["beta"])  # type: ignore[arg-type]
telemetry.configure("frobnicate", gzip=1)  # type: ignore[arg-type]
telemetry.configure("frobnicate", api_key=None, notice=5)  # type: ignore[arg-type]

recorded: bool = telemetry.track(CommandEvent(action="build", success=True))
report: FlushReport = telemetry.flush(timeout_s=2.0)
delivered: int = report.delivered
if report.stopped == "waiting" and report.next_attempt is not None:
    seconds: float = report.next_attempt

telemetry.ensure_global_telemetry_initialized()
telemetry.set_global_telemetry_version("1.2.4")
telemetry.set_global_telemetry_debug_mode(True)
is_on: bool = telemetry.get_telemetry_enabled()
the_one: Client = telemetry.get_global_telemetry_client()
built_for: str = telemetry.TELEMETRY_ENDPOINT

# A client of one's own.
config = Config(
    app="frobnicate",
    version="1.2.3",
    home="/var/lib/frobnicate",
    flush="manual",
    strict=True,
    scrub=False,
    accept_statuses=(200, 202),
)
with Client(config, http=urllib3.PoolManager()) as client:
    session_id: str = client.record_session_start("root", "session-1")
    client.record_tool_call("shell", session_id, "root", timedelta(seconds=1))
    client.record_tool_call("shell", session_id, "root", timedelta(), error="failed")
    client.record_tool_call("shell", session_id, "root", timedelta(), OSError("why"))
    client.record_token_usage("gpt-4", 100, 50, 0.25)
    client.record_error("it failed")
    client.record_session_end()
    client.flush()
    client.close()
    client.version = "1.2.4"
    why: str = client.decision().reason


# The client in the context.
async def handle() -> None:
    with with_client(client) as carried:
        if carried is not None:
            carried.track(ToolEvent(action="call", tool_name="shell", duration_ms=12))
        await asyncio.to_thread(telemetry.record_error, "it failed")
        contextvars.copy_context().run(telemetry.record_session_end)
    found: Client | None = from_context()
    if found is None:
        telemetry.record_session_start("root", "session-1")
        telemetry.record_tool_call("shell", "session-1", "root", timedelta(), None)
        telemetry.record_token_usage("gpt-4", 1, 2, 0.5)


# The events that come with the library, and the payloads they have.
events: list[StructuredEvent] = [
    CommandEvent(action="run", args=["x"], success=False, error="OSError"),
    CommandEvent(action="run", flags=["--verbose"], duration_ms=120),
    ToolEvent(action="call", tool_name="shell", session_id="s", agent_name="a"),
    TokenEvent(action="usage", model_name="m", total_tokens=3, cost=0.5),
    SessionStartEvent(action="start", session_id="s", agent_name="a"),
    SessionEndEvent(action="end", error=["one"], error_count=1, is_success=False),
]
kinds: list[EventType | str] = [event.get_event_type() for event in events]
command: CommandPayload = CommandEvent(action="run").to_structured_properties()
tool: ToolPayload = ToolEvent().to_structured_properties()
was_well: bool = tool.is_success
token: TokenPayload = TokenEvent().to_structured_properties()
start: SessionStartPayload = SessionStartEvent().to_structured_properties()
end: SessionEndPayload = SessionEndEvent().to_structured_properties()
posted: EventPayload = msgspec.json.decode(b"{}", type=EventPayload)
usage: SessionTokenUsage = SessionState(id="s").token_usage


# Events of a program's own: a Struct, a dataclass or a dict.
class Deployed(msgspec.Struct, frozen=True):
    region: str
    seconds: float


class DeployEvent:
    def get_event_type(self) -> str:
        return "deploy"

    def to_structured_properties(self) -> Deployed:
        return Deployed("eu", 12.5)


@dataclasses.dataclass
class Import:
    rows: int

    def get_event_type(self) -> str:
        return "import"

    def to_structured_properties(self) -> dict[str, int]:
        return {"rows": self.rows}


telemetry.track(DeployEvent())
telemetry.track("deployed", {"region": "eu", "at": ("a", "b")})
telemetry.track("opened")
telemetry.track(Import(rows=5))

# What was run, by names only or by a policy.
names_only: CommandPolicy = NAMES_ONLY
info: CommandInfo = build_command_info(object(), ["run", "--fast"], "frobnicate")
action: str = info.action
given: list[str] = info.flags

# Logging.
logger: TelemetryLogger = new_telemetry_logger(logging.getLogger(__name__))
logger.info("flushed %d events", report.delivered)
if logger.is_enabled_for(logging.DEBUG):
    logger.debug("in detail")


# An HTTP client of one's own, and errors.
class Recorded:
    """Hands every request to a pool, and keeps a count."""

    def __init__(self) -> None:
        self.pool = urllib3.PoolManager()
        self.requests = 0

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes,
        headers: object,
        timeout: object,
        redirect: bool,
        retries: bool,
        preload_content: bool,
    ) -> urllib3.BaseHTTPResponse:
        self.requests += 1
        return self.pool.request(
            method, url, body=body, redirect=redirect, preload_content=preload_content
        )


http: HTTPClient = Recorded()
try:
    Client(config, http=http).track(CommandEvent(action="run"))
except telemetry.EventTooBigError as error:
    size: int = error.size_bytes
except telemetry.SpoolFullError as error:
    bound: int = error.bound_bytes
except (telemetry.HomeError, telemetry.DiskError) as error:
    path: str = error.path
except telemetry.RefusedError as error:
    counted_under: str = error.reason
except telemetry.ConfigError as error:
    field: str = error.field
except telemetry.TelemetryError:
    pass
