"""When a flusher of its own is started, and what it leaves of its host."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from telemetry.delivery import schedule
from telemetry.paths import Home
from tests.support import misbehaving as bad
from tests.support.delivering import census_of, client_of
from tests.support.launching import (
    PROGRAM,
    ROOT,
    await_no_flusher,
    environment_of,
    flushers,
    launch,
    run,
)
from tests.support.loopback import Exchange, Server
from tests.support.patience import quickest_s


pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc"
)


def _due(directory: Path) -> None:
    """The next flush may begin now."""
    os.utime(directory / "app" / "next-flush", (0, 0))


def _let_a_window_pass(directory: Path) -> None:
    """The last flush was a window ago."""
    path = str(directory / "app" / "next-flush")
    plan = schedule.load(path)
    plan.last -= int(schedule.WINDOW_S) + 1
    schedule.store(path, plan)


def _run_program(
    arguments: list[str], environment: dict[str, str], directory: Path
) -> None:
    """A program that records one event, started in a directory, run to its end."""
    done = subprocess.run(
        [sys.executable, *arguments, "{}", "tool"],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def _await(condition: object, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_first_launch_delivers_what_it_recorded(tmp_path: Path) -> None:
    """Somebody tries a tool once: the flusher is started as the program ends."""
    with Server() as server:
        run(environment_of(tmp_path, server.url), "first")
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
    assert census_of(tmp_path / "app").delivered == 1


def test_a_program_that_flushed_waits_for_nothing_at_its_end(tmp_path: Path) -> None:
    """It waited a second for a flush that nobody began, and started no flusher."""
    program = """
import os, sys, telemetry
client = telemetry.configure("app", exit_timeout_s=600)
telemetry.track("before")
assert telemetry.flush(timeout_s=60).delivered == 1
telemetry.track("behind")
os.utime(os.path.join(sys.argv[1], "app", "next-flush"), (0, 0))  # a window later
"""
    with Server() as server:
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env=environment_of(tmp_path, server.url),
            timeout=60,
            check=True,
        )
        _await(lambda: len(server.requests) == 2)
        await_no_flusher(tmp_path)
    assert census_of(tmp_path / "app").delivered == 2


def test_a_launch_delivers_what_the_one_before_recorded(tmp_path: Path) -> None:
    """Recorded now, flushed at the next launch: the promise of the whole library."""
    with Server() as server:
        run(environment_of(tmp_path), "first")
        assert not flushers(tmp_path)
        run(environment_of(tmp_path, server.url), "second")
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
        bodies = b"".join(request.body for request in server.requests)
        assert b'"first"' in bodies
        assert b'"second"' in bodies
    assert census_of(tmp_path / "app").delivered == 2


@pytest.mark.parametrize("mode", ["launch", "exit"])
def test_a_full_spool_is_flushed_at_the_next_launch(tmp_path: Path, mode: str) -> None:
    """Nothing else makes room: a program whose events are all refused sees to it."""
    bounds = {"spool_bytes_max": 4000, "segment_bytes_max": 2000, "flush": mode}
    with client_of(tmp_path / "app", "", **{**bounds, "flush": "manual"}) as client:
        while client.track("filled"):
            pass
    full = census_of(tmp_path / "app").pending
    with Server() as server:
        environment = environment_of(tmp_path, server.url)
        with launch(environment, **bounds, exit_timeout_s=30.0) as process:
            assert process.communicate(timeout=60) == ("False\n", "")
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
        run(environment, **{**bounds, "flush": "manual"})
    found = census_of(tmp_path / "app")
    assert (found.delivered, found.pending) == (full, 1)


def test_a_flusher_that_can_write_nothing_has_not_finished(tmp_path: Path) -> None:
    """A limit of file sizes keeps the ledger from being written, and nobody was told."""
    with Server() as server:
        run(environment_of(tmp_path))
        limited = subprocess.run(
            [
                *("/bin/sh", "-c", 'ulimit -f 8; exec "$0" -c "$1" "{}" tool'),
                *(sys.executable, PROGRAM),
            ],
            env=environment_of(tmp_path, server.url),
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        assert limited.stdout == b"True\n"
        await_no_flusher(tmp_path)
    assert schedule.load(str(tmp_path / "app" / "next-flush")).starts == 1


def test_many_launches_at_once_start_one_flusher(tmp_path: Path) -> None:
    """After an outage every shell prompt and cron job comes back at the same time.

    Fifty do so in `proofs/test_tried_whole.py`.
    """
    one_flusher_for(8, tmp_path)


def one_flusher_for(launches: int, tmp_path: Path) -> None:
    """So many programs that start at once start one flusher, and lose nothing."""
    all_ended = threading.Event()

    def slowly(exchange: Exchange) -> None:
        all_ended.wait(50)
        bad.reply(200)(exchange)

    patient = {"request_timeout_s": 50.0, "read_timeout_s": 50.0}
    with Server(slowly) as server:
        run(environment_of(tmp_path))
        environment = environment_of(tmp_path, server.url)
        seen: set[int] = set()
        programs = [
            launch(environment, f"tool-{n}", **patient) for n in range(launches)
        ]
        while any(program.poll() is None for program in programs):
            seen.update(flushers(tmp_path))
        for program in programs:
            assert program.communicate() == ("True\n", "")
        seen.update(flushers(tmp_path))
        all_ended.set()
        assert len(seen) == 1
        await_no_flusher(tmp_path)
    census = census_of(tmp_path / "app")
    assert (census.recorded, census.holds()) == (launches + 1, True)


def test_retry_after_is_obeyed_across_launches(tmp_path: Path) -> None:
    """A server that asks for an hour of peace gets it, whoever launches what."""
    with Server(bad.retry_after("3600"), bad.reply(200)) as server:
        run(environment_of(tmp_path))
        environment = environment_of(tmp_path, server.url)
        run(environment)
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
        ahead = (schedule.read(str(tmp_path / "app/next-flush")) or 0) - time.time()
        assert 3500 < ahead <= 7200
        for number in range(10):
            run(environment, f"tool-{number}")
            assert not flushers(tmp_path)
        assert len(server.requests) == 1
        # The wait was not meant for another key, which begins a window later.
        environment["TELEMETRY_API_KEY"] = "another"
        run(environment)
        assert not flushers(tmp_path)
        _let_a_window_pass(tmp_path)
        run(environment)
        _await(lambda: len(server.requests) >= 2)
        await_no_flusher(tmp_path)
    assert census_of(tmp_path / "app").delivered == 14


def test_the_host_is_not_waited_for_and_leaves_no_child(tmp_path: Path) -> None:
    """`$(command)` returns with the command, and the command's own `wait` is its own."""
    program = (
        PROGRAM
        + """
import os
try:
    os.waitpid(-1, os.WNOHANG)
    print("a child")
except ChildProcessError:
    print("no child")
"""
    )
    with Server(bad.silent_after(b"")) as server:
        run(environment_of(tmp_path))
        environment = environment_of(tmp_path, server.url)
        # The pipe ends once nobody holds it: not the flusher either, nor a number
        # above 2 that the shell has opened.
        done = subprocess.run(
            [
                *("bash", "-c", 'out=$("$@" 4>&1); echo "$out"', "bash"),
                *(sys.executable, "-c", program),
                *("{'flusher_lifetime_s': 300}", "tool"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "True\nno child\n"
        _await(lambda: server.requests)
        # It is still at it: the host did not wait for it.
        (pid,) = flushers(tmp_path)
        home = str(tmp_path / "app")
        assert os.readlink(f"/proc/{pid}/cwd") == home
        opened = {
            os.readlink(f"/proc/{pid}/fd/{name}")
            for name in os.listdir(f"/proc/{pid}/fd")
        }
        assert f"{home}/flush.lock" in opened
        assert not {name for name in opened if name.startswith("pipe:")}
        assert Path(f"/proc/{pid}/stat").read_text().split()[5] == str(pid)
        os.kill(pid, 9)
        await_no_flusher(tmp_path)


def test_a_flusher_ends_after_its_lifetime_whatever_the_server_does(
    tmp_path: Path,
) -> None:
    """A process that nobody knows of must not outlive its purpose."""
    with Server(
        bad.drip(b"HTTP/1.1 200 OK\r\n" + b"x" * 10_000, every_s=0.1)
    ) as server:
        run(environment_of(tmp_path))
        run(environment_of(tmp_path, server.url), flusher_lifetime_s=4)
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)  # the answer would take a quarter of an hour
    assert census_of(tmp_path / "app").pending == 2


HOSTILE = ("telemetry/__init__.py", "msgspec.py", "sitecustomize.py", "json.py")


# Loaded in a flusher, and by no program that records alone.
NEEDED_BY_A_FLUSHER = """
base64 calendar diskcache email gzip hashlib hmac http ipaddress json logging mimetypes
queue quopri random select selectors shutil socket sqlite3 ssl string struct tempfile
tenacity threading urllib urllib3 weakref
"""


@pytest.mark.parametrize("how", ["-c", "-m", "script elsewhere"])
def test_nothing_of_the_working_directory_is_run(how: str, tmp_path: Path) -> None:
    """People run their tools in directories that they have cloned from strangers."""
    hostile = tmp_path / "hostile"
    for name in HOSTILE:
        path = hostile / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'owned')!r}, 'a').write({name!r})\n")
    safe = tmp_path / "safe"
    safe.mkdir()
    (safe / "safe_program.py").write_text(
        # The program itself was started with care; its flusher has to be, too.
        f"import sys; sys.path[:] = [p for p in sys.path if p]\n"
        f"sys.path.insert(0, {ROOT!r})\n{PROGRAM}"
    )
    arguments = {
        "-c": ["-c", (safe / "safe_program.py").read_text()],
        "-m": ["-m", "safe_program"],
        "script elsewhere": [str(safe / "safe_program.py")],
    }[how]
    with Server() as server:
        environment = environment_of(tmp_path, server.url)
        run(environment)
        _due(tmp_path)
        environment["PYTHONPATH"] = os.pathsep.join([ROOT, str(safe)])
        _run_program(arguments, environment, safe if how == "-m" else hostile)
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_what_lies_beside_the_program_is_not_taken_for_the_library(
    tmp_path: Path,
) -> None:
    """`email.py` beside a script is another script: it stopped delivery, and was run."""
    place = tmp_path / "place"
    place.mkdir()
    for name in NEEDED_BY_A_FLUSHER.split():
        (place / f"{name}.py").write_text(f"raise SystemExit({name!r})\n")
    program = place / "program.py"
    program.write_text(PROGRAM)
    with Server() as server:
        environment = environment_of(tmp_path, server.url)
        _run_program([str(program)], environment, tmp_path)
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
    assert census_of(tmp_path / "app").delivered == 1


def test_a_lock_of_the_shell_ends_with_the_command(tmp_path: Path) -> None:
    """`( flock -n 9 && command ) 9>lock` in a cron table: the next run found it taken."""
    lock = tmp_path / "lock"
    program = f'exec 9>{lock}; flock -n 9 && {sys.executable} -c "$0" {{}} tool'
    with Server(bad.silent_after(b"")) as server:
        environment = environment_of(tmp_path, server.url)
        for name in ("first", "second"):
            done = subprocess.run(
                ["sh", "-c", program, PROGRAM],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.stdout, done.returncode) == ("True\n", 0), name
            if name == "first":  # its flusher is there as long as the server is silent
                _await(lambda: flushers(tmp_path, also_starting=True))


def test_a_signal_to_the_group_of_its_host_does_not_meet_it(tmp_path: Path) -> None:
    """A manager of jobs ends a whole group right when the command ends."""
    program = (
        "import os, signal, telemetry; os.setsid(); telemetry.configure('app'); "
        "telemetry.track('second', {}); os.killpg(0, signal.SIGKILL)"
    )
    with Server() as server:
        run(environment_of(tmp_path), "first")
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment_of(tmp_path, server.url),
            cwd=ROOT,
            timeout=60,
            check=False,
        )
        assert done.returncode == -9
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
    assert census_of(tmp_path / "app").delivered == 2


def test_a_killed_flusher_costs_one_window(tmp_path: Path) -> None:
    """The time is moved ahead before the start: a flusher that dies is not restarted."""
    with Server(bad.silent_after(b"")) as server:
        run(environment_of(tmp_path))
        environment = environment_of(tmp_path, server.url)
        run(environment)
        _await(lambda: flushers(tmp_path))
        os.kill(flushers(tmp_path)[0], 9)
        await_no_flusher(tmp_path)
        run(environment)
        assert not flushers(tmp_path)
        ahead = (schedule.read(str(tmp_path / "app/next-flush")) or 0) - time.time()
        assert 0 < ahead <= 60
        _due(tmp_path)
        run(environment, flusher_lifetime_s=2)
        _await(lambda: flushers(tmp_path))
        await_no_flusher(tmp_path)


def test_after_a_failure_a_flusher_waits_without_the_lock(tmp_path: Path) -> None:
    """A fleet that launches by the clock must not arrive by the clock."""
    statuses = [503]

    def answer(exchange: Exchange) -> None:
        bad.reply(statuses[-1])(exchange)

    with Server(answer) as server:
        environment = environment_of(tmp_path, server.url)
        run(environment, flusher_lifetime_s=3)
        _await(lambda: server.requests)
        await_no_flusher(tmp_path)
        refused = len(server.requests)
        _due(tmp_path)
        run(environment, failure_spread_s=600)
        (pid,) = flushers(tmp_path)
        path = str(tmp_path / "app/next-flush")
        assert (schedule.read(path) or 0) > time.time() + 50
        lock = schedule.flush_lock(Home(str(tmp_path / "app")))
        assert lock is not None
        os.close(lock)
        assert len(server.requests) == refused
        os.kill(pid, 9)
        await_no_flusher(tmp_path)
        _due(tmp_path)
        statuses.append(200)
        run(environment, failure_spread_s=0.01)
        _await(lambda: len(server.requests) > refused)
        await_no_flusher(tmp_path)
    assert census_of(tmp_path / "app").delivered == 3


def test_a_flusher_comes_back_when_the_server_asks(tmp_path: Path) -> None:
    """A program that is launched by the hour would bring its events an hour later."""
    # Too short a life to wait within one flush; on a busy machine also to send anything.
    for life_s in (1, 5, 25):
        with Server(bad.retry_after(str(life_s)), bad.reply(200)) as server:
            environment = environment_of(tmp_path / str(life_s), server.url)
            run(environment, flusher_lifetime_s=life_s, retry_first_s=0.1)
            await_no_flusher(tmp_path / str(life_s), timeout_s=180)
        if len(server.requests) > 1:
            break
    first, second = server.requests
    assert second.time - first.time > 0.9 * life_s
    assert census_of(tmp_path / str(life_s) / "app").delivered == 1


def test_exit_mode_delivers_and_is_bounded(tmp_path: Path) -> None:
    """In CI the machine is gone after the program; but a build must not hang."""
    with Server() as server:
        for number in range(2):
            environment = environment_of(tmp_path, server.url, CI="true")
            run(environment, exit_timeout_s=60)
            assert len(server.requests) == number + 1
    with Server(bad.silent_after(b"")) as server:
        environment = environment_of(tmp_path, server.url, CI="true")
        # A request alone may take 30 s.
        took_s = quickest_s(lambda: run(environment, exit_timeout_s=0.5), below_s=10)
        assert took_s < 10
    assert census_of(tmp_path / "app").pending >= 1


def test_thread_mode_delivers_while_the_program_runs(tmp_path: Path) -> None:
    """A program that lives long need not wait for its next launch."""
    program = PROGRAM + "\nimport time\ntime.sleep(float(sys.argv[3]))\n"
    with Server() as server:
        environment = environment_of(tmp_path, server.url, TELEMETRY_FLUSH="thread")
        with subprocess.Popen(
            [sys.executable, "-c", program, "{}", "tool", "30"], env=environment
        ) as process:
            _await(lambda: server.requests)
            process.kill()


def test_thread_mode_delivers_from_a_program_that_ends_at_once(tmp_path: Path) -> None:
    """Its thread has not even loaded the flusher by then."""
    with Server() as server:
        environment = environment_of(tmp_path, server.url, TELEMETRY_FLUSH="thread")
        run(environment, exit_timeout_s=30)
        assert len(server.requests) == 1
    assert census_of(tmp_path / "app").delivered == 1


def test_a_flush_that_a_replaced_client_began_is_waited_for(tmp_path: Path) -> None:
    """A library configures, then the program does: the first flush was killed at exit."""
    program = """
import telemetry
for version in ("1", "2", "3"):
    telemetry.configure("app", version=version, exit_timeout_s=50)
    telemetry.track("run")
"""
    with Server() as server:
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment_of(tmp_path, server.url, TELEMETRY_FLUSH="thread"),
            timeout=60,
            check=True,
        )
    assert census_of(tmp_path / "app").delivered == 3


@pytest.mark.parametrize("mode", ["exit", "thread"])
def test_clients_that_were_closed_leave_no_threads(mode: str, tmp_path: Path) -> None:
    """A server that makes a client for each request had a thread more each time."""
    program = """
import sys, telemetry, threading, time
config = telemetry.Config(
    app="app", flush=sys.argv[1], endpoint=sys.argv[2], api_key="key"
)
for _ in range(30):
    with telemetry.Client(config) as client:
        assert client.track(telemetry.ToolEvent(action="call"))
while threading.active_count() > 3:  # the program's, the last client's, one at work
    time.sleep(0.01)
"""
    with Server(bad.reply(503)) as server:
        subprocess.run(
            [sys.executable, "-c", program, mode, server.url],
            env=environment_of(tmp_path),
            timeout=60,
            check=True,
        )


ENDS = """
import os, sys, telemetry, time
telemetry.configure("app", flush=sys.argv[1])
telemetry.track("run")
if sys.argv[2]:
    until = time.monotonic() + 60
    while not os.path.exists(sys.argv[2]) and time.monotonic() < until:
        time.sleep(0.01)
os._exit(0)
"""


@pytest.mark.parametrize("mode", ["launch", "exit"])
def test_programs_that_call_no_exit_function_are_served_by_a_flusher(
    mode: str, tmp_path: Path
) -> None:
    """Three flushers were killed once; since then each program was to flush at its end.

    One that ends by a signal, by `os._exit` or by becoming another program never does.
    """
    with Server() as server:
        environment = environment_of(tmp_path, server.url)
        run(environment, flush="manual")
        if mode == "launch":
            path = str(tmp_path / "app" / "next-flush")
            plan = schedule.load(path)
            plan.starts = schedule.STARTS_MAX
            schedule.store(path, plan)
        launched = 0
        while not server.requests:
            launched += 1
            _due(tmp_path)
            subprocess.run(
                [sys.executable, "-c", ENDS, mode, ""],
                env=environment,
                timeout=60,
                check=True,
            )
            await_no_flusher(tmp_path)
            assert launched < 5
    assert census_of(tmp_path / "app").delivered == launched + 1


def test_a_program_without_its_own_python_flushes_at_its_first_event_in_the_end(
    tmp_path: Path,
) -> None:
    """The first process of a container that is killed each time: it has no other way."""
    arrived = tmp_path / "arrived"

    def note(exchange: Exchange) -> None:
        bad.reply(200)(exchange)
        arrived.touch()

    program = ENDS.replace("telemetry.track", "sys.frozen = True; telemetry.track")
    with Server(note) as server:
        environment = environment_of(tmp_path, server.url)
        for launched in range(4):
            if launched:
                _due(tmp_path)
            # The fourth is the third that finds events of others.
            waits = str(arrived) if launched == 3 else ""
            subprocess.run(
                [sys.executable, "-c", program, "launch", waits],
                env=environment,
                timeout=90,
                check=True,
            )
        assert arrived.exists()
        assert len(server.requests) == 1


def test_a_thread_that_outlives_the_main_one_is_served_at_the_end(
    tmp_path: Path,
) -> None:
    """Its first event was taken for one of an exit function, and flushed alone."""
    program = """
import telemetry, threading
telemetry.configure("app", flush="exit", exit_timeout_s=50)
def work():
    threading.main_thread().join()
    for _ in range(3):
        assert telemetry.track("run")
threading.Thread(target=work).start()
"""
    with Server() as server:
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment_of(tmp_path, server.url),
            timeout=60,
            check=True,
        )
    assert census_of(tmp_path / "app").delivered == 3


def test_a_daemon_does_not_keep_the_lock_of_a_flush_of_its_parent(
    tmp_path: Path,
) -> None:
    """The parent ends within a request; nobody else could flush while the daemon ran."""
    program = """
import os, sys, telemetry, time
telemetry.configure("app", flush="thread")
telemetry.track("run")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
sys.stdin.read()
"""
    arrived = tmp_path / "arrived"

    def never_answer(exchange: Exchange) -> None:
        arrived.touch()
        exchange.wait_for_end()

    with Server(never_answer) as server:
        daemon = subprocess.Popen(
            [sys.executable, "-c", program, str(arrived)],
            env=environment_of(tmp_path, server.url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline()
            daemon.wait(60)  # the parent; its child has both pipes
            lock = schedule.flush_lock(Home(str(tmp_path / "app")))
            assert lock is not None
            os.close(lock)
            daemon.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="where memory runs out on Linux")
def test_where_memory_runs_out_the_flusher_goes_first(tmp_path: Path) -> None:
    """It is larger than a small program, which was killed for it in a container."""
    with Server(bad.silent_after(b"")) as server:
        run(environment_of(tmp_path, server.url))
        _await(lambda: server.requests)
        (flusher,) = flushers(tmp_path)
        score = Path(f"/proc/{flusher}/oom_score_adj").read_text()
        os.kill(flusher, 9)
    assert int(score) == 1000
