"""Config, and how what is named, the environment and the build become one.

Whatever `configure` does not name comes from the environment, then from the
values the wheel was built with, then from the defaults below. `enabled` is the
exception: it, the environment and the build can each only turn off, and
`consent.py` says in which order they are asked. Texts are trimmed: a key from a file,
or a variable from an env-file, ends in characters that were not meant.

Sizes are bytes, times are seconds. A value that cannot be used raises
ConfigError where `strict` is set; elsewhere `Config.sound()` puts the default
in its place and says so. This module reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from telemetry.errors import ConfigError
from telemetry.switches import ci_variable, is_set, is_testing, trimmed


KIB = 1024
MIB = 1024 * KIB

Format = Literal["records"]
FlushMode = Literal["launch", "thread", "exit", "manual"]
Durability = Literal["process", "power"]

# Names that the fields have in the environment.
_FROM_ENVIRONMENT = {
    "endpoint": "TELEMETRY_ENDPOINT",
    "api_key": "TELEMETRY_API_KEY",
    "header": "TELEMETRY_HEADER",
    "flush": "TELEMETRY_FLUSH",
}
# Bounds and times; the rest may be zero or empty.
_POSITIVE = (
    "spool_bytes_max",
    "segment_bytes_max",
    "event_bytes_max",
    "batch_events_max",
    "batch_bytes_max",
    "flush_interval_s",
    "connect_timeout_s",
    "read_timeout_s",
    "request_timeout_s",
    "retry_first_s",
    "retry_max_s",
    "failure_spread_s",
    "flusher_lifetime_s",
    "exit_timeout_s",
    "reply_bytes_max",
)
# What goes into a header or a URL, where a line's end would start another.
_ON_ONE_LINE = ("app", "version", "source", "api_key", "header", "endpoint")


class CommandPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What may be recorded of a command line. By default each flag's name, no argument.

    Args:
        arguments_of: the actions ("compose up") whose arguments may be recorded
        flags_of: the actions whose flags may be; None: all
        flags: the flags that may be ("--output"), in this order; None: all, in the
            order of their declaration
        switches: flags recorded for each action, before the others, where they take
            no value
    """

    arguments_of: tuple[str, ...] = ()
    flags_of: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    switches: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one pipeline can be told. Only `app` has no default.

    Args:
        app: the program's name; the directory of its events is named after it
        version: the program's version, sent with every event and as User-Agent
        endpoint: where events go, an https URL (http to loopback only); empty:
            nowhere yet, events wait in the spool
        api_key: the secret sent with each request; empty: nothing is sent
        header: the header that carries it; empty: requests go without a key
        source: the program's name on the wire; empty: `app`
        format: how a batch is written in a request
        home: the exact directory to use, `~` for the user's home; None: by the
            system's rules
        enabled: False turns telemetry off for this client; True overrules nothing
        flush: `launch` (a process of its own), `thread`, `exit` or `manual`; None:
            `exit` in continuous integration, else `launch`
        durability: `process` survives a kill, `power` a power loss as well, for one
            sync of the disk an event
        policy: what may be recorded of a command line; by default the names of flags
        scrub: False leaves strings as they are, for comparisons only
        strict: True raises what is otherwise counted, for tests
        debug: True logs what happens, and changes nothing else
        notice: text to show once before anything is recorded; None: no notice
        notice_version: another one shows the notice again
        spool_bytes_max: bytes that waiting events may take of the user's disk; the
            newest event is refused beyond it
        segment_bytes_max: bytes of one file of events; so much is given back at once,
            and a file that is damaged costs at most so much
        event_bytes_max: bytes of one event; what collectors commonly take
        batch_events_max: events in one request; a lost reply costs so many again
        batch_bytes_max: bytes in one request, a common bound of collectors
        flush_interval_s: seconds without a flush after one that emptied the spool
        connect_timeout_s: seconds for a TCP handshake; longer ones rarely end well
        read_timeout_s: seconds of silence between two bytes of a reply
        request_timeout_s: seconds for one whole request
        retry_first_s: seconds until the flush after one that delivered nothing
        retry_max_s: seconds up to which that time doubles from flush to flush
        failure_spread_s: seconds of which a detached flusher that follows a failure
            first waits a random part, so that a fleet does not arrive at once
        flusher_lifetime_s: seconds after which a detached flusher ends itself
        exit_timeout_s: seconds that `exit` mode may hold the program
        reply_bytes_max: bytes that are read of a reply: enough to name every event
            of a batch as rejected
        accept_statuses: HTTP statuses that count as acceptance; empty: every 2xx
        gzip: True compresses requests

    Raises:
        ConfigError: a value cannot be used; only with `strict`. Without it
            `Config.sound` says which default takes its place.

    Example:
        >>> config = Config(app="frobnicate", version="1.2.3\\n", retry_first_s=0)
        >>> config.version
        '1.2.3'
        >>> print(*config.problems())
        retry_first_s: must be a number above zero
    """

    app: str
    version: str = "unknown"
    endpoint: str = ""
    api_key: str = ""
    header: str = "x-api-key"
    source: str = ""
    format: Format = "records"
    home: str | None = None
    enabled: bool = True
    flush: FlushMode | None = None
    durability: Durability = "process"
    policy: CommandPolicy = CommandPolicy()
    scrub: bool = True
    strict: bool = False
    debug: bool = False
    notice: str | None = None
    notice_version: str = "1"

    spool_bytes_max: int = 64 * MIB
    segment_bytes_max: int = 4 * MIB
    event_bytes_max: int = 256 * KIB
    batch_events_max: int = 500
    batch_bytes_max: int = 512 * KIB
    flush_interval_s: float = 60.0

    connect_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    request_timeout_s: float = 15.0
    retry_first_s: float = 60.0
    retry_max_s: float = 6 * 3600.0
    failure_spread_s: float = 300.0
    flusher_lifetime_s: float = 60.0
    exit_timeout_s: float = 1.0
    reply_bytes_max: int = 2 * MIB
    accept_statuses: tuple[int, ...] = ()
    gzip: bool = False

    def __post_init__(self) -> None:
        # A path object is what many hand over; its type would cost an import here.
        path = getattr(self.home, "__fspath__", None)
        if path is not None:
            msgspec.structs.force_setattr(self, "home", path())
        for name in _ON_ONE_LINE:
            # A key that was read from a file ends in a line end.
            text = getattr(self, name)
            if type(text) is str and text != text.strip():
                msgspec.structs.force_setattr(self, name, text.strip())
        if self.strict is True:
            for error in self.problems():
                raise error
            if self.endpoint:
                # Only here: a launch that never flushes need not load the check,
                # and a flush that meets a bad endpoint keeps everything.
                from telemetry.wire.endpoint import check_endpoint

                check_endpoint(self.endpoint)

    def __repr__(self) -> str:
        """All fields but the secrets, which must not reach a log or a traceback."""
        from telemetry.wire.endpoint import redact

        values = msgspec.structs.asdict(self)
        values["endpoint"] = redact(str(self.endpoint))
        shown = (
            f"{name}={'…' if name == 'api_key' and value else repr(value)}"
            for name, value in values.items()
        )
        return f"Config({', '.join(shown)})"

    def problems(self) -> list[ConfigError]:
        """What cannot be used in it, each with the name of its field."""
        found = _wrong_types(self)
        if found:
            return found
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                found.append(ConfigError(name, "must be a number above zero"))
        for name in _ON_ONE_LINE:
            if not getattr(self, name).isprintable():
                found.append(ConfigError(name, "has control characters"))
        return found

    def sound(self) -> tuple[Config, list[ConfigError]]:
        """This config with the default in place of what cannot be used, and why.

        A bad `app` or `home` stays as it is: in another place than was named, events
        would not be found. A bad `enabled` turns telemetry off: its meaning is unknown.
        """
        found = self.problems()
        if not found:
            return self, found
        defaults = {
            field.name: field.default for field in msgspec.structs.fields(Config)
        }
        defaults["enabled"] = False
        replaced = {
            error.field: defaults[error.field]
            for error in found
            if error.field not in {"app", "home"}
        }
        if not replaced:
            return self, found
        # Bounds are looked at once all types are right.
        sound, more = msgspec.structs.replace(self, **replaced).sound()
        seen = {error.field for error in found}
        return sound, [*found, *(error for error in more if error.field not in seen)]

    def flush_mode(self, environment: Mapping[str, str]) -> FlushMode:
        """How events leave: what was named, else `exit` in CI, else `launch`.

        `TELEMETRY_FLUSH=manual` is stronger than the program: it only holds back. In
        a test nothing leaves unless TELEMETRY_FLUSH names another mode.
        """
        said = trimmed(environment.get("TELEMETRY_FLUSH", "")).lower()
        if said == "manual" or (not said and is_testing(environment)):
            return "manual"
        if self.flush is not None:
            return self.flush
        return "exit" if ci_variable(environment) else "launch"

    def wire_source(self) -> str:
        """The program's name on the wire."""
        return self.source or self.app


def _wrong_types(config: Config) -> list[ConfigError]:
    """The fields whose values are not of their type."""
    try:
        values = msgspec.structs.asdict(config)
        if config.strict is True:
            values["strict"] = False  # it would raise the first problem there and then
        msgspec.convert(values, Config)
    except (TypeError, ValueError, OverflowError):
        pass  # one of them is wrong; which one is looked up below
    else:
        return []
    problems = (
        (field.name, _wrong_type(getattr(config, field.name), field.type))
        for field in msgspec.structs.fields(Config)
    )
    return [ConfigError(name, problem) for name, problem in problems if problem]


def _wrong_type(value: object, expected: Any) -> str:
    try:
        msgspec.convert(value, expected)
    except (TypeError, ValueError, OverflowError) as error:
        return str(error)
    return ""


def resolve(
    named: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    build: Mapping[str, str],
) -> Config:
    """The Config of what was named, then the environment, then the build.

    `named` holds fields of Config by name; those that are None were not named.
    `build` has the keys `endpoint`, `api_key` and `header`, empty where unset.
    Raises ConfigError for a name that Config does not have.
    """
    values = {name: value for name, value in named.items() if value is not None}
    for field, variable in _FROM_ENVIRONMENT.items():
        # An empty header is a choice (send without a key); elsewhere it is unset.
        said = trimmed(environment.get(variable, ""))
        if field not in values and (
            said or (field == "header" and variable in environment)
        ):
            values[field] = said
    for field, built in build.items():
        if field not in values and trimmed(built):
            values[field] = trimmed(built)
    if "debug" not in values:
        values["debug"] = is_set(environment.get("TELEMETRY_DEBUG", ""))
    if values.get("flush") not in (None, *get_args(FlushMode)):
        values["flush"] = str(values["flush"]).lower()
    try:
        return Config(**values)
    except TypeError as error:
        raise ConfigError("configure", str(error)) from None
