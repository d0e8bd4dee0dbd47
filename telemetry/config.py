"""Config, and how what is named, the environment and the build become one.

Whatever `configure` does not name comes from the environment, then from the
values the wheel was built with, then from the defaults below. `enabled` is the
exception: it, the environment and the build can each only turn off (`consent.py`).

Sizes are bytes, times are seconds. Only values that differ from their default are
checked: a launch pays for what it names. This module reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from telemetry.errors import ConfigError, EndpointError
from telemetry.paths import is_app_name, relative_variable
from telemetry.switches import CANNOT_LOAD, ci_variable, is_set, is_testing, trimmed


KIB = 1024
MIB = 1024 * KIB

Format = Literal[
    "records", "ndjson", "otlp-json", "otlp-protobuf", "posthog", "clickhouse"
]
FlushMode = Literal["launch", "thread", "exit", "manual"]
Durability = Literal["process", "power"]
Context = Literal["basic", "none"]

# Names that the fields have in the environment.
FROM_ENVIRONMENT = {
    "endpoint": "TELEMETRY_ENDPOINT",
    "deletion_endpoint": "TELEMETRY_DELETION_ENDPOINT",
    "api_key": "TELEMETRY_API_KEY",
    "header": "TELEMETRY_HEADER",
}
# The fields that take one of some words.
_CHOICES: dict[str, Any] = {
    "format": get_args(Format),
    "flush": get_args(FlushMode),
    "durability": get_args(Durability),
    "context": get_args(Context),
}
# JSON readers of other languages hold whole numbers up to this one exactly.
_NUMBER_MAX = 1 << 53
# What goes into a header or a URL, where a line's end would start another.
_ON_ONE_LINE = (
    *("app", "version", "source", "api_key", "header", "endpoint"),
    "deletion_endpoint",
)


class CommandPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What may be recorded of a command line. By default each flag's name, no argument.

    Args:
        arguments_of: the actions ("compose up") whose arguments may be recorded
        flags_of: the actions whose flags may be; None: all
        flags: the flags that may be ("--output"), in this order; None: all, in the
            order of their declaration
        switches: flags recorded for each action, before the others, where they take
            no value
        names_of: the actions of which it was decided that no more than names is
            recorded; only `telemetry.testing.assert_commands_decided` reads it
    """

    arguments_of: tuple[str, ...] = ()
    flags_of: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    switches: tuple[str, ...] = ()
    names_of: tuple[str, ...] = ()

    def problem(self) -> str:
        """The first field that is no tuple of texts; empty if there is none."""
        for name in self.__struct_fields__:
            names = getattr(self, name)
            if names is None and name in ("flags_of", "flags"):
                continue
            if not isinstance(names, (tuple, list)) or not all(
                isinstance(each, str) for each in names
            ):
                return f"its {name} must be a tuple of texts"
        return ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one pipeline can be told. Only `app` has no default.

    Args:
        app: the program's name; the directory of its events is named after it
        version: the program's version, sent with every event and as User-Agent
        endpoint: where events go, an https URL (http to loopback only); empty:
            nowhere yet, events wait in the spool
        deletion_endpoint: where a user's wish to be forgotten goes, of the endpoint's
            origin; empty: nothing is sent for that
        api_key: the secret sent with each request; empty: nothing is sent
        header: the header that carries it; empty: requests go without a key
        source: the program's name on the wire; empty: `app`
        format: how a batch is written in a request
        tags: names and values that every event carries; a pair of TELEMETRY_TAGS with
            the same name counts instead
        context: `basic` adds the fields of the system and of the program's
            installation to each event, `none` leaves them out
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
        batch_bytes_max: bytes of the events in one request, as `records` has them; a
            common bound of collectors
        flush_interval_s: seconds without a flush after one that emptied the spool
        connect_timeout_s: seconds for a TCP handshake; longer ones rarely end well
        read_timeout_s: seconds of silence between two bytes of a reply
        request_timeout_s: seconds for one whole request
        retry_first_s: seconds until the flush after one that delivered nothing
        retry_max_s: seconds up to which that time doubles from flush to flush
        failure_spread_s: seconds of which a detached flusher that follows a failure
            first waits a random part, so that a fleet does not arrive at once
        flusher_lifetime_s: seconds after which a detached flusher ends its flush; where
            a server names a time (`Retry-After`) it sleeps until then and flushes again,
            for ten minutes at most
        exit_timeout_s: seconds that `exit` mode may hold the program
        reply_bytes_max: bytes that are read of a reply: enough to name every event
            of a batch as rejected
        accept_statuses: HTTP statuses, of the 2xx, that count as acceptance; empty:
            every one
        gzip: True compresses requests; None: where the format's receivers take it

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
    deletion_endpoint: str = ""
    api_key: str = ""
    header: str = "x-api-key"
    source: str = ""
    format: Format = "records"
    tags: dict[str, str | int | float | bool] = {}
    context: Context = "basic"
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
    gzip: bool | None = None

    def __post_init__(self) -> None:
        # A path object is what many hand over; its type would cost an import here.
        path = getattr(self.home, "__fspath__", None)
        if path is not None:
            msgspec.structs.force_setattr(self, "home", path())
        for name in _ON_ONE_LINE:
            # A key that was read from a file ends in a line end.
            text = getattr(self, name)
            if isinstance(text, str) and str.strip(text) is not text:
                msgspec.structs.force_setattr(self, name, str.strip(text))
        if type(self.tags) is not dict and isinstance(self.tags, Mapping):
            msgspec.structs.force_setattr(self, "tags", dict(self.tags))
        if self.strict is True:
            for error in self.problems():
                raise error

    def __repr__(self) -> str:
        """All fields but the secrets, which must not reach a log or a traceback."""
        try:
            from telemetry.text import shown
            from telemetry.wire.endpoint import redact
        except CANNOT_LOAD as error:
            return f"Config(…: a module cannot be loaded: {error})"
        values = msgspec.structs.asdict(self)
        for name in ("endpoint", "deletion_endpoint"):
            value = values[name]
            values[name] = redact(value if isinstance(value, str) else shown(value))
        told = {name: shown(value) for name, value in values.items()}
        if self.api_key is not _DEFAULTS["api_key"]:
            told["api_key"] = "…"
        return f"Config({', '.join(f'{name}={text}' for name, text in told.items())})"

    def problems(self) -> list[ConfigError]:
        """What cannot be used in it, each with the name of its field."""
        found = []
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value is not default:
                try:
                    problem = _problem(name, value, default, full=self.strict is True)
                except ConfigError as error:
                    found.append(error)
                else:
                    found += [ConfigError(name, problem)] if problem else []
        bad = {error.field for error in found}
        if self.deletion_endpoint and not bad & {"endpoint", "deletion_endpoint"}:
            problem = self.deletion_problem()
            found += [ConfigError("deletion_endpoint", problem)] if problem else []
        return found

    def deletion_problem(self) -> str:
        """Why no wish to be forgotten can go to `deletion_endpoint`; empty if it can."""
        there, here = self.deletion_endpoint, self.endpoint
        if not here or there.split("/")[:3] == here.split("/")[:3]:
            return ""  # the usual case loads nothing
        from telemetry.wire.endpoint import parse_endpoint

        try:
            if parse_endpoint(there).origin == parse_endpoint(here).origin:
                return ""
        except ConfigError as error:
            return error.problem
        return (
            "leads to another origin than the endpoint, and the key goes to one alone"
        )

    def sound(self) -> tuple[Config, list[ConfigError]]:
        """This config with the default in place of what cannot be used, and why.

        A bad `app` or `home` stays as it is: in another place than was named, events
        would not be found. So does an endpoint that no request can go to, and a status
        that accepts nothing: `status` names them. A bad `enabled` turns telemetry off:
        its meaning is unknown.
        """
        found = self.problems()
        replaced = {
            error.field: False if error.field == "enabled" else _DEFAULTS[error.field]
            for error in found
            if error.field not in {"app", "home"}
            and not isinstance(error, EndpointError)
        }
        if "tags" in replaced:
            replaced["tags"] = {}
        if _are_statuses(self.accept_statuses):
            replaced.pop("accept_statuses", None)
        if not isinstance(self.app, str):
            replaced["app"] = ""
        return msgspec.structs.replace(self, **replaced) if replaced else self, found

    def lacks(self) -> str:
        """The field that is missing before anything can be sent; empty if none is."""
        if not self.endpoint:
            return "endpoint"
        return "api_key" if self.header and not self.api_key else ""

    def flush_mode(self, environment: Mapping[str, str]) -> FlushMode:
        """How events leave: what was named, else `exit` in CI, else `launch`.

        `TELEMETRY_FLUSH=manual` is stronger than the program: it only holds back. In
        a test nothing leaves unless TELEMETRY_FLUSH names another mode.
        """
        said = _said_flush(environment)
        if said == "manual" or (
            said not in _CHOICES["flush"] and is_testing(environment)
        ):
            return "manual"
        if self.flush is not None:
            return self.flush
        return "exit" if ci_variable(environment) else "launch"

    def misread(
        self, environment: Mapping[str, str], platform: str
    ) -> list[ConfigError]:
        """The variables of the environment that do not count as they stand, and why."""
        found = []
        if relative := relative_variable(self.home, environment, platform):
            found.append(relative)
        said = _said_flush(environment)
        if said and said not in _CHOICES["flush"]:
            problem = f"{_must('flush', said)}; it is ignored"
            found.append(ConfigError("TELEMETRY_FLUSH", problem))
        for part in trimmed(environment.get("TELEMETRY_TAGS", "")).split(","):
            name, equals, _ = part.partition("=")
            if part.strip() and not (equals and name.strip()):
                problem = "a part of it is no name=value; it is ignored"
                found.append(ConfigError("TELEMETRY_TAGS", problem))
                break
        return found

    def wire_source(self) -> str:
        """The program's name on the wire."""
        return self.source or self.app


# Each field's default; `app`, and what makes its default anew, is checked whatever it
# holds.
_DEFAULTS: dict[str, Any] = {
    "app": None,
    **dict(zip(Config.__struct_fields__[1:], Config.__struct_defaults__, strict=True)),
}


def _problem(name: str, value: Any, default: object, *, full: bool) -> str:
    """Why the value of a field cannot be used; empty if it can. Shows no secret."""
    given = type(value).__name__
    if name in _CHOICES:
        return "" if value in _CHOICES[name] else _must(name, value)
    if name == "policy":
        return (
            value.problem() if given == "CommandPolicy" else "must be a CommandPolicy"
        )
    if name == "tags":
        is_right = isinstance(value, dict) and all(
            isinstance(tag, str) and isinstance(said, (str, int, float))
            for tag, said in value.items()
        )
        return "" if is_right else "must be a dict of texts and numbers"
    if isinstance(default, bool) or name == "gzip":
        return "" if isinstance(value, bool) else f"must be True or False, not {given}"
    if isinstance(default, (int, float)):
        return _wrong_number(value, is_whole=isinstance(default, int))
    if isinstance(default, tuple):
        return _wrong_statuses(value)
    if not isinstance(value, str):
        return f"must be a text, not {given}"
    return _wrong_text(name, value, full=full)


def _must(name: str, value: object) -> str:
    from telemetry.text import shown

    *words, last = _CHOICES[name]
    return (
        f"must be {', '.join(words)}{' or ' if words else ''}{last}, not {shown(value)}"
    )


def _are_statuses(value: Any) -> bool:
    """Whether each is a number of three digits at most: others no ledger can hold."""
    return isinstance(value, (tuple, list)) and all(
        type(number) is int and 0 <= number <= 999 for number in value
    )


def _wrong_statuses(value: Any) -> str:
    if not _are_statuses(value):
        return "must be whole numbers, of the HTTP statuses; every 2xx counts instead"
    others = [str(number) for number in value if not 200 <= number <= 299]
    if not others:
        return ""
    effect = "the others count" if len(others) < len(value) else "nothing is delivered"
    return f"{', '.join(others)} accepts nothing: only a 2xx does; {effect}"


def _wrong_number(value: Any, *, is_whole: bool) -> str:
    if type(value) is not int and type(value) is not float:
        return f"must be a number, not {type(value).__name__}"
    if not 0 < value <= _NUMBER_MAX:
        return "must be a number above zero"
    return "must be a whole number" if is_whole and value != int(value) else ""


def _wrong_text(name: str, text: str, *, full: bool) -> str:
    """Why a text cannot be used where it names something; raises EndpointError."""
    if name in _ON_ONE_LINE and not text.isprintable():
        return "holds a line end or another character that does not print"
    if name == "app" and not is_app_name(text):
        return (
            f"{text!r} cannot name a directory; use letters, digits, `.`, `_` and `-`"
        )
    # Only here: nearly every launch is done without loading the full checks. What passes
    # the quick one and is wrong all the same, a flush finds and keeps.
    try:
        if name == "endpoint" and text and (full or not _looks_right(text)):
            from telemetry.wire.endpoint import parse_endpoint

            parse_endpoint(text)
        elif name == "header" and text.lower() != "x-api-key":
            from telemetry.wire.headers import check_header

            check_header(text)
    except ConfigError as error:
        raise EndpointError(name, error.problem) from None
    return ""


def _looks_right(url: str) -> bool:
    """Whether it looks like an https URL, or like http to this machine."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition(":")[0]
    is_local = host in ("127.0.0.1", "localhost")
    return (
        (scheme == "https" or (scheme == "http" and is_local))
        and host.replace(".", "").replace("-", "").isalnum()
        and url.isascii()
        and url.isprintable()
        and not {" ", "\\"} & {*url}
    )


def _said_flush(environment: Mapping[str, str]) -> str:
    return trimmed(environment.get("TELEMETRY_FLUSH", "")).lower()


def resolve(
    named: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    build: Mapping[str, str],
) -> Config:
    """The Config of what was named, then the environment, then the build.

    `named` holds fields of Config by name; those that are None were not named.
    `build` has the keys `endpoint`, `api_key` and `header`, empty where unset.
    """
    values = {name: value for name, value in named.items() if value is not None}
    for field, variable in FROM_ENVIRONMENT.items():
        # An empty header is a choice (send without a key); elsewhere it is unset.
        said = trimmed(environment.get(variable, ""))
        if field not in values and (
            said or (field == "header" and variable in environment)
        ):
            values[field] = said
    # What is no mode says nothing; `misread` tells of it.
    if "flush" not in values and _said_flush(environment) in _CHOICES["flush"]:
        values["flush"] = _said_flush(environment)
    for field, built in build.items():
        if field not in values and trimmed(built):
            values[field] = trimmed(built)
    if "debug" not in values:
        values["debug"] = is_set(environment.get("TELEMETRY_DEBUG", ""))
    if isinstance(values.get("flush"), str):
        values["flush"] = values["flush"].lower()
    return Config(**values)
