"""Turn telemetry on again. A program that says no for itself, and an environment
variable, are stronger.

examples:
  spool-tools enable --app frobnicate
  spool-tools status --app frobnicate --explain    # what decides
exit codes: 0 it is on; 1 the environment overrules it, or the choice could not
be written; 2 wrong usage
"""

from __future__ import annotations

import argparse
import os
import time

from spool_tools.changing import add_wait, failing_with, flush_lock_held
from spool_tools.screen import Screen, complain
from spool_tools.target import add_target, target_home
from telemetry.consent import Choice, read_choice, remember_choice
from telemetry.files import make_home
from telemetry.switches import environment_decision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    home = target_home(args, changes=True, must_exist=False)
    before = read_choice(home.consent)
    with failing_with("the choice is not written, nothing changed"):
        make_home(home.root)
        if before is not None and not before.is_finished:
            # Nothing that was kept at the opt-out may be sent after this.
            with flush_lock_held(home, "enable", wait_s=args.wait):
                pass
        # A user who turns it on by hand has read the notice that was shown.
        seen = before.notice_version if before else ""
        date = time.strftime("%Y-%m-%d", time.gmtime())
        remember_choice(home.consent, Choice(on=True, date=date, notice_version=seen))
    overruled = environment_decision(os.environ)
    word = "off" if overruled else "on"
    if overruled:
        complain(
            "enable",
            f"the choice is remembered, but {overruled.reason} in the environment "
            "overrules it: telemetry stays off where that is set",
        )
    Screen().tell({"telemetry": word, "consent": home.consent}, f"telemetry is {word}")
    return 1 if overruled else 0
