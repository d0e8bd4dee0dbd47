"""A disk that is full to the last byte."""

from __future__ import annotations

import collections
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry
from telemetry.delivery.opt_out import requests_waiting
from telemetry.errors import DiskError
from telemetry.paths import Home
from telemetry.spool import frame, refusals
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of, record, rejecting
from tests.support.disks import memory_disk, mounted
from tests.support.launching import await_no_flusher
from tests.support.loopback import Server
from tests.support.tooling import tool
from tests.support.writers import (
    event,
    home_at,
    spool_writer,
    spooled_events,
)


SIZE_KIB = 2048


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own."""
    place = tmp_path / "disk"
    if request.param == "tmpfs":
        with memory_disk(place, size_kib=SIZE_KIB, inodes=500):
            yield place
        return
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_KIB * 1024)
    # Without a journal there is room for something else.
    options = ("-q", "-O", "^has_journal", "-m", "0")
    subprocess.run(["mkfs.ext4", *options, str(image)], check=True)
    with mounted(place, "-o", "loop", str(image)):
        (place / "lost+found").rmdir()
        yield place


def _fill(disk: Path, name: str = "filler") -> None:
    """Not one more byte fits afterwards."""
    descriptor = os.open(disk / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with pytest.raises(OSError, match="No space left"):
                file.writelines(itertools.repeat(b"x" * size))


def _leave_files(disk: Path, left: int) -> None:
    """So many more files can be made afterwards."""
    for number in itertools.count():
        if os.statvfs(disk).f_favail <= left:
            return
        (disk / f"filler-{left}-{number}").touch()


def sent_ids(server: Server) -> list[bytes]:
    """The ids of the events that came, as often as they came."""
    sent = b"".join(each.plain_body for each in server.requests)
    return re.findall(rb'"event_id":"([^"]+)"', sent)


def run_program(home: Path, endpoint: str, mode: str) -> None:
    """A program that tracks one event and ends."""
    code = (
        "import telemetry\n"
        f"telemetry.configure('frob', home={str(home)!r}, flush={mode!r}, "
        f"endpoint={endpoint!r}, api_key={KEY!r}, exit_timeout_s=60.0)\n"
        "telemetry.track('ran')\n"
    )
    environment = {"PATH": os.environ["PATH"], "TELEMETRY_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("had_a_ledger", [False, True])
def test_a_full_disk_is_drained_and_gets_its_space_back(
    had_a_ledger: bool, small_disk: Path
) -> None:
    """Telemetry must not be what keeps a full disk full."""
    home = small_disk / "home"
    with Server() as server:
        total = 0
        if had_a_ledger:
            with client_of(home, server.url, events=10) as client:
                assert client.flush(timeout_s=60).delivered == 10
            total = 10
        with client_of(home, server.url, segment_bytes_max=64 * 1024) as client:
            record(client, 3000)
            event = telemetry.ToolEvent(action="call", tool_name="more", success=True)
            _fill(small_disk)
            recorded = 3000
            while client.track(event):
                recorded += 1  # what still fits into blocks that are ours already
            assert not client.track(event)
        used = shutil.disk_usage(small_disk).free
        with client_of(home, server.url) as client:
            report = client.flush(timeout_s=60)
            assert (report.stopped, report.delivered, report.pending) == (
                "drained",
                recorded,
                0,
            )
        assert list((home / "spool").iterdir()) == []
        assert shutil.disk_usage(small_disk).free > used + 256 * 1024
        census = census_of(home)
        assert census.holds()
        assert (census.delivered, census.pending) == (total + recorded, 0)


@pytest.mark.parametrize("had_a_ledger", [False, True])
def test_what_was_torn_by_a_full_disk_does_not_keep_it_full(
    had_a_ledger: bool, small_disk: Path, request: pytest.FixtureRequest
) -> None:
    """There is no room for its copy, and only its segment's end could make some."""
    home = small_disk / "home"
    with Server() as server:
        if had_a_ledger:
            with client_of(home, server.url, events=10) as client:
                assert client.flush(timeout_s=60).delivered == 10
        with client_of(home, server.url) as client:
            event = telemetry.ToolEvent(action="call", tool_name="x" * 40, success=True)
            recorded = 0
            while client.track(event):
                recorded += 1
        free = shutil.disk_usage(small_disk).free
        with client_of(home, server.url) as client:
            report = client.flush(timeout_s=60)
            found = (report.stopped, report.delivered, report.pending)
            assert found == ("drained", recorded, 0)
            is_torn = request.node.callspec.params["small_disk"] == "tmpfs"
            assert report.damaged == is_torn  # ext4 refuses the whole of it
            assert list((home / "spool").iterdir()) == []
            assert shutil.disk_usage(small_disk).free > free + 1024 * 1024
            assert client.track(event)
            assert client.flush(timeout_s=60).delivered == 1
        assert len(set(sent_ids(server))) == len(sent_ids(server))
    assert census_of(home).holds()


def test_an_event_that_is_refused_by_name_does_not_keep_a_full_disk_full(
    small_disk: Path,
) -> None:
    """There is no room for its letter, but what came with it in one batch makes some."""
    home = small_disk / "home"
    with Server(choose=rejecting("tool-150")) as server:
        with client_of(home, server.url, events=490, segment_bytes_max=20_000):
            assert len(segment_names(Home(str(home)))) > 4
        _fill(small_disk)
        with client_of(home, server.url) as client:
            report = client.flush(timeout_s=60)
            assert (report.stopped, report.dead) == ("disk", 0)
            # Each segment but the one that the event stands in is gone.
            assert len(segment_names(Home(str(home)))) == 1
            assert report.delivered > 400
            report = client.flush(timeout_s=60)
            assert (report.stopped, report.pending, report.dead) == ("drained", 0, 1)
    census = census_of(home)
    assert (census.holds(), census.delivered) == (True, 489)


def test_the_reserve_is_room_for_the_letter_of_an_event_that_is_refused(
    tmp_path: Path,
) -> None:
    """Its segment is all that waits, and would have kept its space for good."""
    disk = tmp_path / "disk"
    home = disk / "home"
    with (
        memory_disk(disk, size_kib=4 * SIZE_KIB),
        Server(choose=rejecting("tool-5")) as server,
    ):
        with client_of(home, server.url, events=3) as client:
            assert client.flush(timeout_s=60).delivered == 3
            assert Path(Home(str(home)).reserve).exists()
            record(client, 10)
        _fill(disk)
        with client_of(home, server.url) as client:
            report = client.flush(timeout_s=60)
            assert (report.stopped, report.pending, report.dead) == ("drained", 0, 1)
            assert client.track(telemetry.ToolEvent(action="call", success=True))
        census = census_of(home)
        assert (census.holds(), census.delivered) == (True, 12)


def test_a_disk_that_takes_few_more_files_is_drained(small_disk: Path) -> None:
    """A ledger is three; with room for one or two of them it cannot be made either."""
    with Server() as server:
        for left in (4, 3, 2, 1, 0):
            home = small_disk / str(left)
            with client_of(home, server.url, events=2) as client:
                segments = len(segment_names(Home(str(home))))
                _leave_files(small_disk, left)
                report = client.flush(timeout_s=60)
                assert (left, report.stopped, report.delivered) == (left, "drained", 2)
                assert segments == 1
            for filler in small_disk.glob("filler-*"):
                filler.unlink()
        _leave_files(small_disk, 0)
        status = tool("status", home=small_disk / "4").line
        assert "the disk is full, or nearly so" in status["why"]


def test_a_program_that_goes_on_drains_a_full_disk(small_disk: Path) -> None:
    """Else each of its flushes sends everything again, and nothing new is recorded."""
    home = small_disk / "home"
    with Server() as server, client_of(home, server.url, events=5) as client:
        _fill(small_disk)
        recorded = []
        for _ in range(3):
            event = telemetry.ToolEvent(action="call", tool_name="it")
            recorded.append(client.track(event))
            assert client.flush(timeout_s=60).stopped == "drained"
        assert recorded[1:] == [True, True]
        assert census_of(home).pending == 0
        ids = sent_ids(server)
    assert len(set(ids)) == len(ids) == 5 + sum(recorded)


@pytest.mark.parametrize("mode", ["launch", "exit", "thread"])
def test_a_time_that_cannot_be_written_holds_back_no_flush(
    mode: str, small_disk: Path
) -> None:
    """A full file system that copies what is overwritten; here the file has a hole."""
    home = small_disk / "home"
    with Server() as server:
        with client_of(home, server.url, events=2, flush="manual"):
            pass
        size = (home / "next-flush").stat().st_size
        os.truncate(home / "next-flush", 0)
        os.truncate(home / "next-flush", size)
        _fill(small_disk)
        os.utime(home / "next-flush", (0, 0))  # it is due
        run_program(home, server.url, mode)
        await_no_flusher(home)
        assert census_of(home).pending == 0


@pytest.mark.parametrize("mode", ["exit", "thread"])
def test_a_program_that_flushes_by_itself_drains_a_full_disk(
    mode: str, small_disk: Path
) -> None:
    """Else each of its runs sends everything again, and records nothing new."""
    home = small_disk / "home"
    with Server() as server:
        with client_of(home, server.url, events=2, flush="manual"):
            _fill(small_disk)
        for _ in range(2):
            os.utime(home / "next-flush", (0, 0))  # it is due
            run_program(home, server.url, mode)
        assert census_of(home).pending == 0
        ids = sent_ids(server)
        assert len(set(ids)) == len(ids) >= 2


def test_what_a_full_disk_refuses_is_counted(small_disk: Path) -> None:
    """A loss that nobody counts is a lie about how many there were."""
    home = small_disk / "home"
    event = telemetry.ToolEvent(action="call", tool_name="x" * 100, success=True)
    with client_of(home, "", events=1) as client:
        _fill(small_disk)
        answers = [client.track(event) for _ in range(200)]
    refused = answers.count(False)
    assert refused > 0
    assert refusals.read(str(home / "refused")) == {"disk_error": refused}
    (small_disk / "filler").unlink()
    with client_of(home, "") as client:
        assert client.track(event)
        client.flush(timeout_s=5)
    census = census_of(home)
    assert census.holds()
    # A write that was cut short left a torn record, which is counted as damaged.
    assert census.pending == answers.count(True) + 2


def test_a_home_that_was_made_on_a_full_disk_says_so(small_disk: Path) -> None:
    """It has no room to count refusals, so `status` asks the disk itself."""
    home = small_disk / "home"
    home.mkdir(mode=0o700)
    (home / "spool").mkdir(mode=0o700)
    _fill(small_disk)
    config = telemetry.Config(app="app", home=str(home), flush="manual")
    with telemetry.Client(config) as client:
        assert client.track(telemetry.ToolEvent(action="call")) is False
    ran = tool("status", home=home)
    assert b"the disk is full" in ran.out or "is on a full disk" in ran.err, ran


def test_nobody_is_told_to_remove_a_file_from_a_read_only_disk(
    small_disk: Path,
) -> None:
    """It cannot be done, and would not help."""
    home = small_disk / "home"
    with client_of(home, "", events=1):
        pass
    command = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(command, check=True, capture_output=True)
    (said,) = tool("status", home=home).lines
    assert said["why_code"] == "unusable"
    assert "(Read-only file system); set TELEMETRY_HOME" in said["why"]


def test_a_home_that_cannot_be_made_leaves_the_program_alone(small_disk: Path) -> None:
    """One line for whoever debugs it, and nothing else."""
    _fill(small_disk)
    # No room for directories either.
    names = (small_disk / f"entry-{number}" for number in itertools.count())
    with pytest.raises(OSError, match="No space left"):
        collections.deque(map(os.mkdir, names), maxlen=0)
    home = small_disk / "new" / "home"
    config = telemetry.Config(
        app="app",
        home=str(home),
        endpoint="http://127.0.0.1:9/",
        api_key=KEY,
        flush="manual",
    )
    event = telemetry.ToolEvent(action="call")
    with telemetry.Client(config) as client:
        assert client.track(event) is False
        assert client.flush(timeout_s=1).delivered == 0
    assert f"{small_disk} is on a full disk" in tool("status", home=home).err
    strict = telemetry.Config(app="app", home=config.home, flush="manual", strict=True)
    with pytest.raises(telemetry.RefusedError):
        telemetry.Client(strict).track(event)


@pytest.mark.parametrize("size", [300, 5000, 100_000])
def test_full_disk_costs_the_newest_events_alone(small_disk: Path, size: int) -> None:
    """What was acknowledged is there, and nothing piles up while it is full."""
    home = home_at(small_disk)
    writer = spool_writer(home)
    told, refused = [], 0
    while refused < 50:
        each = event(len(told) + refused, size=size)
        try:
            writer.append(each)
        except DiskError:
            refused += 1
        else:
            told.append(each)
    assert len(told) > 1
    # One torn, one that was made after it, and one more for each page left over.
    assert len(segment_names(home)) <= 4
    assert spooled_events(home) == told
    writer.close()
    os.unlink(home.segment(segment_names(home)[0]))
    writer.append(event(9999))
    assert spooled_events(home)[-1] == event(9999)
    writer.close()


def test_somebody_who_wants_to_be_forgotten_is_on_a_full_disk(
    small_disk: Path,
) -> None:
    """What is removed makes room for the id that a server is to delete."""
    with Server() as server:
        home, asking = small_disk / "home", f"{server.url}/delete"
        with client_of(home, server.url, events=1, deletion_endpoint=asking) as client:
            assert client.flush(timeout_s=60).stopped == "drained"
            record(client, 500)
        user_uuid = (home / "user-uuid").read_text()
        _fill(small_disk)
        done = tool("forget", home=home)
        assert (done.code, done.line["server"]) == (1, "waiting")
        (waiting,) = requests_waiting(Home(str(home)))
        assert Path(waiting).read_text() == user_uuid
        assert not (home / "user-uuid").exists()
        assert list((home / "spool").iterdir()) == []


def test_a_purge_frees_a_disk_that_takes_no_more_files(small_disk: Path) -> None:
    """It made an empty `spool/` first, and ended there: nothing was ever removed."""
    home = small_disk / "home"
    with Server(bad.reply(503)) as server, client_of(home, server.url) as client:
        record(client, 5)
        client.flush(timeout_s=1)
        _leave_files(small_disk, 0)
        done = tool("purge", "--yes", home=home)
        assert (done.code, done.line["events"]) == (0, 5)
        assert list(home.glob("spool.removed-*")) == []
        assert client.track("after") is True
    assert census_of(home).purged == 5


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_quarantine_that_is_no_directory_holds_back_no_event(
    tmp_path: Path, kind: str
) -> None:
    """There is no place for a copy of what was damaged, and all else is sent."""
    home = Home(str(tmp_path / "home"))
    with Server() as server:
        with client_of(tmp_path / "home", server.url, events=3):
            pass
        [name] = segment_names(home)
        content = Path(home.segment(name)).read_bytes()
        torn = content.index(frame.MARK, 1) - 5
        damaged = content[:torn] + content[torn + 5 :]
        Path(home.segment(name)).write_bytes(damaged)
        if kind == "file":
            Path(home.quarantine).touch()
        else:
            os.symlink(tmp_path, home.quarantine)
        before = sorted(os.listdir(tmp_path))
        with client_of(tmp_path / "home", server.url, events=1) as client:
            client.close()
            report = client.flush(timeout_s=60)
    assert (report.stopped, report.delivered) == ("drained", 3)
    census = census_of(tmp_path / "home")
    assert (census.damaged, census.holds()) == (1, True)
    assert sorted(os.listdir(tmp_path)) == before
    told = tool("status", home=tmp_path / "home").line
    assert told["unreadable"][0].startswith("quarantine: ")
