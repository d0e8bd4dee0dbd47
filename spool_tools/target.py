"""Which spool a command is about: `--app NAME`, or `--home DIR` for the directory.

Creates nothing. A spool that is not there is exit code 3, and the message says
where it was looked for and which ones there are. One that is reached through a link is
not opened. One that belongs to somebody else is read where the system permits it, and
never changed; nor is a directory that holds other things and no spool: `--home ~` is
an easy mistake.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import Any

from telemetry.build_values import build_values
from telemetry.config import Config, resolve
from telemetry.errors import ConfigError, HomeError
from telemetry.files import directory_problem, names_in, refuse_below_others
from telemetry.paths import Home, home_of, is_segment, named_base, state_directory


_NAMED_MAX = 8


class NoSuchSpoolError(Exception):
    """There is no spool where the options point."""

    exit_code = 3


class WrongUsageError(Exception):
    """The command was given something it cannot work with."""

    exit_code = 2


def add_target(parser: argparse.ArgumentParser) -> None:
    """The two options that name a spool; `target_home` asks for one of them."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--app", metavar="NAME", help="the program's name")
    add("--home", metavar="DIR", help="the exact directory of its spool")


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
    try:
        _check(home, args.app, changes=changes, must_exist=must_exist)
    except OSError as error:
        text = f"{home.root} cannot be looked into: {error.strerror}"
        if isinstance(error, PermissionError):
            text += "; run this as the user it belongs to"
        raise NoSuchSpoolError(text) from error
    return home


def _check(home: Home, app: str | None, *, changes: bool, must_exist: bool) -> None:
    try:
        found = os.lstat(home.root)
    except (FileNotFoundError, NotADirectoryError) as error:
        if must_exist:
            raise NoSuchSpoolError(_nothing(home, app)) from error
        return
    problem = directory_problem(found)
    if problem.startswith("is no directory"):
        raise NoSuchSpoolError(f"{home.root} {problem}")
    if changes and problem:
        raise WrongUsageError(f"{home.root} {problem}; it was left as it is")
    names = os.listdir(home.root)
    if _is_home(home, names):
        return
    if must_exist:
        path = home.root
        if not problem and os.path.lexists(home.spool):
            path, problem = home.spool, directory_problem(os.lstat(home.spool))
        unused = f"{path} {problem}: nothing is recorded there"
        raise NoSuchSpoolError(unused if problem else _nothing(home, app))
    if changes and names:
        # A directory of a user's own may well have a `ledger` in it.
        raise NoSuchSpoolError(
            f"{home.root} holds other things, and no spool; it was left as it is"
        )


def _is_home(home: Home, names: list[str]) -> bool:
    """Whether the names in a directory, or what is below, can only be ours."""
    ours = (home.consent, home.next_flush, home.user_uuid)
    return (
        not set(names).isdisjoint(map(os.path.basename, ours))
        or any(map(is_segment, names_in(home.spool)))
        or os.path.lexists(f"{home.ledger}/cache.db")
    )


def _nothing(home: Home, app: str | None) -> str:
    """What to say of a spool that is not there, and which ones are."""
    text = f"there is no spool in {home.root}; {_prospect(home.root)}"
    text = ". ".join([text, *(misread_variables() if app else [])])
    apps = [each for each in known_apps() if each != app] if app else []
    close = difflib.get_close_matches(app or "", apps, n=1)
    return f"{text}. Did you mean --app {close[0]}?" if close else text + _listed(apps)


def _prospect(root: str) -> str:
    """Whether a program can make a home that is not there, and what to do if not."""
    above = os.path.dirname(os.path.abspath(root))
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    try:
        refuse_below_others(root)
    except HomeError as error:
        return f"none is made, as it {error.problem}"
    if not os.path.isdir(above):
        problem = "is no directory"
    elif not os.access(above, os.W_OK | os.X_OK):
        problem = "cannot be written"
    elif not shutil.disk_usage(above).free:
        problem = "is on a full disk"
    else:
        return "a program makes it with its first event"
    return f"none can be made: {above} {problem}; set TELEMETRY_HOME to another place"


def _listed(apps: list[str]) -> str:
    if not apps:
        return ""
    more = ", …" if len(apps) > _NAMED_MAX else ""
    return f". There is one of: {', '.join(apps[:_NAMED_MAX])}{more}"


def misread_variables() -> list[str]:
    """What of the environment does not count as it stands: a sentence each."""
    found = Config(app="status").misread(os.environ, sys.platform)
    return [str(each) for each in found]


def known_apps() -> list[str]:
    """The programs that have a spool where `--app` looks for it."""
    try:
        base = named_base(os.environ)
        directory = base or state_directory(os.environ, sys.platform)
        names = sorted(os.listdir(directory)) if directory else []
    except OSError:
        return []
    inside = "" if base else "telemetry"
    spools = {name: os.path.join(directory, name, inside, "spool") for name in names}
    return [name for name, spool in spools.items() if os.path.isdir(spool)]


def destination(named: Mapping[str, Any], environment: Mapping[str, str]) -> Config:
    """The settings that say where to send: named, else the environment's, the build's.

    Raises ConfigError.
    """
    built = {name: value for name, value in build_values().items() if name != "enabled"}
    return resolve(named, environment=environment, build=built)


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
    if seconds(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0 seconds")
    return float(text)


def count(text: str) -> int:
    """A whole number, 0 or more, as the type of an option."""
    if re.fullmatch("[0-9]{1,18}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


def count_above_0(text: str) -> int:
    """A whole number above 0, as the type of an option."""
    if count(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
