"""`disable`: turns telemetry off for good, and removes everything that is kept.

The choice is on disk before anything is removed, so a program that starts
meanwhile finds it. Segments, dead letters, quarantine, ledger and the user's
id go. A flusher that is at work stops before its next request.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from spool_tools.output import complain
from spool_tools.target import add_target, target_home
from telemetry.consent import Choice, remember_choice
from telemetry.errors import HomeError
from telemetry.files import make_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `disable`."""
    parser.description = (
        "Turn telemetry off for good and remove everything that is kept."
    )
    parser.epilog = "example:\n  spool-tools disable --app frobnicate\n"
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Disable; the exit code."""
    home = target_home(args, must_exist=False)
    try:
        make_home(home.root)
        remember_choice(
            home.consent,
            Choice(on=False, date=time.strftime("%Y-%m-%d", time.gmtime())),
        )
    except (HomeError, OSError) as error:
        complain(
            "disable", f"{error}; the choice could not be written, nothing changed"
        )
        return 1
    from telemetry.delivery.purge import await_flush_lock, forget

    lock = await_flush_lock(home)
    if lock is None:
        complain(
            "disable",
            "telemetry is off, but a flusher has not ended yet; run this again to "
            "remove what is kept",
        )
        return 1
    try:
        forget(home)
    except OSError as error:
        complain("disable", f"telemetry is off, but not all is removed: {error}")
        return 1
    finally:
        os.close(lock)
    print("telemetry is off, and everything that was kept is removed", file=sys.stderr)
    return 0
