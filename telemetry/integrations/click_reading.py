"""What a command line names, as a click command or a click context knows it.

Nothing is imported: typer carries a copy of click, older versions of it use
click itself, and all are read by the attributes they have in common.

A context has parsed already and knows where each value came from. A command is
given its arguments, which its own option parser takes apart, and nothing else
happens: no callback, no type, no prompt. Only the look-up of a sub-command may
be the program's own code. The rules:

- Only what came from the command line counts: not the environment, not a
  default, not an answer to a prompt.
- A flag has its declared name: `--no-x` where that was given, and of several
  flags that set the same parameter only the one whose value it has.
- A sub-command has the first name under which its group holds it, else its own:
  the typed one may be an alias that the user made up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from telemetry.integrations.command import Flag, Reading, long_name


# How click calls the members of a chain (`Group.invoke`).
_CHAINED = {"allow_extra_args": True, "allow_interspersed_args": False}

_NOTHING = object()  # equal to no value that a parameter can have


def read_context(context: Any) -> Reading:
    """What the context and those above it were given."""
    lineage = [context]
    while lineage[-1].parent is not None:
        lineage.append(lineage[-1].parent)
    return read_contexts(lineage[::-1])


def read_contexts(contexts: Sequence[Any]) -> Reading:
    """What these contexts were given, the program's own first, in order of entry."""
    names = (_command_name(context) for context in contexts[1:])
    return Reading(
        program=contexts[0].info_name or "",
        path=tuple(name for name in names if name),
        flags=tuple(flag for context in contexts for flag in _context_flags(context)),
        arguments=tuple(_context_arguments(contexts[-1])),
    )


def read_command(command: Any, args: Sequence[str]) -> Reading:
    """What `args`, the command line without the program's name, gives the command."""
    walk = _Walk()
    walk.enter(command, command.name, None, args)
    return Reading(
        program=command.name or "",
        path=tuple(name for name in walk.path if name),
        flags=tuple(walk.flags),
        arguments=tuple(walk.arguments),
    )


class _Walk:
    """Goes down from a command to the sub-commands that its arguments name."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.flags: list[Flag] = []
        self.arguments: list[str] = []

    def enter(
        self, command: Any, name: str | None, parent: Any, args: Sequence[str]
    ) -> list[str]:
        """What `command` leaves of `args` for the next one of its chain."""
        chained = parent is not None and _chains(parent.command)
        settings = {**command.context_settings, **(_CHAINED if chained else {})}
        # Resilient: what the parser refuses ends it, and what came before counts.
        context = command.context_class(
            command,
            **{**settings, "info_name": name, "parent": parent},
            resilient_parsing=True,
        )
        if parent is not None:
            self.path.append(_command_name(context))
        parser = command.make_parser(context)
        given, rest, order = parser.parse_args(args=list(args))
        for param in _in_declared_order(order, command.params):
            if param.param_type_name == "option":
                self.flags.append(_flag(param, given.get(param.name)))
        self.arguments = list(_texts(given.get(p.name) for p in _arguments(context)))
        if hasattr(command, "resolve_command"):
            self._descend(command, context, rest)
            return []
        if not chained:
            self.arguments += rest
        return list(rest)

    def _descend(self, group: Any, context: Any, rest: Sequence[str]) -> None:
        while rest:
            name, command, rest = group.resolve_command(context, list(rest))
            if command is None:
                return
            rest = self.enter(command, name, context, rest)
            if not _chains(group):
                return


def _chains(group: Any) -> bool:
    return bool(getattr(group, "chain", False))


def _in_declared_order(given: Sequence[Any], declared: Sequence[Any]) -> list[Any]:
    # The help option is declared nowhere; it comes last, as in the help itself.
    others = [param for param in given if param not in declared]
    return [param for param in declared if param in given] + others


def _options(context: Any) -> list[Any]:
    # Not `get_params`: it prints a warning where names are declared twice.
    params = [p for p in context.command.params if p.param_type_name == "option"]
    help_option = context.command.get_help_option(context)
    return params if help_option is None else [*params, help_option]


def _arguments(context: Any) -> list[Any]:
    return [p for p in context.command.params if p.param_type_name == "argument"]


def _is_given(param: Any, context: Any) -> bool:
    source = context.get_parameter_source(param.name)
    return getattr(source, "name", "") == "COMMANDLINE"


def _context_flags(context: Any) -> Iterator[Flag]:
    options = _options(context)
    for param in options:
        if not _is_given(param, context):
            continue
        value = context.params.get(param.name, _NOTHING)
        shared = sum(other.name == param.name for other in options) > 1
        # Their values tell apart the flags that set one parameter. One that has
        # been converted beyond recognition is not told rather than guessed.
        if not shared or getattr(param, "flag_value", _NOTHING) == value:
            yield _flag(param, value)


def _flag(param: Any, value: object) -> Flag:
    off = bool(param.secondary_opts) and value is False
    return Flag(
        name=long_name(param.secondary_opts if off else param.opts),
        takes_value=not (param.is_flag or param.count),
    )


def _context_arguments(context: Any) -> Iterator[str]:
    given = (p for p in _arguments(context) if _is_given(p, context))
    yield from _texts(context.params.get(param.name) for param in given)
    if not hasattr(context.command, "resolve_command"):
        yield from _texts(context.args)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """The values that have a plain text form: not open files, not objects."""
    for value in values:
        if isinstance(value, (str, os.PathLike)):
            text = os.fspath(value)
            yield text if isinstance(text, str) else os.fsdecode(text)
        elif isinstance(value, (int, float)):
            yield str(value)
        elif isinstance(value, (list, tuple)):
            yield from _texts(value)


def _command_name(context: Any) -> str:
    command = context.command
    held = getattr(context.parent.command, "commands", None) or {}
    declared = (name for name, other in held.items() if other is command)
    name: str | None = next(declared, None)
    if name is not None:
        return name
    # A group that makes commands on the fly may name them as they were typed.
    known = context.parent.command.list_commands(context.parent)
    return command.name if command.name and command.name in known else ""
