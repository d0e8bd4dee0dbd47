"""`disable`: turns telemetry off for good, and removes everything that is kept.

The choice is on disk before anything is removed, so a program that starts
meanwhile finds it. Segments, dead letters, quarantine, ledger and the user's
id go. A flusher that is at work stops before its next request. Exit codes: 0 it
is done, 1 the choice is made, or could not be, and something is left.
"""

from __future__ import annotations

import argparse
import time

import msgspec

from spool_tools.changing import BusyError, add_wait, flush_lock_held
from spool_tools.output import Screen, complain
from spool_tools.target import add_target, target_home
from spool_tools.text import problem_of
from telemetry.consent import Choice, remember_choice
from telemetry.errors import HomeError
from telemetry.files import make_home


class Chosen(msgspec.Struct, kw_only=True):
    """What is chosen now, and where that is remembered."""

    telemetry: str
    consent: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `disable`."""
    parser.description = (
        "Turn telemetry off for good and remove everything that is kept. Programs "
        "that run notice at their next event."
    )
    parser.epilog = (
        "example:\n"
        "  spool-tools disable --app frobnicate\n"
        "exit codes: 0 it is done; 1 something is left; 2 wrong usage\n"
    )
    add_target(parser)
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    """Disable; the exit code."""
    home = target_home(args, changes=True, must_exist=False)
    try:
        make_home(home.root)
        remember_choice(
            home.consent,
            Choice(on=False, date=time.strftime("%Y-%m-%d", time.gmtime())),
        )
    except (HomeError, OSError) as error:
        complain(
            "disable",
            f"{problem_of(error)}; the choice is not written, nothing was removed",
        )
        return 1
    from telemetry.delivery.purge import forget

    try:
        with flush_lock_held(home, "disable", wait_s=args.wait):
            forget(home)
    except BusyError:
        complain(
            "disable",
            "telemetry is off, but a flusher has not ended yet; run this again to "
            "remove what is kept",
        )
        return 1
    except OSError as error:
        complain(
            "disable", f"telemetry is off, but not all is removed: {problem_of(error)}"
        )
        return 1
    Screen().tell(
        Chosen(telemetry="off", consent=home.consent),
        "telemetry is off, and everything that was kept is removed",
    )
    return 0
