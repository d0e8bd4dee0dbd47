"""A module of ours that a process holds in two copies: nothing is settled by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.delivery import settlement
from tests.support import misbehaving as bad
from tests.support.delivering import census_of, client_of, record
from tests.support.launching import environment_of
from tests.support.loopback import Server


INSIDE_OF_AN_IMPORT = """
import sys, telemetry

class Handler:
    '''What a handler of SIGALRM does while the first event looks for a module.'''

    done = False

    def find_spec(self, name, path=None, target=None):
        if name == "telemetry.spool.frame" and not self.done:
            self.done = True
            telemetry.flush(timeout_s=0.01)

sys.meta_path.insert(0, Handler())
telemetry.configure("app", home=sys.argv[1], flush="manual")
for number in range(14):
    assert telemetry.track("x", {"number": number})
for _ in range(3):
    telemetry.flush(timeout_s=60)
"""


def test_a_flush_inside_of_the_first_event_loads_nothing_twice(tmp_path: Path) -> None:
    """Two copies of one class told every record from a record: all counted as damaged."""
    home = tmp_path / "app"
    with Server() as server:
        subprocess.run(
            [sys.executable, "-c", INSIDE_OF_AN_IMPORT, str(home)],
            env=environment_of(tmp_path, server.url),
            timeout=100,
            check=True,
        )
    found = census_of(home)
    assert (found.recorded, found.delivered, found.damaged) == (14, 14, 0)


def test_a_process_with_two_copies_of_a_class_settles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else may lead to that: another process delivers."""
    home = tmp_path / "home"
    with Server() as server, client_of(home, server.url, events=3) as client:
        with (
            Server(bad.silent_after(b"")) as silent,
            client_of(home, silent.url, events=0, request_timeout_s=0.3) as other,
        ):
            other.flush(timeout_s=60)  # a range is announced
        record(client, 2, first=3)

        class Another:
            """The same, loaded once more."""

        with monkeypatch.context() as patch:
            patch.setattr(settlement, "Record", Another)
            for _ in range(2):
                assert client.flush(timeout_s=60).delivered == 0
        assert census_of(home).damaged == 0
        assert client.flush(timeout_s=60).delivered == 5
    assert census_of(home).holds()
