"""A recorded case of the Go original, turned into calls of the public interface.

`vectors/wire.jsonl` holds one case a line: the calls that were made, the
environment, the requests that left. What the recording needed and no program
does (`uuidFile`, `clientInfo`, `rewindSessionStart`, `setenv`) is done here by
looking inside; everything else goes through names of `telemetry`.

It compares nothing. Run as a program it replays one case in a process of its
own, for the cases that need another user.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import telemetry
from telemetry.files import make_home
from telemetry.paths import Home
from tests.support.loopback import Server
from tests.support.surroundings import (
    bare_environment,
    fresh_process,
    home_in,
    only_environment,
)


VECTORS = Path(__file__).parents[1] / "vectors" / "wire.jsonl"
# Cases about the transport, which the tests of the transport replay.
_OTHERS = frozenset({"http", "response"})
# The recorded program, whose name is its source.
APP = "cagent"
_FLUSH_S = 20.0
# What the recorded program tells of its commands.
_ACTIONS = ("run", "pull", "catalog")
SEED_POLICY = telemetry.CommandPolicy(
    arguments_of=_ACTIONS,
    flags_of=_ACTIONS,
    flags=("--config", "--agent", "--model", "--output", "--format", "--yolo"),
    switches=("--help", "--version"),
)
# Names of Go's fields that are not the Python name in another spelling.
_FIELDS = {"SessionID": "session_id", "Duration": "duration_ms"}


class Case(NamedTuple):
    """One recorded run. `requests` are `(headers, event)`, the event decoded."""

    name: str
    calls: list[tuple[str, dict[str, Any]]]
    environment: dict[str, str | None]
    client: dict[str, Any]
    uuid_file: bytes | None
    requests: list[tuple[dict[str, str], dict[str, Any]]]
    returns: list[Any]


def cases() -> dict[str, Case]:
    """Every case that is replayed, by name, in the order of the recording."""
    lines = VECTORS.read_bytes().splitlines()
    read = (msgspec.json.decode(line) for line in lines)
    return {told["case"]: _case(told) for told in read if told["group"] not in _OTHERS}


def _case(told: dict[str, Any]) -> Case:
    file = told["uuid_file"]
    return Case(
        name=told["case"],
        calls=[(call["fn"], value(call["args"])) for call in told["calls"]],
        environment=value(told["env"]),
        client=told["client"],
        uuid_file=None if file is None else os.fsencode(value(file["content"])),
        requests=[_request(request) for request in told["requests"]],
        returns=told["returns"],
    )


def _request(told: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    body = msgspec.json.decode(told["body"])
    assert list(body) == ["records"]
    (event,) = body["records"]
    return {name.lower(): text for name, text in told["headers"]}, event


def value(told: Any) -> Any:
    """A value of the recording: raw bytes arrive in Python as surrogate escapes."""
    if isinstance(told, list):
        return [value(item) for item in told]
    if not isinstance(told, dict):
        return told
    match told:
        case {"$b64": text}:
            return base64.b64decode(text).decode("utf-8", "surrogateescape")
        case {"$repeat": [text, times]}:
            return value(text) * times
        case {"$float": text}:
            return float(text)
    return {name: value(item) for name, item in told.items()}


class Replay:
    """Makes the calls of one case below `directory`, for one endpoint.

    With `flush_each`, what a call recorded leaves before the next call, as it did
    in the original; else everything leaves at the end.
    """

    def __init__(self, case: Case, directory: Path, endpoint: str) -> None:
        self._case = case
        self._directory = directory
        self._endpoint = endpoint
        self._client: telemetry.Client | None = None

    def environment(self) -> dict[str, str]:
        """The environment of the case, and no other variable."""
        variables = bare_environment(self._directory / "home")
        for name, said in self._case.environment.items():
            if said is None:
                variables.pop(name, None)
            else:
                variables[name] = said.replace("$DIR", str(self._directory))
        return variables

    def home(self) -> Home:
        """Where the events of the case are kept, by the rules of this system."""
        return home_in(self._directory / "home", APP)

    def arrange(self) -> None:
        """The user's directory, and the file with the id if the case has one."""
        (self._directory / "home").mkdir(parents=True, exist_ok=True)
        if self._case.uuid_file is not None:
            make_home(self.home().root)
            Path(self.home().user_uuid).write_bytes(self._case.uuid_file)
            Path(self.home().user_uuid).chmod(0o600)

    def run(self, *, flush_each: bool) -> list[Any]:
        """What each call answered."""
        with only_environment(self.environment()), fresh_process():
            answers = []
            for name, arguments in self._case.calls:
                answers.append(self._call(name, arguments))
                if flush_each and _records(name):
                    self._flush()
            self._flush()
            self._its_client().close()
        return answers

    def _flush(self) -> None:
        if self._client is not None:
            self._client.flush(timeout_s=_FLUSH_S)

    def _its_client(self) -> telemetry.Client:
        """The client of the case, made when it is first needed."""
        if self._client is None:
            told = self._case.client
            override = told["override"] or {"api_key": "a-key", "header": "x-api-key"}
            settings: dict[str, Any] = {
                "endpoint": self._endpoint,
                "api_key": override["api_key"],
                "header": override["header"],
                "flush": "manual",
                "policy": SEED_POLICY,
                "scrub": False,
                "context": "none",
            }
            if told["ctor"] == "global":
                self._client = telemetry.configure(APP, **settings)
            else:
                config = telemetry.Config(
                    app=APP,
                    version=told["version"],
                    enabled=told["enabled"],
                    debug=told["debug"],
                    **settings,
                )
                self._client = telemetry.Client(config)
        return self._client

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        place, _, method = name.rpartition(".")
        if place == "ctx":
            with telemetry.with_client(self._its_client()):
                return self._record(telemetry, method, arguments)
        if name.startswith("Record"):
            return self._record(self._its_client(), name, arguments)
        return getattr(self, f"_{_snake(name)}")(**arguments)

    def _record(self, to: Any, name: str, arguments: dict[str, Any]) -> Any:
        """A method of a client, or the function of the package with its name."""
        given = list(arguments.values())
        if name == "RecordToolCall":
            # A timedelta has no nanoseconds; cut toward zero as the original does.
            microseconds = int(abs(given[3]) // 1000) * (1 if given[3] >= 0 else -1)
            given[3] = timedelta(microseconds=microseconds)
        return getattr(to, _snake(name))(*given)

    def _track(self, event: str, fields: dict[str, Any]) -> bool:
        made = getattr(telemetry, event)
        return self._its_client().track(
            made(**{_FIELDS.get(name, _snake(name)): v for name, v in fields.items()})
        )

    def _ensure_global_telemetry_initialized(self) -> None:
        self._its_client()
        telemetry.ensure_global_telemetry_initialized()

    def _get_global_telemetry_client(self) -> dict[str, Any]:
        self._its_client()
        assert telemetry.get_global_telemetry_client() is self._client
        return self._client_info()

    def _get_telemetry_enabled(self) -> bool:
        return telemetry.get_telemetry_enabled()

    def _set_global_telemetry_debug_mode(self, debug: bool) -> None:
        telemetry.set_global_telemetry_debug_mode(debug)

    def _set_global_telemetry_version(self, version: str) -> None:
        telemetry.set_global_telemetry_version(version)

    def _track_command(self, action: str, args: list[str]) -> None:
        self._its_client()
        telemetry.track_command(action, args)

    def _client_info(self) -> dict[str, Any]:
        client = self._its_client()
        return {
            "enabled": client.decision().on,
            "debug": client.config.debug,
            "version": client.version,
            "header": client.config.header,
            "api_key_len": len(client.config.api_key),
        }

    def _get_user_uuid(self) -> str:
        return Path(self.home().user_uuid).read_text("utf-8")

    def _uuid_file(self) -> tuple[bytes, int] | None:
        path = Path(self.home().user_uuid)
        if not os.access(path, os.R_OK):
            return None
        return path.read_bytes(), stat.S_IMODE(path.stat().st_mode)

    def _setenv(self, key: str, value: str) -> None:
        os.environ[key] = value

    def _unsetenv(self, key: str) -> None:
        os.environ.pop(key, None)

    def _rewind_session_start(self, us: int) -> None:
        session = self._its_client()._session
        assert session is not None
        session.start_time -= us / 1e6


def _records(name: str) -> bool:
    """Whether a call may record an event."""
    return name.startswith(("Track", "Record", "ctx."))


def _snake(name: str) -> str:
    """`TrackCommand`, `getUserUUID` -> `track_command`, `get_user_uuid`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return split.lower()


def main(name: str, directory: str, endpoint: str, user: str) -> None:
    """Replay one case as the user with that number; print what its calls answered."""
    if os.geteuid() != int(user):
        _load_everything()
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    replay = Replay(cases()[name], Path(directory), endpoint)
    print(msgspec.json.encode(replay.run(flush_each=False)).decode())


def _load_everything() -> None:
    """Replay any case once: another user may not be able to read the interpreter's files."""
    with tempfile.TemporaryDirectory() as directory, Server() as server:
        replay = Replay(next(iter(cases().values())), Path(directory), server.url)
        replay.arrange()
        replay.run(flush_each=False)
        assert server.requests


if __name__ == "__main__":
    main(*sys.argv[1:])
