"""A signal's handler that records or flushes, at each module that a program loads.

Python loads a module twice where a handler asks for one that the interrupted frame is
about to load. Then a class exists in two copies, which do not know each other: records
were once told from records by that, and dropped as damaged.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.delivering import census_of
from tests.support.launching import environment_of
from tests.support.loopback import Server


# What a program does, in a fork for each module; what others wrote is loaded before.
PROGRAM = """
import collections, json, os, sys, traceback
import atexit, diskcache, msgspec, ssl, tenacity, urllib3

base, action = sys.argv[1:]
ACTIONS = {
    "track": lambda: telemetry.track("x", {}),
    "flush": lambda: telemetry.flush(timeout_s=5),
    "track_command": lambda: telemetry.track_command("x", ["--flag"]),
    "session": lambda: telemetry.get_global_telemetry_client().record_session_start("a", "b"),
}

class Watch:
    '''Notes what is looked for, and is the handler at one of these modules.'''

    def __init__(self, at):
        self.at, self.found = at, collections.Counter()

    def find_spec(self, name, path=None, target=None):
        if name.startswith("telemetry."):
            self.found[name] += 1
            if name == self.at and self.found[name] == 1:
                ACTIONS[action]()

def use(at):
    watch = Watch(at)
    sys.meta_path.insert(0, watch)
    os.environ["TELEMETRY_HOME"] = os.path.join(base, at or "none")
    telemetry.configure("app")
    assert telemetry.track("first", {}), "the program's own event was not recorded"
    assert telemetry.flush(timeout_s=60).stopped == "drained"
    telemetry.track_command("build", ["--fast"])
    telemetry.get_global_telemetry_client().record_session_start("agent", "id")
    assert telemetry.flush(timeout_s=60).stopped == "drained"
    # The one by which a handler learns that it is one: nothing has loaded it before.
    twice = [name for name, times in watch.found.items() if times > 1]
    twice = [name for name in twice if name != "telemetry.switches"]
    assert not twice, f"loaded twice: {twice}"
    return sorted(watch.found)

def forked(at, out=None):
    pid = os.fork()
    if not pid:
        try:
            found = use(at)
            if out is not None:
                os.write(out, json.dumps(found).encode())
            os._exit(0)
        except BaseException:
            print("at", at, file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

import telemetry

listing, out = os.pipe()
assert forked(None, out) == 0
names = json.loads(os.read(listing, 1 << 16))
failed = [name for name in names if forked(name)]
print(len(names))
sys.exit(bool(failed))
"""


@pytest.mark.parametrize("action", ["track", "flush", "track_command", "session"])
def test_a_handler_at_any_import_loads_nothing_twice(
    tmp_path: Path, action: str
) -> None:
    with Server() as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), action],
            env=environment_of(tmp_path, server.url, TELEMETRY_FLUSH="manual"),
            timeout=600,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
    for place in os.listdir(tmp_path):
        found = census_of(tmp_path / place / "app")
        assert found.holds(), place
        assert found.recorded == found.delivered >= 3, place
