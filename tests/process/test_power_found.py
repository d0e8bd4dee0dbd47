"""What a power loss may bring back: removals whose directory was not synced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from telemetry.client import Client
from telemetry.delivery import settlement as flusher
from telemetry.delivery.flush import flush
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.proofs.power_loss.events import POISON, Collector, config_of
from tests.support import misbehaving as bad
from tests.support.delivering import census_of, client_of, rejecting, write_early_letter
from tests.support.loopback import Server
from tests.support.writers import Numbered


class Removals:
    """Files that were removed, and those whose removal no sync has followed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsynced: dict[str, bytes] = {}
        self.synced: list[str] = []
        unlink, fsync = os.unlink, os.fsync

        def removing(path: str, **named: object) -> None:
            content = None
            if os.path.isfile(path) and (
                "/dead/" in str(path) or "/spool/" in str(path)
            ):
                content = Path(path).read_bytes()
            unlink(path, **named)
            if content is not None:
                self.unsynced[str(path)] = content

        def syncing(descriptor: int) -> None:
            fsync(descriptor)
            where = os.readlink(f"/proc/self/fd/{descriptor}")
            self.synced.append(where)
            for path in [p for p in self.unsynced if os.path.dirname(p) == where]:
                del self.unsynced[path]

        monkeypatch.setattr(os, "unlink", removing)
        monkeypatch.setattr(os, "fsync", syncing)

    def lose_power(self) -> None:
        for path, content in self.unsynced.items():
            Path(path).write_bytes(content)
            os.chmod(path, 0o600)


def test_an_early_letter_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind the letter and before its settling; then accepted; then no power."""
    home = tmp_path / "home"
    with (
        Server(bad.reply(200)) as server,
        client_of(home, server.url, events=1, durability="power") as client,
    ):
        client.close()
        (name,) = segment_names(Home(str(home)))
        write_early_letter(home, name)
        removals = Removals(monkeypatch)
        assert client.flush().delivered == 1
        removals.lose_power()
    assert census_of(home).holds(), census_of(home)


def test_a_segment_that_comes_back_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the unlink and the sync; the next flush folds; then no power."""
    home = Home(str(tmp_path / "home"))
    with Collector(rejects=True) as collector:
        config = config_of(home, collector.server.url, durability="power")
        with Client(config) as client:
            assert client.track(Numbered(0, "w", "x"))
            assert client.track(Numbered(1, POISON, "x"))
        removals = Removals(monkeypatch)

        def flush_once() -> str:
            return flush(
                config, home, timeout_s=5.0, environment={}, allowed=lambda: True
            ).stopped

        def killed(_: str) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as only:
            only.setattr(flusher, "sync_directory", killed)
            with pytest.raises(KeyboardInterrupt):
                flush_once()
        assert flush_once() == "drained"
        assert census_of(Path(home.root)).holds()
        removals.lose_power()
        census = census_of(Path(home.root))
        assert census.holds(), census
        flush_once()
        census = census_of(Path(home.root))
        assert census.holds(), census


def test_the_directory_of_letters_is_synced_by_who_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it may have been killed before the sync."""
    home = tmp_path / "home"
    os.mkdir(home, 0o700)
    os.mkdir(home / "dead", 0o700)
    removals = Removals(monkeypatch)
    with (
        Server(choose=rejecting("tool-0")) as server,
        client_of(home, server.url, events=1) as client,
    ):
        assert client.flush(timeout_s=5).dead == 1
    assert str(home) in removals.synced
