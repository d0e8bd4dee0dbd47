"""The command line: finds the command, loads it alone, and ends as a tool should.

A command is a module with `add_arguments(parser)` and `run(args) -> int`. Its
exit code is 0 for fine, 1 for damage found or something left undelivered, 2 for
wrong usage, 3 for no such spool. A closed pipe (`| head`) ends it quietly, and
Ctrl-C with 130. Nothing here knows what a command does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from spool_tools.output import complain
from spool_tools.target import NO_SUCH_SPOOL, NoSuchSpoolError


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
"""
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: `sys.argv[1:]`) names; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
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
    try:
        code: int = module.run(parser.parse_args(arguments[1:]))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has seen enough; Python's own flush at exit must not
        # complain about it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except NoSuchSpoolError as error:
        complain(name, error)
        return NO_SUCH_SPOOL
    return code


def _help(name: str, arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="spool-tools",
        description="See, check, mend and drive a telemetry spool.",
        epilog=_commands() + "\n" + _FIRST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="spool-tools COMMAND [options]",
    )
    if name and not name.startswith("-"):
        parser.error(f"there is no command {name!r}; see `spool-tools --help`")
    parser.parse_args(arguments)
    parser.print_help()
    return 0


def _commands() -> str:
    lines = (f"  {name:<10}{meaning}" for name, meaning in COMMANDS.items())
    return "commands:\n" + "\n".join(lines) + "\n"
