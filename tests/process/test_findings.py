"""Promises that were found broken by reading; each test failed when it was written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from telemetry.books.view import read_snapshot
from telemetry.delivery import dead_letters, schedule
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import (
    KEY,
    census_of,
    client_of,
    record,
    rejecting,
    write_early_letter,
)
from tests.support.launching import ROOT, await_no_flusher, environment_of, launch, run
from tests.support.loopback import Behaviour, Received, Server
from tests.support.patience import quickest_s
from tests.support.tooling import tool
from tests.support.writers import wait_until


FINE = bad.reply(200)


def _tools(request: Received) -> list[str]:
    events = json.loads(request.plain_body)["records"]
    return [event["properties"]["tool_name"] for event in events]


def _refusing(*bad_tools: str, status: int = 400) -> object:
    def choose(request: Received) -> Behaviour:
        return bad.reply(status) if set(bad_tools) & set(_tools(request)) else FINE

    return choose


def test_one_bad_event_holds_back_none_behind_it_in_its_segment(tmp_path: Path) -> None:
    """It was announced alone, so it is posted alone, and nothing else was tried."""
    home = tmp_path / "home"
    with Server(choose=_refusing("tool-0")) as server:  # type: ignore[arg-type]
        with client_of(home, server.url, events=1) as client:
            assert client.flush(timeout_s=5).stopped == "waiting"
            record(client, 50, first=1)
            reports = [client.flush(timeout_s=5) for _ in range(4)]
    assert (reports[0].delivered, reports[0].pending) == (50, 1), reports
    assert (reports[-1].dead, reports[-1].pending) == (1, 0), reports
    assert census_of(home).holds()


def test_a_search_cut_short_holds_back_nothing(tmp_path: Path) -> None:
    """The server failed once during a search; the bad event stayed announced alone."""
    home = tmp_path / "home"
    asked = 0

    def choose(request: Received) -> Behaviour:
        nonlocal asked
        if "tool-0" in _tools(request):
            return bad.reply(400)
        asked += 1
        return bad.reply(401) if asked == 1 else FINE  # once only

    with Server(choose=choose) as server:
        with client_of(home, server.url, events=50) as client:
            reports = [client.flush(timeout_s=5) for _ in range(6)]
    assert (reports[-1].pending, reports[-1].dead) == (0, 1), reports
    assert census_of(home).holds()


def test_two_bad_events_in_two_segments_hold_back_no_other(tmp_path: Path) -> None:
    """Two programs that began with a bad event each must not hold back all others."""
    home = tmp_path / "home"
    with (
        Server(choose=_refusing("tool-0", "tool-1")) as server,  # type: ignore[arg-type]
        client_of(home, server.url, events=1),
        client_of(home, server.url) as other,
    ):
        record(other, 50, first=1)
        assert len(segment_names(Home(str(home)))) == 2
        reports = [other.flush(timeout_s=5) for _ in range(3)]
        assert reports[0].delivered == 49, reports
        # The two that are left are all there is: nothing says that it is not the server.
        assert (reports[-1].pending, reports[-1].dead) == (2, 0), reports
        for number in range(4):
            record(other, 1, first=100 + number)
            report = other.flush(timeout_s=5)
        assert (report.pending, report.dead) == (0, 2), report


@pytest.mark.parametrize("status", [400, 500])
def test_a_key_that_is_renewed_for_each_launch_lets_no_refused_event_live(
    status: int, tmp_path: Path
) -> None:
    """Under each key it was the first flush, which begins with nothing that failed."""
    home = tmp_path / "home"

    def choose(request: Received) -> Behaviour:
        is_bad = b'"tool-0"' in request.plain_body
        return bad.reply(status) if is_bad else FINE

    with Server(choose=choose) as server:
        for number in range(20):
            key = f"token-{number:04}-renewed"
            with client_of(home, server.url, api_key=key) as client:
                record(client, 2, first=2 * number)
                report = client.flush(timeout_s=60)
            if report.dead:
                break
    assert (report.dead, report.pending) == (1, 0), report
    assert number < 12


@pytest.mark.parametrize("status", [400, 403, 503])
@pytest.mark.parametrize("failing", [1, 3, 4, 9])
def test_no_good_event_is_given_up_for_a_server_that_recovers(
    failing: int, status: int, tmp_path: Path
) -> None:
    """Its refusals are evidence of nothing, wherever they end."""
    home = tmp_path / "home"
    served = 0

    def choose(_: Received) -> Behaviour:
        nonlocal served
        served += 1
        return bad.reply(status) if served <= failing else FINE

    with Server(choose=choose) as server, client_of(home, server.url, events=8) as it:
        reports = [it.flush(timeout_s=0.7) for _ in range(6)]
    assert (reports[-1].dead, reports[-1].pending) == (0, 0), reports


def test_a_letter_of_an_event_that_was_accepted_after_a_kill_counts_once(
    tmp_path: Path,
) -> None:
    """Killed between the letter and the commit; then the server took the event."""
    home = tmp_path / "home"
    with Server(FINE) as server, client_of(home, server.url, events=3) as client:
        there = Home(str(home))
        (segment,) = segment_names(there)
        write_early_letter(home, segment)
        assert census_of(home).holds()
        assert client.flush(timeout_s=5).delivered == 3
        census = census_of(home)
        assert census.holds(), census


def test_letters_that_cannot_be_tidied_hold_back_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dead/` is another user's, or immutable: it is tidied once it can be."""
    home = tmp_path / "home"

    def refuse(path: str, *_args: object, **_named: object) -> bool:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    with Server(FINE) as server, client_of(home, server.url, events=3) as client:
        letter = write_early_letter(home, "00000000000000000001-00000001.v1.jseq")
        with monkeypatch.context() as patch:
            patch.setattr(dead_letters, "write_whole", refuse)
            patch.setattr(dead_letters.os, "unlink", refuse)
            assert client.flush(timeout_s=60).delivered == 3
        assert letter.exists()
        record(client, 1, first=10)
        assert client.flush(timeout_s=60).delivered == 1
        assert not letter.exists()


@pytest.mark.parametrize("refused", [("rename",), ("rename", "unlink")])
def test_letters_that_cannot_be_renamed_are_kept_and_hold_back_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    """Between their new file's commit and its rename that file is the only one."""
    home = tmp_path / "home"
    rename, unlink = os.rename, os.unlink

    def refuse(path: str, *others: str, **named: int | None) -> None:
        if "/dead/" in str(path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        (rename if others else unlink)(path, *others, **named)

    with Server(choose=rejecting("tool-0", "tool-1")) as server:
        with client_of(home, server.url, events=4) as client:
            assert client.flush(timeout_s=60).dead == 2
        with client_of(home, server.url) as client:
            client.flush(timeout_s=60)
        assert segment_names(Home(str(home))) == []
        shutil.rmtree(home / "ledger")
        with monkeypatch.context() as patch:
            for name in refused:
                patch.setattr(os, name, refuse)
            for number in range(3):
                with client_of(home, server.url) as client:
                    record(client, 1, first=10 + number)
                    assert client.flush(timeout_s=60).delivered == 1
                census = census_of(home)
                assert (census.dead, census.holds()) == (2, True)
        with client_of(home, server.url) as client:
            client.flush(timeout_s=60)
        census = census_of(home)
        assert (census.dead, census.damaged, census.holds()) == (2, 0, True)
        assert not [each for each in (home / "dead").iterdir() if ".tmp-" in each.name]


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_the_equation_holds_after_a_ledger_is_lost_beside_dead_letters(
    how: str, tmp_path: Path
) -> None:
    """Letters outlive the ledger; a new one that began at 0 was wrong for ever."""
    home = tmp_path / "home"
    with Server(choose=rejecting("tool-1")) as server:
        with client_of(home, server.url, events=3) as client:
            assert client.flush(timeout_s=5).dead == 1
        with client_of(home, server.url) as client:
            assert client.flush(timeout_s=5).dead == 1  # its segment is gone now
            assert segment_names(Home(str(home))) == []
            if how == "removed":
                shutil.rmtree(home / "ledger")
            else:
                (home / "ledger" / "cache.db").write_bytes(b"no database" * 1000)
            record(client, 1, first=10)
            client.flush(timeout_s=5)
            census = census_of(home)
            assert census.holds(), census


def test_a_child_forked_during_a_flush_keeps_no_flusher_out(tmp_path: Path) -> None:
    """The lock lived on in the child's copy of the descriptor, as long as the child."""
    home = tmp_path / "home"
    arrived = threading.Event()

    def answer(exchange: object) -> None:
        arrived.set()
        time.sleep(0.3)
        FINE(exchange)  # type: ignore[arg-type]

    with Server(answer) as server, client_of(home, server.url, events=1) as client:
        thread = threading.Thread(target=client.flush)
        thread.start()
        assert arrived.wait(10)
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        try:
            thread.join(10)
            lock = schedule.flush_lock(Home(str(home)))
            assert lock is not None, "locked by a child that never flushes"
            os.close(lock)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_retry_after_zero_does_not_end_the_backoff(tmp_path: Path) -> None:
    """Each launch would start a flusher against a server that is down."""
    home = tmp_path / "home"
    ahead = []
    with Server(bad.retry_after("0")) as server:
        with client_of(home, server.url, events=1) as client:
            for _ in range(4):
                report = client.flush(timeout_s=1.0)
                # A pause of the machine may take the second: it delivers nothing, too.
                assert report.stopped in {"waiting", "deadline"}
                ahead.append((report.next_attempt or 0) - time.time())
    assert max(ahead) > 1, ahead


def test_a_flush_in_a_thread_prints_nothing_whatever_breaks(tmp_path: Path) -> None:
    """What escapes a thread is printed by Python into the host's stderr."""
    program = """
import os, sys, telemetry
from telemetry.delivery import flush as module
c = telemetry.Client(telemetry.Config(app="a", home=sys.argv[1], flush="exit",
    endpoint="http://127.0.0.1:9/", api_key="k"))
assert c.track(telemetry.ToolEvent(action="call", tool_name="t"))
# A segment that vanishes while it is looked at, an installation that is replaced ...
sys.modules["telemetry.delivery.flush"] = None
c.flush(timeout_s=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "home")],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_that_ends_says_that_the_server_gave_no_answer(
    tmp_path: Path,
) -> None:
    """The flush at work was killed with the program, and `status` knew of none."""
    program = """
import os, sys, telemetry, time
telemetry.configure("app", flush="thread", exit_timeout_s=8.0)
assert telemetry.track("tried")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""
    arrived = tmp_path / "arrived"

    def never_answer(exchange: bad.Exchange) -> None:
        arrived.touch()
        exchange.wait_for_end()

    with Server(never_answer) as server:
        subprocess.run(
            [sys.executable, "-c", program, str(arrived)],
            env=environment_of(tmp_path, server.url),
            timeout=120,
            check=True,
        )
        assert len(server.requests) == 1
    state = read_snapshot(str(tmp_path / "app" / "ledger")).state
    assert (state.stopped, state.last_error[:5]) == ("deadline", "slow:")


def test_a_flush_keeps_its_time_beside_a_full_spool(tmp_path: Path) -> None:
    """The report was counted from 64 MiB after the time was up."""
    home = tmp_path / "home"
    with (
        Server(at_accept=bad.never_read) as server,
        client_of(home, server.url, events=1) as client,
    ):
        (segment,) = (home / "spool").iterdir()
        content = segment.read_bytes()
        for number in range(15):
            path = home / "spool" / f"{10**18 + number:020d}-00000000.v1.jseq"
            path.write_bytes(content * (4 * 2**20 // len(content)))
        client.flush(timeout_s=0.2)  # loads what it needs
        assert quickest_s(lambda: client.flush(timeout_s=0.2), below_s=0.25) < 0.25


def test_a_daemonised_host_goes_on_flushing_in_its_thread(tmp_path: Path) -> None:
    """The thread stayed in the parent that ended; the daemon's events waited for ever."""
    home = tmp_path / "home"
    with Server(FINE) as server:
        config = {"flush": "thread", "flush_interval_s": 1.0}
        with client_of(home, server.url, **config) as client:
            record(client, 1)
            until = time.monotonic() + 60
            while not server.requests and time.monotonic() < until:
                time.sleep(0.01)
            assert server.requests
            while (lock := schedule.flush_lock(Home(str(home)))) is None:
                time.sleep(0.01)
            os.close(lock)
            child = os.fork()
            if child == 0:
                client.close()  # no thread of its parent's is here
                record(client, 5, first=1)
                signal.pause()
                os._exit(0)
            try:
                client.close()
                until = time.monotonic() + 60
                while len(server.requests) < 2 and time.monotonic() < until:
                    time.sleep(0.05)
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        assert len(server.requests) >= 2


def test_a_storm_of_server_errors_costs_hardly_an_event(tmp_path: Path) -> None:
    """One answer among many errors made a dead letter of every good event left."""
    home = tmp_path / "home"
    served = 0
    storm = True

    def choose(_: Received) -> Behaviour:
        nonlocal served
        served += 1
        # In the sixth flush one request is accepted, and every other one fails.
        return FINE if not storm and served == 10 else bad.reply(503)

    with Server(choose=choose) as server, client_of(home, server.url, events=32) as it:
        for _ in range(5):
            while it.flush(timeout_s=0.8).stopped != "waiting":
                time.sleep(0.05)
        served, storm = 0, False
        report = it.flush(timeout_s=5)
    assert report.dead <= 1, report


def test_a_file_in_a_directorys_place_refuses_no_event(tmp_path: Path) -> None:
    """What stood where dead letters go kept every event from being recorded."""
    home = tmp_path / "home"
    with client_of(home, "", events=1):
        pass
    for name in ("dead", "quarantine"):
        (home / name).touch()
    with client_of(home, "", events=2):  # it asserts that they are recorded
        pass


def test_a_flush_that_kills_its_program_is_tried_ever_more_rarely(
    tmp_path: Path,
) -> None:
    """Beyond a limit of memory each program was killed at its end, once a minute."""
    running: list[subprocess.Popen[str]] = []
    kills = threading.Event()

    def choose(_: Received) -> Behaviour:
        if kills.is_set():
            wait_until(lambda: bool(running))
            running.pop().kill()
        return FINE

    with Server(choose=choose) as server:
        environment = environment_of(
            tmp_path, server.url, TELEMETRY_API_KEY=KEY, TELEMETRY_FLUSH="exit"
        )
        home = Home(str(tmp_path / "home"))
        settings = {"home": home.root, "exit_timeout_s": 30.0}
        for killed, waits_s in ((1, 60), (2, 360)):
            kills.set()
            with launch(environment, **settings) as process:
                running.append(process)
                process.communicate(timeout=60)
            kills.clear()
            assert process.returncode != 0
            plan = schedule.load(home.next_flush)
            assert plan.never_ended_within == killed
            _, ends = plan.waits["programs"]
            assert abs(ends - plan.last - waits_s) <= 2
            # The window has passed, for what runs outside of the program.
            os.utime(home.next_flush, (plan.last, plan.last))
            run(environment, **settings)
            assert len(server.requests) == killed
            plan.waits["programs"] = killed, plan.last
            plan.at = plan.last
            schedule.store(home.next_flush, plan)
        assert (
            "which ended first, or which they killed"
            in tool("status", home=Path(home.root)).line["why"]
        )
        run(environment, **settings)
        # After so many ends without a flush a detached one may be at it.
        await_no_flusher(tmp_path)
        assert len(server.requests) > 2
        assert schedule.load(home.next_flush).never_ended_within == 0


def test_a_flush_that_delivers_before_it_is_killed_is_no_suspect(
    tmp_path: Path,
) -> None:
    """A container is stopped while a long backlog goes out batch by batch."""
    running: list[subprocess.Popen[str]] = []

    def choose(request: Received) -> Behaviour:
        # By then some of those before it are settled: four are under way at most.
        if request.number == 10:
            wait_until(lambda: bool(running))
            running[0].kill()
        return FINE

    home = Home(str(tmp_path / "home"))
    with client_of(Path(home.root), "", events=16):
        pass
    with Server(choose=choose) as server:
        environment = environment_of(
            tmp_path, server.url, TELEMETRY_API_KEY=KEY, TELEMETRY_FLUSH="exit"
        )
        with launch(
            environment, home=home.root, exit_timeout_s=30.0, batch_events_max=1
        ) as process:
            running.append(process)
            process.communicate(timeout=60)
    assert process.returncode != 0
    assert census_of(Path(home.root)).delivered >= 1
    plan = schedule.load(home.next_flush)
    assert (plan.never_ended_within, plan.starts) == (0, 1)


def test_a_limit_of_requests_is_no_end_of_a_flush(tmp_path: Path) -> None:
    """It took what the limit bears at once, and ended: one batch of thousands a launch."""
    left, last = 1.0, time.monotonic()

    def choose(request: Received) -> Behaviour:
        nonlocal left, last
        left = min(left + 5 * (request.time - last), 1.0)
        last = request.time
        if left < 1:
            return bad.reply(429)
        left -= 1
        return FINE

    with Server(choose=choose) as server:
        with client_of(
            tmp_path / "home", server.url, events=60, batch_events_max=5
        ) as client:
            report = client.flush(timeout_s=60)
    assert (report.delivered, report.pending) == (60, 0)
