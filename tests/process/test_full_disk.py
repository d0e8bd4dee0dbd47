"""A disk that is full to the last byte."""

from __future__ import annotations

import collections
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry
from telemetry.spool import refusals
from tests.support.delivering import KEY, census_of, client_of, record
from tests.support.loopback import Server


SIZE_KIB = 2048


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("making a file system needs root and mkfs.ext4")
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={SIZE_KIB}k,nr_inodes=500",
            "none",
        ]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(SIZE_KIB * 1024)
        # Without a journal there is room for something else.
        options = ("-q", "-O", "^has_journal", "-m", "0")
        subprocess.run(["mkfs.ext4", *options, str(image)], check=True)
        command = ["mount", "-o", "loop", str(image)]
    done = subprocess.run([*command, str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        (place / "lost+found").exists() and (place / "lost+found").rmdir()
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _fill(disk: Path, name: str = "filler") -> None:
    """Not one more byte fits afterwards."""
    descriptor = os.open(disk / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with pytest.raises(OSError, match="No space left"):
                file.writelines(itertools.repeat(b"x" * size))


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


def test_a_home_that_cannot_be_made_leaves_the_program_alone(small_disk: Path) -> None:
    """One line for whoever debugs it, and nothing else."""
    _fill(small_disk)
    # No room for directories either.
    names = (small_disk / f"entry-{number}" for number in itertools.count())
    with pytest.raises(OSError, match="No space left"):
        collections.deque(map(os.mkdir, names), maxlen=0)
    config = telemetry.Config(
        app="app",
        home=str(small_disk / "new" / "home"),
        endpoint="http://127.0.0.1:9/",
        api_key=KEY,
        flush="manual",
    )
    event = telemetry.ToolEvent(action="call")
    with telemetry.Client(config) as client:
        assert client.track(event) is False
        assert client.flush(timeout_s=1).delivered == 0
    strict = telemetry.Config(app="app", home=config.home, flush="manual", strict=True)
    with pytest.raises(telemetry.RefusedError):
        telemetry.Client(strict).track(event)
