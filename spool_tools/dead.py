"""`dead`: the events that a server refused for good: list, retry, drop.

A letter that is retried counts as pending again and is sent by the next flush;
one that is dropped is removed and counted as purged. Exit codes: 0 it is done,
1 a letter cannot be read, or a flusher does not end.
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
from telemetry.delivery import dead_letters
from telemetry.delivery.census import Standing, letters
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.wire.formats import event_id_of


class Line(msgspec.Struct, kw_only=True):
    """One letter of a list. `state` is `dead`, or `retried`: it will be sent again."""

    name: str
    state: str
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
    if args.action == "retry":
        return _retry(spool, args.letters)
    return _drop(spool, args.letters, args.wait)


def _list(spool: Spool, patterns: list[str]) -> int:
    screen = Screen()
    chosen = _chosen(spool, patterns)
    now = time.time()
    for name, standing in chosen.items():
        letter = spool.letter(name)
        if letter is None:
            continue
        if screen.is_terminal:
            _show(screen, name, standing, letter, now)
        else:
            screen.object(_line(name, standing, letter))
    if screen.is_terminal and not chosen:
        screen.say("there are no dead letters")
    return 1 if spool.problems else 0


def _retry(spool: Spool, patterns: list[str]) -> int:
    count = 0
    for name, standing in _chosen(spool, patterns).items():
        if standing != "dead" or spool.letter(name) is None:
            continue
        try:
            dead_letters.retry(spool.home.dead, name)
            count += 1
        except FileNotFoundError:
            continue  # dropped or purged meanwhile
    Screen().tell(
        Done(retried=count),
        f"{many(count, 'letter')} to be sent again by the next flush",
    )
    return 1 if spool.problems else 0


def _drop(spool: Spool, patterns: list[str], wait_s: float) -> int:
    # The ledger's libraries are loaded only where the ledger is written.
    from telemetry.delivery.purge import drop_letters

    names = list(_chosen(spool, patterns))
    count = 0
    if names:
        with (
            flush_lock_held(spool.home, "dead", wait_s=wait_s),
            open_books(spool.home) as books,
        ):
            count = drop_letters(spool.home, names, books)
    Screen().tell(
        Done(dropped=count), f"{many(count, 'letter')} dropped, and counted as purged"
    )
    return 0


def _chosen(spool: Spool, patterns: list[str]) -> dict[str, Standing]:
    """The letters that count and that one of the patterns means; all if there is none.

    Raises WrongUsageError for a pattern that means none.
    """
    standing = {
        name: each
        for name, each in letters(spool.home, spool.snapshot).items()
        if each in {"dead", "retried"}
    }
    if not patterns:
        return dict(standing)
    chosen: dict[str, Standing] = {}
    for pattern in patterns:
        meant = [
            name for name in standing if _is_meant(spool, name, pattern.strip("/"))
        ]
        if not meant:
            raise WrongUsageError(
                f"there is no letter {pattern}; `dead list` has their names"
            )
        chosen.update({name: standing[name] for name in meant})
    return chosen


def _is_meant(spool: Spool, name: str, pattern: str) -> bool:
    if fnmatch.fnmatchcase(name, os.path.basename(pattern)):
        return True
    letter = dead_letters.read(spool.home.dead, name)
    return letter is not None and fnmatch.fnmatchcase(
        event_id_of(bytes(letter.event)), pattern
    )


def _line(name: str, standing: str, letter: DeadLetter) -> Line:
    return Line(
        name=name,
        state=standing,
        reason=letter.reason,
        status=letter.status,
        time_ms=letter.time_ms,
        attempts=letter.attempts,
        reply=letter.reply,
        event_id=event_id_of(bytes(letter.event)),
        event=letter.event,
    )


def _show(
    screen: Screen, name: str, standing: str, letter: DeadLetter, now: float
) -> None:
    """Two lines for a person: which one, and why."""
    try:
        event = msgspec.json.decode(letter.event, type=_Event).event
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        event = "?"
    again = (", sent again by the next flush", "green")
    screen.say((name, "bold"), *([again] if standing == "retried" else []), indent=2)
    tries = f"after {many(letter.attempts, 'request')}"
    # A status is part of what is told of the reply.
    said = letter.reply if letter.status else f"{letter.reason}: {letter.reply}"
    screen.say(
        f"  {event}, refused {ago(letter.time_ms, now)} {tries}: ",
        (said, "yellow"),
        indent=4,
    )
