"""What was run, for an argparse parser, a click command or context, or a typer app.

Which reader fits is seen from the module names in the object's class, so no framework is
imported. It records nothing, and what cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from telemetry.commands import NAMES_ONLY, Reading, permitted
from telemetry.config import CommandPolicy
from telemetry.integrations.recording import quietly
from telemetry.light_events import CommandInfo


# typer carries a copy of click, whose classes have the same names.
_CONTEXTS = {("click", "Context"), ("typer", "Context")}
_COMMANDS = {("click", "BaseCommand"), ("click", "Command"), ("typer", "Command")}


def build_command_info(
    command: object,
    args: Sequence[str] | None,
    base_name: str | None = None,
    *,
    policy: CommandPolicy = NAMES_ONLY,
) -> CommandInfo:
    """What was run: the action, and the arguments and flags that `policy` permits.

    Nothing is run, converted, opened or prompted for.

    Args:
        command: an argparse parser, a click command or a typer app. Or a click
            context, which knows its flags already; the same holds for any other
            object, of which no flag is known.
        args: the command line without the program's name; for a context, the
            positional arguments.
        base_name: the action. Without it the path of sub-commands, else the name that
            the program's author declared; empty if there is none but the script's.
        policy: what may be recorded besides the names of flags.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser(prog="frob")
        >>> _ = parser.add_argument("--output")
        >>> build_command_info(parser, ["--output", "x.txt"])
        CommandInfo(action='frob', args=[], flags=['--output'])
    """
    given = tuple(args or ())
    reading = quietly(lambda: _read(command, given)) or Reading()
    return permitted(reading, base_name, policy)


def command_paths(program: object) -> list[str]:
    """The action of each command that a program has, sub-commands by their path.

    Args:
        program: an argparse parser, a click command or a typer app. The commands of
            `telemetry_commands` are none of its own.

    Raises:
        TypeError: it is none of these.
    """
    kind, program = _kind_of(program)
    paths: Callable[[Any], list[str]]
    if kind == "argparse":
        from telemetry.integrations.argparse import paths
    elif kind == "click":
        from telemetry.integrations.click import paths
    else:
        raise TypeError(f"a {type(program).__name__} is no program")
    return [path for path in paths(program) if path.partition(" ")[0] != "telemetry"]


def _read(command: object, args: tuple[str, ...]) -> Reading:
    kind, command = _kind_of(command)
    if not kind:
        return Reading(arguments=args)
    if kind == "argparse":
        from telemetry.integrations.argparse import read

        return read(command, args)
    from telemetry.integrations.click import read_command, read_context

    if kind == "context":
        return msgspec.structs.replace(read_context(command), arguments=args)
    return read_command(command, args)


def _kind_of(program: Any) -> tuple[str, Any]:
    """`argparse`, `click` or `context`, and what is read: of a typer app its command."""
    classes = {
        (each.__module__.partition(".")[0], each.__name__)
        for each in type(program).__mro__
    }
    if ("argparse", "ArgumentParser") in classes:
        return "argparse", program
    if ("typer", "Typer") in classes:
        from telemetry.integrations.typer import get_command

        return "click", get_command(program)
    if classes & _CONTEXTS:
        return "context", program
    return "click" if classes & _COMMANDS else "", program
