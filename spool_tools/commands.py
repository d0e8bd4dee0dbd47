"""The commands: finds the one that is named, loads it alone, reads its options.

A command is a module with `add_arguments(parser)` and `run(args) -> int`. Its
exit code is 0 for fine, 1 for damage found or something left undelivered, 2 for
wrong usage, 3 for no such spool. Nothing here knows what a command does.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
from importlib import import_module
from typing import NoReturn

from spool_tools.output import complain
from spool_tools.target import NO_SUCH_SPOOL, NoSuchSpoolError, WrongUsageError
from spool_tools.text import printable
from telemetry.errors import TelemetryError


FAILED = 1
WRONG_USAGE = 2
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


class _Parser(argparse.ArgumentParser):
    """What was typed comes back in complaints, but not as a terminal would obey it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with exit code 2."""
        with contextlib.suppress(OSError):
            super().error(printable(message))
        sys.exit(WRONG_USAGE)


def run(arguments: list[str]) -> int:
    """Run the command that the first of them names; its exit code.

    Raises SystemExit where argparse has said what is wrong, or helped.
    """
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        return _help(name, arguments)
    module = import_module(f"spool_tools.{name}")
    parser = _Parser(
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
    parser = _Parser(
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
