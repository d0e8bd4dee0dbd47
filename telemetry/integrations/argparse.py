"""Recording programs built with argparse.

    from telemetry.integrations.argparse import command

    with command(parser):
        sys.exit(main(parser.parse_args()))

`--help`, `--version` and whatever else ends well inside the parser is no command, and
records nothing; neither does shell completion. Leaving the block neither swallows nor
replaces an exception, and adds no frame to its traceback.

A command line is read by argparse's own algorithm, on a copy of the parser whose
actions only take notes: no type is called, no file opened, nothing printed. So
abbreviations, `-ofile`, `-vq`, `--x=value`, `--` and negative numbers mean here what
they mean there. The rules on top:

- What argparse would refuse ends the reading; what stood before it counts.
- A flag, and a sub-command, has the name its author declared first, in the order
  of declaration: the order of typing would say more of the user.
- A file of arguments (`@file`) is not opened, so what it holds is not recorded.

It changes no parser. A parser class that overrides how it parses is read as if it did
not.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, final

from telemetry.commands import Flag, Reading
from telemetry.config import CommandPolicy
from telemetry.integrations.recording import (
    Outcome,
    OwnCommandDone,
    Settings,
    Stopwatch,
    Tracker,
    leave_no_frame,
    long_name,
    outcome_of_status,
    quietly,
)


if TYPE_CHECKING:
    from telemetry.client import Client

_Status = TypeVar("_Status")


@final
class Command:
    """One run of an argparse program, as a context manager."""

    def __init__(
        self, parser: argparse.ArgumentParser, argv: Sequence[str], settings: Settings
    ) -> None:
        self._parser = parser
        self._argv = tuple(argv)
        self._settings = settings
        self._status: Outcome | None = None

    def __enter__(self) -> Command:
        parser, argv = self._parser, self._argv
        self._stopwatch = Stopwatch(
            self._settings, lambda: read(parser, argv), lambda: _declared_name(parser)
        )
        return self

    def status(self, status: _Status) -> _Status:
        """`status` itself, noted as the one the program will exit with.

        For a program that returns its status from inside the `with` block,
        where a return cannot be seen.
        """
        self._status = outcome_of_status(status)
        return status

    def __exit__(
        self, _: object, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        quietly(lambda: self._end(failure, traceback))
        self._stopwatch.stop()

    def _end(
        self, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # argcomplete answers the shell from inside the program.
        if "_ARGCOMPLETE" in os.environ or isinstance(failure, OwnCommandDone):
            return
        outcome = self._stopwatch.outcome(failure)
        if failure is None:
            outcome = self._status or outcome
        elif _in_argparse(traceback):
            if not outcome.error:
                return
            if outcome.error == SystemExit.__name__:
                # It exits as for an ArgumentError, and raised none.
                outcome = Outcome(argparse.ArgumentError.__name__, outcome.exit_code)
        self._stopwatch.record(outcome)


def command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy | None = None,
    name: str | None = None,
    signals: bool = True,
) -> Command:
    """A context manager that records what runs inside it as one command.

    Parsing belongs inside, so that wrong usage is recorded too. `argv` is the command
    line without the program's name, by default that of this process, as it is now. The
    other arguments are those of `Settings`.
    """
    settings = Settings(client=client, policy=policy, name=name, signals=signals)
    return Command(parser, sys.argv[1:] if argv is None else argv, settings)


def run(
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], _Status],
    argv: Sequence[str] | None = None,
    **settings: Any,
) -> _Status:
    """What `main(parser.parse_args(argv))` returns: an exit status, as for `sys.exit`.

    The other arguments are those of `command`.
    """
    running = command(parser, argv, **settings)
    try:
        with running:
            return running.status(main(parser.parse_args(argv)))
    except BaseException as exc:
        leave_no_frame(exc)
        raise


def telemetry_commands(
    parser: argparse.ArgumentParser,
    *,
    client: Client | None = None,
    events: Iterable[str] = (),
) -> None:
    """Add `telemetry status|show|on|off|reset|forget` to a program.

    Args:
        parser: the program's parser. With sub-commands, `telemetry` is one more of
            them; without, it is the option `--telemetry ACTION`. Add it last.
        client: whose events; None for the process-wide client's.
        events: names of the modules that define the program's own events, so that
            `show --page` has their docstrings; imported only then.

    They run while the arguments are parsed, as `--version` does, and end the program.
    Configure it before.

    Example:
        >>> parser = argparse.ArgumentParser(prog="frob")
        >>> _ = parser.add_subparsers().add_parser("build")
        >>> telemetry_commands(parser, events=["frob.events"])
    """
    from telemetry.integrations import own_commands as own

    act = functools.partial(own.run, client=client, events=events)
    group = _group_of(parser)
    if group is None:
        parser.add_argument(
            f"--{own.NAME}",
            action=_Own,
            nargs="?",
            const="status",
            run=act,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            choices=[*own.ACTIONS],
            help=own.HELP,
        )
        return
    added = group.add_parser(
        own.NAME,
        help=own.HELP,
        description=f"{own.HELP}:\n\n{own.LISTED}\n\n--page: {own.PAGE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = added.add_argument
    add("action", nargs="?", default="status", choices=[*own.ACTIONS])
    # What follows the action; with it the command runs.
    rest, hidden = argparse.REMAINDER, argparse.SUPPRESS
    add("rest", nargs=rest, action=_Own, run=act, help=hidden)


class _Own(argparse.Action):
    """Runs a command of `telemetry_commands` and ends the program."""

    def __init__(self, *, run: Callable[..., NoReturn], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._run = run

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> NoReturn:
        if option_string is not None:
            self._run(values, f"{parser.prog} {option_string}")
        if values not in ([], ["--page"]):
            parser.error(f"unrecognized arguments: {' '.join(values)}")
        self._run(namespace.action, parser.prog, page=bool(values))


def _in_argparse(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == argparse.__name__:
            return True
        traceback = traceback.tb_next
    return False


# -- Reading a command line -----------------------------------------------------


def read(parser: Any, argv: Sequence[str]) -> Reading:
    """All that `argv` names, up to the place where argparse would refuse it."""
    path: list[str] = []
    flags: list[Flag] = []
    level: argparse.ArgumentParser | None = parser
    arguments: list[str] = []
    while level is not None:
        notes = _notes(level, argv)
        level, arguments = None, []
        # In the order of declaration: the order of typing would say more of the user.
        for action, given, values in sorted(notes, key=lambda note: note[0].order):
            origin = action.origin
            if isinstance(origin, argparse._SubParsersAction):  # noqa: SLF001
                level, name = _chosen(origin, values[0])
                path += [name] if level is not None else []
                argv = values[1:]
            elif given is None:
                arguments += values
            else:
                flags.append(_flag(origin, given))
    return Reading(
        program=_declared_name(parser),
        path=tuple(path),
        flags=tuple(flags),
        arguments=tuple(arguments),
    )


def paths(parser: Any) -> list[str]:
    """The action of each command, under the first name that was declared for it."""
    group = _group_of(parser)
    if group is None:
        return [_declared_name(parser)]
    found = []
    for name, below in group.choices.items():
        if _chosen(group, name)[1] == name:
            deeper = paths(below) if _group_of(below) else [""]
            found += [f"{name} {path}".rstrip() for path in deeper]
    return found


def _group_of(parser: argparse.ArgumentParser) -> Any:
    """What holds a parser's sub-commands; None if it has none."""
    kind = argparse._SubParsersAction  # noqa: SLF001
    return next((a for a in parser._actions if isinstance(a, kind)), None)  # noqa: SLF001


def _declared_name(parser: argparse.ArgumentParser) -> str:
    """The program's name; empty if it is the script's, which its user may have chosen."""
    try:
        of_script = argparse.ArgumentParser(add_help=False).prog
    except IndexError:  # `sys.argv` is empty
        return ""
    return "" if parser.prog == of_script else parser.prog


def _chosen(subparsers: Any, typed: str) -> tuple[argparse.ArgumentParser | None, str]:
    """The sub-command's parser, and its first declared name: others are aliases."""
    chosen = subparsers.choices.get(typed)
    names = (name for name, parser in subparsers.choices.items() if parser is chosen)
    return chosen, next(names, "")


def _flag(action: argparse.Action, given: str) -> Flag:
    names = list(action.option_strings)
    if isinstance(action, argparse.BooleanOptionalAction):
        # It declares `--no-x` by the side of `--x`.
        negative = given.startswith("--no-")
        names = [n for n in names if n.startswith("--no-") == negative] or names
    return Flag(name=long_name(names), takes_value=action.nargs != 0)


class _UsageError(Exception):
    """argparse would print its usage and exit here."""


class _Note(argparse.Action):
    """Stands for another action, with its names and its number of values only."""

    def __init__(
        self, *, origin: argparse.Action, order: int, notes: list[Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.origin = origin
        self.order = order
        self._notes = notes

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        texts = [values] if isinstance(values, str) else list(values or ())
        # A positional argument that may be missing is called without a value.
        if texts or option_string is not None:
            self._notes.append((self, option_string, texts))


class _Copy(argparse.ArgumentParser):
    """Parses as another parser would, and neither prints nor exits."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def _notes(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> list[tuple[_Note, str | None, list[str]]]:
    """Each action that `argv` calls, the name it was called by, and its values."""
    notes: list[tuple[_Note, str | None, list[str]]] = []
    copy = _Copy(
        prog=parser.prog,
        prefix_chars=parser.prefix_chars,
        conflict_handler="resolve",
        add_help=False,
        allow_abbrev=parser.allow_abbrev,
    )
    for order, action in enumerate(parser._actions):  # noqa: SLF001
        note = copy.add_argument(
            *action.option_strings,
            action=_Note,
            dest=action.dest,
            nargs=action.nargs,
            origin=action,
            order=order,
            notes=notes,
        )
        note.required = False  # a missing argument is for the program to say
    # A file of arguments may be a pipe that can be read only once, and not by us.
    files = tuple(parser.fromfile_prefix_chars or ())
    try:
        copy.parse_known_args([each for each in argv if not each.startswith(files)])
    except _UsageError:
        pass  # what was noted before it was given all the same
    return notes
