"""`forget`, killed before each of its steps."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import telemetry
from telemetry.config import Config
from telemetry.consent import read_choice
from telemetry.delivery.opt_out import requests_waiting
from tests.process.test_forgetting import holds, kept_home, others_since, wishes
from tests.support.delivering import KEY
from tests.support.loopback import Server
from tests.support.patience import PATIENCE_S
from tests.support.tooling import tool
from tests.support.writers import child


# What a kill may come before: each call that changes a directory or opens a file.
_CALLS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")


def _forget_until(number: int, config: Config) -> None:
    """In a child: forget, and be killed before the call of this number in the home."""
    calls = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in _CALLS and str(config.home) in str(arguments):
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1

    sys.addaudithook(hook)
    told = {
        "TELEMETRY_ENDPOINT": config.endpoint,
        "TELEMETRY_DELETION_ENDPOINT": config.deletion_endpoint,
        "TELEMETRY_API_KEY": config.api_key,
    }
    assert tool("forget", home=Path(str(config.home)), **told).code == 0


def test_killed_anywhere_it_is_off_and_the_server_is_asked_in_the_end(
    tmp_path: Path,
) -> None:
    """Before the first write nothing has changed; behind it nothing is forgotten."""
    before = after = number = 0
    is_done = False
    while not is_done:
        with Server() as server:
            home, user_uuid = kept_home(tmp_path / str(number), server)
            config = Config(
                app="app",
                home=home.root,
                endpoint=server.url,
                deletion_endpoint=f"{server.url}/delete",
                api_key=KEY,
                flush="manual",
            )
            sent = len(server.requests)
            with child(lambda _, n=number, c=config: _forget_until(n, c)) as killed:
                is_done = killed.wait() == 0
            choice = read_choice(home.consent)
            with telemetry.Client(config) as client:
                recorded = client.track(telemetry.ToolEvent(action="call"))
                # What was killed in the middle of a flush held the lock until then.
                client.flush(timeout_s=PATIENCE_S)
            assert recorded == (choice is None), number
            if choice is None:
                before += 1
                assert wishes(server) == []
            else:
                after += 1
                assert others_since(server, sent) == [], number
                asked = {e["properties"]["user_uuid"] for e in wishes(server)}
                assert asked == {user_uuid}, number
                assert requests_waiting(home) == []
                assert holds(home, user_uuid) == [], number
                assert Path(home.consent).read_text().count(" ") == 1
        number += 1
    assert before > 1
    assert after > 20
