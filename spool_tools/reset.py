"""Give this installation another random id. Events that wait keep the id they were
recorded under; `purge` removes them.

example:
  spool-tools reset --app frobnicate
exit codes: 0 it is done; 1 the id could not be written; 2 wrong usage;
3 no such spool
"""

from __future__ import annotations

import argparse
import os

from spool_tools.changing import failing_with
from spool_tools.screen import Screen
from spool_tools.target import add_target, target_home
from telemetry.consent import consent
from telemetry.files import make_home
from telemetry.identity import reset_uuid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    home = target_home(args, changes=True)
    decision = consent(home, os.environ)
    if not decision.on and not os.path.lexists(home.user_uuid):
        said = (
            f"there is no id, and telemetry is off, so none is made: {decision.reason}"
        )
        Screen().tell({"user_uuid": None}, said)
        return 0
    with failing_with("the id is the one it was"):
        make_home(home.root)
        user_uuid = reset_uuid(home.user_uuid)
    Screen().tell(
        {"user_uuid": user_uuid},
        f"the id is {user_uuid} from now on; a program that runs keeps the old one until "
        "it ends, or takes another file for its events",
    )
    return 0
