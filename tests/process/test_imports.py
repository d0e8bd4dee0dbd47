"""What a launch pays for: the modules that are loaded, in fresh processes.

An import is the larger part of what telemetry costs a short command, and one
careless line at the top of a file brings it back for every launch of everybody.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from spool_tools.collector import Collector
from tests.support.surroundings import bare_environment, home_in, run_python, spooled


# Built into the interpreter, or one small shared library each.
LIGHT = {
    "_thread",
    "atexit",
    "contextvars",
    "_contextvars",
    "errno",
    "fcntl",
    "signal",
    "zlib",
}
# Pure Python, of a few lines, and loaded by the interpreter's own machinery.
LIGHT |= {"__future__", "importlib", "importlib._bootstrap"}
LIGHT |= {"importlib._bootstrap_external", "warnings", "_weakref", "_operator"}
# Absent from a launch, unless msgspec itself brings them on this Python.
HEAVY = {"diskcache", "urllib3", "tenacity", "platformdirs", "rich"}
HEAVY |= {"ssl", "socket", "sqlite3", "http", "http.client", "email", "urllib"}
HEAVY |= {"urllib.parse", "asyncio", "threading", "subprocess", "multiprocessing"}
HEAVY |= {"logging", "pathlib", "json", "dataclasses", "tempfile", "random"}
HEAVY |= {"hashlib", "secrets", "shutil", "inspect", "traceback", "argparse"}
# Of our own, and nothing to a command of plain words in a program that logs nothing.
UNUSED = {"telemetry.privacy.rules", "telemetry.privacy.scrub", "telemetry.logs"}
# Off by environment: a launch pays for none of these either.
OFF_TOO = {"msgspec", "typing", "re", "enum", "datetime", "uuid", "zlib", "__future__"}

TRACK = "assert client.track(telemetry.CommandEvent(action='run', success=True))"
MANUAL = f"""
import telemetry
client = telemetry.configure("app", version="1", flush="manual")
{TRACK}
"""
LAUNCH = f"""
import sys, telemetry
client = telemetry.configure("app", version="1", endpoint=sys.argv[1], api_key="a-key-as-long-as-keys-are")
{TRACK}
"""
OFF = """
import telemetry
client = telemetry.configure("x")
telemetry.track_command("run", [])
client.record_session_start("agent", "1")
client.record_token_usage("model", 1, 2, 0.5)
client.record_error("it failed")
client.record_session_end()
"""
CONTEXT = """
import telemetry
with telemetry.with_client(telemetry.Client(telemetry.Config(app="app", flush="manual"))):
    telemetry.record_session_start("agent", "1")
    telemetry.record_token_usage("model", 1, 2, 0.5)
    telemetry.record_error("it failed")
    telemetry.record_session_end()
"""


def loaded(
    source: str, *arguments: str, home: Path, without: str = "", **variables: str
) -> set[str]:
    """What `source` loads in a process of its own, beyond what `without` loads."""

    def names(code: str) -> set[str]:
        child = run_python(
            f"{code}\nimport sys\nprint(*sys.modules)",
            *arguments,
            environment=bare_environment(home, **variables),
        )
        assert child.returncode == 0, child.stderr
        return set(child.stdout.split())

    return names(source) - names(without)


def assert_light(modules: set[str]) -> None:
    others = {name for name in modules if name.partition(".")[0] != "telemetry"}
    assert others <= LIGHT
    assert not modules & HEAVY


def test_importing_loads_nothing_else(tmp_path: Path) -> None:
    """Programs import at the top of a file what they may never use."""
    modules = loaded("import telemetry", home=tmp_path)
    assert modules == {"telemetry", "telemetry.switches"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", [MANUAL, CONTEXT], ids=["track", "context"])
def test_an_event_loads_no_more_than_msgspec(source: str, tmp_path: Path) -> None:
    """Recording is on the path of every command; delivering is not."""
    assert_light(loaded(source, home=tmp_path, without="import msgspec"))


def test_a_launch_that_starts_a_flusher_loads_no_more(tmp_path: Path) -> None:
    """The network never costs the host anything: its process only starts another."""
    before = loaded(MANUAL, home=tmp_path, without="import msgspec")
    with Collector(key="a-key-as-long-as-keys-are") as collector:
        modules = loaded(LAUNCH, collector.url, home=tmp_path, without="import msgspec")
        # What waited was sent by a process of its own, so one was started.
        assert collector.wait(events=2)
        wait_for_flusher(tmp_path)
    assert "telemetry.delivery.launch" in modules - before
    assert "telemetry.delivery.flush" not in modules
    assert not modules & UNUSED
    assert_light(modules)


def wait_for_flusher(home: Path) -> None:
    """Returns once the flusher that was started has ended: the lock is free."""
    with Path(home_in(home).flush_lock).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.mark.parametrize(
    "variables",
    [{"TELEMETRY_ENABLED": "0"}, {"DO_NOT_TRACK": "1"}],
    ids=["TELEMETRY_ENABLED", "DO_NOT_TRACK"],
)
def test_off_by_environment_loads_and_creates_nothing(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """Somebody who said no pays nothing, and finds nothing."""
    modules = loaded(OFF, home=tmp_path, **variables)
    assert_light(modules)
    assert not modules & OFF_TOO
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_in_the_working_directory(tmp_path: Path) -> None:
    """Events belong into the state directory; elsewhere they would be found by chance."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    environment = bare_environment(home, TMPDIR=str(here))
    child = run_python(MANUAL, environment=environment, directory=here)
    assert child.returncode == 0, child.stderr
    assert list(here.iterdir()) == []
    assert len(list(home.iterdir())) == 1
    assert len(spooled(home_in(home))) == 1
