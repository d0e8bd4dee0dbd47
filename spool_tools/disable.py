"""Turn telemetry off for good and remove everything that is kept. Programs that run
notice at their next event. `forget` also asks the server to delete what it has.

example:
  spool-tools disable --app frobnicate
exit codes: 0 it is done; 1 something is left; 2 wrong usage
"""

from __future__ import annotations

import argparse
import os

from spool_tools.changing import BusyError, add_wait, failing_with, flush_lock_held
from spool_tools.screen import Screen, complain, problem_of
from spool_tools.target import add_target, target_home
from telemetry.consent import consent
from telemetry.delivery.opt_out import opt_out
from telemetry.errors import TelemetryError
from telemetry.files import make_home
from telemetry.paths import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    home = target_home(args, changes=True, must_exist=False)
    turn_off(args, home, "disable")
    Screen().tell(
        {"telemetry": "off", "consent": home.consent},
        "telemetry is off, and everything that was kept is removed",
    )
    return 0


def turn_off(
    args: argparse.Namespace, home: Home, command: str, *, asks: bool = False
) -> bool:
    """Remove all that was kept. Raises TelemetryError, which says what is left.

    Returns: with `asks`, whether there was an id for a server to delete.
    """
    off = "telemetry is off: nothing more is recorded or sent"
    later = "the next run of the program or of a tool removes what is kept"
    is_new = args.app is not None and not os.path.lexists(home.root)
    try:
        with failing_with("the choice is not written, nothing was removed"):
            make_home(home.root)
            had_id = opt_out(home, asks=asks)
        # It removes what was kept as soon as no flusher is at work any more.
        with flush_lock_held(home, command, wait_s=args.wait):
            pass
    except KeyboardInterrupt:
        if not consent(home, {}).on:
            complain(command, f"{off}, but this was interrupted; {later}")
        raise
    except BusyError as error:
        problem = f"{off}, but a flusher has not ended yet; {later}"
        raise TelemetryError(problem) from error
    except OSError as error:
        problem = f"{off}, but not all is removed: {problem_of(error)}"
        raise TelemetryError(problem) from error
    if is_new:
        where = f"there was no spool in {home.root}; that program records nothing there"
        complain(command, f"{where}. One that keeps its events elsewhere needs --home")
    return had_id
