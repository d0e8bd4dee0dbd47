"""What failing system calls had shown, each once more by itself and without a tracer."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from telemetry.config import Config
from telemetry.delivery.flush import flush
from telemetry.delivery.report import FlushReport
from telemetry.delivery.schedule import claim, flush_lock
from telemetry.delivery.search import WINDOWS_MAX
from telemetry.paths import Home
from telemetry.spool import refusals
from tests.support.delivering import KEY, census_of, client_of, record
from tests.support.loopback import Behaviour, Received, Server
from tests.support.misbehaving import reply
from tests.support.writers import Peer, child, home_at


def config_of(home: Home, endpoint: str) -> Config:
    """A config that sends."""
    return Config(app="app", home=home.root, endpoint=endpoint, api_key=KEY)


def without_descriptors(peer: Peer, work: object) -> None:
    """`work` is done in a process that can open nothing more; its answer is told."""
    number = os.dup(0)
    os.close(number)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))
    assert callable(work)
    answer = work()
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peer.tell(str(answer))


def test_a_next_flush_that_cannot_be_set_keeps_no_lock(tmp_path: Path) -> None:
    """A host that lives for days would keep every flusher from beginning."""
    home = home_at(tmp_path)
    os.unlink(home.next_flush)
    os.symlink("nowhere", home.next_flush)
    with pytest.raises(OSError, match=r"."):
        claim(config_of(home, "http://127.0.0.1:9/"), home, time.time())
    lock = flush_lock(home)
    assert lock is not None
    os.close(lock)


def test_a_flush_that_can_open_nothing_reports_the_disk(tmp_path: Path) -> None:
    """It may run in a thread of the host, where an exception would be printed."""
    home = home_at(tmp_path)
    with client_of(Path(home.root), "", events=2):
        pass

    def flush_without(peer: Peer) -> None:
        def work() -> str:
            return flush(
                config_of(home, "http://127.0.0.1:9/"),
                home,
                timeout_s=1.0,
                environment={},
                allowed=lambda: True,
            ).stopped

        without_descriptors(peer, work)

    with child(flush_without) as peer:
        assert peer.finish() == "disk\n"
    assert census_of(Path(home.root)).pending == 2


def test_a_flush_without_a_home_reports_the_disk(tmp_path: Path) -> None:
    """Somebody removed it while the program ran."""
    home = Home(str(tmp_path / "gone"))
    report = flush(
        config_of(home, "http://127.0.0.1:9/"),
        home,
        timeout_s=1.0,
        environment={},
        allowed=lambda: True,
    )
    assert report.stopped == "disk"
    assert not os.path.exists(home.root)


def refusing_one(request: Received) -> Behaviour:
    """400 for whatever holds the event named `tool-0`."""
    return reply(400 if b'"tool-0"' in request.body else 200)


@pytest.mark.parametrize("requests", [1, 2, 3, 4])
def test_a_search_that_was_cut_short_holds_back_nothing(
    tmp_path: Path, requests: int
) -> None:
    """It leaves a bad event announced alone, and alone it is refused for ever."""
    home = Home(str(tmp_path / "home"))
    asked = 0

    def is_allowed() -> bool:
        nonlocal asked
        asked += 1
        # Once before the flush, then before each request.
        return asked <= requests + 1

    with Server(choose=refusing_one) as server:
        with client_of(tmp_path / "home", server.url, events=4):
            pass
        _flush(home, server.url, is_allowed)
        report = _flush(home, server.url, lambda: True)
        assert census_of(tmp_path / "home").delivered == 3
        for _ in range(WINDOWS_MAX):
            if report.stopped != "drained":
                report = _flush(home, server.url, lambda: True)
        assert (report.stopped, report.pending, report.dead) == ("drained", 0, 1)
    assert census_of(tmp_path / "home").delivered == 3


def _flush(home: Home, endpoint: str, allowed: object) -> FlushReport:
    return flush(
        config_of(home, endpoint),
        home,
        timeout_s=20.0,
        environment={},
        allowed=allowed,  # type: ignore[arg-type]
    )


def test_a_server_that_refuses_all_is_left_alone_after_each_search(
    tmp_path: Path,
) -> None:
    """Widening a refused part must come to an end in the same flush."""
    home = Home(str(tmp_path / "home"))
    with Server(reply(400)) as server:
        with client_of(tmp_path / "home", server.url, events=8) as client:
            made = [client.flush(timeout_s=60) for _ in range(3)]
            record(client, 8, first=8)
            made.append(client.flush(timeout_s=60))
        assert {(report.stopped, report.dead) for report in made} == {("paused", 0)}
        assert max(report.requests for report in made) < 12
    assert census_of(Path(home.root)).pending == 16


def test_a_part_is_widened_once_a_flush_however_the_segment_grows(
    tmp_path: Path,
) -> None:
    """Beside a program that records all the time the search would never end."""
    with client_of(tmp_path / "home", "", events=8) as writer:

        def record_and_refuse(_: Received) -> Behaviour:
            record(writer, 1, first=100)
            return reply(400)

        with (
            Server(choose=record_and_refuse) as server,
            client_of(tmp_path / "home", server.url) as client,
        ):
            made = [client.flush(timeout_s=60) for _ in range(3)]
    assert [report.stopped for report in made] == ["paused"] * 3
    assert max(report.requests for report in made) < 20


def test_old_temporary_files_in_the_home_are_swept(tmp_path: Path) -> None:
    """Each kill at the wrong moment would leave up to half a megabyte for ever."""
    home = home_at(tmp_path)
    old = [f"{home.root}/{name}" for name in ("reserve.tmp-1-2", "probe")]
    new = f"{home.root}/user-uuid.tmp-3-4"
    for path in (*old, new):
        Path(path).write_bytes(b"x")
    for path in old:
        os.utime(path, (0, 0))
    with Server() as server:
        assert _flush(home, server.url, lambda: True).stopped == "drained"
    assert not any(map(os.path.exists, old))
    assert os.path.exists(new)


def test_a_count_that_was_written_does_not_wait_beside_one_that_was_not(
    tmp_path: Path,
) -> None:
    """Each further refusal would count again what the file holds already."""
    home = home_at(tmp_path)

    def refuse(peer: Peer) -> None:
        waiting: list[tuple[str, int]] = []
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        # The first reason's line can be written, the second's is beyond the bound.
        resource.setrlimit(resource.RLIMIT_FSIZE, (32, most))
        for reason in ("disk_error", "too_big", "disk_error", "disk_error"):
            waiting.append((reason, 1))
            refusals.count(home.refused, waiting)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        refusals.count(home.refused, waiting)
        peer.tell("counted")

    with child(refuse) as peer:
        assert peer.finish() == "counted\n"
    assert refusals.read(home.refused) == {"disk_error": 3, "too_big": 1}
