"""What is left of many segments is one, so that a full spool takes new events."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.books.books import Books
from telemetry.delivery import compaction
from telemetry.delivery.compaction import compact
from telemetry.delivery.upkeep import tidy
from telemetry.wire.verdict import Verdict
from tests.support.draining import OK, Answers, Killed, Spool, refusing, status
from tests.support.writers import holding


BAD = [3, 14, 25, 36]


def books_of(spool: Spool) -> Books:
    return Books(
        spool.home.ledger, relieve=lambda: None, is_full=lambda: False, power=False
    )


def full_spool(root: Path, answers: Answers) -> Spool:
    """Four segments, of each of which all but one event is delivered."""
    spool = Spool(root, [10] * 4)
    spool.drain(answers)
    assert (spool.left(), spool.files()) == ((36, 4, 0), [0, 1, 2, 3])
    return spool


@pytest.mark.parametrize("verdict", [status(500), status(403), status(503)], ids=str)
def test_a_full_spool_of_events_that_fail_for_ever_takes_others(
    tmp_path: Path, verdict: Verdict
) -> None:
    """They kept the room of all others: beside these, accepted, they are judged."""
    bad = refusing(BAD, verdict)
    spool = full_spool(tmp_path / "home", bad)
    windows = sorted(each.windows for each in spool.announced())
    spool.drain(lambda _: verdict, is_full=True)
    (name,) = spool.snapshot.segments
    size = Path(spool.home.segment(name)).stat().st_size
    assert size < 4 * 110
    assert sorted(each.windows for each in spool.announced()) == windows
    assert spool.left() == (36, 4, 0)
    for number in range(10, 40):
        spool.write(number, 2)
        spool.drain(bad)
    assert spool.left() == (96, 0, 4)


def test_a_server_that_is_down_for_a_full_spool_kills_no_event(tmp_path: Path) -> None:
    """One failure beside others says little, and an outage nothing."""
    spool = full_spool(tmp_path / "home", refusing(BAD, status(503)))
    for _ in range(20):
        spool.drain(lambda _: status(503), is_full=True)
    assert spool.left() == (36, 4, 0)
    server = spool.drain()
    assert (sorted(server.received), spool.left()) == (BAD, (40, 0, 0))


@pytest.mark.parametrize("step", ["write_moved", "commit", "rename"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commit nothing has changed; behind it the next flush goes on."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    spool = full_spool(tmp_path / "home", refusing(BAD, status(500)))
    books = books_of(spool)
    with monkeypatch.context() as patch:
        if step == "write_moved":
            patch.setattr(books, "commit", killed)
        elif step == "commit":
            patch.setattr(compaction, "finish_moves", killed)
        if step == "rename":
            assert len(compact(spool.home, books)) == 4
        else:
            with pytest.raises(Killed):
                compact(spool.home, books)
    assert books._ledger is not None
    books._ledger.close()
    assert spool.census().holds()
    assert spool.left() == (36, 4, 0)
    books = books_of(spool)
    tidy(spool.home, books)
    books.close()
    assert spool.left() == (36, 4, 0)
    server = spool.drain(lambda _: OK)
    assert (sorted(server.received), spool.left()) == (BAD, (40, 0, 0))
    assert list(Path(spool.home.spool).iterdir()) == []


def test_what_is_still_written_or_keeps_its_room_is_left(tmp_path: Path) -> None:
    """A writer's segment; one that was not read to its end; one that is all that waits."""
    spool = Spool(tmp_path / "home", [10, 10, 2, 10])
    spool.drain(refusing([3, 14, 20, 21, 25], status(500)))
    assert spool.files() == [0, 1, 2, 3]
    spool.write(1, 1)
    books = books_of(spool)
    with holding(spool.home.segment(spool.name(0))):
        assert compact(spool.home, books) == [spool.name(3)]
    books.close()
    assert spool.left()[1:] == (6, 0)
    spool.drain()
    assert spool.left() == (33, 0, 0)
