"""For the tests of programs that record: nothing is written or sent, unless asked for.

With pytest there is nothing to do: a plugin (`spool_tools.pytest_plugin`) keeps every
test, and the processes that it starts, from recording, and its fixture
`telemetry_events` is `recorded` for one test. With unittest, `record_nothing()` does
what the plugin does:

    with tempfile.TemporaryDirectory() as directory, recorded(directory) as events:
        run_my_program(["build"])            # or a subprocess
        (event,) = events()
        assert event["properties"]["action"] == "build"

Without either, a test records as the program does, but no flush begins by itself
while pytest or unittest runs one; `TELEMETRY_FLUSH` with the name of a mode, or a call
of `flush`, asks for it. A subprocess without the environment of the test escapes this.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from telemetry import api, switches
from telemetry.config import CommandPolicy
from telemetry.delivery.census import segment_records
from telemetry.paths import Home


# What could turn telemetry on, off, or elsewhere from outside of a test.
_VARIABLES = (
    "DO_NOT_TRACK",
    "TELEMETRY_API_KEY",
    "TELEMETRY_DEBUG",
    "TELEMETRY_ENABLED",
    "TELEMETRY_ENDPOINT",
    "TELEMETRY_FLUSH",
    "TELEMETRY_HEADER",
    "TELEMETRY_HOME",
    "TELEMETRY_TAGS",
)


def events_below(
    directory: str | os.PathLike[str], name: str | None = None
) -> list[dict[str, Any]]:
    """The events that were recorded below a directory, as they would be posted.

    Args:
        directory: what `TELEMETRY_HOME` is, or was.
        name: only the events called so; None for all.

    Returns:
        For each program, by its name, the oldest event first.
    """
    found = [
        msgspec.json.decode(record.event)
        for app in sorted(os.listdir(directory))
        for record in segment_records(Home(os.path.join(directory, app)))
    ]
    return [event for event in found if name is None or event["event"] == name]


def record_nothing() -> None:
    """Nothing is recorded or sent from now on, here and in every process started here."""
    os.environ["TELEMETRY_ENABLED"] = "false"
    switches.record_nothing()


@contextmanager
def recorded(
    directory: str | os.PathLike[str],
) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Telemetry is on within, in `directory`, which exists; nothing is sent by itself.

    Args:
        directory: where events are recorded, by this process and by those that it
            starts; give each test an empty one.

    Returns:
        A context manager; what it gives is `events_below` of the directory.
    """
    before = {name: os.environ.pop(name, None) for name in _VARIABLES}
    guard, switches.guard = switches.guard, None
    os.environ["TELEMETRY_HOME"] = os.fspath(directory)
    os.environ["TELEMETRY_FLUSH"] = "manual"
    api.forget_client()
    try:
        yield functools.partial(events_below, directory)
    finally:
        api.forget_client()
        switches.guard = guard
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def assert_commands_decided(program: object, policy: CommandPolicy) -> None:
    """Every command of a program has a decision on what may be recorded of it.

    A command is decided if its action stands in the policy's `names_of` (no more than
    the names of its flags), `flags_of` or `arguments_of`.

    Args:
        program: an argparse parser, a click command or a typer app.
        policy: the policy that the program is configured with.

    Raises:
        AssertionError: a command is not decided, or a decision is about none.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser(prog="frob")
        >>> _ = parser.add_subparsers().add_parser("build")
        >>> assert_commands_decided(parser, CommandPolicy(names_of=("build",)))
    """
    from telemetry.integrations.command import command_paths

    actions = set(command_paths(program))
    decided = {*policy.names_of, *(policy.flags_of or ()), *policy.arguments_of}
    problems = [
        f"{action!r} is not decided: name it in names_of, flags_of or arguments_of"
        for action in sorted(actions - decided)
    ]
    problems += [
        f"{action!r} is decided, but no command" for action in sorted(decided - actions)
    ]
    if problems:
        raise AssertionError("; ".join(problems))
