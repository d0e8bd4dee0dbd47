"""A drain of small segments: their batches, and what becomes of each part.

The segments and the books are real; the server is a function of the events in a request.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spool_tools.dump import as_sent
from spool_tools.reading import Spool as SeenSpool
from telemetry.books.books import Books
from telemetry.delivery import dead_letters
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.delivery.gathering import SEGMENTS_MAX
from telemetry.wire.batch import Rejection, Request
from telemetry.wire.retry import Halted
from telemetry.wire.verdict import SLOW, Action, Verdict
from tests.support.draining import (
    DEADLINE,
    DOWN,
    OK,
    Answers,
    Killed,
    Server,
    Spool,
    in_turn,
    naming,
    numbers_in,
    refusing,
    spans,
    status,
)


def drain(spool: Spool, answers: Answers = lambda _: OK, **more: Any) -> Server:
    return spool.drain(answers, batch_segments_max=SEGMENTS_MAX, **more)


def test_small_segments_are_one_request_and_each_of_them_is_deleted(
    tmp_path: Path,
) -> None:
    """Ten thousand launches that could adopt no segment are no ten thousand requests."""
    spool = Spool(tmp_path / "home", [1, 2, 1, 25, 1, 1])
    server = drain(spool)
    assert server.posted == ["0-3 ok", "4-13 ok", "14-23 ok", "24-29 ok", "30 ok"]
    assert (spool.left(), spool.files()) == ((31, 0, 0), [])
    assert spool.snapshot.segments == {}


def test_a_request_says_which_numbers_of_which_segments_it_holds(
    tmp_path: Path,
) -> None:
    """So a server can tell which events it never saw."""
    spool = Spool(tmp_path / "home", [1, 3, 1])
    seen: list[Request] = []
    send = Server.send

    class Looking(Server):
        def send(self, request: Request) -> tuple[list[int], Any]:
            seen.append(request)
            return send(self, request)

    drain(spool, server=Looking)
    names = [re.escape(spool.name(number)) for number in range(3)]
    pattern = (
        f"{names[0]}; first=0; last=0, {names[1]}; first=0; last=2, "
        f"{names[2]}; first=0; last=0"
    )
    assert [bool(re.fullmatch(pattern, each.spool_range)) for each in seen] == [True]
    assert len(seen[0].spool_range) < SEGMENTS_MAX * 60


def test_what_was_posted_alone_is_not_gathered(tmp_path: Path) -> None:
    """The server may have stored it under its key, and would store it again."""
    spool = Spool(tmp_path / "home", [1])
    drain(spool, lambda _: DOWN)
    spool.write(1, 1)
    assert drain(spool).posted == ["0 ok", "1 ok"]


@pytest.mark.parametrize("verdict", [DOWN, status(503), status(403), status(400)])
def test_what_was_posted_together_is_posted_so_again(
    tmp_path: Path, verdict: Verdict
) -> None:
    """The same bytes under the same key, in later flushes and with events recorded since."""
    spool = Spool(tmp_path / "home", [1, 2, 1])
    keys: set[str] = set()

    class Looking(Server):
        def send(self, request: Request) -> tuple[list[int], Any]:
            if 0 in numbers_in(request) and 1 in numbers_in(request):
                keys.add(request.key)
            return super().send(request)

    for segment in range(3, 5):
        server = drain(spool, lambda _: verdict, server=Looking)
        assert server.posted[0] == f"0-3 {verdict.reason}"
        spool.write(segment, 1)
        spool.write(0, 1)
    server = drain(spool, server=Looking)
    assert "0-3 ok" in server.posted
    assert sorted(server.received) == list(range(8))
    assert len(keys) == 1
    assert spool.left() == (8, 0, 0)


def test_a_batch_of_several_segments_is_cut_until_the_bad_event_is_alone(
    tmp_path: Path,
) -> None:
    """Among n segments one bad event costs 2·log2(n) requests; no other one is blamed."""
    spool = Spool(tmp_path / "home", [1] * 35)
    server = drain(spool, refusing([13], status(400)), batch_events_max=500)
    assert set(server.received) == {*range(35)} - {13}
    assert server.requests <= 3 + 2 * 5
    assert [(each.count, each.windows) for each in spool.announced()] == [(1, 1)]
    for number in range(35, 39):
        spool.write(number, 1)
        drain(spool, refusing([13], status(400)), batch_events_max=500)
    assert spool.left() == (38, 0, 1)
    assert [_number(each) for each in spool.letters()] == [13]
    assert spool.files() == []


def test_a_batch_that_begins_within_a_segment_is_cut_as_any(tmp_path: Path) -> None:
    """The good events of all its segments arrive in the same flush."""
    spool = Spool(tmp_path / "home", [12, 1, 1])
    drain(spool, refusing([11], status(400)))
    assert spool.left() == (13, 1, 0)


def test_a_segment_that_is_not_answered_is_parted_from_the_other(
    tmp_path: Path,
) -> None:
    """Once the two went unanswered as one batch, each is a request of its own."""
    spool = Spool(tmp_path / "home", [1, 1])
    unheard = Halted("deadline", Verdict(Action.WAIT, SLOW, narrow=True))
    posted = [drain(spool, refusing([1], unheard)).posted for _ in range(3)]
    assert posted == [["0-1 deadline"], ["0-1 deadline"], ["0 ok", "1 deadline"]]


def test_named_events_of_several_segments_are_dead_letters_of_their_own(
    tmp_path: Path,
) -> None:
    """Each with its segment and place, and counted there."""
    spool = Spool(tmp_path / "home", [2, 2, 2])
    drain(spool, lambda _: naming(1, 4))
    assert spool.left() == (4, 0, 2)
    assert [each.segment for each in spool.letters()] == [spool.name(0), spool.name(2)]
    assert [each.offset > 0 for each in spool.letters()] == [True, False]
    assert spool.files() == []


def test_a_part_that_is_gone_or_damaged_costs_no_other(tmp_path: Path) -> None:
    """What was announced with it is posted without it."""
    for number, harm in enumerate((Path.unlink, _damage)):
        spool = Spool(tmp_path / str(number), [1, 1, 1])
        drain(spool, lambda _: DOWN)
        harm(Path(spool.home.segment(spool.name(1))))
        server = drain(spool)
        assert server.posted == ["0,2 ok"]
        assert spool.files() == []


def _number(letter: DeadLetter) -> int:
    return int(json.loads(bytes(letter.event))["properties"]["n"])


def _damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"tool", b"tOOl"))


def test_a_joined_batch_of_which_damage_took_a_part_is_cut_where_the_rest_is(
    tmp_path: Path,
) -> None:
    """It was cut off as it was tried again, so it is to be cut before it is posted."""
    spool = Spool(tmp_path / "home", [1, 4, 20])
    bad = range(5)
    drain(spool, in_turn(status(400), OK, DEADLINE), batch_events_max=5)
    drain(spool, refusing(bad, DEADLINE), batch_events_max=5, failures=0)
    # More is announced of the first segment, so it is told from another one by that.
    spool.write(0, 1)
    drain(spool, in_turn(DEADLINE), failures=0)
    segment = Path(spool.home.segment(spool.name(0)))
    content = bytearray(segment.read_bytes())
    content[20] ^= 1
    segment.write_bytes(content)
    server = drain(spool, refusing(bad, status(400)), failures=0)
    assert server.posted[:3] == ["25 ok", "3-4 400", "1-2 400"]
    assert (spool.census().damaged, spool.left()) == (1, (21, 4, 0))


def test_a_drain_of_small_segments_may_be_killed_at_any_request(tmp_path: Path) -> None:
    """Whether the request reached the server or not: nothing is lost, or dead."""
    count = 0

    def killing(at: int, *, stored: bool) -> tuple[Answers, Callable[[list[int]], Any]]:
        def answers(numbers: list[int]) -> Any:
            if stored and count == at:
                raise Killed
            return status(400) if {3, 30} & set(numbers) else OK

        def during(_: list[int]) -> None:
            nonlocal count
            count += 1
            if not stored and count == at:
                raise Killed

        return answers, during

    for at in range(1, 22, 3):
        for stored in (False, True):
            count = 0
            spool = Spool(tmp_path / f"{at}-{stored}", [1] * 20 + [12, 3, 1, 1, 1])
            answers, during = killing(at, stored=stored)
            for _ in range(3):
                with contextlib.suppress(Killed):
                    drain(spool, answers, during=during)
            drain(spool, refusing([3, 30], status(400)))
            assert spool.left() == (36, 2, 0)
            assert [each.count for each in spool.announced()] == [1, 1]


@pytest.mark.parametrize("seed", range(6))
def test_good_events_arrive_and_none_of_them_dies_in_whatever_segments_they_are(
    tmp_path: Path, seed: int
) -> None:
    """Segments of any size, refused events in them, a server that fails now and then."""
    rng = random.Random(seed)
    spool = Spool(
        tmp_path / "home", [rng.choice([1, 1, 1, 2, 5, 30]) for _ in range(25)]
    )
    total = spool.count
    bad = set(rng.sample(range(total), rng.choice([0, 1, 3])))
    verdict = rng.choice([status(400), status(403), status(503), status(413)])
    flaky = rng.choice([0.0, 0.2])

    def answers(numbers: list[int]) -> Verdict:
        if bad & set(numbers):
            return verdict
        return status(503) if rng.random() < flaky else OK

    received: set[int] = set()
    for launch in range(40):
        received |= set(drain(spool, answers).received)
        spool.write(25 + launch, 1)
    assert received >= {*range(total)} - bad
    dead = {_number(each) for each in spool.letters()}
    assert dead <= bad


def test_dump_shows_the_bodies_as_they_are_sent(tmp_path: Path) -> None:
    """Those that were announced together, and those that will be."""
    spool = Spool(tmp_path / "home", [1, 1, 1])
    drain(spool, lambda _: DOWN)
    for number in range(3, 8):
        spool.write(number, 1)
    spool.write(0, 1)
    planned = list(as_sent(SeenSpool(spool.home), "records"))
    server = drain(spool, batch_events_max=500)
    sent = [each.removesuffix(" ok") for each in server.posted]
    shown = [
        spans([each["properties"]["n"] for each in json.loads(body)["records"]])
        for body in planned
    ]
    assert sorted(shown) == sorted(sent) == ["0-2", "8,3-7"]


def test_a_part_that_a_probe_has_changed_meanwhile_is_not_sent_as_it_was(
    tmp_path: Path,
) -> None:
    """It was gathered, or about to be, as another batch failed."""
    for turn in range(8):
        spool = Spool(tmp_path / str(turn), [1, 25, 1, 1, 12])
        spool.turn = turn
        server = drain(spool, refusing([0], status(503)))
        assert sorted(set(server.received)) == list(range(1, 40))
        assert len(server.received) == 39
        assert spool.left() == (39, 1, 0)


def test_what_a_limiter_of_requests_refused_goes_with_what_is_recorded_next(
    tmp_path: Path,
) -> None:
    """It takes one request of each flush: events that came too soon do not pile up."""
    spool = Spool(tmp_path / "home", [1, 1])
    most = 0
    for segment in range(2, 40):
        tokens = [OK, status(429)]
        if segment % 2:
            tokens.reverse()
        drain(spool, lambda _: tokens.pop(0) if tokens else status(429))  # noqa: B023 - called at once
        most = max(most, spool.left()[1])
        spool.write(segment, 1)
    assert most <= 2
    drain(spool)
    assert spool.left() == (40, 0, 0)


def test_an_event_that_draws_429_whatever_else_is_accepted_holds_back_no_other(
    tmp_path: Path,
) -> None:
    """It never dies of that, and is found anew in each flush."""
    spool = Spool(tmp_path / "home", [1] * 12)
    for segment in range(12, 20):
        server = drain(spool, refusing([5], status(429)), batch_events_max=500)
        _, pending, dead = spool.left()
        assert (pending <= 3, dead) == (True, 0)
        assert server.requests <= 20
        spool.write(segment, 1)


def refuse_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dead letter can be written: the disk fails."""

    def sync(_: int) -> None:
        raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(dead_letters, "sync", sync)


def test_no_letter_can_be_written_and_what_needs_none_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was posted together is kept by the one event of it that was refused."""
    spool = Spool(tmp_path / "home", [3, 3, 3])
    refuse_letters(monkeypatch)
    drain(spool, lambda _: naming(4))
    assert (spool.stopped, spool.verdict) == ("", None)
    assert spool.drained.is_blocked
    assert (spool.left(), spool.files()) == ((6, 3, 0), [1])
    monkeypatch.undo()
    drain(spool, lambda _: naming(4))
    assert (spool.left(), spool.files()) == ((8, 0, 1), [])


@pytest.mark.parametrize("refused", [2, 6])
def test_no_letter_can_be_written_of_events_that_were_refused_without_a_name(
    refused: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which they are is not known: what is settled as delivered may be one of them."""
    spool = Spool(tmp_path / "home", [3, 3])
    refuse_letters(monkeypatch)
    some = Rejection("", "no such tool", count=refused)
    drain(spool, lambda _: Verdict(Action.ACCEPTED, "200", rejected=(some,)))
    assert spool.left() == (0, 6, 0)


@pytest.mark.parametrize("begins", [True, False])
def test_an_event_whose_letter_cannot_be_written_is_posted_twice_at_most(
    begins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was set aside before it was refused by name, and is tried once in a flush."""
    spool = Spool(tmp_path / "home", [2, 1])
    drain(spool, refusing([1], status(503)))
    refuse_letters(monkeypatch)
    spool.write(2, 1)
    answers = in_turn(*[naming(1)] * 9, then=lambda _: DEADLINE)
    server = drain(spool, answers, failures=int(begins))
    assert server.posted.count("1 ok") <= 2
    assert (spool.stopped, spool.verdict) == ("", None)
    assert spool.drained.is_blocked
    assert spool.left() == (3, 1, 0)


def test_letters_that_could_not_be_synced_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are written next go into another file, and are not counted with them."""
    spool = Spool(tmp_path / "home", [2, 2])
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 1:
            raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(dead_letters, "sync", sync)
    spool.drain(lambda _: naming(0, 2))
    assert spool.left() == (1, 2, 1)
    spool.drain(lambda _: naming(0, 2))
    assert spool.left() == (2, 0, 2)
    assert len(spool.letters()) == 2


def test_letters_in_a_file_that_stays_are_not_written_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once their segment is gone, both would count."""
    spool = Spool(tmp_path / "home", [2])
    unlink = os.unlink

    def sync(_: int) -> None:
        monkeypatch.setattr(dead_letters, "sync", lambda _: None)
        raise OSError(errno.ENOSPC, "no room")

    def keep(path: str) -> None:
        if str(path).startswith(spool.home.dead):
            raise PermissionError(errno.EACCES, "not now", path)
        unlink(path)

    monkeypatch.setattr(dead_letters, "sync", sync)
    monkeypatch.setattr(os, "unlink", keep)
    monkeypatch.setattr(Books, "make_room", lambda _: True)
    spool.drain(lambda _: naming(0))
    assert spool.left() == (0, 2, 0)
