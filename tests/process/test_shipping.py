"""However a program is shipped and wherever it runs, what it records arrives.

Real processes and a real collector. Each launch is one that finds a flush due, as if
a minute had passed since the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import telemetry
from spool_tools.collector import Collector
from telemetry.delivery import schedule
from telemetry.delivery.in_process import InProcessFlusher
from telemetry.paths import Home
from tests.support import misbehaving as bad
from tests.support.delivering import client_of
from tests.support.launching import (
    PROGRAM,
    ROOT,
    await_no_flusher,
    environment_of,
    flushers,
)
from tests.support.loopback import Server
from tests.support.patience import PATIENCE_S
from tests.support.surroundings import REPOSITORY, run_python


pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc"
)

FROZEN = "import sys; sys.frozen = True; sys.executable = '/opt/tool/tool'\n"
NO_INTERPRETER = "import sys; sys.executable = '/nowhere/python'\n"
NO_SHELL = "from telemetry.delivery import launch; launch.SHELL = '/nowhere/sh'\n"
REAPS_ALL = "import signal; signal.signal(signal.SIGCHLD, lambda *_: None)\n"
SUBREAPER = "import ctypes; ctypes.CDLL(None).prctl(36, 1)\n"
WAITS = """
import atexit, os, subprocess, threading
from telemetry.delivery import launch
null = subprocess.DEVNULL
child = subprocess.Popen(["sleep", "600"], stdin=null, stdout=null, stderr=null)
atexit.register(child.kill)
threading.Thread(target=os.wait, daemon=True).start()
while not launch._waits_for_children():
    pass
"""
HOST = """
import sys
from datetime import timedelta
sys.modules[sys.argv[1]] = None
import telemetry
client = telemetry.configure("app", version="1", flush="manual")
event = telemetry.ToolEvent(action="call", tool_name="t", success=True)
telemetry.track(event), telemetry.track("deployed"), telemetry.track_command("x", [])
telemetry.set_global_telemetry_version("2")
config = telemetry.Config(app="app", flush="manual")
with telemetry.Client(config) as other, telemetry.with_client(other):
    other.version = "2"
    try:
        other.track(telemetry.CommandEvent(action="x", success=True))
    except telemetry.RefusedError:
        pass
    telemetry.record_session_start("agent", "id")
    telemetry.record_tool_call("t", "id", "agent", timedelta(seconds=1))
    telemetry.record_error("it failed")
    telemetry.record_session_end()
    assert not other.flush(timeout_s=1).delivered > 0
assert not telemetry.flush(timeout_s=1).pending > 10
assert telemetry.EventType.TOOL is not None
client.decision(), other.decision(), client.config.policy, other.config.policy
"""
# A slow machine gets its time, and an idle one needs a tenth of it.
PATIENT = repr({"exit_timeout_s": 30.0})
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def launch(
    collector: Collector,
    directory: Path,
    before: str = "",
    *,
    wrapper: Sequence[str] = (),
    python: str = sys.executable,
    program: str = PROGRAM,
    **more: str,
) -> str:
    """One launch that finds a flush due; what it printed beside what was recorded."""
    path = directory / "app" / "next-flush"
    if path.exists():
        os.utime(path, (1, 1))
    environment = environment_of(directory, collector.url, **more)
    done = subprocess.run(
        [*wrapper, python, "-c", before + program, PATIENT, "tool"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    recorded, _, printed = done.stdout.partition("\n")
    assert recorded == "True"
    return printed


@pytest.mark.parametrize(
    "before",
    [FROZEN, NO_INTERPRETER, NO_SHELL, REAPS_ALL, SUBREAPER, WAITS],
    ids=[
        *("frozen", "no interpreter", "no shell", "reaps all children"),
        *("adopts orphans", "waits in a thread"),
    ],
)
def test_where_no_flusher_can_be_started_a_program_flushes_at_exit(
    before: str, tmp_path: Path
) -> None:
    """PyInstaller, Nuitka, slim images, supervisors: the first run may be the only one."""
    with Collector(key="key") as collector:
        for launches in (1, 2):
            launch(collector, tmp_path, before)
            assert not flushers(tmp_path)
            assert collector.wait(events=launches)


def test_a_flush_at_exit_that_falls_short_leaves_the_next_to_a_flusher(
    tmp_path: Path,
) -> None:
    """A home was in a container, whose flushers ended with its commands, and is no more."""
    home = Home(str(tmp_path / "app"))
    with Server(bad.silent_after(b"")) as server:
        config = telemetry.Config(
            app="app", endpoint=server.url, api_key="key", exit_timeout_s=0.2
        )
        with client_of(Path(home.root), "", events=1):
            pass
        plan = schedule.Schedule()
        for _ in range(schedule.STARTS_MAX):
            plan.count_start()
        schedule.store(home.next_flush, plan)
        flusher = InProcessFlusher(
            config,
            home,
            environment={},
            allowed=lambda: True,
            http=None,
            logger=None,
        )
        flusher.start("launch")
        flusher.leave()
        flusher.wait(time.monotonic() + PATIENCE_S)
    with Collector(key="key") as collector:
        launch(collector, tmp_path, TELEMETRY_FLUSH="launch")
        await_no_flusher(tmp_path)
        assert collector.count() == 2
    assert schedule.load(home.next_flush).starts == 0


def test_a_start_that_fails_overrules_no_backoff(tmp_path: Path) -> None:
    """Another program was told to wait while this one ran, which had found none."""
    waits = """
import time
from telemetry import api
from telemetry.delivery import schedule
path = f"{api._process.client._pipeline.home.root}/next-flush"
plan, now = schedule.load(path), time.time()
config = api._process.client.config
plan.end(schedule.destination_of(config), now, failures=1, until=now + 3600)
schedule.store(path, plan)
"""
    with Collector(key="key") as collector:
        launch(collector, tmp_path, REAPS_ALL, program=PROGRAM + waits)
        assert collector.count() == 0
    plan = schedule.load(str(tmp_path / "app" / "next-flush"))
    assert plan.at > plan.last + 3000
    assert plan.starts == schedule.STARTS_MAX


def test_a_frozen_service_delivers_while_it_runs(tmp_path: Path) -> None:
    """It is killed at its end, and never gets to an exit of its own."""
    program = PROGRAM + "import time\ntime.sleep(60)\n"
    with Collector(key="key") as collector:
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                FROZEN + program,
                "{'flush_interval_s': 0.1}",
                "tool",
            ],
            env=environment_of(tmp_path, collector.url),
            stdout=subprocess.DEVNULL,
        ) as process:
            arrived = collector.wait(events=1)
            process.kill()
        assert arrived


def _has_namespaces() -> bool:
    if os.geteuid() or shutil.which("unshare") is None:
        return False
    probe = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    return probe.returncode == 0


@pytest.mark.parametrize("first", [True, False], ids=["PID 1", "below a shell"])
def test_a_container_that_ends_with_the_command_delivers(
    first: bool, tmp_path: Path
) -> None:
    """`docker run image tool build`: whatever it leaves running is killed at once."""
    if not _has_namespaces():
        pytest.skip("a namespace of its own needs root")
    inside = [] if first else ["sh", "-c", '"$@"; exit $?', "sh"]
    launches = 1 if first else schedule.STARTS_MAX + 1
    with Collector(key="key") as collector:
        for _ in range(launches):
            launch(collector, tmp_path, wrapper=[*NAMESPACE, *inside])
        assert collector.wait(events=launches)


def test_an_environment_that_is_removed_with_the_command_delivers(
    tmp_path: Path,
) -> None:
    """`uv run --with`: the packages are gone before the flusher has loaded them."""
    packages = tmp_path / "packages"
    site = Path(sysconfig.get_paths()["purelib"])
    base = getattr(sys, "_base_executable", sys.executable)
    with Collector(key="key") as collector:
        for _ in range(schedule.STARTS_MAX + 1):
            for name in ("msgspec", "urllib3", "tenacity", "diskcache"):
                shutil.copytree(site / name, packages / name)
            shutil.copytree(Path(ROOT, "telemetry"), packages / "telemetry")
            # Between the start of the flusher and its imports, as the race would have it.
            gone = f"""
from telemetry.delivery import launch as _launch
_spawn = _launch.os.posix_spawn
def _gone(*given, **named):
    import os
    os.rename({str(packages)!r}, {str(tmp_path / "gone")!r})
    return _spawn(*given, **named)
_launch.os.posix_spawn = _gone
"""
            launch(collector, tmp_path, gone, python=base, PYTHONPATH=str(packages))
            await_no_flusher(tmp_path)
            for path in (packages, tmp_path / "gone"):
                shutil.rmtree(path, ignore_errors=True)
        assert collector.wait(events=schedule.STARTS_MAX + 1)
    assert schedule.load(str(tmp_path / "app/next-flush")).starts > 0


@pytest.mark.parametrize(
    "module",
    [
        *(f"telemetry.{home}" for home in telemetry._HOMES if home != "build_values"),
        *("msgspec", "urllib3", "tenacity", "diskcache"),
    ],
)
def test_a_module_that_was_left_out_hurts_nobody(module: str, tmp_path: Path) -> None:
    """Nuitka follows no name that is loaded late; the program runs to its end."""
    done = subprocess.run(
        [sys.executable, "-c", HOST, module],
        env=environment_of(tmp_path, TELEMETRY_DEBUG="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Traceback" not in done.stderr
    if module in {"telemetry.api", "telemetry.config", "msgspec"}:
        assert "nothing will be recorded" in done.stderr
        assert f"import of {module} halted" in done.stderr


def test_an_optional_module_that_is_broken_is_as_one_that_is_missing(
    tmp_path: Path,
) -> None:
    """brotlicffi without its native library raises OSError where urllib3 tries it."""
    packages = tmp_path / "packages"
    packages.mkdir()
    broken = 'raise OSError("cannot load library libbrotlienc.so.1")\n'
    for name in ("brotlicffi", "brotli"):
        (packages / f"{name}.py").write_text(broken)
    path = os.pathsep.join((str(packages), str(REPOSITORY)))
    with Collector(key="key") as collector:
        launch(collector, tmp_path, PYTHONPATH=path)
        assert collector.wait(events=1)
        await_no_flusher(tmp_path)


def test_an_import_of_the_host_that_failed_halfway_is_no_fault(tmp_path: Path) -> None:
    """Too few open files, or Ctrl-C: parts of urllib3 stay, and it does not."""
    source = (
        "import sys, urllib3, urllib3.util, urllib3.exceptions\n"
        "del sys.modules['urllib3']\n"
        "from telemetry.wire.endpoint import parse_endpoint\n"
        "print(parse_endpoint('https://x.example/v1').host)\n"
    )
    done = run_python(source, environment=environment_of(tmp_path))
    assert (done.stdout, done.stderr) == ("x.example\n", "")


def test_a_python_that_cannot_load_what_sends_is_named(tmp_path: Path) -> None:
    """A library of it is broken: everything is kept, and `status` says why."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for ours in ("telemetry", "spool_tools"):
        (packages / ours).symlink_to(REPOSITORY / ours)
    broken = 'raise ImportError("No module named _ssl")\n'
    (packages / "urllib3.py").write_text(broken)
    path = str(packages)
    with Collector(key="key") as collector:
        # What lies in the working directory is not what is tried.
        before = "import sys; sys.path[:] = [each for each in sys.path if each]\n"
        launch(collector, tmp_path, before, PYTHONPATH=path)
        await_no_flusher(tmp_path)

    def ran(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        home = ("--home", str(tmp_path / "app"))
        return subprocess.run(
            [sys.executable, "-m", "spool_tools", command, *home],
            env=environment_of(tmp_path, collector.url, PYTHONPATH=path, **more),
            capture_output=True,
            text=True,
            check=False,
        )

    status = json.loads(ran("status").stdout)
    assert (status["why_code"], status["pending"]) == ("cannot_load", 1)
    assert "(ImportError: No module named _ssl)" in status["why"]
    said = "spool-tools flush: cannot load what it needs: No module named _ssl\n"
    assert (ran("flush").stderr, ran("flush").returncode) == (said, 1)
    # Whatever cannot be sent, off is off.
    forgot = ran("forget", TELEMETRY_DELETION_ENDPOINT=f"{collector.url}/delete")
    assert json.loads(forgot.stdout)["telemetry"] == "off"
    assert "cannot load what sends (No module named _ssl)" in forgot.stdout
    assert json.loads(ran("status").stdout)["why_code"] == "off"


def test_an_installed_package_delivers(tmp_path: Path) -> None:
    """A plain environment, as pip, pipx and `uv tool` make them."""
    with Collector(key="key") as collector:
        launch(collector, tmp_path)
        assert collector.wait(events=1)
        await_no_flusher(tmp_path)
    assert schedule.load(str(tmp_path / "app/next-flush")).starts == 0


def test_a_user_without_a_name_delivers_into_a_home_of_choice() -> None:
    """OpenShift gives each container a number for a user, and no home."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("becoming another user needs root")
    # pytest's own directories are closed to other users.
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, 123456, 0)
        _deliver_as_a_number(Path(directory))


def _deliver_as_a_number(state: Path) -> None:
    user = ["setpriv", "--reuid", "123456", "--regid", "0", "--clear-groups"]
    path = os.pathsep.join([ROOT, sysconfig.get_paths()["purelib"]])
    for python in (sys.executable, "/usr/bin/python3"):
        probe = subprocess.run(
            # A shell in between, as the flusher has one: what root may is gone then.
            [*user, "sh", "-c", '"$0" -c "import telemetry, msgspec"; exit $?', python],
            env=environment_of(state, PYTHONPATH=path),
            capture_output=True,
            check=False,
        )
        if probe.returncode == 0:
            break
    else:
        pytest.skip("another user can run no Python here")
    more = {"PYTHONPATH": path, "HOME": "/"}
    with Collector(key="key") as collector:
        launch(collector, state, wrapper=user, python=python, **more)
        assert collector.wait(events=1)
        await_no_flusher(state)


HELD = """
import os
names = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
         if os.path.islink(f"/proc/self/fd/{n}")]
print("holds" if any(name.endswith("flush.lock") for name in names) else "free")
"""


@pytest.mark.parametrize(
    "entry",
    ["__import__('pathlib').Path('/opt')", "None", "'relative'", r"'/no\udce9utf8'"],
)
def test_nothing_on_the_import_path_keeps_a_flusher_from_starting(
    entry: str, tmp_path: Path
) -> None:
    """The host's own business; and the lock is never left with it."""
    before = f"import sys; sys.path.append({entry})\n"
    with Collector(key="key") as collector:
        launch(collector, tmp_path)
        assert collector.wait(events=1)
        await_no_flusher(tmp_path)
        held = launch(collector, tmp_path, before, program=PROGRAM + HELD)
        assert held == "free\n"
        assert collector.wait(events=2)
        await_no_flusher(tmp_path)


def test_a_home_that_is_no_utf_8_delivers(tmp_path: Path) -> None:
    """Old accounts and disks have names in Latin-1."""
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b"/hom\xe9"))
    home.mkdir()
    with Collector(key="key") as collector:
        launch(collector, home)
        assert collector.wait(events=1)
        await_no_flusher(home)


def test_a_start_that_fails_is_noted_and_the_exit_takes_over(tmp_path: Path) -> None:
    """No memory, too many processes, an environment that is too large: in one launch."""
    fails = """
import os
def _fails(*given, **named):
    raise OSError(11, "Resource temporarily unavailable")
os.posix_spawn = _fails
"""
    with Collector(key="key") as collector:
        launch(collector, tmp_path)
        assert collector.wait(events=1)
        await_no_flusher(tmp_path)
        manual = {"TELEMETRY_FLUSH": "manual"}
        launch(collector, tmp_path, **manual)
        launch(collector, tmp_path, fails, program=PROGRAM + HELD)
        assert collector.wait(events=3)
    path = str(tmp_path / "app/next-flush")
    assert schedule.load(path).starts >= schedule.STARTS_MAX


# The first event comes when the program has ended. From Python 3.12 on, no thread can
# be started by then.
ENDED = """
import atexit, sys
if "no threads" in sys.argv[4:]:
    import threading
    start = threading.Thread.start
    def refuse(thread):
        if thread.name.startswith("telemetry"):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)
    threading.Thread.start = refuse
@atexit.register
def last():
    import telemetry
    telemetry.configure("app", endpoint=sys.argv[1], api_key="key", home=sys.argv[2],
        flush=sys.argv[3], exit_timeout_s=30.0)
    assert telemetry.track("ended", {})
"""


def test_a_first_event_in_an_exit_function_arrives(tmp_path: Path) -> None:
    """What is registered for the exit by then is never called."""
    with Collector(key="key") as collector:
        for number, mode in enumerate(("launch", "exit", "thread", "exit no threads")):
            home = str(tmp_path / str(number))
            args = [collector.url, home, *mode.split(" ", 1)]
            done = subprocess.run(
                [sys.executable, "-c", ENDED, *args],
                env=environment_of(tmp_path, collector.url),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert (done.returncode, done.stdout + done.stderr) == (0, ""), mode
            assert collector.wait(events=number + 1, timeout_s=60), mode
