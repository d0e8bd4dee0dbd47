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


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
# What a program does, in a fork for each module; what others wrote is loaded before.
PROGRAM = """
import collections, json, os, signal, sys, threading, time, traceback
import atexit, diskcache, msgspec, ssl, tenacity, urllib3

base, kind, action = sys.argv[1:]
ACTIONS = {
    "track": lambda: telemetry.track("x", {}),
    "flush": lambda: telemetry.flush(timeout_s=5),
    "track_command": lambda: telemetry.track_command("x", ["--flag"]),
    "session": lambda: telemetry.get_global_telemetry_client().record_session_start("a", "b"),
}

class Interrupt:
    '''Notes the steps of Python's import system, and is the handler at one of them.'''

    def __init__(self, at):
        self.at, self.found = at, collections.Counter()
        self.beside = threading.Thread(target=ACTIONS["track"])
        sys.setprofile(self.step)

    def step(self, frame, event, _argument):
        if not frame.f_code.co_filename.startswith("<frozen importlib."):
            return
        if event in ("call", "return"):
            name = f"{frame.f_code.co_name} {event}"
            self.found[name] += 1
            if [name, self.found[name]] == self.at:
                sys.setprofile(None)
                self.beside.start()
                time.sleep(0.02)  # it comes to what this thread has locked
                ACTIONS[action]()

    def end(self):
        sys.setprofile(None)
        if self.beside.ident:
            self.beside.join(60)
            assert not self.beside.is_alive(), "two threads wait for each other"

class Watch:
    '''Notes what is looked for, and is the handler at one of these modules.'''

    def __init__(self, at):
        self.at, self.found = at, collections.Counter()

    def find_spec(self, name, path=None, target=None):
        if name.startswith("telemetry."):
            self.found[name] += 1
            if name == self.at and self.found[name] == 1:
                ACTIONS[action]()

    def end(self):
        twice = [name for name, times in self.found.items() if times > 1]
        assert not twice, f"loaded twice: {twice}"

def use(at):
    if kind == "modules":
        watch = Watch(at)
        sys.meta_path.insert(0, watch)
    else:
        watch = Interrupt(at)
    os.environ["TELEMETRY_HOME"] = os.path.join(base, str(at))
    telemetry.configure("app")
    assert telemetry.track("first", {}), "the program's own event was not recorded"
    assert telemetry.flush(timeout_s=60).stopped == "drained"
    telemetry.track_command("build", ["--fast"])
    telemetry.get_global_telemetry_client().record_session_start("agent", "id")
    assert telemetry.flush(timeout_s=60).stopped == "drained"
    watch.end()
    return sorted(watch.found.items())

def forked(at, out=None):
    pid = os.fork()
    if not pid:
        signal.alarm(60)
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
found = json.loads(os.read(listing, 1 << 16))
if kind == "modules":
    places = [name for name, _ in found]
else:
    places = [[name, n] for name, times in found for n in {1, times // 2} - {0}]
failed = [at for at in places if forked(at)]
print(len(places))
sys.exit(bool(failed))
"""


@pytest.mark.parametrize("action", ["track", "flush", "track_command", "session"])
def test_a_handler_at_any_import_loads_nothing_twice(
    tmp_path: Path, action: str
) -> None:
    assert places_tried(tmp_path, "modules", action) > 40


@pytest.mark.parametrize("action", ["track", "flush"])
def test_a_handler_within_an_import_waits_for_no_other_thread(
    tmp_path: Path, action: str
) -> None:
    """It holds locks of Python's that the other thread needs to go on."""
    assert places_tried(tmp_path, "steps", action) > 40


def places_tried(directory: Path, kind: str, action: str) -> int:
    """At how many places the program was interrupted; each time all of it arrived."""
    with Server() as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(directory), kind, action],
            env=environment_of(directory, server.url, TELEMETRY_FLUSH="manual"),
            timeout=600,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    for place in os.listdir(directory):
        found = census_of(directory / place / "app")
        assert found.holds(), place
        if kind == "modules":
            assert found.recorded == found.delivered >= 3, place
    return int(done.stdout)
