"""What was run, for an argparse parser, a click command or context, or a typer app.

Which reader fits is seen from the module names in the object's class, so this module
imports no framework. It records nothing and never raises: what cannot be read is left
out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from telemetry.commands import NAMES_ONLY, Reading, permitted
from telemetry.config import CommandPolicy
from telemetry.events import CommandInfo
from telemetry.integrations.recording import quietly


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
    reading = quietly(lambda: _read(command, given), otherwise=Reading())
    return permitted(reading, base_name, policy)


def _read(command: object, args: tuple[str, ...]) -> Reading:
    kinds = {
        (kind.__module__.partition(".")[0], kind.__name__)
        for kind in type(command).__mro__
    }
    if ("argparse", "ArgumentParser") in kinds:
        from telemetry.integrations.argparse import read

        return read(command, args)
    if ("typer", "Typer") in kinds:
        from telemetry.integrations.typer import command_of

        command = command_of(command)
        kinds = {("click", "Command")}
    # typer carries a copy of click, whose classes have the same names.
    if kinds & {("click", "Context"), ("typer", "Context")}:
        from telemetry.integrations.click import read_context

        return msgspec.structs.replace(read_context(command), arguments=args)
    if kinds & {("click", "BaseCommand"), ("click", "Command"), ("typer", "Command")}:
        from telemetry.integrations.click import read_command

        return read_command(command, args)
    return Reading(arguments=args)
