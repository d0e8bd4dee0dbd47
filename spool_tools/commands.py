"""The commands: finds the one that is named, loads it alone, reads its options.

A command is a module with `add_arguments(parser)` and `run(args) -> int`, and its
docstring is its help: what it does, then examples. Exit codes: 0 fine, 1 damage found or
something left undelivered, 2 wrong usage, 3 no such spool.
Nothing here knows what a command does.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import textwrap
from difflib import get_close_matches
from typing import NoReturn

from spool_tools.screen import complain
from spool_tools.target import NoSuchSpoolError, WrongUsageError
from spool_tools.wording import printable
from telemetry.errors import TelemetryError


FAILED = 1
# What each is for, in the order in which a person needs them.
COMMANDS = {
    "demo": "the whole story in one command, on a spool of its own",
    "dump": "every pending event as one JSON line",
    "status": "what is kept, what was sent, when the next flush is, and why",
    "view": "a page on this machine: what is kept, where it goes, on and off",
    "verify": "check every record of the spool",
    "flush": "deliver what waits, now",
    "dead": "the events that a server refused: list, retry, drop",
    "purge": "remove what is kept, and count it as purged",
    "disable": "turn telemetry off for good, and remove everything",
    "enable": "turn telemetry on again",
    "reset": "give this installation another id",
    "forget": "off, and the server is asked to delete what it has",
    "events": "the catalogue of what can be collected, field by field",
    "conformance": "ask a server each thing that it has to do",
    "recipe": "a configuration for a server that receives events",
    "collect": "a collector on this machine that can misbehave",
}
_LISTED = "\n".join(f"  {name:<13}{meaning}" for name, meaning in COMMANDS.items())
_OVERVIEW = f"""commands:
{_LISTED}

try first:
  spool-tools demo              see it work, from offline to delivery
  spool-tools dump --app NAME   what waits, exactly as it will be sent
  spool-tools COMMAND --help    what a command can do, with examples

exit codes: 0 fine; 1 damage was found, or something is left undelivered; 2 wrong usage; 3 no such spool"""


class _Parser(argparse.ArgumentParser):
    """Escapes what was typed before an error message repeats it on a terminal."""

    def error(self, message: str) -> NoReturn:
        with contextlib.suppress(OSError):
            super().error(printable(message))
        sys.exit(WrongUsageError.exit_code)


class _Epilog(argparse.RawDescriptionHelpFormatter):
    """Keeps the line ends of an epilog, and folds its lines at words."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            textwrap.fill(
                line,
                width,
                initial_indent=indent,
                subsequent_indent=indent + " " * (len(line) - len(line.lstrip())),
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in text.splitlines()
        )


def run(arguments: list[str]) -> int:
    """Run the command that the first of them names; its exit code."""
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        return _help(name, arguments)
    parser = _Parser(
        prog=f"spool-tools {name}", formatter_class=_Epilog, allow_abbrev=False
    )
    try:
        module = importlib.import_module(f"spool_tools.{name}")
        # `python -OO` drops docstrings.
        description, _, parser.epilog = (module.__doc__ or "").partition("\n\n")
        parser.description = " ".join(description.split())
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(arguments[1:])))
    except (NoSuchSpoolError, WrongUsageError) as error:
        complain(name, error)
        return error.exit_code
    except TelemetryError as error:
        complain(name, error)
    except ImportError as error:
        if error.name not in {"sqlite3", "_sqlite3"}:
            raise
        complain(name, "this Python was built without sqlite3, which is needed here")
    return FAILED


def _help(name: str, arguments: list[str]) -> int:
    parser = _Parser(
        prog="spool-tools",
        description="See, check, mend and drive a telemetry spool.",
        epilog=_OVERVIEW,
        formatter_class=_Epilog,
        usage="spool-tools COMMAND [options]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"spool-tools {_version()}"
    )
    if name and not name.startswith("-"):
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see `spool-tools --help`"
        parser.error(f"there is no command {name!r}; {hint}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0


def _version() -> str:
    from importlib import metadata  # a third of what the start of a command costs

    try:
        return metadata.version("spooled-telemetry")
    except metadata.PackageNotFoundError:
        return "(not installed)"
