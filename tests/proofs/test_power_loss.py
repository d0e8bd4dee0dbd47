"""The power fails at any moment of a recorded run: what was acknowledged is there.

A sample of moments and of what the disk may hold then. All of it, and every byte at
which a record may be torn: `python -m tests.power_loss --long`.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry import files_posix
from telemetry.files import sync_way_to
from telemetry.spool.reader import SegmentReader
from tests.proofs.power_loss.disk import Disk, tree
from tests.proofs.power_loss.events import Collector
from tests.proofs.power_loss.judging import Judge
from tests.proofs.power_loss.losses import SHORT
from tests.proofs.power_loss.replaying import replay, without
from tests.proofs.power_loss.trace import Operation, can_trace, home_in, record


SEED = 20_261
pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace")


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[list[Operation], str]]:
    """A story's operations, and the directory as it left it; recorded once."""

    @functools.cache
    def once(story: str) -> tuple[list[Operation], str]:
        directory = str(tmp_path_factory.mktemp("recorded") / story)
        with Collector(rejects=True) as collector:
            return record(story, directory, collector.server.url), directory

    return once


def played(
    operations: list[Operation],
    directory: Path,
    *,
    thin: int,
    has_books: bool = True,
    since: int = 0,
) -> tuple[Counter[str], list[str]]:
    """Totals and findings of a short run."""
    with Judge(directory, thin=thin, has_books=has_books) as judge:
        return replay(operations, judge, SHORT, seed=SEED, since=since)


@pytest.mark.parametrize("story", ["small", "story", "processes"])
def test_the_replayed_disk_is_the_real_one(
    story: str, recorded: Callable[[str], tuple[list[Operation], str]]
) -> None:
    """A proof on a disk that was misread would prove nothing."""
    operations, directory = recorded(story)
    disk = Disk()
    assert sum(1 for _ in disk.play(operations)) == len(operations)
    real: dict[str, bytes | None] = {}
    for where, names, there in os.walk(directory):
        below = os.path.relpath(where, directory)
        real.update((os.path.normpath(f"{below}/{name}"), None) for name in names)
        for name in there:
            content = Path(where, name).read_bytes()
            real[os.path.normpath(f"{below}/{name}")] = content
    assert tree(disk.root) == real


def test_a_call_that_began_before_its_directory_was_made_is_read() -> None:
    """Another process may make it between the two."""
    told = [
        Operation(0, 5, "make", "home/spool/segment"),
        Operation(1, 4, "mkdir", "home/spool"),
        Operation(2, 3, "mkdir", "home"),
    ]
    disk = Disk()
    assert [each.began for each in disk.play(told)] == [2, 1, 0]
    assert tree(disk.root) == {
        "home": None,
        "home/spool": None,
        "home/spool/segment": b"",
    }


@pytest.mark.parametrize(("story", "thin"), [("small", 20), ("between", 40)])
def test_what_was_acknowledged_survives_a_power_loss(
    story: str,
    thin: int,
    recorded: Callable[[str], tuple[list[Operation], str]],
    tmp_path: Path,
) -> None:
    """It is what `durability="power"` is for."""
    totals, findings = played(recorded(story)[0], tmp_path, thin=thin)
    assert findings == []
    assert totals["flushes"] > 25


@pytest.mark.proof
@pytest.mark.parametrize(
    "story", ["threads", "processes", "again", "story", "unsynced"]
)
def test_many_writers_a_flusher_a_purge_and_a_power_loss(
    story: str,
    recorded: Callable[[str], tuple[list[Operation], str]],
    tmp_path: Path,
) -> None:
    """Letters, quarantine and ledger are files, too, and may be lost like any.

    A flusher that was not told of power does not sync its ledger: that may cost
    duplicates and totals, but no event.
    """
    operations, _ = recorded(story)
    totals, findings = played(
        operations, tmp_path, thin=20, has_books=story != "unsynced"
    )
    assert findings == []
    assert totals["flushes"] > 40


def is_sync_of_a_segment(done: Operation) -> bool:
    """Without it, an event is acknowledged that is in memory only."""
    return done.kind == "sync" and done.path.endswith(".jseq")


def is_sync_of_the_spool(done: Operation) -> bool:
    """Without it, a segment may be there without its name."""
    return done.kind == "sync" and done.path.endswith("/spool")


def is_sync_of_the_way(done: Operation) -> bool:
    """Without it, the home itself may not be there."""
    return done.kind == "sync" and done.path in {".", "state", "state/app"}


@pytest.mark.parametrize(
    "taken_out", [is_sync_of_a_segment, is_sync_of_the_spool, is_sync_of_the_way]
)
def test_each_sync_is_needed(
    taken_out: Callable[[Operation], bool],
    recorded: Callable[[str], tuple[list[Operation], str]],
    tmp_path: Path,
) -> None:
    """A proof that finds nothing where a rule is broken finds nothing anywhere."""
    operations, _ = recorded("small")
    first = [
        each
        for each in operations
        if each.kind != "mark" or b"took" not in each.content
    ]
    first = first[: next(i for i, each in enumerate(first) if "/ledger" in each.path)]
    fewer = without(first, taken_out)
    assert len(fewer) < len(first)
    totals, findings = played(fewer, tmp_path, thin=4)
    assert totals["losses"] > 0
    assert "lost" in findings[0]


def is_sync_of_the_home(done: Operation) -> bool:
    """Without it, what was refused or damaged may be settled and nowhere."""
    return done.kind == "sync" and done.path == home_in(".").removeprefix("./")


def test_letters_and_quarantine_survive_a_power_loss(
    recorded: Callable[[str], tuple[list[Operation], str]], tmp_path: Path
) -> None:
    """The directories that hold them are made by the flusher that needs them first."""
    operations, _ = recorded("story")
    upto = next(i for i, each in enumerate(operations) if each.content == b"purge")
    totals, findings = played(operations[:upto], tmp_path, thin=40)
    assert findings == []
    fewer = without(operations[:upto], is_sync_of_the_home)
    totals, _ = played(fewer, tmp_path, thin=40)
    assert totals["losses"] > 0


def test_the_anchor_is_needed(
    recorded: Callable[[str], tuple[list[Operation], str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A settled offset must not outlive the bytes that it was about."""
    operations, _ = recorded("between")
    marks = [each.content for each in operations]
    upto = marks.index(b"ack 1")
    totals, findings = played(operations[:upto], tmp_path, thin=1, since=upto - 12)
    assert findings == []
    monkeypatch.setattr(SegmentReader, "holds", lambda *_: True)
    totals, _ = played(operations[:upto], tmp_path, thin=1, since=upto - 12)
    assert totals["losses"] > 0


def is_sync_of_the_letters(done: Operation) -> bool:
    """Of their directory, or of a file in it."""
    return done.kind == "sync" and "/dead" in done.path


@pytest.mark.proof
def test_a_letter_is_synced_before_its_event_is_settled(
    recorded: Callable[[str], tuple[list[Operation], str]], tmp_path: Path
) -> None:
    """Else a power loss takes it, and its segment is gone already."""
    operations, _ = recorded("again")
    refused = [each.content for each in operations].index(b"refused 2")
    fewer = operations[:refused] + without(operations[refused:], is_sync_of_the_letters)
    totals, _ = played(fewer, tmp_path, thin=2, since=refused)
    assert totals["losses"] > 0


def is_sync_below_the_spool(done: Operation) -> bool:
    """Of a file that does not have its name yet."""
    return done.kind == "sync" and "/spool/" in done.path


def test_a_retried_letter_survives_a_power_loss_at_every_step(
    recorded: Callable[[str], tuple[list[Operation], str]], tmp_path: Path
) -> None:
    """It leaves one file for another: it must be in one of them at each moment."""
    operations, _ = recorded("again")
    marks = [each.content for each in operations]
    start, taken = marks.index(b"retry"), marks.index(b"took 2")
    totals, findings = played(operations, tmp_path, thin=1, since=start)
    assert findings == []
    assert totals["flushes"] > 20
    for needed in (is_sync_below_the_spool, is_sync_of_the_spool):
        moving = without(operations[start:taken], needed)
        assert len(moving) < taken - start
        totals, _ = played(operations[:start] + moving, tmp_path, thin=1, since=start)
        assert totals["losses"] > 0, needed


def test_the_way_to_a_home_is_synced_as_far_as_we_may_have_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories of others, and other file systems, are none of our affair."""
    synced: list[str] = []
    monkeypatch.setattr(files_posix, "sync_directory", synced.append)
    below = tmp_path / "one" / "two"
    below.mkdir(parents=True)
    sync_way_to(str(below))
    assert synced[:2] == [str(tmp_path / "one"), str(tmp_path)]
    device = below.stat().st_dev
    assert all(Path(each).stat().st_dev == device for each in synced)
    monkeypatch.setattr(os, "access", lambda path, _: path != str(tmp_path))
    synced.clear()
    sync_way_to(str(below))
    assert synced == [str(tmp_path / "one")]
