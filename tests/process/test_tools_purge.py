"""`purge`: what it removes is counted, whoever writes meanwhile, and wherever it is killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Loaded before the forks, as everything is that a purge needs.
import telemetry.delivery.flush  # noqa: F401
from spool_tools.changing import open_books
from telemetry.delivery import dead_letters
from telemetry.delivery.opt_out import directories_set_aside, set_aside
from telemetry.files import names_in
from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import (
    census_of,
    client_of,
    letters_of,
    record,
    rejecting,
    write_early_letter,
)
from tests.support.disks import memory_disk
from tests.support.loopback import Server
from tests.support.terminals import at_terminal
from tests.support.tooling import process, tool
from tests.support.writers import holding


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool with some of everything: 17 delivered, 2 dead, 1 retried, 1 damaged
    record in quarantine, 9 pending in two segments and 2 damaged ones between them."""
    home = tmp_path / "home"
    with (
        Server(choose=rejecting("tool-3", "tool-9", "tool-11")) as server,
        client_of(home, server.url, events=20) as client,
    ):
        assert client.flush(timeout_s=60).dead == 3
    there = Home(str(home))
    with open_books(there) as books:
        dead_letters.retry(there, books, {letters_of(home)[0].name})
    with client_of(home, "", events=7):
        pass
    name = segment_names(Home(str(home)))[-1]
    path = home / "spool" / name
    whole = path.read_bytes()
    at = whole.rindex(b'"tool-2"')
    path.write_bytes(whole[:at] + b"?" + whole[at + 1 : -5])
    with client_of(home, "", events=4):
        pass
    return home


def test_what_is_removed_is_counted_as_purged(home: Path) -> None:
    """An event that somebody threw away is not one that got lost."""
    before = census_of(home)
    assert (before.recorded, before.pending, before.dead) == (31, 5 + 4 + 1, 2)
    assert (before.delivered, before.damaged, before.purged) == (17, 2, 0)
    done = tool("purge", "--yes", home=home)
    assert (done.code, done.err) == (0, "")
    assert done.line == {"events": 10, "letters": 2, "stretches": 0}
    after = census_of(home)
    assert after.holds()
    assert (after.recorded, after.pending, after.dead) == (31, 0, 0)
    assert (after.delivered, after.damaged, after.purged) == (17, 2, 9 + 3)
    for name in ("spool", "dead", "quarantine"):
        assert names_in(str(home / name)) == []
    assert tool("status", home=home).code == 0
    assert tool("purge", "--yes", home=home).line["events"] == 0
    assert census_of(home) == after


def test_quarantine_goes_and_stays_counted_as_damaged(home: Path) -> None:
    """Damage is damage, whether its bytes are kept or not."""
    with Server(bad.reply(503)) as server, client_of(home, server.url) as client:
        client.flush(timeout_s=0.1)
    with Server() as server, client_of(home, server.url) as client:
        assert client.flush(timeout_s=60).pending == 0
    stretches = list((home / "quarantine").iterdir())
    before = census_of(home)
    assert tool("purge", "--yes", home=home).line["stretches"] == len(stretches) > 0
    after = census_of(home)
    assert after.holds()
    assert after.damaged == before.damaged == 2


def test_id_choice_and_counts_stay(home: Path) -> None:
    """It is the events that somebody wants to be rid of."""
    identity = (home / "user-uuid").read_bytes()
    assert tool("enable", home=home).code == 0
    assert tool("purge", "--yes", home=home).code == 0
    assert (home / "user-uuid").read_bytes() == identity
    assert (home / "consent").read_text().startswith("on ")
    with client_of(home, "", events=1):
        pass
    assert census_of(home).pending == 1


def test_it_asks_before_it_removes(home: Path) -> None:
    """There is no way back."""
    before = census_of(home)
    refused = tool("purge", home=home)
    assert (refused.code, refused.out) == (2, b"")
    assert "say --yes" in refused.err
    seen = at_terminal("purge", home=home, typed=b"\n")
    assert seen.code == 2
    assert "Remove 11 pending events" in seen.text
    assert "not confirmed; nothing was removed" in seen.text
    assert census_of(home) == before
    seen = at_terminal("purge", home=home, typed=b"y\n")
    assert seen.code == 0
    assert "10 pending events and 2 letters" in seen.text
    assert census_of(home).purged == 12


def test_it_waits_for_a_flusher_and_says_so(home: Path) -> None:
    """Two that delete would each count what the other removed."""
    with process("purge", "--yes", home=home) as waiting:
        with holding(str(home / "flush.lock")):
            # It may have been quicker than we were: then there is nothing to see.
            if waiting.poll() is None:
                assert waiting.stderr is not None
                assert b"a flusher is at work; waiting" in waiting.stderr.readline()
        waiting.communicate(timeout=60)
    assert waiting.returncode == 0


def test_letter_of_an_event_that_is_not_settled_is_not_counted_twice(
    home: Path,
) -> None:
    """A flusher that was killed between letter and settling left both behind."""
    newest = segment_names(Home(str(home)))[-1]
    write_early_letter(home, newest)
    assert len(letters_of(home)) == 2
    assert tool("purge", "--yes", home=home).line == {
        "events": 10,
        "letters": 2,
        "stretches": 0,
    }
    assert census_of(home).holds()


def test_what_is_no_segment_is_left_alone_and_told(home: Path, tmp_path: Path) -> None:
    """Nothing is removed through a link, and no directory of somebody's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("data")
    (home / "spool" / "00000000000000000001-00000000.v1.jseq").symlink_to(
        outside / "precious"
    )
    (home / "quarantine").rmdir() if (home / "quarantine").exists() else None
    (home / "quarantine").symlink_to(outside)
    done = tool("purge", "--yes", home=home)
    assert done.code == 1
    assert "left alone: quarantine: is a link" in done.err
    assert "left alone: 00000000000000000001" in done.err
    assert (outside / "precious").read_text() == "data"
    assert census_of(home).holds()
    assert census_of(home).pending == 0


def test_what_a_killed_purge_set_aside_is_purged_by_the_next_flush(
    home: Path,
) -> None:
    """Counted so from the rename on, never sent, and nothing of it holds back a flush."""
    there = Home(str(home))
    before = census_of(home)
    set_aside(there)
    killed = census_of(home)
    assert killed.holds()
    assert (killed.pending, killed.purged) == (0, before.purged + before.pending)
    (aside,) = directories_set_aside(there)
    Path(f"{aside}/theirs").mkdir()
    Path(f"{aside}/theirs/file").touch()
    with client_of(home, "", events=1):
        pass
    with Server() as server, client_of(home, server.url) as client:
        report = client.flush(timeout_s=20)
    assert (report.delivered, len(server.requests)) == (1, 1)
    after = census_of(home)
    assert after.holds()
    assert (after.purged, after.recorded) == (killed.purged, before.recorded + 1)
    assert directories_set_aside(there) == []
    assert (home / "spool" / "theirs").is_dir()


@pytest.mark.parametrize("action", ["purge --yes", "dead drop --all"])
def test_a_letter_whose_file_cannot_be_removed_counts_no_more(
    home: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Its file is named, nothing of it is sent, and other events are (`chattr +i`)."""
    before = census_of(home)
    there = Home(str(home))
    (name,) = segment_names(there, there.dead)
    unlink = os.unlink

    def refuse(path: str, **kwargs: int | None) -> None:
        if str(path).startswith((there.dead, there.quarantine)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        unlink(path, **kwargs)

    with monkeypatch.context() as patch, Server() as server:
        patch.setattr(os, "unlink", refuse)
        done = tool(*action.split(), home=home)
        assert (done.code, name in done.err) == (1, True)
        first = census_of(home)
        assert (first.dead, first.holds()) == (0, True)
        assert first.purged - before.purged in (2, 2 + before.pending)
        # Again, and what follows it.
        tool(*action.split(), home=home)
        tool("dead", "retry", "--all", home=home)
        with client_of(home, server.url, events=1) as client:
            assert client.flush(timeout_s=20).stopped == "drained"
        assert census_of(home).dead == 0
        assert census_of(home).holds()
    with Server() as server, client_of(home, server.url) as client:
        client.flush(timeout_s=20)
        assert server.requests == []
    assert names_in(there.dead) == []
    assert census_of(home).recorded == before.recorded + 1
    assert census_of(home).holds()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc")])
def test_what_only_has_the_name_of_a_purge_is_waited_for_by_none(
    home: Path, make: Callable[[Path], object]
) -> None:
    """Whatever it is, it is no work of a purge, and events go out beside it."""
    make(home / "spool.removed-0123abcd")
    with Server() as server, client_of(home, server.url, events=1) as client:
        assert client.flush(timeout_s=60).stopped == "drained"
    assert tool("purge", "--yes", home=home).code == 0
    assert census_of(home).holds()


def test_what_a_purge_cannot_remove_is_counted_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays set aside (`chattr +i`, for example) while others go on being delivered."""
    before = census_of(home)
    unlink = os.unlink

    def refuse(path: str, **kwargs: int | None) -> None:
        if "/spool.removed-" in str(path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        unlink(path, **kwargs)

    set_aside(Home(str(home)))
    with monkeypatch.context() as patch, Server() as server:
        patch.setattr(os, "unlink", refuse)
        for _ in range(3):
            with client_of(home, server.url, events=1) as client:
                assert client.flush(timeout_s=20).delivered == 1
    assert directories_set_aside(Home(str(home))) != []
    assert census_of(home).holds()
    assert census_of(home).purged == before.purged + before.pending
    assert census_of(home).recorded == before.recorded + 3
    assert tool("purge", "--yes", home=home).code == 0
    assert directories_set_aside(Home(str(home))) == []
    assert census_of(home).purged == before.purged + before.pending + before.dead
    assert census_of(home).recorded == before.recorded + 3


def test_a_spool_that_is_a_mount_point_is_purged_where_it_is(home: Path) -> None:
    """A volume of its own: it cannot be renamed, and running it again never helped."""
    kept = [(path.name, path.read_bytes()) for path in (home / "spool").iterdir()]
    with memory_disk(home / "spool", size_kib=1024) as place:
        for name, content in kept:
            (place / name).write_bytes(content)
        before = census_of(home)
        assert before.pending > 0
        with client_of(home, "", events=1) as client:
            done = tool("purge", "--yes", home=home)
            assert (done.code, done.err) == (0, "")
            record(client, 2)
            census = census_of(home)
            assert (census.pending, census.holds()) == (2, True)
            assert census.purged == before.pending + before.dead + 1
        with Server() as server, client_of(home, server.url) as client:
            assert client.flush(timeout_s=60).delivered == 2
        assert segment_names(Home(str(home))) == []
