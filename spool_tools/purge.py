"""Remove all events that are kept, delivered or not, with dead letters and quarantine,
and count them as purged. Programs that run go on recording, and a flusher at work
goes on sending until it is done (see --wait); `disable` is what ends both.

examples:
  spool-tools purge --app frobnicate          # asks first
  spool-tools purge --app frobnicate --yes
exit codes: 0 it is done; 1 something is left; 2 not confirmed, or wrong usage;
3 no such spool
"""

from __future__ import annotations

import argparse
import sys

from spool_tools.changing import add_wait, failing_with, flush_lock_held, open_books
from spool_tools.reading import Spool
from spool_tools.screen import Screen, complain
from spool_tools.target import add_target, target_home
from spool_tools.wording import many
from telemetry.files import names_in
from telemetry.paths import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    home = target_home(args, changes=True)
    if not args.yes and not _is_confirmed(home):
        complain("purge", "not confirmed; nothing was removed")
        return 2
    from telemetry.delivery.purge import purge

    with (
        failing_with("what is left is kept, run it again"),
        flush_lock_held(home, "purge", wait_s=args.wait),
        open_books(home) as books,
    ):
        done = purge(home, books)
        left = [
            f"{directory}/{name} cannot be removed; what it held counts no more"
            for directory in (home.dead, home.quarantine)
            for name in names_in(directory)
        ]
    Screen().tell(
        done,
        f"removed, and counted as purged: {many(done.events, 'pending event')} and "
        f"{many(done.letters, 'letter')}; {many(done.stretches, 'damaged file')} removed",
    )
    left += Spool(home, "purge").unreadable()
    for each in left:
        complain("purge", f"left alone: {each}")
    return 1 if left else 0


def _is_confirmed(home: Home) -> bool:
    events = many(Spool(home, "purge").count_pending(), "pending event")
    question = f"Remove {events} and all letters in {home.root}?"
    if not sys.stdin or not sys.stdin.isatty():
        complain("purge", "nobody can be asked here: say --yes")
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
