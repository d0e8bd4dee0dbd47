"""Serve a page on this machine until Ctrl-C: what is kept, with the meaning of each
field, what was sent by day, where it goes, and buttons for on, off and a new id. Only a
program that knows the address can read it.

examples:
  spool-tools view --app frobnicate           # prints the address
  spool-tools view --app frobnicate --open    # and opens it
exit codes: 0 it was ended; 1 no port can be had; 2 wrong usage; 3 no such spool
"""

from __future__ import annotations

import argparse

from spool_tools.events import catalogue_of
from spool_tools.page import serve
from spool_tools.target import add_target, target_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add("--open", action="store_true", help="open it in the browser")
    text = "explain the events of a program's own that are defined there"
    add("--of", metavar="MODULE", action="append", default=[], help=text)


def run(args: argparse.Namespace) -> int:
    home = target_home(args)
    own = catalogue_of(args.of)
    return serve(home, name=args.app or "", own_events=own, opens=args.open)
