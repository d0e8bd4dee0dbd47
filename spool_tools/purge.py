"""`purge`: removes what is kept, and counts it as purged.

Segments, dead letters and quarantine go; the user's choice, id and the counts
stay. Programs that are running go on in new segments.
"""

from __future__ import annotations

import argparse
import os
import sys

from spool_tools.output import complain
from spool_tools.target import add_target, target_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `purge`."""
    parser.description = "Remove all events that are kept, and count them as purged."
    parser.epilog = "example:\n  spool-tools purge --app frobnicate --yes\n"
    add_target(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Purge; the exit code."""
    home = target_home(args)
    if not args.yes and not confirmed(f"Remove all events in {home.root}?"):
        return 2
    from telemetry.delivery.purge import await_flush_lock, purge
    from telemetry.errors import LedgerError

    lock = await_flush_lock(home)
    if lock is None:
        complain("purge", "a flusher is at work; nothing was removed, try again")
        return 1
    try:
        done = purge(home)
    except (LedgerError, OSError) as error:
        complain("purge", f"{error}; what is left is kept")
        return 1
    finally:
        os.close(lock)
    print(
        f"removed {done.events} events, {done.letters} dead letters and "
        f"{done.stretches} damaged stretches",
        file=sys.stderr,
    )
    return 0


def confirmed(question: str) -> bool:
    """Whether a person at a terminal said yes."""
    if not sys.stdin.isatty():
        complain("purge", "say --yes, as nobody can be asked here")
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
