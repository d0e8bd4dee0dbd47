"""The one client of the process, and the functions that speak to it.

It is made on first use, exactly once however many threads come first, and
replaced by `configure`. With telemetry off by environment this loads nothing outside
the standard library.

Nothing is raised into the host: what goes wrong around the client is swallowed
here, what goes wrong inside it is counted there.
"""

import os
from _thread import RLock

from telemetry.client import Client
from telemetry.switches import (
    CANNOT_LOAD,
    environment_decision,
    is_loading,
    is_off,
    is_transient,
    patience_s,
)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from telemetry.config import CommandPolicy, Context, Durability, FlushMode, Format
    from telemetry.delivery.report import FlushReport
    from telemetry.events import StructuredEvent
    from telemetry.logs import TelemetryLogger

# Whose events they are if the program never said.
DEFAULT_APP = "telemetry"
_DEFAULT_ARGUMENTS: "tuple[dict[str, Any], TelemetryLogger | None]" = (
    {"app": DEFAULT_APP},
    None,
)


class _Process:
    """What belongs to this process: its client, and what is said before there is one."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.client: Client | None = None
        # Events recorded meanwhile must not go to the default app.
        self.is_configuring = False
        # What `configure` was given, for a client that could not be made just then.
        self.given: tuple[dict[str, Any], TelemetryLogger | None] = _DEFAULT_ARGUMENTS
        # Given out where there is no client just now.
        self.nobody: Client | None = None
        self.version: str | None = None
        self.debug: bool | None = None


_process = _Process()


def _renew_lock() -> None:
    """In a forked child: a lock that another thread held would stay held."""
    _process.lock = RLock()
    _process.is_configuring = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def configure(
    app: str,
    *,
    version: "str | None" = None,
    endpoint: "str | None" = None,
    deletion_endpoint: "str | None" = None,
    api_key: "str | None" = None,
    header: "str | None" = None,
    source: "str | None" = None,
    format: "Format | None" = None,  # noqa: A002 - the name of the field of Config
    tags: "Mapping[str, str | int | float | bool] | None" = None,
    context: "Context | None" = None,
    home: "str | os.PathLike[str] | None" = None,
    enabled: "bool | None" = None,
    flush: "FlushMode | None" = None,
    durability: "Durability | None" = None,
    policy: "CommandPolicy | None" = None,
    scrub: "bool | None" = None,
    strict: "bool | None" = None,
    debug: "bool | None" = None,
    notice: "str | None" = None,
    notice_version: "str | None" = None,
    spool_bytes_max: "int | None" = None,
    segment_bytes_max: "int | None" = None,
    event_bytes_max: "int | None" = None,
    batch_events_max: "int | None" = None,
    batch_bytes_max: "int | None" = None,
    flush_interval_s: "float | None" = None,
    connect_timeout_s: "float | None" = None,
    read_timeout_s: "float | None" = None,
    request_timeout_s: "float | None" = None,
    retry_first_s: "float | None" = None,
    retry_max_s: "float | None" = None,
    failure_spread_s: "float | None" = None,
    flusher_lifetime_s: "float | None" = None,
    exit_timeout_s: "float | None" = None,
    reply_bytes_max: "int | None" = None,
    accept_statuses: "tuple[int, ...] | None" = None,
    gzip: "bool | None" = None,
    logger: "TelemetryLogger | None" = None,
) -> "Client":
    """Make the client of this process; one made before is closed.

    What is not named (None) comes from the environment, then from the build, then from
    the defaults. A value that cannot be used is told once to whoever develops the
    program, and by `status`; its default is used.

    Args:
        app: the program's name; the directory of its events is named after it.
        version: the program's version.
        endpoint: where events go, an https URL.
        api_key: the secret sent with each request.
        logger: used instead of the library's own.

    The other arguments are the fields of `Config`, which says what each means.

    Returns:
        The client, also where a value cannot be used.

    Raises:
        TypeError: an argument does not exist.
        ConfigError: a value cannot be used; only with `strict=True`.

    Example:
        >>> client = telemetry.configure("frobnicate", version="1.2.3", flush="manual")
    """
    named = dict(locals())
    del named["logger"]
    with _process.lock:
        client = _made(named, logger)
        _process.given = named, logger
        before, _process.client = _process.client, client
    if before is not None:
        before.close()
        if enabled is not None and enabled is not True:
            # The program's own word holds for what waits as well.
            before.switch_off()
    return client or _nobody()


def get_global_telemetry_client() -> "Client":
    """The client of this process, made now if there is none.

    Returns:
        The client; its app is `telemetry` if the program never called `configure`.
    """
    client = _process.client
    if client is not None:
        return client
    # A signal's handler gets one that is off, for this call.
    if is_loading() or not _process.lock.acquire(timeout=patience_s()):
        return _nobody()
    try:
        if _process.client is None and not _process.is_configuring:
            _process.client = _made(*_process.given)
        return _process.client or _nobody()
    finally:
        _process.lock.release()


def _nobody() -> "Client":
    """A client that is off, for a call that comes while none can be made."""
    if _process.nobody is None:
        _process.nobody = Client.off(DEFAULT_APP)
    return _process.nobody


def forget_client() -> None:
    """Close the client of this process; the next use makes a new one. For tests."""
    with _process.lock:
        before, _process.client = _process.client, None
        _process.given = _DEFAULT_ARGUMENTS
    if before is not None:
        before.close()


def ensure_global_telemetry_initialized() -> None:
    """The client of this process exists on return. It is made exactly once."""
    get_global_telemetry_client()


def set_global_telemetry_version(version: str) -> None:
    """Set the version that events carry from now on, of this client and later ones.

    Args:
        version: the program's version.
    """
    with _process.lock:
        _process.version = version
        if _process.client is not None:
            _process.client.version = version


def set_global_telemetry_debug_mode(debug: bool) -> None:
    """Set whether clients that are made from now on log what they do.

    Args:
        debug: True logs, and changes nothing else.
    """
    with _process.lock:
        _process.debug = debug


def get_telemetry_enabled() -> bool:
    """Whether environment and build leave telemetry on.

    Returns:
        False where DO_NOT_TRACK, TELEMETRY_ENABLED or the build turn it off.
    """
    from telemetry.build_values import build_values

    return environment_decision(os.environ) is None and not is_off(
        build_values()["enabled"]
    )


def track(
    event: "StructuredEvent | str", properties: "Mapping[str, Any] | None" = None
) -> bool:
    """Record an event with the client of this process; see `Client.track`.

    Args:
        event: one of the library's events, or an object with their two methods; or
            the name of an event of the program's own.
        properties: what is recorded under that name; keys are text.

    Returns:
        Whether it was recorded. A loss is counted by its reason.

    Raises:
        RefusedError: only with `strict=True`.

    Example:
        >>> telemetry.track(telemetry.CommandEvent(action="build", success=True))
        True
        >>> telemetry.track("deployed", {"region": "eu"})
        True
    """
    return get_global_telemetry_client().track(event, properties)


def flush(*, timeout_s: float = 10.0) -> "FlushReport":
    """Deliver what waits with the client of this process; see `Client.flush`.

    Args:
        timeout_s: seconds until the answer at the latest; at most a day.

    Returns:
        What came of it: how many were delivered, how many wait, and why it ended.
    """
    return get_global_telemetry_client().flush(timeout_s=timeout_s)


def track_command(action: str, args: "list[str]") -> None:
    """Record that a command was run, as a success: what was meant, not what came of it.

    Args:
        action: the command's name, as the program's author chose it.
        args: what its user typed behind it. The names of flags are recorded, and what
            `Config.policy` permits besides. No parser says here which flags there are:
            any word that could be a flag's name (`--dry-run`, `-v`) counts as one. With
            `Config(policy=CommandPolicy(flags=("--dry-run", "-v")))` only those do; the
            integrations for argparse, click and typer know what was declared.
    """
    if environment_decision(os.environ) is not None:
        return
    client = get_global_telemetry_client()

    def make() -> "StructuredEvent":
        from telemetry.commands import permitted, typed
        from telemetry.light_events import CommandEvent

        info = permitted(typed(args), action, client.config.policy)
        return CommandEvent(
            action=action, args=info.args, success=True, flags=info.flags
        )

    client.track_made(make)


def _made(named: "dict[str, Any]", logger: "TelemetryLogger | None") -> "Client | None":
    """What `_make` returns; what the host records meanwhile gets a client that is off."""
    try:
        _process.is_configuring = True
        return _make(named, logger)
    finally:
        _process.is_configuring = False


def _make(named: "dict[str, Any]", logger: "TelemetryLogger | None") -> "Client | None":
    """A client for what was named; None where it has to be tried again.

    Only `strict` lets an error out.
    """
    if environment_decision(os.environ) is not None:
        return Client.off(str(named["app"]), named.get("home"))
    named = dict(named)
    for name in ("version", "debug"):
        if named.get(name) is None:
            named[name] = getattr(_process, name)
    try:
        from telemetry.build_values import build_values
        from telemetry.config import resolve

        values = build_values()
        config = resolve(
            named,
            environment=os.environ,
            build={name: values[name] for name in ("endpoint", "api_key", "header")},
        )
    except Exception as error:
        if named.get("strict") is True:
            raise
        if is_transient(error):
            return None
        _note("a setting cannot be used; nothing will be recorded")
        return Client.off(str(named["app"]), named.get("home"))
    try:
        return Client(config, logger=logger)
    except (OSError, MemoryError) as error:
        if not is_transient(error):
            raise
        return None


def _note(message: str) -> None:
    """One debug line with the error under way, where anybody logs."""
    try:
        from telemetry.logs import quiet_logger
    except CANNOT_LOAD:
        return

    logger = quiet_logger(debug=bool(_process.debug))
    if logger is not None:
        import sys

        logger.debug("%s: %r", message, sys.exc_info()[1])
