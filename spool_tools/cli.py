"""The command line: finds the command, loads it alone, and ends as a tool should.

A command is a module with `add_arguments(parser)` and `run(args) -> int`. Its
exit code is 0 for fine, 1 for damage found or something left undelivered, 2 for
wrong usage, 3 for no such spool. A closed pipe (`| head`) ends it quietly, and
Ctrl-C with 130. Nothing here knows what a command does.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from spool_tools.output import complain
from spool_tools.target import NO_SUCH_SPOOL, NoSuchSpoolError, WrongUsageError
from telemetry.errors import TelemetryError


# What each is for, in the order in which a person needs them.
COMMANDS = {
    "demo": "the whole story in one command, on a spool of its own",
    "dump": "every pending event as one JSON line",
    "status": "what is kept, what was sent, when the next flush is, and why",
    "verify": "check every record of the spool",
    "flush": "deliver what waits, now",
    "dead": "the events that a server refused: list, retry, drop",
    "purge": "remove what is kept, and count it as purged",
    "disable": "turn telemetry off for good, and remove everything",
    "enable": "turn telemetry on again",
    "events": "the catalogue of what can be collected, field by field",
    "collect": "a collector on this machine that can misbehave",
}
_FIRST = """\
try first:
  spool-tools demo                    see it work, from an offline run to delivery
  spool-tools dump --app NAME         what is waiting to be sent, exactly as it will be
  spool-tools COMMAND --help          what a command can do, with examples
"""
_CODES = """\
exit codes: 0 fine; 1 damage was found, or something is left undelivered;
2 wrong usage; 3 no such spool
"""
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: `sys.argv[1:]`) names; its exit code.

    Raises SystemExit where argparse has said what is wrong, or helped.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_output()
    try:
        try:
            code = _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has seen enough.
        _let_go_of_output()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # The disk that our output goes to is full, for one.
        _let_go_of_output()
        complain(arguments[0] if arguments else "help", error)
        return FAILED
    return code


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        return _help(name, arguments)
    module = import_module(f"spool_tools.{name}")
    parser = argparse.ArgumentParser(
        prog=f"spool-tools {name}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    args = parser.parse_args(arguments[1:])
    try:
        code: int = module.run(args)
    except NoSuchSpoolError as error:
        complain(name, error)
        return NO_SUCH_SPOOL
    except WrongUsageError as error:
        complain(name, error)
        return WRONG_USAGE
    except TelemetryError as error:
        complain(name, error)
        return FAILED
    return code


def _help(name: str, arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="spool-tools",
        description="See, check, mend and drive a telemetry spool.",
        epilog=f"{_commands()}\n{_FIRST}\n{_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="spool-tools COMMAND [options]",
        allow_abbrev=False,
    )
    if name and not name.startswith("-"):
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see `spool-tools --help`"
        parser.error(f"there is no command {name!r}; {hint}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0


def _commands() -> str:
    lines = (f"  {name:<10}{meaning}" for name, meaning in COMMANDS.items())
    return "commands:\n" + "\n".join(lines) + "\n"


def _prepare_output() -> None:
    """Both streams take any text afterwards; what they cannot show, they escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # It was closed by whoever started us: nobody listens.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """What is still buffered goes nowhere, or Python would complain at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # it is no file
