"""What was run, and how much of it may be told.

Reading a command gives a `Reading`: everything that the command line named.
`tell` takes from it what a `CommandPolicy` allows. The rules:

- The value of a flag is never told, whatever the policy.
- An argument is told only where the policy names its command, and only up to
  the first that starts with `-`, behind which a flag and its value may stand.
- A flag is told under the name its author declared, never as it was typed, and
  only if it stood on the command line: the environment and defaults give none.

The readers live in files of their own; which one fits is seen from the module
names in the object's class, so this module imports no framework. It records
nothing, and it never raises: what cannot be read is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from telemetry.events import CommandInfo


_Result = TypeVar("_Result")


class CommandPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What may be told of a command. As it stands: every flag's name, no argument.

    `arguments_of`: the actions ("compose up") whose arguments may be told.
    `flags_of`: the actions whose flags may be told; None stands for all.
    `flags`: the flags that may be told ("--output"), in this order; None stands
    for all, in the order of their declaration.
    `switches`: flags told for every action, before the others, where they take
    no value.
    """

    arguments_of: tuple[str, ...] = ()
    flags_of: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    switches: tuple[str, ...] = ()


# The default: a name was chosen by the program's author, a value by its user.
NAMES_ONLY = CommandPolicy()

# What the Go original tells. Its arguments can be prompts and paths, so this is
# for programs that replace it and whose users know.
_SEED_ACTIONS = ("run", "pull", "catalog")
SEED_POLICY = CommandPolicy(
    arguments_of=_SEED_ACTIONS,
    flags_of=_SEED_ACTIONS,
    flags=("--config", "--agent", "--model", "--output", "--format", "--yolo"),
    switches=("--help", "--version"),
)


class Flag(msgspec.Struct, frozen=True):
    """A flag that stood on the command line, under its declared name."""

    name: str
    takes_value: bool


class Reading(msgspec.Struct, frozen=True):
    """All that a command line named; what of it is told is for `tell` to say.

    `program` is its own name, `path` the sub-commands below it, `flags` those
    given to any of them, `arguments` the last one's positional arguments.
    """

    program: str = ""
    path: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def action(self) -> str:
        """The path, as in "compose up"; the program's name where there is none."""
        return " ".join(self.path) or self.program


def build_command_info(
    command: object,
    args: Sequence[str] | None,
    base_name: str | None = None,
    *,
    policy: CommandPolicy = NAMES_ONLY,
) -> CommandInfo:
    """What was run: `base_name` as the action, and what `policy` lets be told.

    `command` is an argparse parser, a click command or a typer app, and `args`
    its command line without the program's name. Or it is a click context, which
    knows its flags already, and `args` are the positional arguments; the same
    holds for any other object, of which no flag is known.

    Without a `base_name` the action is the path of sub-commands, else the
    program's name. Nothing is run, converted, opened or prompted for.
    """
    given = tuple(args or ())
    reading = quietly(lambda: read(command, given), otherwise=Reading())
    return tell(reading, base_name, policy)


def read(command: object, args: tuple[str, ...]) -> Reading:
    """All that the command line names, read by whoever knows this kind of object."""
    kinds = {
        (kind.__module__.partition(".")[0], kind.__name__)
        for kind in type(command).__mro__
    }
    if ("argparse", "ArgumentParser") in kinds:
        from telemetry.integrations import argparse_reading

        return argparse_reading.read(command, args)
    if ("typer", "Typer") in kinds:
        from telemetry.integrations import typer

        command = typer.command_of(command)
        kinds = {("click", "Command")}
    # typer carries a copy of click, whose classes have the same names.
    if kinds & {("click", "Context"), ("typer", "Context")}:
        from telemetry.integrations import click_reading

        return msgspec.structs.replace(
            click_reading.read_context(command), arguments=args
        )
    if kinds & {("click", "BaseCommand"), ("click", "Command"), ("typer", "Command")}:
        from telemetry.integrations import click_reading

        return click_reading.read_command(command, args)
    return Reading(arguments=args)


def tell(reading: Reading, base_name: str | None, policy: CommandPolicy) -> CommandInfo:
    """The part of `reading` that `policy` lets be told."""
    action = reading.action if base_name is None else base_name
    arguments: list[str] = []
    if _within(action, policy.arguments_of):
        for argument in reading.arguments:
            if argument.startswith("-"):
                break
            arguments.append(argument)
    return CommandInfo(
        action=action, args=arguments, flags=_flags(reading.flags, action, policy)
    )


def _flags(given: Iterable[Flag], action: str, policy: CommandPolicy) -> list[str]:
    switches = {flag.name for flag in given if not flag.takes_value}
    names = [flag.name for flag in given]
    told = [name for name in policy.switches if name in switches]
    if policy.flags_of is None or _within(action, policy.flags_of):
        if policy.flags is None:
            told += names
        else:
            told += [name for name in policy.flags if name in names]
    return list(dict.fromkeys(told))


def _within(name: str, names: tuple[str, ...] | str) -> bool:
    # A lone string would be searched for parts of it, and "" is part of any.
    return name in ((names,) if isinstance(names, str) else names)


def long_name(names: Sequence[str]) -> str:
    """The first `--long` one of a flag's declared names, else the first of them."""
    return max(names, key=lambda name: (name[:2] == name[:1] * 2, len(name) > 2))


def quietly(call: Callable[[], _Result], *, otherwise: _Result) -> _Result:
    """What `call` returns, or `otherwise` where it fails.

    The one place where the integrations swallow: whatever fails while a command
    is read or recorded, a parser of an unforeseen make or a client that raises,
    the program wrapped must end as it would have ended. What asks the process to
    stop (KeyboardInterrupt, SystemExit) was meant for the program and passes.
    """
    try:
        return call()
    except Exception:  # noqa: BLE001
        return otherwise
