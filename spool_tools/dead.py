"""List, retry or drop the events that a server refused for good. A retried one is sent
by the next flush, a dropped one is removed and counted as purged.

examples:
  spool-tools dead list --app frobnicate
  spool-tools dead retry --app frobnicate --all
  spool-tools dead drop --app frobnicate '0179*'
exit codes: 0 fine; 1 a letter cannot be read, or a flusher does not end; 2 wrong usage; 3 no such spool
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import time

from spool_tools.changing import add_wait, flush_lock_held, open_books
from spool_tools.reading import Spool, decoded
from spool_tools.screen import Screen
from spool_tools.target import WrongUsageError, add_target, target_home
from spool_tools.wording import ago, many
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.wire.batch import event_id_of


# What a line of the list has from its letter as it stands, before the event.
_SAME = ("name", "reason", "status", "time_ms", "attempts", "reply")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("list", "retry", "drop"))
    text = "names of letters, or ids of their events; * stands for any text"
    add("letters", nargs="*", metavar="NAME", help=text)
    add("--all", action="store_true", help="every letter there is")
    add_target(parser)
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    changes = args.action != "list"
    if changes and bool(args.letters) == args.all:
        raise WrongUsageError("name the letters (`dead list` has them), or say --all")
    spool = Spool(target_home(args, changes=changes), "dead")
    # Wrong usage is found before the wait for a flusher.
    letters = _chosen(spool, args.letters)
    if changes:
        _change(spool, args.action, args.letters, args.wait)
    else:
        _list(letters)
    return 1 if spool.problems else 0


def _list(letters: list[DeadLetter]) -> None:
    screen = Screen()
    for letter in letters:
        if screen.is_terminal:
            _show(screen, letter)
        else:
            line = {name: getattr(letter, name) for name in _SAME}
            line["event_id"] = event_id_of(bytes(letter.event))
            screen.object({**line, "event": letter.event})
    if screen.is_terminal and not letters:
        screen.say("there are no dead letters")


def _change(spool: Spool, action: str, patterns: list[str], wait_s: float) -> None:
    # The ledger's libraries are loaded only where the ledger is written.
    from telemetry.delivery.dead_letters import drop, learn_files, retry

    with (
        flush_lock_held(spool.home, "dead", wait_s=wait_s),
        open_books(spool.home) as books,
    ):
        learn_files(spool.home, books)
        names = {each.name for each in _chosen(spool, patterns)}
        change = retry if action == "retry" else drop
        count = change(spool.home, books, names)
    done, said = {
        "retry": ("retried", "to be sent again by the next flush"),
        "drop": ("dropped", "dropped, and counted as purged"),
    }[action]
    counts = {"retried": 0, "dropped": 0, done: count}
    Screen().tell(counts, f"{many(count, 'letter')} {said}")


def _chosen(spool: Spool, patterns: list[str]) -> list[DeadLetter]:
    """The letters that one of the patterns means; all if there is none.

    Raises WrongUsageError for a pattern that means none.
    """
    letters = list(spool.letters())
    if not patterns:
        return letters
    chosen: dict[str, DeadLetter] = {}
    for pattern in patterns:
        name = os.path.basename(pattern.strip("/"))
        meant = {
            each.name: each
            for each in letters
            if fnmatch.fnmatchcase(each.name, name)
            or fnmatch.fnmatchcase(event_id_of(bytes(each.event)), pattern)
        }
        if not meant:
            raise WrongUsageError(
                f"there is no letter {pattern}; `dead list` has their names"
            )
        chosen |= meant
    return list(chosen.values())


def _show(screen: Screen, letter: DeadLetter) -> None:
    event = decoded(bytes(letter.event)).get("event", "?")
    screen.say((letter.name, "bold"), indent=2)
    when = ago(letter.time_ms, time.time())
    tries = f"after {many(letter.attempts, 'request')}"
    # The text of a reply begins with its status.
    said = letter.reply if letter.status else f"{letter.reason}: {letter.reply}"
    screen.say(f"  {event}, refused {when} {tries}: ", (said, "yellow"), indent=4)
