"""Recording programs built with click.

    from telemetry.integrations.click import instrument

    instrument(cli)
    cli()

A click context is a context manager that every run enters and leaves, however it is
called, so the command is given a class of contexts that look on: no traceback gains a
frame and no exception is caught. Sub-commands make contexts of their own; click's own
context class reports those, and does nothing for programs that were not instrumented.

A run is one event, chained commands included. What ends well while arguments are still
parsed (`--help`, `--version`) is no command and records nothing; neither does shell
completion, nor a group that answers with its help.

A context has parsed already and knows where each value came from. A command is given
its arguments, which its own option parser takes apart; no callback, type or prompt is
called. Only the look-up of a sub-command may be the program's own code. The rules:

- Only what came from the command line counts: not the environment, not a default, not
  an answer to a prompt.
- A flag has its declared name: `--no-x` where that was given, and of several flags
  that set the same parameter only the one whose value it has.
- A sub-command has the first name under which its group holds it, else its own: the
  typed one may be an alias that the user made up.

Nothing but `telemetry_commands` imports click: typer carries a copy of it, older
versions use click itself, and all are read by the attributes they have in common.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from telemetry.commands import Flag, Reading
from telemetry.config import CommandPolicy
from telemetry.integrations.recording import (
    OwnCommandDone,
    Settings,
    Stopwatch,
    Tracker,
    leave_no_frame,
    long_name,
    outcome_of,
    quietly,
)


if TYPE_CHECKING:
    from telemetry.client import Client

_Command = TypeVar("_Command")

# Where a root context keeps its run, and None when that is over. The name must
# not meet one of click's.
_RUN = "_telemetry_run"


def instrument(
    command: _Command,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy | None = None,
    name: str | None = None,
    signals: bool = True,
) -> _Command:
    """`command` itself, each run of which is recorded from now on.

    `client`, `policy`, `name` and `signals` are those of `Settings`; a second call
    replaces them. What is no click command is left alone.
    """
    settings = Settings(client=client, policy=policy, name=name, signals=signals)
    quietly(lambda: _instrument(command, settings))
    return command


def telemetry_commands(
    cli: Any, *, client: Client | None = None, events: Iterable[str] = ()
) -> None:
    """Add `telemetry status|show|on|off|reset|forget` to a program.

    Args:
        cli: the program's group; `telemetry` is one more command of it. A command
            without sub-commands gets the option `--telemetry ACTION`.
        client: whose events; None for the process-wide client's. Configure it before
            these run, in the group's own function at the latest.
        events: the modules that define the program's own events, as for argparse.

    Example:
        >>> import click
        >>> cli = click.Group("frob")
        >>> telemetry_commands(cli)
        >>> list(cli.commands)
        ['telemetry']
    """
    import click

    from telemetry.integrations.own_commands import ACTIONS, HELP, LISTED, NAME, PAGE
    from telemetry.integrations.own_commands import run as run_action

    run = functools.partial(run_action, client=client, events=events)
    actions, text = click.Choice([*ACTIONS]), HELP.capitalize()

    @click.command(NAME, short_help=f"{text}.", help=f"{text}:\n\n\b\n{LISTED}")
    @click.argument("action", type=actions, default="status")
    @click.option("--page", is_flag=True, help=f"{PAGE}.".capitalize())
    def own(action: str, *, page: bool) -> None:
        root = click.get_current_context().find_root()
        run(action, f"{root.info_name} {NAME}", page=page)

    def choose(context: Any, _: object, action: str | None) -> None:
        if action is not None and not context.resilient_parsing:
            run(action, f"{context.info_name} --{NAME}")

    if isinstance(cli, click.Group):
        cli.add_command(own)
    else:
        as_option: Any = {"is_eager": True, "expose_value": False, "callback": choose}
        click.option(f"--{NAME}", type=actions, help=HELP, **as_option)(cli)


def _instrument(command: Any, settings: Settings) -> None:
    command.context_class = observed(command.context_class, settings)


def observed(context_class: Any, settings: Settings) -> Any:
    """A subclass of `context_class` whose root contexts record their run."""
    unobserved: Any = getattr(context_class, "_telemetry_unobserved", context_class)

    class Observed(unobserved):  # type: ignore[misc]
        _telemetry_unobserved = unobserved
        _telemetry_settings = settings

        def __exit__(
            self, kind: object, failure: BaseException | None, traceback: object
        ) -> Any:
            try:
                swallowed = super().__exit__(kind, failure, traceback)
            except BaseException as exc:
                # A callback that runs at closing time failed.
                _left(self, exc)
                leave_no_frame(exc)
                raise
            # A failure that a resource of the context swallows is still one: click
            # leaves with status 1 then (since 8.5), having no result.
            _left(self, failure)
            return swallowed

    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(Observed, attribute, getattr(unobserved, attribute))
    _report_entries(unobserved)
    return Observed


def _report_entries(context_class: Any) -> None:
    """Make click's own context class report each context that is entered to its run.

    There is no other place that every sub-command passes, whatever its class and
    however its group found it, and that leaves no frame in a traceback.
    """
    kind = next(kind for kind in context_class.__mro__ if "find_root" in vars(kind))
    enter = kind.__enter__
    if hasattr(enter, "_telemetry_reports"):
        return

    @functools.wraps(enter)
    def report_and_enter(self: Any) -> Any:
        quietly(lambda: _entered(self))
        return enter(self)

    report_and_enter._telemetry_reports = True  # type: ignore[attr-defined]  # noqa: SLF001
    kind.__enter__ = report_and_enter


def _entered(context: Any) -> None:
    root = context.find_root()
    settings = getattr(root, "_telemetry_settings", None)
    # Resilient parsing is shell completion.
    if settings is None or root.resilient_parsing:
        return
    if _RUN not in vars(root):
        vars(root)[_RUN] = _Run(root, settings)
    run = vars(root).get(_RUN)
    if run is not None:
        run.entered(context)


def _left(context: Any, failure: BaseException | None) -> None:
    run = vars(context).get(_RUN)
    if run is not None:
        quietly(lambda: run.left(failure))


class _Run:
    """One run: its contexts, in the order in which they were first entered.

    click enters each context once to parse its arguments, holding it open from
    outside, and again to invoke its command. Either may enter it anew inside.
    """

    def __init__(self, root: Any, settings: Settings) -> None:
        contexts: list[Any] = []
        self._stopwatch = Stopwatch(
            settings, lambda: read_contexts(contexts), lambda: root.command.name or ""
        )
        self._root, self._contexts = root, contexts
        self._invoked = False  # whether the root's own arguments are parsed
        self._parsing = False  # whether those of the latest context are not

    def entered(self, context: Any) -> None:
        if context not in self._contexts:
            if context is not self._root and not self._dispatched(context):
                return
            self._contexts.append(context)
            self._parsing = True
        if _open(context) == 0:
            self._invoked = True
            self._parsing = False

    def _dispatched(self, context: Any) -> bool:
        # A command called by another (`ctx.invoke`) is no sub-command: it
        # has nothing to parse. Nor is one that its parent did not announce.
        parent = context.parent
        announced = parent.invoked_subcommand in (context.info_name, "*")
        return announced and _open(context) > 0 and parent in self._contexts

    def left(self, failure: BaseException | None) -> None:
        held_by_parsing = 0 if self._invoked else 1
        if _open(self._root) > held_by_parsing:
            return
        if failure is None and not self._invoked:
            return  # parsed, and about to be invoked
        # From here on the program's objects live as long as without us.
        vars(self._root)[_RUN] = None
        # typer makes 130 of Ctrl-C, click makes 1.
        of_click = type(self._root).__module__.partition(".")[0] == "click"
        outcome = self._stopwatch.outcome(failure, interrupted=1 if of_click else 130)
        self._stopwatch.stop()
        if failure is None or not self._is_no_command(failure):
            self._stopwatch.record(outcome)

    def _is_no_command(self, failure: BaseException) -> bool:
        # The first is what a group raises to show its help instead of failing (click
        # 8.2 and later; before, it left with status 0).
        return (
            type(failure).__name__ == "NoArgsIsHelpError"
            or isinstance(failure, OwnCommandDone)
            or (self._parsing and not outcome_of(failure).error)
        )


def _open(context: Any) -> int:
    """How often the context is held open; private to click since its version 2."""
    depth: int = context._depth  # noqa: SLF001
    return depth


# -- Reading a command line -----------------------------------------------------

# How click calls the members of a chain (`Group.invoke`).
_CHAINED = {"allow_extra_args": True, "allow_interspersed_args": False}

_NOTHING = object()  # equal to no value that a parameter can have


class _Level(NamedTuple):
    context: Any
    flags: list[Flag]
    arguments: list[str]


def read_context(context: Any) -> Reading:
    """What the context and those above it were given."""
    lineage = [context]
    while lineage[-1].parent is not None:
        lineage.append(lineage[-1].parent)
    return read_contexts(lineage[::-1])


def read_contexts(contexts: Sequence[Any]) -> Reading:
    """What these contexts were given, the program's own first, in order of entry."""
    return _reading(
        [_Level(c, list(_given_flags(c)), list(_given_arguments(c))) for c in contexts]
    )


def read_command(command: Any, args: Sequence[str]) -> Reading:
    """What `args`, the command line without the program's name, gives the command."""
    levels: list[_Level] = []
    _walk(levels, command, command.name, None, args)
    return _reading(levels)


def _reading(levels: Sequence[_Level]) -> Reading:
    names = (_command_name(level.context) for level in levels[1:])
    return Reading(
        program=levels[0].context.command.name or "",
        path=tuple(name for name in names if name),
        flags=tuple(flag for level in levels for flag in level.flags),
        arguments=tuple(levels[-1].arguments),
    )


def paths(command: Any) -> list[str]:
    """The action of each command; of a group only if it runs without a sub-command."""
    return [path or command.name or "" for path in _paths_below(command, None)]


def _paths_below(command: Any, parent: Any) -> list[str]:
    if not hasattr(command, "list_commands"):
        return [""]
    context = command.context_class(command, parent=parent, resilient_parsing=True)
    found = [""] if command.invoke_without_command else []
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        deeper = _paths_below(below, context) if below is not None else []
        found += [f"{name} {path}".rstrip() for path in deeper]
    return found


def _walk(
    levels: list[_Level],
    command: Any,
    name: str | None,
    parent: Any,
    args: Sequence[str],
) -> list[str]:
    """Go down to the sub-commands that `args` name; what is left for the next one.

    Resilient: what a parser refuses ends it, and what came before counts.
    """
    chained = getattr(getattr(parent, "command", None), "chain", False)
    settings = {**command.context_settings, **(_CHAINED if chained else {})}
    settings |= {"info_name": name, "parent": parent, "resilient_parsing": True}
    context = command.context_class(command, **settings)
    given, rest, order = command.make_parser(context).parse_args(args=list(args))
    declared = [param for param in command.params if param in order]
    # The help option is declared nowhere; it comes last, as in the help itself.
    declared += [param for param in order if param not in command.params]
    flags = [
        _flag(param, given.get(param.name))
        for param in declared
        if param.param_type_name == "option"
    ]
    arguments = list(_texts(given.get(each.name) for each in _arguments(context)))
    level = _Level(context, flags, arguments)
    levels.append(level)
    if not hasattr(command, "resolve_command"):
        level.arguments.extend([] if chained else rest)
        return list(rest)
    while rest:
        name, below, rest = command.resolve_command(context, list(rest))
        if below is None:
            break
        rest = _walk(levels, below, name, context, rest)
        if not getattr(command, "chain", False):
            break
    return []


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


def _given_flags(context: Any) -> Iterator[Flag]:
    options = _options(context)
    for param in options:
        if not _is_given(param, context):
            continue
        value = context.params.get(param.name, _NOTHING)
        shared = sum(other.name == param.name for other in options) > 1
        # Their values distinguish the flags that set one parameter. One that has
        # been converted beyond recognition is left out rather than guessed.
        if not shared or getattr(param, "flag_value", _NOTHING) == value:
            yield _flag(param, value)


def _flag(param: Any, value: object) -> Flag:
    off = bool(param.secondary_opts) and value is False
    return Flag(
        name=long_name(param.secondary_opts if off else param.opts),
        takes_value=not (param.is_flag or param.count),
    )


def _given_arguments(context: Any) -> Iterator[str]:
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
