"""The notice that a program shows once, before anything is recorded.

It goes to standard error, and only where a person can read it: a terminal, no CI, no
shell completion, no `--help` or `--version`. If it cannot be shown, or that cannot be
remembered, telemetry stays off. When it is due: `consent.is_notice_due`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from telemetry.consent import Choice, remember_choice, stored_choice
from telemetry.errors import HomeError
from telemetry.files import make_home, refuse_below_others
from telemetry.paths import Home
from telemetry.switches import ci_variable


# Their output is read by other programs, or asked for without any command.
_QUIET_ARGUMENTS = frozenset({"--help", "-h", "--version"})


def can_show(
    environment: Mapping[str, str], arguments: list[str], *, is_terminal: bool
) -> bool:
    """Whether a person would read it now. Pure."""
    is_read_by_program = ci_variable(environment) or is_completing(environment)
    is_quiet = not _QUIET_ARGUMENTS.isdisjoint(arguments)
    return is_terminal and not is_read_by_program and not is_quiet


def is_completing(environment: Mapping[str, str]) -> bool:
    """Whether a shell asks for completions: click, typer, argcomplete, bash."""
    return any(
        name == "COMP_LINE" or (name.startswith("_") and name.endswith("_COMPLETE"))
        for name in environment
    ) or bool(environment.get("_ARGCOMPLETE", ""))


def _can_be_remembered(home: Home) -> bool:
    """Whether the home, or the nearest directory above it, can be written to."""
    try:
        refuse_below_others(home.root)
    except HomeError:
        return False
    place = home.root
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)


def show(notice: str, version: str, home: Home, environment: Mapping[str, str]) -> None:
    """Show the notice and remember that, if both can be had.

    It is shown before a byte is written: a crash between the two costs a second notice.
    An opt-out stands that is made while a terminal holds the text back.
    """
    stream = sys.stderr
    try:
        is_terminal = stream is not None and stream.isatty()
    except ValueError:
        is_terminal = False  # the host has closed it
    if not can_show(environment, sys.argv[1:], is_terminal=is_terminal):
        return
    if not _can_be_remembered(home):
        return
    choice = Choice(
        on=True, date=time.strftime("%Y-%m-%d", time.gmtime()), notice_version=version
    )
    try:
        is_first = stored_choice(home.consent) is None
        stream.write(notice.rstrip("\n") + "\n")
        stream.flush()
        make_home(home.root)
        before = stored_choice(home.consent)
        if before is None or before.on:
            remember_choice(home.consent, choice, first_wins=is_first)
    except (OSError, ValueError, HomeError):
        pass  # it is due again at the next launch
