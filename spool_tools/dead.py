"""`dead`: the events that a server refused for good: list, retry, drop.

A letter that is retried is a pending event again, in a segment of its own, and is
sent by the next flush; one that is dropped is removed and counted as purged. Exit
codes: 0 it is done, 1 a letter is damaged, or a flusher does not end.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import time

import msgspec

from spool_tools.changing import add_wait, flush_lock_held, open_books
from spool_tools.reading import Spool
from spool_tools.screen import Screen, ago, many
from spool_tools.target import WrongUsageError, add_target, target_home
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.wire.formats import event_id_of


class Line(msgspec.Struct, kw_only=True):
    """One letter of a list."""

    name: str
    reason: str
    status: int
    time_ms: int
    attempts: int
    reply: str
    event_id: str
    event: msgspec.Raw


class Done(msgspec.Struct, kw_only=True):
    """How many letters were retried, or dropped."""

    retried: int = 0
    dropped: int = 0


class _Event(msgspec.Struct):
    event: str = "?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dead`."""
    parser.description = (
        "List, retry or drop the events that a server refused for good. A retried "
        "one is sent by the next flush, a dropped one is removed and counted as "
        "purged."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools dead list --app frobnicate\n"
        "  spool-tools dead retry --app frobnicate --all\n"
        "  spool-tools dead drop --app frobnicate '0179*'\n"
        "exit codes: 0 fine; 1 a letter cannot be read, or a flusher does not end;\n"
        "2 wrong usage; 3 no such spool\n"
    )
    parser.add_argument("action", choices=("list", "retry", "drop"))
    parser.add_argument(
        "letters",
        nargs="*",
        metavar="NAME",
        help="names of letters, or ids of their events; * stands for any text",
    )
    parser.add_argument("--all", action="store_true", help="every letter there is")
    add_target(parser)
    add_wait(parser)


def run(args: argparse.Namespace) -> int:
    """List, retry or drop; the exit code."""
    changes = args.action != "list"
    if changes and bool(args.letters) == args.all:
        raise WrongUsageError("name the letters (`dead list` has them), or say --all")
    spool = Spool(target_home(args, changes=changes), "dead")
    if args.action == "list":
        return _list(spool, args.letters)
    return _change(spool, args.action, args.letters, args.wait)


def _list(spool: Spool, patterns: list[str]) -> int:
    screen = Screen()
    chosen = _chosen(spool, patterns)
    now = time.time()
    for letter in chosen:
        if screen.is_terminal:
            _show(screen, letter, now)
        else:
            screen.object(_line(letter))
    if screen.is_terminal and not chosen:
        screen.say("there are no dead letters")
    return 1 if spool.problems else 0


def _change(spool: Spool, action: str, patterns: list[str], wait_s: float) -> int:
    # The ledger's libraries are loaded only where the ledger is written.
    from telemetry.delivery.dead_letters import drop, learn_files, retry

    count = 0
    # Wrong usage is found before the wait, and the letters are those under the lock.
    _chosen(spool, patterns)
    with (
        flush_lock_held(spool.home, "dead", wait_s=wait_s),
        open_books(spool.home) as books,
    ):
        learn_files(spool.home, books)
        names = {each.name for each in _chosen(spool, patterns)}
        change = retry if action == "retry" else drop
        count = change(spool.home, books, names)
    if action == "retry":
        said = f"{many(count, 'letter')} to be sent again by the next flush"
        Screen().tell(Done(retried=count), said)
    else:
        said = f"{many(count, 'letter')} dropped, and counted as purged"
        Screen().tell(Done(dropped=count), said)
    return 1 if spool.problems else 0


def _chosen(spool: Spool, patterns: list[str]) -> list[DeadLetter]:
    """The letters that one of the patterns means; all if there is none.

    Raises WrongUsageError for a pattern that means none.
    """
    letters = list(spool.letters())
    if not patterns:
        return letters
    chosen: dict[str, DeadLetter] = {}
    for pattern in patterns:
        meant = [each for each in letters if _is_meant(each, pattern.strip("/"))]
        if not meant:
            raise WrongUsageError(
                f"there is no letter {pattern}; `dead list` has their names"
            )
        chosen.update({each.name: each for each in meant})
    return list(chosen.values())


def _is_meant(letter: DeadLetter, pattern: str) -> bool:
    return fnmatch.fnmatchcase(
        letter.name, os.path.basename(pattern)
    ) or fnmatch.fnmatchcase(event_id_of(bytes(letter.event)), pattern)


def _line(letter: DeadLetter) -> Line:
    return Line(
        name=letter.name,
        reason=letter.reason,
        status=letter.status,
        time_ms=letter.time_ms,
        attempts=letter.attempts,
        reply=letter.reply,
        event_id=event_id_of(bytes(letter.event)),
        event=letter.event,
    )


def _show(screen: Screen, letter: DeadLetter, now: float) -> None:
    """Two lines for a person: which one, and why."""
    try:
        event = msgspec.json.decode(letter.event, type=_Event).event
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        event = "?"
    screen.say((letter.name, "bold"), indent=2)
    tries = f"after {many(letter.attempts, 'request')}"
    # A status is part of what is told of the reply.
    said = letter.reply if letter.status else f"{letter.reason}: {letter.reply}"
    screen.say(
        f"  {event}, refused {ago(letter.time_ms, now)} {tries}: ",
        (said, "yellow"),
        indent=4,
    )
