"""What a client never does to its host: raise, print, hang, or touch what is not its own."""

from __future__ import annotations

import gc
import logging
import math
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.delivery.opt_out import opt_out
from telemetry.paths import Home
from telemetry.spool import refusals
from tests.support import misbehaving as bad
from tests.support.launching import await_no_flusher
from tests.support.loopback import Server
from tests.support.surroundings import (
    REPOSITORY,
    bare_environment,
    only_environment,
    quiet_config,
    run_python,
    spooled,
)


RUN = telemetry.CommandEvent(action="run", success=True)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path) -> Iterator[None]:
    with only_environment(bare_environment(tmp_path / "user")):
        yield


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def told(home: Path) -> list[dict[str, Any]]:
    """The properties of every event that waits."""
    return [event["properties"] for event in spooled(home)]


def refused(home: Path) -> dict[str, int]:
    return refusals.read(Home(str(home)).refused)


FORK = """
import os, sys, telemetry
client = telemetry.Client(
    telemetry.Config(app="app", home=sys.argv[1], flush="manual", scrub=False)
)
client.record_session_start("root", "s1")
children = []
for number in range(4):
    child = os.fork()
    if not child:
        recorded = [client.track(telemetry.CommandEvent(action="child")) for _ in range(5)]
        client.close()
        os._exit(0 if all(recorded) else 1)
    children.append(child)
assert all(client.track(telemetry.CommandEvent(action="parent")) for _ in range(5))
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
client.record_session_end()"""


def test_a_forked_child_records_for_itself(tmp_path: Path) -> None:
    """It must neither write into its parent's segment nor repeat its parent's ids."""
    environment = bare_environment(tmp_path)
    child = run_python(FORK, str(tmp_path / "home"), environment=environment)
    assert child.returncode == 0, child.stderr
    events = told(tmp_path / "home")
    assert len(events) == 1 + 4 * 5 + 5 + 1
    assert len({event["event_id"] for event in events}) == len(events)
    assert len({event["user_uuid"] for event in events}) == 1
    assert [event["action"] for event in events].count("child") == 20


def test_an_event_inside_an_event_is_refused(home: Path) -> None:
    """A signal handler that records must never wait for the record it interrupted."""
    with telemetry.Client(quiet_config(home)) as client:
        assert client.track(RUN)

        class Reentrant:
            """Records while the writer is at work, as a signal handler may."""

            answers: list[bool]

            def __init__(self) -> None:
                self.answers = []

            def handler(self, number: int, frame: object) -> None:
                self.answers.append(client.track(RUN))

        inside = Reentrant()
        before = signal.signal(signal.SIGALRM, inside.handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            deadline = time.monotonic() + 60
            recorded = 0
            while refused(home).get("busy", 0) < 3 and time.monotonic() < deadline:
                recorded += client.track(RUN)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    counted = refused(home)
    assert set(counted) == {"busy"}
    assert counted["busy"] >= 3
    assert len(spooled(home)) == 1 + recorded + sum(inside.answers)


class Raising(logging.Handler):
    """A handler whose trouble comes out, as it does with some frameworks."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log is full")


def test_a_logger_that_raises_costs_nothing(home: Path) -> None:
    """Logging is the host's own; an event must not be lost to it, nor raise it."""
    logger = logging.getLogger("test.raising")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Raising())
    logger.propagate = False
    config = quiet_config(home, debug=True, endpoint="no url", api_key="k")
    with telemetry.Client(
        config, logger=telemetry.new_telemetry_logger(logger)
    ) as client:
        assert client.track(telemetry.TokenEvent(cost=math.nan))
        assert not client.track(telemetry.CommandEvent(action=5))  # type: ignore[arg-type]
        client.record_error("it failed")
        assert client.flush().stopped == "off"
    assert len(spooled(home)) == 1
    assert refused(home) == {"invalid": 1}


def test_debug_says_what_happened_and_changes_nothing(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each line starts with the same prefix, so that it can be found and left out."""
    caplog.set_level(logging.DEBUG)
    with telemetry.Client(quiet_config(home, debug=True)) as client:
        client.track(telemetry.TokenEvent(cost=math.inf))
        client.track(telemetry.CommandEvent(action=5))  # type: ignore[arg-type]
        messages = [record.getMessage() for record in caplog.records]
        assert len(spooled(home)) == 1
        opt_out(Home(str(home)))
        assert not client.track(telemetry.TokenEvent())
    messages.append(caplog.records[-1].getMessage())
    assert all(message.startswith("[Telemetry] ") for message in messages)
    begun, recorded, no_flush, lost, off = messages
    assert "on (no rule turned it off)" in begun
    assert '"event":"token"' in recorded
    assert "no flush begins by itself: no usable endpoint; set" in no_flush
    assert "invalid" in lost
    assert "not recorded (off)" in off


def test_a_client_can_be_collected(home: Path) -> None:
    """A program that makes many must not keep them all for the sake of a fork."""
    made = []
    for _ in range(5):
        client = telemetry.Client(quiet_config(home))
        client.track(RUN)
        client.close()
        made.append(weakref.ref(client))
    del client
    gc.collect()
    assert [reference() for reference in made] == [None] * 5


AT_EXIT = """
import atexit, sys, telemetry
client = telemetry.Client(telemetry.Config(
    app="app", home=sys.argv[1], flush=sys.argv[2], scrub=False, strict=True,
    endpoint=sys.argv[3], api_key="k",
))
@atexit.register
def last():
    print(client.track(telemetry.CommandEvent(action="run")))
"""


@pytest.mark.parametrize("mode", ["exit", "thread", "launch", "manual"])
def test_an_event_at_exit_is_recorded_in_every_mode(mode: str, tmp_path: Path) -> None:
    """From Python 3.12 on no thread starts then; the event is recorded all the same."""
    with Server() as server:
        child = run_python(
            AT_EXIT,
            str(tmp_path / "home"),
            mode,
            server.url,
            environment=bare_environment(tmp_path),
        )
        assert (child.returncode, child.stdout, child.stderr) == (0, "True\n", "")
        sent = sum(request.body.count(b'"event_id"') for request in server.requests)
    assert refused(tmp_path / "home") == {}
    assert len(spooled(tmp_path / "home")) + sent >= 1


def test_nothing_is_printed(tmp_path: Path) -> None:
    """A program's output is read by other programs."""
    source = """
import sys, telemetry
client = telemetry.Client(telemetry.Config(
    app="app", home=sys.argv[1], flush="manual", endpoint="no url", api_key="k"
))
client.track(telemetry.CommandEvent(action=5))
client.track(telemetry.TokenEvent(cost=float("nan")))
client.flush(timeout_s=1)
client.version = object()
client.track(None)
"""
    child = run_python(
        source, str(tmp_path / "home"), environment=bare_environment(tmp_path)
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


@pytest.mark.parametrize("mode", ["launch", "exit", "thread"])
def test_no_handler_of_the_hosts_hears_of_a_flush(mode: str, tmp_path: Path) -> None:
    """One that waits (a pipe that nobody reads, a server of logs) would hold up the end.

    What urllib3 logs names paths and queries besides. What the host logs of requests of
    its own is heard.
    """
    source = """
        import logging, sys, urllib3

        class Heard(logging.Handler):
            def emit(self, record):
                print(record.getMessage(), file=sys.stderr)

        logging.basicConfig(level=logging.DEBUG, handlers=[Heard()])
        import telemetry
        telemetry.configure("app", endpoint=sys.argv[1] + "ours", api_key="key",
            flush=sys.argv[2], home=sys.argv[3], exit_timeout_s=30)
        assert telemetry.track("run")
        telemetry.flush(timeout_s=60)
        telemetry.track("run")
        assert urllib3.PoolManager().request("GET", sys.argv[1] + "theirs").status == 200
        """
    with Server() as server:
        done = run_python(
            textwrap.dedent(source),
            f"{server.url}/",
            mode,
            str(tmp_path / "home"),
            environment=bare_environment(tmp_path),
        )
        await_no_flusher(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[Telemetry]" not in done.stderr
    assert "ours" not in done.stderr
    assert "theirs HTTP/1.1" in done.stderr
    assert "POST" in {request.method for request in server.requests}


@pytest.mark.parametrize("mode", ["manual", "exit", "thread"])
def test_a_broken_connection_ends_no_program_that_wants_sigpipe(
    mode: str, tmp_path: Path
) -> None:
    """`program | head` ends quietly where SIGPIPE is the system's, and many set it so."""
    source = """
        import signal, sys, telemetry

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        telemetry.configure("app", endpoint=sys.argv[1], api_key="key",
            flush=sys.argv[2], home=sys.argv[3], exit_timeout_s=30)
        telemetry.track("run")
        for _ in range(3 if sys.argv[2] == "manual" else 0):
            telemetry.flush(timeout_s=60)
        sys.exit(3)
        """
    with Server(at_accept=bad.close_at_once) as server:
        done = run_python(
            textwrap.dedent(source),
            server.url,
            mode,
            str(tmp_path / "home"),
            environment=bare_environment(tmp_path),
        )
        assert server.connections
    assert (done.returncode, done.stderr) == (3, "")


def test_the_hosts_descriptors_are_left_alone(tmp_path: Path) -> None:
    """With 0, 1 and 2 closed, a segment opened as number 1 would get the host's output."""
    source = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
import telemetry
for number in (0, 1, 2):
    os.close(number)
client = telemetry.Client(
    telemetry.Config(app="app", home=sys.argv[1], flush="manual", scrub=False)
)
recorded = client.track(telemetry.CommandEvent(action="run"))
try:
    os.write(1, b"what the host prints")
except OSError:
    pass
os._exit(0 if recorded and client.track(telemetry.CommandEvent(action="run")) else 1)
"""
    status = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "home")],
        env=bare_environment(tmp_path),
        check=False,
        timeout=60,
    ).returncode
    assert status == 0
    assert len(spooled(tmp_path / "home")) == 2


class Tracking(logging.Handler):
    """A handler that records whatever is logged, as some hosts do with all of it."""

    def __init__(self, client: telemetry.Client) -> None:
        super().__init__()
        self.client = client
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        self.client.track(telemetry.CommandEvent(action=5))  # type: ignore[arg-type]


def test_a_log_handler_that_tracks_does_not_feed_itself(home: Path) -> None:
    """Each refusal is a line, each line a refusal: without a bound it never ends."""
    logger = logging.getLogger("test.tracking")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    ours = telemetry.new_telemetry_logger(logger)
    with telemetry.Client(quiet_config(home, debug=True), logger=ours) as client:
        handler = Tracking(client)
        logger.addHandler(handler)
        for _ in range(100):
            assert not client.track(telemetry.CommandEvent(action=5))  # type: ignore[arg-type]
    assert 0 < handler.lines < 20
    assert refused(home) == {"invalid": 100 + handler.lines}


FORBIDDEN = """
import fcntl, sys, telemetry
def forbid(event, arguments):
    if event == "fcntl.flock":
        raise RuntimeError("a sandbox forbids it")
client = telemetry.configure("app", home=sys.argv[1], flush="manual")
told = [client.track("a")]
client.track("b", {"x" * 200_000: 1})  # refused, and counted
sys.addaudithook(forbid)
told += [client.track("c", {"x": "y" * 4_000_000}), client.track("d", {"x" * 200_000: 1})]
print(told)
sys.exit(3)
"""


def test_what_fails_as_the_process_ends_is_not_printed(tmp_path: Path) -> None:
    """The refusals that wait could not be counted, and Python printed a traceback."""
    done = run_python(
        FORBIDDEN, str(tmp_path / "home"), environment=bare_environment(tmp_path)
    )
    assert (done.stdout, done.stderr) == ("[True, False, False]\n", "")
    assert done.returncode == 3


CONFIGURING = """
import logging, os, sys, telemetry
class Tracking(logging.Handler):
    told = []
    def emit(self, record):
        self.told.append(telemetry.track("logged"))
logging.getLogger().addHandler(Tracking())
logging.getLogger().setLevel(logging.DEBUG)
telemetry.configure("app", home=sys.argv[1], flush="manual", retry_max_s=-1, debug=True)
made = len(Tracking.told)
print(made > 0, any(Tracking.told[:made]), telemetry.track("later"))
"""


def test_what_is_recorded_within_configure_is_no_other_apps(tmp_path: Path) -> None:
    """It was in the home of an app `telemetry`, which no program and no person knows."""
    done = run_python(
        CONFIGURING, str(tmp_path / "home"), environment=bare_environment(tmp_path)
    )
    assert done.stdout == "True False True\n", done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("timeout_s", [math.inf, -math.inf, math.nan, -1.0, 0.0, 1e30])
def test_any_number_is_a_time_for_a_flush(timeout_s: float, home: Path) -> None:
    """A caller that means `for as long as it takes` says inf."""
    with telemetry.Client(quiet_config(home)) as client:
        client.track(RUN)
        report = client.flush(timeout_s=timeout_s)
    assert (report.stopped in {"off", "deadline"}, report.pending) == (True, 1)


FINALIZER = """
import builtins, sys, telemetry
class Kept:
    def __init__(self, client):
        self.client, self.event = client, telemetry.CommandEvent(action="run")
    def __del__(self):
        self.client.track(self.event)
client = telemetry.Client(telemetry.Config(app="app", home=sys.argv[1], flush="manual"))
builtins.kept = Kept(client)
if sys.argv[2] == "tracked":
    client.track(builtins.kept.event)
"""


@pytest.mark.parametrize("before", ["tracked", "untouched"])
def test_an_event_of_a_finalizer_at_the_very_end_is_quiet(
    before: str, tmp_path: Path
) -> None:
    """Nothing can be imported then, and Python would print what is raised."""
    child = run_python(
        FINALIZER,
        str(tmp_path / "home"),
        before,
        environment=bare_environment(tmp_path),
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


BEGINNING = """
import pathlib, signal, sys, threading, telemetry
telemetry.configure("app", flush=sys.argv[1], endpoint=sys.argv[2], api_key="k-12345678")
"""


def host(mode: str, endpoint: str, source: str, home: Path) -> tuple[int, str, str]:
    """What a program came to that does `source` behind its `configure`."""
    environment = bare_environment(home, TELEMETRY_HOME=str(home))
    ran = run_python(BEGINNING + source, mode, endpoint, environment=environment)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a signal is no exit code there")
@pytest.mark.parametrize("mode", ["exit", "thread", "manual"])
def test_ctrl_c_ends_the_program_as_without_us(mode: str, tmp_path: Path) -> None:
    """A shell goes on with its next command, if it is not told of the interrupt."""
    source = "telemetry.track('it')\nsignal.raise_signal(signal.SIGINT)"
    code, _, err = host(mode, "http://127.0.0.1:9/", source, tmp_path)
    assert code == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")


def test_the_least_stacks_of_threads_are_enough(tmp_path: Path) -> None:
    """A program with thousands of threads gives each 32 KiB; urllib3 needs more."""
    source = """
for least in (32, 64, 128, 256):  # as the system permits
    try:
        threading.stack_size(least * 1024)
        break
    except ValueError:
        pass
telemetry.track("it")
delivered = telemetry.flush(timeout_s=60.0).delivered
print(delivered, threading.stack_size() == least * 1024)
"""
    with Server() as server:
        came_to = host("exit", server.url, source, tmp_path)
    assert came_to == (0, "1 True\n", "")


def test_odd_arguments_cost_no_event(tmp_path: Path) -> None:
    """A runner puts a path there, or nothing; an embedding program has none."""
    source = """
for odd in ([pathlib.Path("/opt/tool.py")], [b"tool"], [None], []):
    sys.argv = odd
    telemetry.configure("app", flush="manual")
    assert telemetry.track("it")
del sys.argv
telemetry.configure("app", flush="manual")
print(telemetry.track("it"))
"""
    assert host("manual", "", source, tmp_path) == (0, "True\n", "")


def test_what_keeps_a_client_from_opening_is_counted(tmp_path: Path) -> None:
    """An event that nobody counts was never lost, as far as `status` knows."""
    source = """
telemetry.track("it")
telemetry.configure("app", flush="manual")
sys.prefix = None
print(telemetry.track("it"))
"""
    assert host("manual", "", source, tmp_path) == (0, "False\n", "")
    assert refusals.read(str(tmp_path / "app" / "refused")) == {"internal": 1}


# A program that is out of something (`eat`) when it gets that far, and has it back later.
RUNS_OUT = """
import os, resource, sys, telemetry
from telemetry import configure, track

def fill():
    kept = []
    try:
        while True:
            kept.append(eat())
    except (OSError, MemoryError):
        return kept

def settings():
    return configure("app", flush="manual", context="none")

when = sys.argv[1]
if when != "configure":
    client = settings()
    assert when == "first" or track("before", {})
    if when == "again":
        settings()
    if when == "closed":
        client.close()
kept = fill()
if when == "configure":
    settings()
answers = [track("x", {"text": "y" * 2000}) for _ in range(3)]
del kept
print(answers, track("behind", {}))
"""
DESCRIPTORS_64 = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
"""
DESCRIPTORS = f"""{DESCRIPTORS_64}
def eat():
    return open("/dev/null")
"""
MEMORY = """
import msgspec, resource
resource.setrlimit(resource.RLIMIT_AS, (80 << 20, 80 << 20))
sizes = [100_000] * 2_000 + [3_000] * 20_000

def eat():
    while sizes:
        try:
            return bytearray(sizes.pop(0))
        except MemoryError:
            while sizes and sizes[0] == 100_000:
                sizes.pop(0)
    raise MemoryError
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no setrlimit")
@pytest.mark.parametrize(
    ("when", "counted"), [("configure", 0), ("first", 3), ("again", 3), ("closed", 3)]
)
def test_without_a_descriptor_events_are_counted_and_later_ones_recorded(
    when: str, counted: int, tmp_path: Path
) -> None:
    """It is no opt-out, nothing is raised, and the client that was asked for is made."""
    ran = run_python(
        DESCRIPTORS + RUNS_OUT,
        when,
        environment=bare_environment(tmp_path, TELEMETRY_HOME=str(tmp_path)),
    )
    assert (ran.stdout, ran.stderr) == ("[False, False, False] True\n", "")
    found = refusals.read(str(tmp_path / "app" / "refused"))
    assert (sum(found.values()), "off" in found) == (counted, False)
    assert spooled(tmp_path / "app")[-1]["event"] == "behind"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no setrlimit")
def test_what_could_not_be_counted_is_counted_once(tmp_path: Path) -> None:
    """Not by a forked child as well; and a flush is no event."""
    program = """
import os, telemetry
client = telemetry.configure("app", flush="manual")
kept = []
try:
    while True:
        kept.append(eat())
except OSError:
    pass
assert not any(client.track("x") for _ in range(3))
assert not client.flush().delivered
del kept
if not os.fork():
    assert client.track("in the child")
    os._exit(0)
os.wait()
assert client.track("behind")
"""
    environment = bare_environment(tmp_path, TELEMETRY_HOME=str(tmp_path))
    ran = run_python(DESCRIPTORS + program, environment=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = refusals.read(str(tmp_path / "app" / "refused"))
    assert sum(found.values()) == 3, found


def test_what_a_handler_records_inside_of_an_import_is_counted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next event, also where the client is long at work."""
    with telemetry.Client(quiet_config(home)) as client:
        assert client.track(RUN)
        with monkeypatch.context() as patch:
            patch.setattr("telemetry.client.is_loading", lambda: True)
            client.record_session_start("agent", "1")
        assert refused(home) == {}
        assert client.track(RUN)
        assert refused(home) == {"busy": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no setrlimit")
def test_without_a_descriptor_no_public_name_raises(tmp_path: Path) -> None:
    """Whatever of it is loaded by then: none more can be."""
    calls = """
import os, resource, sys, telemetry

client = telemetry.configure("app", flush="manual")
assert telemetry.track("before", {})
kept = []
try:
    while True:
        kept.append(open("/dev/null"))
except OSError:
    pass
repr(client), repr(client.config), client.decision(), client.close()
assert telemetry.flush().delivered == 0
telemetry.track_command("run", ["--flag"])
client.record_session_start("agent", "1")
client.record_error("odd")
client.record_session_end()
with telemetry.with_client(client):
    telemetry.track(telemetry.ToolEvent(action="call"))
    telemetry.track(telemetry.CommandEvent(action="run", success=True))
telemetry.set_global_telemetry_version("2")
telemetry.get_telemetry_enabled()
try:
    raise ValueError
except (telemetry.SpoolFullError, ValueError):
    pass
client.switch_off()
print("sound")
"""
    environment = bare_environment(tmp_path, TELEMETRY_HOME=str(tmp_path))
    ran = run_python(DESCRIPTORS_64 + calls, environment=environment)
    assert (ran.stdout, ran.stderr) == ("sound\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no setrlimit")
def test_without_memory_nothing_is_raised(tmp_path: Path) -> None:
    ran = run_python(
        MEMORY + RUNS_OUT,
        "closed",
        environment=bare_environment(tmp_path, TELEMETRY_HOME=str(tmp_path)),
    )
    assert ran.stderr == ""
    assert ran.stdout.endswith("] True\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGALRM")
def test_a_handler_inside_of_the_first_event_is_never_waited_for(
    tmp_path: Path,
) -> None:
    """It loads modules, as another thread's first event does, and each has a lock."""
    source = """
came_to = []
signal.signal(signal.SIGALRM, lambda *_: came_to.append(telemetry.track("handler")))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.02)
def work():
    for _ in range(50):
        came_to.append(telemetry.track("it"))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
work()
for thread in threads:
    thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
print(came_to.count(False))
"""
    for number in range(3):
        home = tmp_path / str(number)
        code, refused, err = host("manual", "", source, home)
        assert (code, err) == (0, "")
        assert sum(refusals.read(str(home / "app" / "refused")).values()) == int(
            refused
        )


@pytest.mark.parametrize("mode", ["exit", "launch"])
def test_a_program_that_turns_it_off_sends_nothing_any_more(
    mode: str, tmp_path: Path
) -> None:
    """It reads its user's wish a moment later; what was recorded until then waits."""
    source = """
client = telemetry.configure("app", flush="manual", endpoint="http://127.0.0.1:9/")
if sys.argv[1] != "launch":  # else a flusher starts before it is turned off
    assert client.track("it")
telemetry.configure("app", flush=sys.argv[1], endpoint=sys.argv[2], api_key="k-12345678")
assert telemetry.track("it")
before = telemetry.get_global_telemetry_client()
telemetry.configure("app", enabled=False)
print(before.track("it"), telemetry.track("it"))
"""
    with Server() as server:
        assert host(mode, server.url, source, tmp_path) == (0, "False False\n", "")
        await_no_flusher(tmp_path)
        assert server.requests == []
    recorded = spooled(tmp_path / "app")
    assert len(recorded) == (2 if mode == "exit" else 1)


def test_a_home_that_is_refused_is_not_written_to(tmp_path: Path) -> None:
    """Not even to count that: its files may be links to somebody else's."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "refused").write_text("theirs")
    (tmp_path / "app").symlink_to(tmp_path / "theirs")
    assert host("manual", "", "print(telemetry.track('it'))", tmp_path)[:2] == (
        0,
        "False\n",
    )
    assert (tmp_path / "theirs" / "refused").read_text() == "theirs"


REFUSING = """
import sys, telemetry
telemetry.configure("cut", home=sys.argv[1], flush="manual", retry_max_s="x")
telemetry.track("ran", {"n": 1})
telemetry.track("ran", {"a file": sys.stdout})
telemetry.track_command("run", ["a"])
telemetry.flush(timeout_s=1)
repr(telemetry.get_global_telemetry_client())
"""


def test_a_module_whose_compiled_file_is_cut_takes_nothing_from_the_host(
    tmp_path: Path,
) -> None:
    """A limit of file sizes, or a full disk, as it was compiled: Python keeps such files."""
    compiled = tmp_path / "compiled"
    surroundings = bare_environment(tmp_path / "user")
    surroundings["PYTHONPYCACHEPREFIX"] = str(compiled)

    def run() -> subprocess.CompletedProcess[str]:
        home = str(tmp_path / "home")
        return run_python(REFUSING, home, environment=surroundings)

    files = {
        path.name.partition(".")[0]: path for path in compiled_after(run, compiled)
    }
    # Without these two there is nothing that could answer.
    late = sorted(files.keys() - {"switches", "__init__"})
    assert {"interrupts", "mistakes", "text", "client", "api"} <= {*late}
    for name in late:
        whole = files[name].read_bytes()
        files[name].write_bytes(whole[: len(whole) // 2])
        done = run()
        assert (name, done.returncode) == (name, 0), done.stderr
        assert "Error" not in done.stderr
        files[name].write_bytes(whole)


def compiled_after(run: Callable[[], object], compiled: Path) -> list[Path]:
    """The compiled files of the package's own top once the program ran."""
    run()
    package = str(Path(telemetry.__file__).parent).lstrip("/")
    return list((compiled / package).glob("*.pyc"))
