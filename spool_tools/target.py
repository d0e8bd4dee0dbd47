"""Which spool a command is about: `--app NAME`, or `--home DIR` for the directory.

Creates nothing. A spool that is not there is exit code 3, and the message says
where it was looked for and which ones there are. One that is reached through a
link is not opened; one that belongs to somebody else is read where the system
permits it, and never changed: its owner's programs would refuse what we leave. A
directory that holds other things and no spool is not changed either: `--home ~` is an
easy mistake.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import threading

from telemetry.errors import ConfigError, HomeError
from telemetry.files import directory_problem, names_in
from telemetry.paths import Home, home_of, is_segment, named_base, state_directory


NO_SUCH_SPOOL = 3
_NAMED_MAX = 8


class NoSuchSpoolError(Exception):
    """There is no spool where the command was told to look."""


class WrongUsageError(Exception):
    """The command was given something it cannot work with."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """The two options that name a spool; `target_home` asks for one of them."""
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--app", metavar="NAME", help="the program's name")
    target.add_argument(
        "--home", metavar="DIR", help="the exact directory of its spool"
    )


def target_home(
    args: argparse.Namespace, *, changes: bool = False, must_exist: bool = True
) -> Home:
    """The home that the options name. `changes` says that something will be written.

    Raises NoSuchSpoolError, and WrongUsageError for a name that cannot be one and
    for a home that is not this user's to change.
    """
    if args.app is None and args.home is None:
        raise WrongUsageError(
            f"which spool? say --app NAME, or --home DIR{_listed(known_apps())}"
        )
    if args.home == "":
        raise WrongUsageError("--home is empty; it takes a directory")
    try:
        home = home_of(
            args.app or "",
            home=args.home,
            environment=os.environ,
            platform=sys.platform,
        )
    except ConfigError as error:
        raise WrongUsageError(str(error)) from error
    except HomeError as error:
        raise NoSuchSpoolError(f"{error}; or name the directory with --home") from error
    except FileNotFoundError as error:
        raise NoSuchSpoolError(
            "TELEMETRY_HOME is relative to a working directory that is gone"
        ) from error
    _check(home, args.app, changes=changes, must_exist=must_exist)
    return home


def _check(home: Home, app: str | None, *, changes: bool, must_exist: bool) -> None:
    try:
        found = os.lstat(home.root)
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise _not_looked_into(home, error) from error
        if must_exist:
            raise NoSuchSpoolError(_nothing(home, app)) from error
        return
    problem = directory_problem(found)
    if problem.startswith("is no directory"):
        raise NoSuchSpoolError(f"{home.root} {problem}")
    if changes and problem:
        raise WrongUsageError(f"{home.root} {problem}; it was left as it is")
    try:
        there = os.listdir(home.root)
        is_home = _is_home(home, there)
    except OSError as error:
        raise _not_looked_into(home, error) from error
    if must_exist and not is_home:
        raise NoSuchSpoolError(_nothing(home, app))
    if changes and there and not is_home:
        # A directory of a user's own may well have a `ledger` in it.
        raise NoSuchSpoolError(
            f"{home.root} holds other things, and no spool; it was left as it is"
        )


def _is_home(home: Home, there: list[str]) -> bool:
    """Whether the names in a directory, or what is below, can only be ours."""
    ours = (home.consent, home.next_flush, home.user_uuid)
    return (
        not set(there).isdisjoint(map(os.path.basename, ours))
        or any(map(is_segment, names_in(home.spool)))
        or os.path.lexists(f"{home.ledger}/cache.db")
    )


def _not_looked_into(home: Home, error: OSError) -> NoSuchSpoolError:
    text = f"{home.root} cannot be looked into: {error.strerror}"
    if isinstance(error, PermissionError):
        text += "; run this as the user it belongs to"
    return NoSuchSpoolError(text)


def _nothing(home: Home, app: str | None) -> str:
    """What to say of a spool that is not there, and which ones are."""
    text = f"there is no spool in {home.root}; a program makes it with its first event"
    apps = known_apps() if app else []
    close = difflib.get_close_matches(app or "", apps, n=1)
    if close:
        return f"{text}. Did you mean --app {close[0]}?"
    return f"{text}{_listed(apps)}"


def _listed(apps: list[str]) -> str:
    """A sentence that names the programs, not all of them if they are many."""
    if not apps:
        return ""
    more = ", …" if len(apps) > _NAMED_MAX else ""
    return f". There is one of: {', '.join(apps[:_NAMED_MAX])}{more}"


def known_apps() -> list[str]:
    """The programs that have a spool where `--app` looks for it."""
    try:
        base = named_base(os.environ)
        directory = base or state_directory(os.environ, sys.platform)
        names = sorted(os.listdir(directory)) if directory else []
    except OSError:
        return []
    inside = "" if base else "telemetry"
    return [
        name
        for name in names
        if os.path.isdir(os.path.join(directory, name, inside, "spool"))
    ]


def seconds(text: str) -> float:
    """A number of seconds, 0 or more, as the type of an option."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    # Beyond that, threading cannot wait.
    if not 0 <= found <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def seconds_above_0(text: str) -> float:
    """A number of seconds above 0, as the type of an option."""
    found = seconds(text)
    if found == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0 seconds")
    return found
