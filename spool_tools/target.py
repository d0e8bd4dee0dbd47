"""Which spool a command is about: `--app NAME`, or `--home DIR` for the directory.

Creates nothing. A spool that is not there is exit code 3, and the message says
where it was looked for.
"""

from __future__ import annotations

import argparse
import os
import sys

from telemetry.errors import ConfigError, HomeError
from telemetry.paths import Home, home_of


NO_SUCH_SPOOL = 3


class NoSuchSpoolError(Exception):
    """There is no spool where the command was told to look."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """The two options that name a spool; one of them is needed."""
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--app", metavar="NAME", help="the program's name")
    target.add_argument(
        "--home", metavar="DIR", help="the exact directory of its spool"
    )


def target_home(args: argparse.Namespace, *, must_exist: bool = True) -> Home:
    """The home that the options name. Raises NoSuchSpoolError."""
    try:
        home = home_of(
            args.app or "",
            home=args.home,
            environment=os.environ,
            platform=sys.platform,
        )
    except (ConfigError, HomeError) as error:
        raise NoSuchSpoolError(str(error)) from error
    if must_exist and not os.path.isdir(home.root):
        raise NoSuchSpoolError(
            f"there is no spool in {home.root}; a program makes it with its first event"
        )
    return home
