"""`enable`: turns telemetry on again, and says where something stronger says no."""

from __future__ import annotations

import argparse
import os
import sys
import time

from spool_tools.output import complain
from spool_tools.target import add_target, target_home
from telemetry.consent import Choice, read_choice, remember_choice
from telemetry.errors import HomeError
from telemetry.files import make_home
from telemetry.switches import environment_decision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `enable`."""
    parser.description = "Turn telemetry on again."
    parser.epilog = "example:\n  spool-tools enable --app frobnicate\n"
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Enable; the exit code."""
    home = target_home(args, must_exist=False)
    before = read_choice(home.consent)
    try:
        make_home(home.root)
        remember_choice(
            home.consent,
            Choice(
                on=True,
                date=time.strftime("%Y-%m-%d", time.gmtime()),
                # Whoever turns it on by hand has read the notice they were shown.
                notice_version=before.notice_version if before else "",
            ),
        )
    except (HomeError, OSError) as error:
        complain("enable", f"{error}; the choice could not be written, nothing changed")
        return 1
    overruled = environment_decision(os.environ)
    if overruled is not None:
        complain(
            "enable",
            f"the choice is remembered, but {overruled.reason} in the environment "
            "overrules it: telemetry stays off where that is set",
        )
        return 1
    print("telemetry is on", file=sys.stderr)
    return 0
