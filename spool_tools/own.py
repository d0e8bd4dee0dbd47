"""`frob telemetry …`: the tools as a part of the program whose events they are about.

It shows the user what the program keeps, where that goes, and what to type to change
it. The rest is what `status`, `dump`, `enable`, `disable`, `reset` and
`forget` do, on the home and with the settings of the program.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator

from spool_tools.cli import ended, main
from spool_tools.events import catalogue_of
from spool_tools.screen import Part, Screen, complain, speaking_as
from spool_tools.status import Status, recording_problem, status_of
from spool_tools.wording import ago, many, size
from telemetry.client import Client
from telemetry.errors import TelemetryError
from telemetry.identity import known_uuid
from telemetry.integrations.own_commands import ACTIONS
from telemetry.mistakes import missing
from telemetry.paths import Home, home_of


FAILED, WRONG_USAGE = 1, 2
# The tool behind each action.
_TOOLS = {"show": "dump", "on": "enable", "off": "disable"}
_TOOLS |= {name: name for name in ("reset", "forget")}


def run_action(
    action: str, program: str, client: Client, *, page: bool, events: Iterable[str]
) -> int:
    """Run one action of a program; its exit code.

    `program` is what a user types before the action. With `page`, `show` serves a page
    on this machine, where the events that the modules `events` define are explained.
    """

    def run() -> int:
        try:
            return _run(action, program, client, page=page, events=events)
        except (TelemetryError, TypeError) as error:
            complain(_TOOLS.get(action, action), error)
            return FAILED

    names = {tool: action for action, tool in _TOOLS.items()}
    with speaking_as(program, {**names, "view": "show"}):
        return ended(run, _TOOLS.get(action, action))


def _run(
    action: str, program: str, client: Client, *, page: bool, events: Iterable[str]
) -> int:
    config = client.config
    home = home_of(
        config.app, home=config.home, environment=os.environ, platform=sys.platform
    )
    if action == "status":
        screen = Screen()
        for line in _status(home, program, client):
            screen.say(*line, indent=2)
        return 0
    if page and action != "show":
        complain(_TOOLS[action], "--page belongs to `show`")
        return WRONG_USAGE
    if page:
        from spool_tools.page import serve

        own = catalogue_of(events)
        return serve(home, name=config.app, own_events=own, opens=True)
    if action == "show" and not os.path.isdir(home.spool):
        if problem := recording_problem(home):
            complain(_TOOLS[action], problem)
            return FAILED
        Screen().say("nothing waits to be sent")
        return 0
    if action == "reset" and not os.path.isdir(home.root):
        Screen().say("there is no id yet")
        return 0
    return main([_TOOLS[action], "--home", home.root])


def _status(home: Home, program: str, client: Client) -> Iterator[tuple[Part, ...]]:
    decision = client.decision()
    word = ("on", "green") if decision.on else ("off", "yellow")
    app = (client.config.app, "bold")
    yield "usage data of ", app, " is ", word, f": {decision.reason}"
    if problem := recording_problem(home):
        yield (("  nothing is recorded: ", "yellow"), problem)
    elif os.path.isdir(home.spool):
        yield from _counts(status_of(home), client.config.lacks())
    else:
        yield ("  nothing was recorded so far",)
    yield (f"  it is kept in {home.root}",)
    identity = known_uuid(home.user_uuid)
    if identity:
        yield (f"  this installation is known as {identity}",)
    yield ()
    for action in ("show", "off" if decision.on else "on", "reset"):
        yield (f"{program} {action}", "bold"), f"  {ACTIONS[action]}"


def _counts(status: Status, lacks: str) -> Iterator[tuple[Part, ...]]:
    """What waits and what was sent. `lacks` is what the program needs to send."""
    waiting = f"{many(status.pending, 'event')} waiting, {size(status.spool_bytes)}"
    why = status.why
    if lacks and status.telemetry == "on":
        variable = f"TELEMETRY_{lacks.upper()}"
        why = f"the program has no {lacks.removeprefix('api_')}; set {variable}"
    yield (f"  {waiting}: {why}" if status.pending else "  nothing waits",)
    if status.delivered:
        when = ago(status.last_success_ms, time.time())
        sent = f"{many(status.delivered, 'event')} sent, last {when}"
        yield (f"  {sent}, to {status.endpoint}",)
    for name in ("dead", "damaged"):
        if count := getattr(status, name):
            yield (f"  {many(count, 'event')} {name}",)
    for mistake in status.mistakes:
        if not lacks or missing(lacks).problem not in mistake:  # that was said above
            yield (("  set up wrongly: ", "yellow"), mistake)
