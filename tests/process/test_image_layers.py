"""A home that came with the image of a container: directories there cannot be renamed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import census_of, client_of
from tests.support.disks import mounted
from tests.support.loopback import Server
from tests.support.tooling import tool


EVENT = telemetry.ToolEvent(action="call", tool_name="later", success=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What is in it by the time of `container` is in the image."""
    (tmp_path / "image").mkdir()
    return tmp_path / "image"


@contextlib.contextmanager
def container(image: Path) -> Iterator[Path]:
    """Where the image's files stand, and can be written over (overlayfs)."""
    upper, work = image.with_name("upper"), image.with_name("work")
    upper.mkdir()
    work.mkdir()
    options = f"lowerdir={image},upperdir={upper},workdir={work},redirect_dir=off"
    with mounted(
        image.with_name("merged"), "-t", "overlay", "-o", options, "overlay"
    ) as place:
        with pytest.raises(OSError, match="cross-device"):
            (place / "home" / "spool").rename(place / "home" / "elsewhere")
        yield place / "home"


@pytest.mark.parametrize("command", [("purge", "--yes"), ("disable",)], ids="".join)
def test_what_came_with_an_image_is_removed(
    command: tuple[str, ...], image: Path
) -> None:
    """Also beside a program that has a segment open."""
    with client_of(image / "home", "", events=3):
        pass
    with container(image) as home, client_of(home, "", events=2) as client:
        done = tool(*command, home=home)
        assert (done.code, done.err) == (0, "")
        assert segment_names(Home(str(home))) == []
        assert client.track(EVENT) == (command[0] == "purge")
        if command[0] == "purge":
            census = census_of(home)
            assert (census.recorded, census.purged, census.pending) == (6, 5, 1)
        assert not list(home.glob("spool.removed-*"))


def test_a_damaged_ledger_that_came_with_an_image_is_replaced(image: Path) -> None:
    """Else nothing is ever sent from such a container."""
    with (
        Server(bad.reply(503)) as server,
        client_of(image / "home", server.url, events=3) as client,
    ):
        client.flush(timeout_s=5)
    for file in (image / "home" / "ledger").iterdir():
        file.write_bytes(b"no database" * 1000)
    with (
        container(image) as home,
        Server() as server,
        client_of(home, server.url, events=2) as client,
    ):
        assert client.flush(timeout_s=60).delivered == 5
        assert census_of(home).holds()
        assert len(list(home.glob("ledger.*"))) == 1
