"""`disable`: turns telemetry off for good, and removes everything that is kept.

Recording has stopped and nothing is sent any more before the flush lock is asked
for; then segments, dead letters, quarantine, ledger and the user's id are removed.
What is interrupted there is finished by the next tool, flusher or launch. Exit
codes: 0 it is done, 1 the choice could not be made, or something is left, 130
interrupted.
"""

from __future__ import annotations

import argparse

import msgspec

from spool_tools.changing import BusyError, add_wait, flush_lock_held
from spool_tools.screen import Screen, complain, problem_of
from spool_tools.target import add_target, target_home
from telemetry.consent import consent
from telemetry.delivery.opt_out import opt_out
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
    off = "telemetry is off: nothing more is recorded or sent"
    later = "the next run of the program or of a tool removes what is kept"
    try:
        try:
            make_home(home.root)
            opt_out(home)
        except (HomeError, OSError) as error:
            problem = problem_of(error)
            complain(
                "disable", f"{problem}; the choice is not written, nothing was removed"
            )
            return 1
        # It removes what was kept as soon as no flusher is at work any more.
        with flush_lock_held(home, "disable", wait_s=args.wait):
            pass
    except KeyboardInterrupt:
        if not consent(home, {}).on:
            complain("disable", f"{off}, but this was interrupted; {later}")
        raise
    except BusyError:
        complain("disable", f"{off}, but a flusher has not ended yet; {later}")
        return 1
    except OSError as error:
        complain("disable", f"{off}, but not all is removed: {problem_of(error)}")
        return 1
    Screen().tell(
        Chosen(telemetry="off", consent=home.consent),
        "telemetry is off, and everything that was kept is removed",
    )
    return 0
