"""What a program records arrives, whatever interpreter and framework it runs under.

Each row is one real program, started with its switches or inside its framework, and a
real collector. A framework that is not installed skips its row by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from spool_tools.collector import Collector
from telemetry.delivery.schedule import STARTS_MAX
from telemetry.spool.refusals import read as read_refusals
from tests.support.launching import ROOT, await_no_flusher, environment_of


PLAIN = """
import telemetry
telemetry.configure("app", exit_timeout_s=30.0)
print(telemetry.track(telemetry.ToolEvent(action="call", tool_name="tool")))
"""
PATH = f"import sys; sys.path[:0] = [{ROOT!r}, {sysconfig.get_paths()['purelib']!r}]\n"
SWITCHES = {
    "-S": (["-S"], PATH),
    "-I": (["-I"], PATH),
    "-OO": (["-OO"], ""),
    "-B -W error": (["-B", "-W", "error"], ""),
    "-X dev": (["-X", "dev", "-W", "error"], ""),
    "no frozen modules": (["-X", "frozen_modules=off"], ""),
}
FRAMEWORKS = {
    "asyncio": """
import asyncio, telemetry
telemetry.configure("app", exit_timeout_s=30.0)
async def one(n):
    await asyncio.sleep(0)
    return telemetry.track(telemetry.ToolEvent(action="call", tool_name=str(n)))
async def main():
    return all(await asyncio.gather(*map(one, range(20))))
print(asyncio.run(main()))
""",
    "gevent": """
from gevent import monkey; monkey.patch_all()
import gevent, telemetry
telemetry.configure("app", exit_timeout_s=30.0)
def one(n):
    gevent.sleep(0)
    return telemetry.track(telemetry.ToolEvent(action="call", tool_name=str(n)))
jobs = [gevent.spawn(one, n) for n in range(20)]
gevent.joinall(jobs)
print(all(job.value for job in jobs))
""",
    "eventlet": """
import warnings; warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()
import telemetry
telemetry.configure("app", exit_timeout_s=30.0)
def one(n):
    eventlet.sleep(0)
    return telemetry.track(telemetry.ToolEvent(action="call", tool_name=str(n)))
print(all(eventlet.GreenPool().imap(one, range(20))))
""",
    # As gevent's, for a child that ended before it was watched.
    "a waitpid that never returns": """
import os, time, telemetry
os.waitpid = lambda pid, options: time.sleep(3600)
telemetry.configure("app", exit_timeout_s=30.0)
print(telemetry.track(telemetry.ToolEvent(action="call", tool_name="tool")))
""",
    "a thread that is left at exit": """
import threading, time, telemetry
telemetry.configure("app", exit_timeout_s=30.0)
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print(telemetry.track(telemetry.ToolEvent(action="call", tool_name="tool")))
""",
}
MODES = ("launch", "thread", "exit")


def _arrives(arguments: list[str], state: Path, events: int = 1, **more: str) -> None:
    """Launches that find a flush due, until all that was recorded is at the collector."""
    due = state / "app" / "next-flush"
    with Collector(key="key") as collector:
        for launch in range(1, STARTS_MAX + 2):
            if due.exists():
                os.utime(due, (1, 1))
            done = subprocess.run(
                [sys.executable, *arguments],
                env=environment_of(state, collector.url, **more),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            told = (done.returncode, done.stdout, done.stderr)
            assert told == (0, "True\n", ""), done.stderr
            await_no_flusher(state)
            if collector.wait(events=events * launch, timeout_s=0.0):
                return
    raise AssertionError(f"not all arrived in {launch} launches")


@pytest.mark.parametrize("switches", SWITCHES)
def test_switches_of_the_interpreter(switches: str, tmp_path: Path) -> None:
    given, before = SWITCHES[switches]
    _arrives([*given, "-c", before + PLAIN], tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_that_replace_threads_and_sockets(
    framework: str, mode: str, tmp_path: Path
) -> None:
    if framework in {"gevent", "eventlet"}:
        pytest.importorskip(framework, reason="pip install --group shipping")
    events = 20 if "20" in FRAMEWORKS[framework] else 1
    arguments = ["-c", FRAMEWORKS[framework]]
    _arrives(arguments, tmp_path, events, TELEMETRY_FLUSH=mode)


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import telemetry
telemetry.configure("app", exit_timeout_s=30.0)
print(telemetry.track(telemetry.ToolEvent(action="call", tool_name="tool")), flush=True)
other = interpreters.create()
failed = interpreters.run_string(other, '''
import telemetry
telemetry.configure("app", exit_timeout_s=30.0)
telemetry.track_command("build", [])
telemetry.track(telemetry.ToolEvent(action="call", tool_name="inside"))
''')
assert failed is None, failed
interpreters.destroy(other)
"""


def test_a_subinterpreter_hurts_nobody(tmp_path: Path) -> None:
    """Its events are kept where msgspec can be loaded there, and refused where not."""
    _arrives(["-c", SUBINTERPRETER], tmp_path)


def test_a_root_directory_that_is_read_only(tmp_path: Path) -> None:
    """As containers run with `--read-only`; the home of choice is a volume."""
    inside = ["unshare", "--mount", "sh", "-ec"]
    probe = 'mount -o remount,bind,ro / && ! touch /touched 2>/dev/null; exec "$@"'
    state = tmp_path / "state"
    state.mkdir()
    keep = f'mount --bind "{state}" "{state}"; mount --bind / /; {probe}'
    test = subprocess.run(
        [*inside, keep, "sh", "true"], check=False, capture_output=True
    )
    if test.returncode:
        pytest.skip("a mount namespace needs root")
    program = [*inside, keep, "sh", sys.executable, "-c", PLAIN]
    _arrives(["-c", f"import os; os.execvp({inside[0]!r}, {program!r})"], state)


NOTEBOOK = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3",
    extra_arguments=["--log-level=ERROR"])
try:
    reply = client.execute_interactive(
        'import telemetry; telemetry.configure("app", exit_timeout_s=30.0);'
        'assert telemetry.track('
        'telemetry.ToolEvent(action="call", tool_name="cell"))', timeout=100)
    assert reply["content"]["status"] == "ok", reply
finally:
    client.stop_channels()
    manager.shutdown_kernel()
print(True)
"""


def test_a_notebook(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel", reason="pip install --group shipping")
    _arrives(["-W", "ignore", "-c", NOTEBOOK], tmp_path, PYTHONWARNINGS="ignore")


BROKEN_CLOCK = """
import time
def beyond():
    raise OverflowError("timestamp too large to convert to C PyTime_t")
time.time = time.time_ns = beyond
import telemetry
telemetry.configure("app", exit_timeout_s=30.0)
event = telemetry.ToolEvent(action="call", tool_name="tool")
print(*[telemetry.track(event) for _ in range(3)], telemetry.flush().delivered)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_clock_that_python_cannot_express_hurts_no_program(
    mode: str, tmp_path: Path
) -> None:
    """Beyond the year 2262: a battery that died. The loss is answered and counted."""
    environment = environment_of(
        tmp_path, "http://127.0.0.1:9/v1", TELEMETRY_FLUSH=mode
    )
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_CLOCK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    told = (done.returncode, done.stdout, done.stderr)
    assert told == (0, "False False False 0\n", "")
    assert read_refusals(str(tmp_path / "app" / "refused")) == {"internal": 3}
