"""Turn telemetry off for good, remove everything that is kept, and ask the server to
delete what it has of this installation, where the program names an address for that.

examples:
  spool-tools forget --app frobnicate
  spool-tools status --app frobnicate    # whether the request still waits
exit codes: 0 it is done; 1 something is left, or the request still waits;
2 wrong usage
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import msgspec

from spool_tools.changing import add_wait
from spool_tools.disable import turn_off
from spool_tools.reading import Spool
from spool_tools.screen import Screen
from spool_tools.target import add_target, destination, seconds, target_home
from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.consent import consent
from telemetry.delivery.forgetting import Note, last_try
from telemetry.delivery.opt_out import requests_waiting
from telemetry.delivery.report import Progress
from telemetry.paths import Home


_DELETED = "the server has accepted to delete what it has"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add_wait(parser)
    add = parser.add_argument
    text = "how long to try to reach the server (default: %(default)s)"
    add("--timeout", type=seconds, default=20.0, metavar="SECONDS", help=text)


def run(args: argparse.Namespace) -> int:
    home = target_home(args, changes=True, must_exist=False)
    config = destination({"app": args.app or "telemetry"}, os.environ)
    named = os.path.lexists(home.deletes)
    if os.path.isdir(home.root):
        state = Spool(home, "forget").snapshot.state
        named = named or bool(state.deletion_endpoint)
        config = _as_known(config, state)
    asks = bool(config.deletion_endpoint or requests_waiting(home)) or named
    is_known = os.path.lexists(home.user_uuid)
    had_id = bool(requests_waiting(home))
    had_id |= turn_off(args, home, "forget", asks=asks)
    server, problem = "not asked", ""
    if requests_waiting(home):
        config = _as_known(config, last_try(home))
        problem = _ask(config, home, args.timeout)
        server = "waiting" if problem else "deleted"
        said = _DELETED
        if problem:
            said = f"the server has not accepted to delete what it has: {problem}"
    elif asks and had_id:
        # A flusher that was at work has noticed the choice, and has asked.
        server, said = "deleted", _DELETED
    elif asks or not is_known:
        # None was made; or an opt-out has removed it, and what named an address.
        said = "no id was kept under which a server could delete anything"
    else:
        said = "nothing was sent, as the program names no deletion_endpoint"
    Screen().tell(
        {"telemetry": "off", "consent": home.consent, "server": server, "why": said},
        f"telemetry is off, and everything that was kept here is removed; {said}",
    )
    return 1 if problem else 0


def _as_known(config: Config, state: DeliveryState | Note) -> Config:
    """The config with what an earlier flush knew of the addresses, and of acceptance."""
    changes: dict[str, Any] = {}
    if not config.accept_statuses:
        changes["accept_statuses"] = state.accept_statuses
    deletion = config.deletion_endpoint or state.deletion_url
    changes["deletion_endpoint"] = deletion
    if deletion and not config.endpoint and state.url:
        changes |= {"endpoint": state.url, "format": state.format, "gzip": state.gzip}
        if "TELEMETRY_HEADER" not in os.environ:
            changes["header"] = state.header
    return msgspec.structs.replace(config, **changes)


def _ask(config: Config, home: Home, timeout_s: float) -> str:
    """Post the request if that is possible here; why it still waits, or empty."""
    later = "later runs of the program try again"
    if not config.deletion_endpoint:
        return f"no address is known here (TELEMETRY_DELETION_ENDPOINT); {later}"
    if lacks := config.lacks():
        return f"no {lacks} is known here (TELEMETRY_{lacks.upper()}); {later}"
    decision = consent(home, os.environ)
    if not decision.asks:
        return f"{decision.reason} holds it back; {later} without that"
    try:
        from telemetry.delivery.flush import flush
    except ImportError as error:
        return f"this Python cannot load what sends ({error}); {later}"
    progress = Progress()
    flush(
        config,
        home,
        timeout_s=timeout_s,
        environment=os.environ,
        allowed=lambda: False,
        progress=progress,
        by_hand=True,
    )
    if not requests_waiting(home):
        return ""
    why = last_try(home).said if progress.verdict else "it was not reached"
    return f"{why}; {later}"
