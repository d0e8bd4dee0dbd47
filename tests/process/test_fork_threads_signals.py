"""Whatever a host does with processes, threads and signals, `track` keeps its word."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from telemetry import pipeline as pipeline_module
from telemetry import threads
from telemetry.delivery import schedule
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.threads import start_thread
from tests.support.launching import environment_of
from tests.support.loopback import Server
from tests.support.surroundings import REPOSITORY, bare_environment, run_python
from tests.support.tooling import killed_at_the_end
from tests.support.writers import (
    PATIENCE_S,
    Numbered,
    Peer,
    child,
    client_of,
    event_ids,
    fork,
    home_at,
    numbered,
    record_some,
    wait_until,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty spool."""
    return home_at(tmp_path)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment of the tests turns it off."""
    for name in ("DO_NOT_TRACK", "TELEMETRY_ENABLED", "TELEMETRY_TAGS", "CI"):
        monkeypatch.delenv(name, raising=False)


def is_free(home: Home, name: str) -> bool:
    """Whether nobody writes to a segment."""
    reader = SegmentReader(home, name)
    try:
        return reader.lock()
    finally:
        reader.close()


def test_forked_child_writes_elsewhere(home: Home) -> None:
    """Two processes that append with one number after the other would collide."""
    with client_of(home) as client:
        assert client.track(Numbered(0))
        [parents] = segment_names(home)

        def work(peer: Peer) -> None:
            for number in range(1, 4):
                assert client.track(Numbered(number, "child"))
            peer.tell("recorded")
            peer.hear()

        with child(work) as peer:
            assert peer.hear() == "recorded"
            assert client.track(Numbered(1))
            first, childs = segment_names(home)
            assert first == parents
            assert not is_free(home, parents)
            assert not is_free(home, childs)
            peer.tell("end")
            peer.finish()
        # The child's end has unlocked what was its own, and nothing else.
        assert is_free(home, childs)
        assert not is_free(home, parents)
        assert client.track(Numbered(2))
        assert segment_names(home) == [parents, childs]
    assert sorted(numbered(home)) == sorted(
        [("w", 0), ("w", 1), ("w", 2), ("child", 1), ("child", 2), ("child", 3)]
    )
    assert len(set(event_ids(home))) == 6


def test_ids_of_parent_and_children_differ(home: Home) -> None:
    """They count up from one draw: without another, siblings would be duplicates."""
    with client_of(home) as client:
        assert client.track(Numbered(0))

        def work(_: Peer) -> None:
            for number in range(20):
                assert client.track(Numbered(number, str(os.getpid())))

        peers = [fork(work) for _ in range(5)]
        for number in range(20):
            assert client.track(Numbered(number + 1))
        for peer in peers:
            peer.finish()
            peer.close()
    ids = event_ids(home)
    # What follows the time in an id, which may be the same for all of them.
    assert len({each[14:] for each in ids}) == len(ids) == 121


def test_fork_beside_threads_that_say_what_they_do(home: Home) -> None:
    """Debug mode: a lock that another thread held at the fork is never free in the child."""
    program = """
import os, sys, threading, telemetry
telemetry.configure("app", home=sys.argv[1], flush="manual", debug=True)
telemetry.track("begun")
ends = False
def work():
    while not ends:
        telemetry.track("event")
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(30):
    if not (child := os.fork()):
        telemetry.track("child")
        os._exit(0)
    os.waitpid(child, 0)
ends = True
os._exit(0)
"""
    environment = bare_environment(Path(home.root).parent)
    done = run_python(program, home.root, environment=environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(line.startswith("[Telemetry] ") for line in done.stderr.splitlines())


def test_what_standard_error_does_not_take_is_no_exit_code(home: Home) -> None:
    """Python ends with 120 where its own buffer cannot be written at the end."""
    program = """
import sys, telemetry
telemetry.configure("app", home=sys.argv[1], flush="manual", debug=True)
telemetry.track("event")
sys.exit(9)
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, home.root],
            env=bare_environment(Path(home.root).parent, PYTHONPATH=str(REPOSITORY)),
            stderr=full,
            check=False,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 9


def test_fork_that_tells_nobody(home: Home) -> None:
    """A library in C forks without Python's hooks: each event compares the pid."""
    library = ctypes.PyDLL(None)

    def work(_: Peer) -> None:
        client = client_of(home)
        assert client.track(Numbered(0))
        pid = library.fork()
        if pid == 0:
            ok = all(client.track(Numbered(number, "child")) for number in range(3))
            os._exit(0 if ok else 1)
        for number in range(1, 4):
            assert client.track(Numbered(number))
        assert os.waitpid(pid, 0)[1] == 0
        assert client.track(Numbered(4))

    with child(work) as peer:
        peer.finish()
    assert len(numbered(home)) == len(set(numbered(home))) == 8
    assert len({each[14:] for each in event_ids(home)}) == 8
    assert len(segment_names(home)) == 2


def test_fork_while_a_thread_is_inside_an_event(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has the mutex locked and not the thread that would unlock it."""
    inside, go_on = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, content: bytes) -> int:
        if b"numbered" in content and threading.current_thread() is thread:
            inside.set()
            assert go_on.wait(PATIENCE_S)
        return write(descriptor, content)

    with client_of(home) as client:
        assert client.track(Numbered(0))
        thread = threading.Thread(target=client.track, args=(Numbered(1),))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", slow)
            thread.start()
            assert inside.wait(PATIENCE_S)

            def work(peer: Peer) -> None:
                os.write = write
                peer.tell(str(client.track(Numbered(0, "child"))))

            with child(work) as peer:
                assert peer.hear() == "True"
            go_on.set()
            thread.join(PATIENCE_S)
        assert client.track(Numbered(2))
    assert sorted(numbered(home)) == [("child", 0), ("w", 0), ("w", 1), ("w", 2)]


def test_fork_while_a_thread_makes_the_pipeline(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first event of all takes longest, and holds the client's own mutex."""
    inside, go_on = threading.Event(), threading.Event()
    prepare = pipeline_module.prepare

    def slow(where: Home) -> None:
        if threading.current_thread() is thread:
            inside.set()
            assert go_on.wait(PATIENCE_S)
        prepare(where)

    monkeypatch.setattr(pipeline_module, "prepare", slow)
    with client_of(home) as client:
        thread = threading.Thread(target=client.track, args=(Numbered(0),))
        thread.start()
        assert inside.wait(PATIENCE_S)
        with child(
            lambda peer: peer.tell(str(client.track(Numbered(0, "child"))))
        ) as peer:
            assert peer.hear() == "True"
        go_on.set()
        thread.join(PATIENCE_S)
    assert sorted(numbered(home)) == [("child", 0), ("w", 0)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(home: Home, method: str) -> None:
    """However the host makes its workers: each event is there once, with its own id."""
    context = multiprocessing.get_context(method)
    record_some(home.root, "parent", 5)
    workers = [
        context.Process(target=record_some, args=(home.root, f"worker{number}", 50))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
        assert worker.exitcode == 0
        worker.close()
    assert len(set(numbered(home))) == len(numbered(home)) == 155
    assert len(set(event_ids(home))) == 155


def test_threads_record_each_event_once_and_in_their_order(home: Home) -> None:
    """Eight threads, one client, and segments that are full all the time."""
    with client_of(home, segment_bytes_max=20_000) as client:
        answers: list[bool] = []

        def work(by: str) -> None:
            answers.extend(client.track(Numbered(number, by)) for number in range(500))

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert answers == [True] * 4000
    found = numbered(home)
    assert len(found) == len(set(found)) == 4000
    for n in range(8):
        mine = [number for by, number in found if by == f"t{n}"]
        assert mine == list(range(500))
    assert len(set(event_ids(home))) == 4000


def test_first_events_of_many_threads_make_one_pipeline(home: Home) -> None:
    """Two of them would write to two segments and count refusals apart."""
    start = threading.Barrier(8)
    with client_of(home) as client:

        def work(number: int) -> None:
            start.wait(PATIENCE_S)
            assert client.track(Numbered(number))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(number for _, number in numbered(home)) == list(range(8))
        assert len(segment_names(home)) == 1


def test_refusals_of_many_threads_are_all_counted(home: Home) -> None:
    """A loss that is not counted is worse than the loss."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with client_of(home, event_bytes_max=500) as client:

            def work(by: str) -> None:
                for number in range(300):
                    assert not client.track(Numbered(number, by, "x" * 600))
                    assert not client.track(Numbered(float("nan"), by, object()))  # type: ignore[arg-type]

            threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S)
            assert client.track(Numbered(0))
            assert not client.track(Numbered(0, "w", "x" * 600))
    finally:
        sys.setswitchinterval(interval)
    assert refusals.read(home.refused) == {"too_big": 1801, "invalid": 1800}


def test_child_that_outlives_its_parent_keeps_nothing_locked(home: Home) -> None:
    """A daemon that is started by a command: the command's segment is free after it."""

    def command(peer: Peer) -> None:
        client = client_of(home)
        assert client.track(Numbered(0))
        if os.fork() == 0:
            peer.tell("daemon")
            peer.hear()
            os._exit(0)

    with child(command) as peer:
        assert peer.hear() == "daemon"
        peer.wait()
        [name] = segment_names(home)
        wait_until(lambda: is_free(home, name))
        peer.tell("end")


FORKING = """
import os, sys, threading, telemetry
telemetry.configure("app", home=sys.argv[1], flush=sys.argv[2], api_key="k-12345678",
    endpoint="http://127.0.0.1:9/")
stop = threading.Event()
def work():
    while not stop.is_set():
        telemetry.track("it", {"ran": True})
        telemetry.flush(timeout_s=0.1)
thread = threading.Thread(target=work)
thread.start()
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        recorded = telemetry.track("it", {"ran": True})
        telemetry.flush(timeout_s=0.1)
        os._exit(0 if recorded else 3)
    children.append(child)
stop.set()
print([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.mark.parametrize("mode", ["manual", "launch", "thread"])
def test_children_that_are_forked_beside_a_first_event_record(
    mode: str, tmp_path: Path
) -> None:
    """A server records in a thread, which still loads modules as its children begin."""
    environment = bare_environment(tmp_path, PYTHONWARNINGS="ignore")
    ran = run_python(FORKING, str(tmp_path / "h"), mode, environment=environment)
    assert (ran.stdout, ran.stderr, ran.returncode) == (f"{[0] * 8}\n", "", 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_starts_threads_whatever_its_parent_was_at() -> None:
    """Another thread of the parent may just have had the lock of the stacks' size."""
    with threads._sizing:
        began = threading.Event()

        def other(peer: Peer) -> None:
            start_thread(began.set, "it").join(PATIENCE_S)
            peer.tell(str(began.is_set()))

        forked: list[str] = []

        def fork_elsewhere() -> None:
            with child(other) as peer:
                forked.append(peer.hear())

        forking = threading.Thread(target=fork_elsewhere)
        forking.start()
        forking.join(PATIENCE_S)
    assert forked == ["True"]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_forked_child_closes_the_flush_lock_and_nothing_else(home: Home) -> None:
    """Whoever holds it may be gone in the child: a thread, or its client."""
    schedule.make(home.next_flush)
    with schedule.take_flush_lock(home) or contextlib.nullcontext() as lock:
        assert lock is not None
        other = os.open(home.next_flush, os.O_RDONLY)
        with child(
            lambda peer: peer.tell(f"{_is_open(lock.descriptor)} {_is_open(other)}")
        ) as peer:
            assert peer.finish() == "False True\n"
        # The number of one that was closed is another file's by now.
        os.dup2(other, lock.descriptor)
        with child(lambda peer: peer.tell(str(_is_open(lock.descriptor)))) as peer:
            assert peer.finish() == "True\n"
        os.close(other)


INTERRUPTED_AT_EXIT = """
import atexit, os, signal, sys, telemetry
class Shutdown(Exception):
    pass
def shut_down(*_):
    raise Shutdown
signal.signal(signal.SIGUSR1, shut_down)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
telemetry.configure("app", flush=sys.argv[1], exit_timeout_s=60)
telemetry.track(telemetry.ToolEvent("call"))
atexit.register(os.write, 1, b"ending\\n")
sys.exit(3)
"""


def _sleeps(pid: int) -> bool:
    """Whether the main thread of a process waits for something."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    return stat.rpartition(")")[2].split()[0] == "S"


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at Linux's /proc"
)
@pytest.mark.parametrize("mode", ["exit", "thread"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_who_ends_a_program_that_flushes_at_its_end_is_told_nothing(
    number: str, mode: str, tmp_path: Path
) -> None:
    """Python prints what escapes an exit function, and it is our wait that is cut."""
    with Server(lambda exchange: exchange.wait_for_end()) as server:
        running = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED_AT_EXIT, mode],
            env=environment_of(tmp_path, server.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with killed_at_the_end(running):
            assert running.stdout is not None
            assert running.stdout.readline() == b"ending\n"
            wait_until(lambda: len(server.requests) > 0 and _sleeps(running.pid))
            running.send_signal(getattr(signal, number))
            said = running.communicate(timeout=30)
    assert (running.returncode, said) == (3, (b"", b""))
