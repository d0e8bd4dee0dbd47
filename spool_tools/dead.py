"""`dead`: the events that a server refused for good: list, retry, drop.

A letter that is retried counts as pending again and is sent by the next flush;
one that is dropped is removed and counted as purged.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time

import msgspec

from spool_tools.output import complain, is_terminal, print_json, print_table
from spool_tools.target import add_target, target_home
from telemetry.delivery import dead_letters
from telemetry.delivery.accounts import Accounts
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.delivery.settling import event_id_of
from telemetry.paths import Home


BUSY = 1


class Line(msgspec.Struct, kw_only=True):
    """One letter of a list."""

    name: str
    state: str
    reason: str
    status: int
    time_ms: int
    attempts: int
    reply: str
    event_id: str
    event: msgspec.Raw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dead`."""
    parser.description = (
        "List, retry or drop the events that a server refused for good."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools dead list --app frobnicate\n"
        "  spool-tools dead retry --app frobnicate --all\n"
        "  spool-tools dead drop --app frobnicate '0179*'\n"
    )
    parser.add_argument("action", choices=("list", "retry", "drop"))
    parser.add_argument(
        "letters",
        nargs="*",
        metavar="NAME",
        help="names of letters; * stands for any text",
    )
    parser.add_argument("--all", action="store_true", help="every letter there is")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """List, retry or drop; the exit code."""
    home = target_home(args)
    names = dead_letters.names(home.dead)
    if args.action == "list":
        return _list(home, names)
    if bool(args.letters) == args.all:
        complain("dead", "name the letters, or say --all")
        return 2
    patterns = ["*"] if args.all else args.letters
    chosen = [
        name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)
    ]
    if not chosen and not args.all:
        complain("dead", "there is no such letter; `dead list` has their names")
        return 2
    return _retry(home, chosen) if args.action == "retry" else _drop(home, chosen)


def _list(home: Home, names: list[str]) -> int:
    lines = [
        _line(name, letter)
        for name in names
        if (letter := dead_letters.read(home.dead, name)) is not None
    ]
    if is_terminal():
        rows = [
            (
                each.name,
                each.state,
                each.reason,
                time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.time_ms / 1000)),
                str(each.attempts),
                each.reply[:60],
            )
            for each in lines
        ]
        print_table(("name", "state", "why", "when", "tries", "reply"), rows)
    else:
        for each in lines:
            print_json(msgspec.json.encode(each))
    for name in names[len(lines) :]:
        complain("dead", f"{name} cannot be read; `dead drop` removes it")
    return 0


def _line(name: str, letter: DeadLetter) -> Line:
    return Line(
        name=name,
        state="retry" if name.endswith(dead_letters.RETRY) else "dead",
        reason=letter.reason,
        status=letter.status,
        time_ms=letter.time_ms,
        attempts=letter.attempts,
        reply=letter.reply,
        event_id=event_id_of(bytes(letter.event)),
        event=letter.event,
    )


def _retry(home: Home, names: list[str]) -> int:
    count = 0
    for name in names:
        if not name.endswith(dead_letters.RETRY):
            dead_letters.retry(home.dead, name)
            count += 1
    print(f"{count} dead letters will be sent by the next flush", file=sys.stderr)
    return 0


def _drop(home: Home, names: list[str]) -> int:
    # The ledger's libraries are loaded only where the ledger is written.
    from telemetry.delivery.ledger import open_ledger
    from telemetry.delivery.ledger_view import read_snapshot
    from telemetry.delivery.purge import await_flush_lock, drop_letters

    lock = await_flush_lock(home)
    if lock is None:
        complain("dead", "a flusher is at work; nothing was dropped, try again")
        return BUSY
    try:
        accounts = Accounts(
            open_ledger=lambda: open_ledger(home.ledger)[0],
            read_ledger=lambda: read_snapshot(home.ledger),
            relieve=lambda: None,
            is_full=lambda: False,
        )
        try:
            count = drop_letters(home, names, accounts)
        finally:
            accounts.close()
    finally:
        os.close(lock)
    print(f"{count} dead letters dropped", file=sys.stderr)
    return 0
