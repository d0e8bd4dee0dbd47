"""`frob telemetry status|show|on|off|reset|forget`: a program's own way to look and choose.

A program installed with pipx or uv has no `spool-tools` on the path. The tools are loaded
from beside this package, here alone, and get the program's name and settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from telemetry.client import Client
from telemetry.config import FROM_ENVIRONMENT
from telemetry.integrations.recording import OwnCommandDone


NAME = "telemetry"
HELP = "see and choose what usage data is kept and sent"
PAGE = "with `show`: as a page in the browser"
# The actions, in the order in which a person needs them, and what each does.
ACTIONS = {
    "status": "whether usage data is collected, why, and what waits",
    "show": "what waits, as it will be sent",
    "on": "collect usage data",
    "off": "collect nothing more, and remove what is kept",
    "reset": "take another random id",
    "forget": "turn it off, remove what is kept, and ask the server to do so",
}
LISTED = "\n".join(f"  {action:8}{meaning}" for action, meaning in ACTIONS.items())
# The program's settings, and the variables that hand them to the tools.
_SETTINGS = {**FROM_ENVIRONMENT, "format": "TELEMETRY_FORMAT"}


def run(
    action: str,
    program: str,
    *,
    client: Client | None,
    events: Iterable[str],
    page: bool = False,
) -> NoReturn:
    """Run one of `ACTIONS` and raise OwnCommandDone with its exit code.

    `program` is what a user types before the action: `frob telemetry`. `client` and
    `events` are those of each framework's `telemetry_commands`. With `page`, `show`
    serves a page on this machine instead.
    """
    if client is None:
        from telemetry.api import get_global_telemetry_client

        client = get_global_telemetry_client()
    from spool_tools.own import run_action

    with _settings_in_environment(client):
        code = run_action(action, program, client, page=page, events=events)
    raise OwnCommandDone(code)


@contextmanager
def _settings_in_environment(client: Client) -> Iterator[None]:
    config = client.config
    before = {variable: os.environ.get(variable) for variable in _SETTINGS.values()}
    for field, variable in _SETTINGS.items():
        value = getattr(config, field, "")
        if value or field == "header":
            os.environ[variable] = value
    try:
        yield
    finally:
        for variable, value in before.items():
            os.environ.pop(variable, None)
            if value is not None:
                os.environ[variable] = value
