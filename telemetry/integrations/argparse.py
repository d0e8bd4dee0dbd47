"""Recording programs built with argparse.

    from telemetry.integrations.argparse import command

    with command(parser):
        sys.exit(main())

or, where `main` takes the parsed arguments:

    sys.exit(run(parser, main))

`--help`, `--version` and whatever else ends well inside the parser is no
command, and records nothing; neither does shell completion. Leaving the block
neither swallows nor replaces an exception, and adds no frame to its traceback.

It changes no parser, and reads none itself (see `argparse_reading`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar, final

from telemetry.integrations.argparse_reading import read
from telemetry.integrations.command import NAMES_ONLY, CommandPolicy, Reading, quietly
from telemetry.integrations.recording import (
    Settings,
    Stopwatch,
    Tracker,
    error_of,
    exits_well,
    leave_no_frame,
    means_success,
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
            lambda: read(parser, self._argv), otherwise=Reading(program=parser.prog)
        )
        return self._stopwatch.record(reading, error=error_of(failure) or self._error)


def command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy = NAMES_ONLY,
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
    policy: CommandPolicy = NAMES_ONLY,
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
