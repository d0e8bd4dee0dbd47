"""Recording programs built with argparse.

    from telemetry.integrations.argparse import command

    with command(parser):
        sys.exit(main())

or, where `main` takes the parsed arguments:

    sys.exit(run(parser, main))

`--help`, `--version` and whatever else ends well inside the parser is no
command, and records nothing; neither does shell completion. Leaving the block
neither swallows nor replaces an exception, and adds no frame to its traceback.

A command line is read by argparse's own algorithm, on a copy of the parser whose
actions only take notes: no type is called, no file opened, nothing printed, nothing
exits. So abbreviations, `-ofile`, `-vq`, `--x=value`, `--` and negative numbers mean
here what they mean there. The rules on top:

- What argparse would refuse ends the reading; what stood before it counts.
- A flag, and a sub-command, has the name its author declared first, in the order
  of declaration, which says less than that of typing.
- A file of arguments (`@file`) is not opened, so what it holds is not recorded.

It changes no parser. A parser class that overrides how it parses is read as if it did
not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NoReturn, TypeVar, final

from telemetry.commands import Flag, Reading
from telemetry.config import CommandPolicy
from telemetry.integrations.recording import (
    Settings,
    Stopwatch,
    Tracker,
    error_of,
    exits_well,
    leave_no_frame,
    long_name,
    means_success,
    quietly,
)


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
        self._error = ""

    def __enter__(self) -> Command:
        self._stopwatch = Stopwatch(self._settings)
        return self

    def status(self, status: _Status) -> _Status:
        """`status` itself, noted as the one the program will exit with.

        For a program that returns its status from inside the `with` block,
        where a return cannot be seen.
        """
        self._error = "" if means_success(status) else SystemExit.__name__
        return status

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        quietly(lambda: self._end(exc_value, traceback), otherwise=False)

    def _end(
        self, failure: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # argcomplete answers the shell from inside the program.
        if "_ARGCOMPLETE" in os.environ:
            return False
        if failure is not None and exits_well(failure) and _in_argparse(traceback):
            return False
        parser = self._parser
        reading = quietly(
            lambda: read(parser, self._argv),
            otherwise=Reading(program=_declared_name(parser)),
        )
        return self._stopwatch.record(reading, error=error_of(failure) or self._error)


def command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy | None = None,
    name: str | None = None,
) -> Command:
    """A context manager that records what runs inside it as one command.

    Parsing belongs inside, so that wrong usage is recorded too. `argv` is the
    command line without the program's name; None stands for `sys.argv[1:]`, as
    it is now. `client`, `policy` and `name` are those of `Settings`.
    """
    settings = Settings(client=client, policy=policy, name=name)
    return Command(parser, sys.argv[1:] if argv is None else argv, settings)


def run(
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], _Status],
    argv: Sequence[str] | None = None,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy | None = None,
    name: str | None = None,
) -> _Status:
    """What `main(parser.parse_args(argv))` returns: an exit status, as for `sys.exit`.

    The other arguments are those of `command`.
    """
    running = command(parser, argv, client=client, policy=policy, name=name)
    try:
        with running:
            return running.status(main(parser.parse_args(argv)))
    except BaseException as exc:
        leave_no_frame(exc)
        raise


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
        # In the order of declaration, which tells less than that of typing.
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
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        texts = [values] if isinstance(values, str) else list(values or ())
        # A positional argument that may be missing is called without a value.
        if texts or option_string is not None:
            self._notes.append((self, option_string, texts))


class _Copy(argparse.ArgumentParser):
    """Parses as another parser would, and neither prints nor exits."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
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
    try:
        copy.parse_known_args(list(_without_files(parser, argv)))
    except _UsageError:
        pass  # what was noted before it was given all the same
    return notes


def _without_files(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> Iterator[str]:
    # The file may be a pipe that can be read only once, and not by us.
    files = tuple(parser.fromfile_prefix_chars or ())
    return (argument for argument in argv if not argument.startswith(files))
