"""Writers and a flusher at once, for real: nothing acknowledged is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spool_tools.collector import Collector
from telemetry.config import Config
from telemetry.delivery.flush import flush
from telemetry.paths import Home
from telemetry.spool import frame
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.spool.segment import adopt
from tests.support.surroundings import REPOSITORY
from tests.support.writers import (
    Numbered,
    Peer,
    child,
    client_of,
    fork,
    home_at,
    record_some,
    spooled_events,
)


PROCESSES = 16
EVENTS_EACH = 2000
# So many of each are recorded while one flush runs.
EVENTS_A_FLUSH = 250
# About so many: each of the checks, taken out, loses hundreds of events then.
ACKNOWLEDGED = 20_000
# And at least so many of these: each race goes on until it has them.
PURGED, OPT_OUTS = 100, 20
# A race without one of them loses some in a fraction of that; so many may be tried.
BROKEN, RACES_MAX = 5_000, 20
# Only what hangs takes longer, however busy the machine is.
RACE_S_MAX = 1800.0


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment of the tests turns it off."""
    for name in ("DO_NOT_TRACK", "TELEMETRY_ENABLED", "TELEMETRY_TAGS", "CI"):
        monkeypatch.delenv(name, raising=False)


def record(home: Home, by: str, peer: Peer) -> None:
    """What one process does: its events, so many for each word from its parent."""
    with client_of(home) as client:
        for number in range(EVENTS_EACH):
            if number % EVENTS_A_FLUSH == 0:
                peer.hear()
            if number % 10 == 0 and by.endswith(("1", "3", "5")):
                client.close()  # and takes a segment again, which may go
            assert client.track(Numbered(number, by))
        # They live until all have arrived, with their segments open.
        peer.hear()
    peer.tell(str(time.time_ns() // 1_000_000))


def test_sixteen_processes_and_a_flusher(tmp_path: Path) -> None:
    """Everything arrives exactly once, while it is recorded and afterwards."""
    home = home_at(tmp_path)
    with Collector(database=str(tmp_path / "collected"), key="secret") as collector:
        config = Config(
            app="app",
            endpoint=collector.url,
            api_key="secret",
            batch_events_max=100,
        )

        def flush_once() -> str:
            return flush(
                config, home, timeout_s=60, environment={}, allowed=lambda: True
            ).stopped

        peers = [
            fork(lambda peer, n=n: record(home, f"process{n}", peer))
            for n in range(PROCESSES)
        ]
        begun = time.monotonic()
        for flushes in range(EVENTS_EACH // EVENTS_A_FLUSH):
            for peer in peers:
                peer.tell("go on")
            expected = (flushes + 1) * PROCESSES * EVENTS_A_FLUSH
            while collector.count() < expected:
                assert flush_once() == "drained"
                assert time.monotonic() - begun < RACE_S_MAX, collector.count()
        assert 1 < len(segment_names(home)) <= PROCESSES + 8
        for peer in peers:
            peer.tell("end")
        ended_ms = [int(peer.finish()) for peer in peers]
        for peer in peers:
            peer.close()
        assert flush_once() == "drained"
        copies, requests = collector.copies(), collector.requests()
        arrived = {
            (each["properties"]["by"], each["properties"]["number"])
            for each in collector.events()
        }
    print(f"{len(arrived)} events in {len(requests)} requests")
    assert max(request.received_ms for request in requests) <= max(ended_ms)
    assert arrived == {
        (f"process{n}", number)
        for n in range(PROCESSES)
        for number in range(EVENTS_EACH)
    }
    assert set(copies.values()) == {1}
    assert segment_names(home) == []
    assert not os.path.exists(home.quarantine), "what was being written is no damage"


def test_event_between_the_last_read_and_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flusher found the end, and before it had the lock a writer came and went."""
    home = home_at(tmp_path)
    record_some(home.root, "early", 3)
    lock, late = SegmentReader.lock, iter(range(5))

    def lock_late(reader: SegmentReader) -> bool:
        for number in late:
            with client_of(home) as client:
                assert client.track(Numbered(number, "late"))
            break
        return lock(reader)

    monkeypatch.setattr(SegmentReader, "lock", lock_late)
    with Collector(key="secret") as collector:
        config = Config(app="app", endpoint=collector.url, api_key="secret")
        report = flush(config, home, timeout_s=60, environment={}, allowed=lambda: True)
        assert set(collector.copies().values()) == {1}
    assert (report.delivered, report.damaged, report.pending) == (8, 0, 0)
    assert segment_names(home) == []


def test_half_a_record_of_a_live_writer_is_left_alone(tmp_path: Path) -> None:
    """One look in five sees one: it is no damage, and soon it is an event."""
    home = home_at(tmp_path)
    record_some(home.root, "early", 1)
    [name] = segment_names(home)
    whole = frame.encode(1, spooled_events(home)[0].replace(b"early", b"whole"))

    def write_slowly(peer: Peer) -> None:
        segment = adopt(home.segment(name), 1 << 30)
        assert segment is not None
        for part in (whole[:-7], whole[-7:]):
            os.write(segment.descriptor, part)
            peer.tell("written")
            peer.hear()

    with Collector(key="secret") as collector, child(write_slowly) as peer:
        config = Config(app="app", endpoint=collector.url, api_key="secret")

        def flush_once() -> tuple[int, int]:
            report = flush(
                config, home, timeout_s=60, environment={}, allowed=lambda: True
            )
            return report.delivered, report.damaged

        assert peer.hear() == "written"
        assert flush_once() == (1, 0)
        peer.tell("go on")
        assert peer.hear() == "written"
        assert flush_once() == (1, 0)
        peer.tell("end")
        peer.finish()
        assert flush_once() == (0, 0)
    assert segment_names(home) == []
    assert not os.path.exists(home.quarantine)


def race(*arguments: str) -> dict[str, object]:
    """The figures of one race, run by an interpreter that has nothing else to do."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.proofs.races", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=RACE_S_MAX,
        check=False,
    )
    print(run.stdout, run.stderr)
    assert run.stdout, run.stderr
    figures: dict[str, object] = json.loads(run.stdout)
    return figures


def is_found(*arguments: str) -> bool:
    """Whether a race that leaves a check out has lost events."""
    enough = "--acknowledged", str(BROKEN)
    return any(race(*enough, *arguments)["lost"] for _ in range(RACES_MAX))


def test_short_lived_writers_a_flusher_and_a_purge() -> None:
    """Each opening, each deletion and each purge may meet at any step."""
    enough = "--acknowledged", str(2 * ACKNOWLEDGED), "--purged", str(PURGED)
    figures = race(*enough)
    assert figures["lost"] == figures["failed"] == figures["left"] == 0
    assert figures["acknowledged"] > ACKNOWLEDGED
    assert figures["purged"] >= PURGED


def test_whatever_a_name_leads_to_and_whoever_opts_out() -> None:
    """A trash, a swap, a backup, a purge and an opt-out at any step of an event."""
    enough = "--acknowledged", str(ACKNOWLEDGED), "--opt-outs", str(OPT_OUTS)
    figures = race(*enough, "--beside", "all", "--writers", "8")
    assert figures["lost"] == figures["failed"] == figures["after it"] == 0
    assert figures["acknowledged"] > ACKNOWLEDGED // 2
    assert figures["opted out"] >= OPT_OUTS
    for beside in ("names", "opt-out"):
        assert is_found("--beside", beside, "--without", "link")


def test_a_race_without_a_check_loses_events() -> None:
    """So that the race above would notice: it has lost events where it should."""
    assert is_found("--without", "end", "--without", "link")
