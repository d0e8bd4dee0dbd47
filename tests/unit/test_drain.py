"""The drain: what is sent, in which order, and what becomes of each event.

The segments and the books are real; the server is a function of the events in a request.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from telemetry.books.view import read_snapshot
from telemetry.delivery import search
from telemetry.delivery.drain import PASSES_MAX
from telemetry.spool.segment import Segment, adopt
from telemetry.wire.retry import Halted
from telemetry.wire.verdict import SLOW, Action, Verdict
from tests.support.draining import (
    DEADLINE,
    DOWN,
    OFF,
    OK,
    Answers,
    Killed,
    Server,
    Spool,
    in_turn,
    naming,
    refusing,
    status,
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Two segments: events 0 to 24, and 25 to 27. A batch has ten."""
    return Spool(tmp_path / "home", [25, 3])


def bound_parts(
    monkeypatch: pytest.MonkeyPatch,
    *,
    singles: int,
    deep: int,
    most: int = search.PARTS_MAX,
) -> None:
    """Few ranges of a segment may be set aside, as if it were a large one."""
    monkeypatch.setattr(search, "SINGLES_MAX", singles)
    monkeypatch.setattr(search, "PARTS_DEEP", deep)
    monkeypatch.setattr(search, "PARTS_MAX", most)


def test_a_spool_is_drained_in_order_and_its_segments_are_deleted(spool: Spool) -> None:
    """The plain case: each event once, in batches, oldest first."""
    server = spool.drain()
    assert server.posted == ["0-9 ok", "10-19 ok", "20-24 ok", "25-27 ok"]
    assert (spool.verdict, spool.stopped, spool.drained.is_blocked) == (None, "", False)
    assert not spool.drained.says_nothing
    assert (spool.left(), spool.files()) == ((28, 0, 0), [])
    assert spool.snapshot.segments == {}
    assert spool.turn == 0


def test_what_is_recorded_without_a_pause_keeps_no_flush_from_its_end(
    spool: Spool,
) -> None:
    """A server gets batches, and not a request for each event of a busy program."""
    segments = itertools.count(9)

    def record(_: list[int]) -> None:
        segment = next(segments)
        assert segment < 99, "it goes on for ever"
        spool.write(segment, 1)

    server = spool.drain(during=record)
    assert spool.stopped == ""
    # Each pass takes what the one before it was long enough for.
    assert server.posted[4:8] == ["28 ok", "29 ok", "30 ok", "31 ok"]
    assert spool.left() == (28 + 4 * PASSES_MAX, 4, 0)


def test_one_request_is_alone_until_the_server_has_accepted_something(
    tmp_path: Path,
) -> None:
    """One that is down or strange must not get four at once."""
    spool = Spool(tmp_path / "home", [95])
    seen: list[int] = []
    server = spool.drain(during=lambda _: seen.append(server_at(spool).under_way))
    assert server.most_under_way == 4
    assert seen == [0, 0, 1, 2, 3, 3, 3, 3, 3, 3]


def server_at(spool: Spool) -> Server:
    """The server of the drain that is at work."""
    return spool.drained._poster  # type: ignore[return-value]


def test_a_client_of_the_program_gets_one_request_at_a_time(spool: Spool) -> None:
    """It may not be made for several threads."""
    assert spool.drain(at_once=1).most_under_way == 1
    assert spool.left() == (28, 0, 0)


def test_many_small_segments_are_drained_side_by_side_and_each_deleted(
    tmp_path: Path,
) -> None:
    """A segment is deleted as soon as its own answers are there."""
    spool = Spool(tmp_path / "home", [1] * 9)
    stood: list[list[int]] = []
    server = spool.drain(during=lambda _: stood.append(spool.files()))
    assert server.posted == [f"{number} ok" for number in range(9)]
    assert server.most_under_way == 4
    # The first is settled alone; then three are under way beside the one that is sent.
    assert stood[1] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert stood[5] == [2, 3, 4, 5, 6, 7, 8]
    assert spool.files() == []


# What the servers of this table do, and what a drain of 0-24 and 25-27 makes of it:
# what was posted, why the drain ended, delivered, pending, dead.
FAILING: dict[str, tuple[Answers, list[str], str]] = {
    "no connection": (
        lambda _: DOWN,
        ["0-9 refused"] * 4,
        "waiting",
    ),
    "503 to all": (
        lambda _: status(503),
        ["0-9 503", "27 503", "0-9 503", "12 503"],
        "waiting",
    ),
    "503 to all, and when to come again": (
        lambda _: status(503, asked_s=9),
        ["0-9 503", "27 503"],
        "waiting",
    ),
    "401 to all": (
        lambda _: status(401),
        ["0-9 401", "27 401", "12 401", "25 401"],
        "paused",
    ),
    "400 to all": (
        lambda _: status(400),
        # It works, and says what it thinks of each: eight, as some may be others.
        ["0-9 400", *[f"{each} 400" for each in (27, 12, 25, 18, 26, 6, 0)]],
        "paused",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_server_that_fails_for_all_sees_a_few_requests_and_nothing_is_held_against(
    name: str, spool: Spool
) -> None:
    """Probes from elsewhere tell that it is the server; then it is left in peace."""
    answers, posted, stopped = FAILING[name]
    assert spool.drain(answers).posted == posted
    assert spool.stopped == stopped
    assert not spool.drained.says_nothing
    assert spool.left() == (0, 28, 0)
    assert not any(each.reason or each.windows for each in spool.announced())
    # What was announced is sent again as it was; the next probe has another place.
    turn = spool.turn
    assert turn == sum("-" not in each for each in posted)
    assert spool.drain().posted[0] == "0-9 ok"
    assert (spool.left(), spool.turn) == ((28, 0, 0), turn)


def test_what_is_set_aside_for_one_bad_event_is_narrowed_down_to_it(
    spool: Spool,
) -> None:
    """All others arrive in the same flush, and it is the only one that is left."""
    server = spool.drain(refusing([3], status(400)))
    assert server.posted == [
        *("0-9 400", "27 ok", "10-19 ok", "20-24 ok", "25-26 ok"),
        # Not tried again as a whole: cut, and the part beside what was accepted first.
        *("5-9 ok", "0-4 400", "2-4 400", "3-4 400", "4 ok", "3 400", "0-1 ok", "2 ok"),
    ]
    assert (spool.stopped, spool.verdict) == ("", status(400))
    assert spool.left() == (27, 1, 0)
    (known,) = spool.announced()
    assert (known.count, known.windows, known.reason) == (1, 1, "400")


def test_what_was_not_answered_is_tried_once_more_before_it_is_cut(
    spool: Spool,
) -> None:
    """It may have been the network: a batch that is cut is another batch."""
    server = spool.drain(refusing([3], status(500)))
    assert server.posted[:7] == [
        *("0-9 500", "27 ok", "10-19 ok", "20-24 ok", "25-26 ok", "0-9 500", "5-9 ok")
    ]
    assert spool.left() == (27, 1, 0)


def test_a_batch_that_draws_when_to_come_again_holds_back_no_other(
    spool: Spool,
) -> None:
    """The probe is accepted, so the wait that was asked for is about the batch alone."""
    spool.drain(refusing([3], status(503, asked_s=3600)))
    assert spool.left() == (27, 1, 0)
    assert spool.verdict == status(503)  # nobody else has to wait for it


def test_where_nothing_else_can_tell_a_wait_is_kept_once_and_then_looked_into(
    tmp_path: Path,
) -> None:
    """Two flushes obey; the next one posts one event of the batch besides."""
    spool = Spool(tmp_path / "home", [5])
    poison = refusing([3], status(503, asked_s=3600))
    for failures in (0, 1):
        assert spool.drain(poison, failures=failures).posted == ["0-4 503"]
    assert (spool.stopped, spool.verdict) == ("waiting", status(503, asked_s=3600))
    spool.drain(poison, failures=2)
    assert spool.left() == (4, 1, 0)
    assert spool.drain(poison, failures=2).posted == ["3 503"]
    assert (spool.verdict, spool.drained.says_nothing) == (status(503), True)
    # One that says so to all sees the batch and one event of it, and no more.
    other = Spool(tmp_path / "other", [5])
    busy = status(429, asked_s=60)
    server = other.drain(lambda _: busy, failures=2)
    assert (server.posted, other.verdict) == (["0-4 429", "2 429"], busy)


def test_the_longest_wait_that_was_asked_for_is_the_one_to_keep(
    spool: Spool, tmp_path: Path
) -> None:
    """Two answers of one server that is down; each names its own time."""
    for asked in ([9.0, 99.0], [99.0, 9.0]):
        answers = [status(503, asked_s=seconds) for seconds in asked]
        spool.drain(lambda _, answers=answers: answers.pop(0))  # type: ignore[misc]
        assert spool.verdict == status(503, asked_s=99)
    # The batch was put off and a later one refused: the wait is what is told.
    spool = Spool(tmp_path / "other", [25, 3])
    answers = [OK, status(503), status(400), status(503, asked_s=7), status(400)]
    spool.drain(lambda _: answers.pop(0) if answers else status(400))
    assert spool.verdict == status(503, asked_s=7)


def test_an_event_that_fails_alone_in_five_flushes_beside_others_is_dead(
    spool: Spool,
) -> None:
    """Not earlier, and not in flushes in which nothing else was accepted."""
    poison = refusing([3], status(503))
    spool.drain(poison)
    for window in range(2, 6):
        alone = spool.drain(poison)
        assert (alone.posted, spool.drained.says_nothing) == (["3 503"], True)
        spool.write(2, 1)
        posted = spool.drain(poison).posted
        # Before another one is accepted, and behind it: four times where it may die.
        behind = ["3 503"] * (1 if window < 5 else 4)
        assert posted == ["3 503", f"{26 + window} ok", *behind]
        assert spool.left()[1:] == ((1, 0) if window < 5 else (0, 1))
    (letter,) = spool.letters()
    assert (letter.status, letter.offset > 0, letter.attempts) == (503, True, 5)
    assert spool.files() == []


@pytest.mark.parametrize("has_time", [False, True])
def test_an_event_that_is_never_answered_holds_back_no_other(
    spool: Spool, has_time: bool
) -> None:
    """A flush at exit has a second, and each ends while it waits for that answer."""
    accepted: list[int] = []

    def hangs(numbers: list[int]) -> Verdict | Halted:
        if 3 not in numbers:
            accepted.extend(numbers)
            return OK
        is_fair = has_time and bool(accepted)
        return Halted("deadline", Verdict(Action.WAIT, SLOW, narrow=is_fair))

    received = []
    for flush in range(12):
        accepted.clear()
        received += spool.drain(hangs).received
        if flush == 2:
            assert set(received) >= set(range(10, 28))
    assert sorted(set(received)) == [n for n in range(28) if n != 3]
    assert (spool.stopped, spool.left()) == ("deadline", (27, 1, 0))
    # It dies of five flushes that had time enough for it, as others that they sent show,
    # and in which it had been the first of the flush before.
    for segment in range(2, 22):
        accepted.clear()
        spool.write(segment, 1)
        spool.drain(hangs)
        assert segment >= 6 or not spool.left()[2]
    for _ in range(3):
        accepted.clear()
        spool.drain(hangs)
    assert spool.left() == ((47, 0, 1) if has_time else (47, 1, 0))


def test_a_server_that_answers_nothing_leaves_the_spool_as_it_was(spool: Spool) -> None:
    """However many flushes end while they wait, no range is cut into parts."""
    for flush in range(12):
        assert len(spool.drain(lambda _: DEADLINE).posted) == 1
        assert len(spool.announced()) <= 3, flush
    assert sorted(spool.drain().received) == list(range(28))


def test_a_server_that_fails_now_and_then_costs_no_event(tmp_path: Path) -> None:
    """Every other request, at random, or all but so many: it is about no event."""
    chance, count = random.Random(5), itertools.count()
    servers: dict[str, tuple[Callable[[], bool], Verdict]] = {
        "alternating": (lambda: next(count) % 2 == 1, status(503)),
        "alternating, asking": (lambda: next(count) % 2 == 1, status(429, asked_s=1)),
        "at random": (lambda: chance.random() < 0.5, status(502)),
        "one request": (lambda: next(count) == 0, status(403)),
        "three requests": (lambda: next(count) < 3, status(400)),
    }
    for name, (takes, refusal) in servers.items():
        spool = Spool(tmp_path / name, [80, 40])
        for flush in range(14):
            if "requests" in name or name == "one request":
                count = itertools.count()
            server = spool.drain(lambda _, t=takes, no=refusal: OK if t() else no)  # type: ignore[misc]
            assert server.requests < 150, (name, flush)
            if not spool.pending:
                break
        assert spool.left() == (120, 0, 0), name


def test_the_only_event_there_is_dies_of_five_refusals_and_of_no_failures(
    tmp_path: Path,
) -> None:
    """Nothing can be compared with it. One that is not answered waits."""
    spool = Spool(tmp_path / "home", [1])
    for _ in range(6):
        assert spool.drain(lambda _: status(503)).posted == ["0 503"] * 4
    for _ in range(4):
        assert spool.drain(lambda _: status(400)).posted == ["0 400"]
        assert (spool.stopped, spool.left()) == ("waiting", (0, 1, 0))
    spool.drain(lambda _: status(400))
    assert (spool.stopped, spool.left(), spool.files()) == ("", (0, 0, 1), [])
    # Two that are refused are no proof against either.
    spool = Spool(tmp_path / "two", [2])
    for _ in range(6):
        spool.drain(lambda _: status(400))
    assert (spool.stopped, spool.left()) == ("paused", (0, 2, 0))


def test_events_that_an_accepting_answer_names_are_dead_and_all_others_delivered(
    spool: Spool,
) -> None:
    """The answer is proof for the whole batch: of each event one way or the other."""
    spool.drain(lambda numbers: naming(3, 9) if 3 in numbers else OK)
    assert (spool.left(), spool.files()) == ((26, 0, 2), [])
    assert [each.reply for each in spool.letters()] == ["no such tool"] * 2


@pytest.mark.parametrize("good", [range(700, 720), range(20), range(350, 370)])
def test_twenty_good_events_beside_seven_hundred_refused_ones_go_out_at_once(
    good: range, tmp_path: Path
) -> None:
    """What borders on an accepted event is tried first, however much is refused."""
    spool = Spool(tmp_path / "home", [720])
    bad = set(range(720)) - set(good)
    server = spool.drain(refusing(bad, status(400)), batch_events_max=500)
    assert spool.left() == (20, 700, 0)
    assert server.requests < 60
    assert spool.stopped == "waiting"


# What a server says to all that it does not take in this flush.
BUSY: dict[str, Verdict | Halted] = {
    "503": status(503),
    "429 and when to come again": status(429, asked_s=60),
    "403": status(403),
    "400": status(400),
    "no answer in time": Halted("deadline", Verdict(Action.WAIT, SLOW, narrow=True)),
}
# What it refuses at any time: events, or batches of more than three.
AMISS: dict[str, tuple[Callable[[list[int]], bool], Verdict]] = {
    "too many": (lambda numbers: len(numbers) > 3, status(413)),
    "refused": (lambda numbers: bool({3, 9} & set(numbers)), status(400)),
    "not borne": (lambda numbers: bool({3, 9} & set(numbers)), status(500)),
}


@pytest.mark.parametrize("amiss", AMISS)
@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("taken", [2])
def test_a_server_that_takes_few_requests_of_a_flush_kills_no_good_event(
    taken: int, busy: str, amiss: str, tmp_path: Path
) -> None:
    """What is tried last draws what all draw by then, flush after flush."""
    spool = Spool(tmp_path / "home", [12])
    is_amiss, refusal = AMISS[amiss]
    received: set[int] = set()
    for flush in range(1, 120):
        count = itertools.count()

        def answers(
            numbers: list[int], count: itertools.count[int] = count
        ) -> Verdict | Halted:
            if next(count) >= taken:
                return BUSY[busy]
            return refusal if is_amiss(numbers) else OK

        received.update(spool.drain(answers, batch_events_max=40).received)
        if not spool.pending:
            break
        if flush < 80:
            spool.write(flush, 1)  # the program is started once more
    bad = set() if amiss == "too many" else {3, 9}
    assert received == set(range(spool.count)) - bad
    assert spool.left() == (spool.count - len(bad), 0, len(bad))


def test_a_server_that_takes_one_request_of_a_flush_hears_of_everything(
    tmp_path: Path,
) -> None:
    """New events and what was set aside take turns, and it is cut by what it drew."""
    spool = Spool(tmp_path / "home", [20])
    received: set[int] = set()
    for flush in range(1, 40):
        count = itertools.count()

        def answers(numbers: list[int], count: itertools.count[int] = count) -> Verdict:
            if next(count):
                return status(429)
            return status(413) if len(numbers) > 6 else OK

        received.update(spool.drain(answers, batch_events_max=40).received)
        if flush % 2:
            spool.write(flush, 1)
    assert received >= set(range(28))
    assert spool.left()[2] == 0


@pytest.mark.parametrize("first", [OK, None], ids=["accepting", "not"])
def test_a_flush_that_time_ends_says_what_the_server_said(
    first: Verdict | None, spool: Spool
) -> None:
    """And when it is to be asked again; only a verdict tells the next flush."""
    busy = status(503, asked_s=90)
    answers = [*([first] if first else []), busy, DEADLINE, DEADLINE, DEADLINE]
    spool.drain(lambda _: answers.pop(0), at_once=1)
    assert (spool.stopped, spool.verdict) == ("deadline", busy)


def test_what_was_set_aside_does_not_come_first_for_ever(spool: Spool) -> None:
    """Two flushes at most begin with it; then a server that is back hears new events."""
    spool.drain(refusing([3], status(503)))
    spool.write(2, 1)
    begun = [spool.drain(lambda _: DOWN).posted[0] for _ in range(5)]
    assert begun == ["3 refused"] * 2 + ["28 refused"] * 3
    assert spool.drain().posted == ["28 ok", "3 ok"]


def test_a_connection_that_does_not_come_about_is_held_against_no_event(
    spool: Spool,
) -> None:
    """Nothing was sent, whatever is accepted behind it."""
    spool.drain(refusing([3], status(503)))
    spool.write(2, 1)
    answers = [DOWN, OK, DOWN]
    posted = spool.drain(lambda _: answers.pop(0)).posted
    assert posted == ["3 refused", "28 ok", "3 refused"]
    assert [each.windows for each in spool.announced()] == [1]
    assert spool.stopped == "waiting"


def test_a_connection_that_does_not_come_about_is_no_first_try(spool: Spool) -> None:
    """An event whose next failure is its last has to fail twice, and once is none."""
    poison = refusing([3], status(503))
    for segment in range(2, 6):
        spool.drain(poison)
        spool.write(segment, 1)
    answers = [DOWN, OK, status(503), status(503)]
    posted = spool.drain(lambda _: answers.pop(0)).posted
    assert posted[:3] == ["3 refused", "31 ok", "3 503"]
    assert (spool.left()[1:], spool.letters()) == ((1, 0), [])


def test_refusals_where_nothing_else_waits_are_counted_by_themselves(
    spool: Spool,
) -> None:
    """An event that was tried last beside others has not been refused alone."""
    poison = refusing([3], status(400))
    for segment in range(2, 6):
        spool.drain(poison, failures=0)
        spool.write(segment, 1)
    spool.drain(poison, failures=0)
    assert [each.windows for each in spool.announced()] == [4]
    for refusals in range(1, 4):
        assert spool.drain(lambda _: status(400)).posted == ["3 400"]
        assert [each.refusals for each in spool.announced()] == [refusals]
    spool.drain(lambda _: status(400))
    assert spool.left()[1:] == (0, 1)
    assert [letter.attempts for letter in spool.letters()] == [8]


def test_a_segment_that_a_power_loss_shortened_ends_no_flush(spool: Spool) -> None:
    """What was set aside of it is gone, and the flush was about to begin with that."""
    spool.drain(refusing([3], status(400)))
    spool.write(2, 1)
    segment = Path(spool.home.segment(spool.name(0)))
    segment.write_bytes(segment.read_bytes()[:10])
    assert spool.drain(failures=1).posted == ["28 ok"]
    assert (spool.stopped, spool.verdict) == ("", None)


def test_a_server_that_asks_for_time_is_asked_twice_however_much_was_set_aside(
    spool: Spool,
) -> None:
    """One event that would be dead otherwise, and one from elsewhere."""
    poison = refusing([3, 5, 7], status(400))
    for segment in range(2, 6):
        spool.drain(poison)
        spool.write(segment, 1)
    spool.write(6, 1)
    busy = spool.drain(lambda _: status(429, asked_s=60))
    assert busy.posted == ["3 429", "31 429"]
    # Where it does not say so either: events from elsewhere tell more of it.
    assert spool.drain(lambda _: status(503)).posted[:2] == ["5 503", "31 503"]


@pytest.mark.parametrize("verdict", [status(400), status(503)], ids=["400", "503"])
@pytest.mark.parametrize("then", [DOWN, status(400), status(503)], ids=str)
def test_a_server_that_asks_for_time_is_asked_once_more_whatever_comes_then(
    verdict: Verdict, then: Verdict, spool: Spool
) -> None:
    """What it says then does not take its first word back."""
    spool.drain(refusing([3], status(503)))
    spool.write(2, 3)
    answers = [replace(verdict, retry_after_s=600), then]
    busy = spool.drain(lambda _: answers.pop(0) if answers else status(503), failures=1)
    assert len(busy.posted) == 2
    assert spool.verdict is not None
    assert spool.verdict.retry_after_s == 600


@pytest.mark.parametrize("backends", [3, 4])
def test_a_good_event_behind_one_sound_server_of_a_few_does_not_die(
    backends: int, tmp_path: Path
) -> None:
    """They take turns, and every flush begins with the same one."""
    spool = Spool(tmp_path / "home", [1, 1])
    for flush in range(12):
        spool.write(2 + flush, 1)
        turns = itertools.cycle(range(backends))
        spool.drain(lambda _, turns=turns: OK if next(turns) == 1 else status(503))
        assert spool.left()[2] == 0
    spool.drain()
    assert spool.left() == (14, 0, 0)


def test_where_nothing_waits_but_what_was_refused_sixteen_refusals_count(
    tmp_path: Path,
) -> None:
    """Each event dies in flushes of its own: of the oldest some die, and make room."""
    spool = Spool(tmp_path / "home", [20, 1])
    spool.drain(in_turn(status(400), OK, DEADLINE), batch_events_max=20)
    requests, dead = [], []
    while spool.files():
        requests.append(spool.drain(lambda _: status(400)).requests)
        dead.append(spool.left()[2])
    assert max(requests) == 16
    # Three of four requests are of those; the others are probes.
    assert dead == [0, 0, 0, 0, 0, 1, 12, 12, 12, 13, 20]


def test_what_is_accepted_of_ranges_that_were_refused_is_found_beside_nothing_new(
    tmp_path: Path,
) -> None:
    """Ranges are cut before their events are posted once more."""
    spool = Spool(tmp_path / "home", [40, 1])
    first = in_turn(status(400), OK, DEADLINE)
    assert spool.drain(first, batch_events_max=40).received == [40]
    answers = refusing(set(range(40)) - {22}, status(400))
    flushes = [spool.drain(answers, failures=0).received for _ in range(6)]
    assert (sorted(flushes), spool.left()) == ([[]] * 5 + [[22]], (2, 39, 0))


def test_what_was_set_aside_for_another_reason_does_not_starve_behind_refusals(
    tmp_path: Path,
) -> None:
    """One request of four may meet it; nothing new waits, and no flush begins with it."""
    spool = Spool(tmp_path / "home", [40, 6, 1])
    answers = in_turn(status(400), OK, status(503), DEADLINE)
    spool.drain(answers, batch_events_max=40, failures=0)
    spool.drain(in_turn(then=lambda _: status(400)), failures=3)
    assert {each.reason for each in spool.announced()} == {"400", "503"}
    bad = refusing(range(40), status(400))
    received = [n for _ in range(6) for n in spool.drain(bad, failures=3).received]
    assert sorted(received) == [*range(40, 46)]


def test_a_single_event_that_failed_alone_is_among_those_probes(tmp_path: Path) -> None:
    """Nothing else posts it where all that waits beside it is refused."""
    spool = Spool(tmp_path / "home", [1] * 6)

    def answers(numbers: list[int]) -> Verdict:
        return {0: status(403), 5: OK}.get(numbers[0], status(400))

    spool.drain(answers, batch_events_max=1)
    assert [each.reason for each in spool.announced()] == ["403", *["400"] * 4]
    repaired = refusing([1, 2, 3, 4], status(400))
    received = [
        number
        for _ in range(3)  # by the fifth all others are dead
        for number in spool.drain(
            repaired, batch_events_max=1, begins_new=True
        ).received
    ]
    assert received == [0]


def test_a_server_that_fails_after_refusals_sees_four_requests(tmp_path: Path) -> None:
    """It may be asked about more as long as it refuses, for it works then."""
    spool = Spool(tmp_path / "home", [20])
    answers = in_turn(status(400), status(400), then=lambda _: status(503))
    assert spool.drain(answers).requests == 4


def test_where_nothing_new_waits_a_server_that_asks_for_time_sees_two_requests(
    tmp_path: Path,
) -> None:
    """What was set aside is no reason to come again before that time."""
    spool = Spool(tmp_path / "home", [4, 1])
    spool.drain(refusing([0, 1, 2, 3], status(503)), batch_events_max=4)
    assert [each.count for each in spool.announced()] == [4]
    busy = status(503, asked_s=60)
    assert spool.drain(lambda _: busy, failures=3).posted == ["0-3 503", "0 503"]


def test_a_damaged_record_keeps_no_probe_from_those_beside_it(tmp_path: Path) -> None:
    """Nothing else reads a range that was set aside where nothing is accepted."""
    spool = Spool(tmp_path / "home", [6, 1])
    spool.drain(in_turn(status(503), OK, DEADLINE), failures=0)
    (known,) = spool.announced()
    assert (known.count, known.reason) == (6, "503")
    segment = Path(spool.home.segment(spool.name(0)))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    received: list[int] = []
    for flush in range(4):
        first = spool.count
        spool.write(10 + flush, 2)
        bad = refusing(range(7, first + 2), status(400))
        received += spool.drain(bad, failures=3).received
    assert len({*range(6)} & set(received)) == 5
    assert spool.census().damaged == 1


def test_a_range_that_cannot_be_cut_is_no_event_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So much of its segment is set aside as single events that no more may be."""
    bound_parts(monkeypatch, singles=0, deep=9, most=9)
    spool = Spool(tmp_path / "home", [2, 1])
    spool.drain(refusing([0, 1], status(400)), failures=0)
    assert [each.count for each in spool.announced()] == [2]
    for _ in range(8):
        spool.drain(lambda _: status(400), failures=0)
    assert spool.left() == (1, 2, 0)


def test_one_flush_counts_one_refusal_of_an_event(tmp_path: Path) -> None:
    """Also where its range is cut first, or something is accepted later in the flush."""
    spool = Spool(tmp_path / "cut", [4, 1])
    spool.drain(in_turn(status(400), OK, DEADLINE), failures=0)
    assert [(each.count, each.tries) for each in spool.announced()] == [(2, 0), (2, 1)]
    spool.drain(lambda _: status(400), failures=0)
    assert [each.refusals for each in spool.announced()] == [1] * 4
    spool = Spool(tmp_path / "later", [2, 1])
    spool.drain(in_turn(status(400), OK, DEADLINE), failures=0)
    server = spool.drain(refusing([0], status(400)), failures=0)
    assert server.received == [1]
    (known,) = spool.announced()
    assert (known.windows, known.refusals) == (0, 1)


def test_of_what_a_full_spool_is_asked_about_only_refusals_count(
    tmp_path: Path,
) -> None:
    """The flush began with an event that the server does not answer for."""
    spool = Spool(tmp_path / "home", [1, 1])
    spool.drain(refusing([0], status(503)), failures=0)
    spool.write(2, 3)
    answers = in_turn(status(503), then=lambda _: status(400))
    assert spool.drain(answers, failures=1, is_full=True).posted[0] == "0 503"
    assert [each.refusals for each in spool.announced() if each.reason == "503"] == [0]
    # A time that it names for a probe holds.
    spool = Spool(tmp_path / "asked", [6])
    asked = in_turn(status(400), then=lambda _: status(503, asked_s=3600))
    assert len(spool.drain(asked, failures=0, is_full=True).posted) == 2
    assert spool.verdict is not None
    assert spool.verdict.retry_after_s == 3600


def test_no_event_dies_beside_a_segment_that_cannot_be_read(tmp_path: Path) -> None:
    """New events may be in it, of which one would be accepted."""
    spool = Spool(tmp_path / "home", [1, 1])
    spool.drain(refusing([0], status(400)), failures=0)
    os.symlink("/dev/null", spool.home.segment(spool.name(9)))
    for _ in range(8):
        spool.drain(lambda _: status(400), failures=0)
    assert spool.left() == (1, 1, 0)


def test_a_full_spool_of_events_that_are_refused_makes_room(tmp_path: Path) -> None:
    """Nothing was ever accepted, and what would be is refused by the spool itself."""
    spool = Spool(tmp_path / "home", [30] * 4)
    bad = refusing(range(120), status(400))
    for _ in range(8):
        spool.drain(bad, batch_events_max=100)
    assert spool.left() == (0, 120, 0)
    for _ in range(30):
        server = spool.drain(bad, batch_events_max=100, is_full=True)
        assert server.requests <= 16
        if 0 not in spool.files():
            break
    assert spool.files()[:3] == [1, 2, 3]
    _, pending, dead = spool.left()
    assert dead >= 15, "what is left of it is half a segment at most"
    spool.write(4, 3)
    spool.drain(bad, batch_events_max=100, is_full=True)
    left = spool.left()
    assert (left[0], left[2] >= dead, sum(left)) == (3, True, 3 + pending + dead)


def test_where_half_of_what_each_launch_records_is_refused_the_rest_arrives(
    tmp_path: Path,
) -> None:
    """All in one segment, as launches go on with the last: those refused do not pile up."""
    chance, spool = random.Random(7), Spool(tmp_path / "home", [])
    bad: set[int] = set()
    waiting = []
    for _ in range(9):
        first = spool.count
        spool.write(0, 30)
        bad |= {n for n in range(first, spool.count) if chance.random() < 0.5}
        spool.drain(refusing(bad, status(400)), batch_events_max=100)
        delivered, _, dead = spool.left()
        waiting.append(spool.count - len(bad) - delivered)
    # A flush that meets eight bad events first leaves them to the next one.
    assert sorted(waiting)[:8] == [0] * 8
    assert len(bad) - dead < 6 * 15


@pytest.mark.parametrize("number", [403, 404, 405])
def test_one_event_that_is_blocked_pauses_nothing(number: int, tmp_path: Path) -> None:
    """One command a run: there is no other to compare it with, and the next is good."""
    spool = Spool(tmp_path / "home", [1])
    blocked = Verdict(Action.PAUSE, str(number), narrow=True)
    blocks = refusing([0], blocked)
    assert spool.drain(blocks).posted == [f"0 {number}"]
    assert spool.stopped == "waiting"
    spool.write(1, 1)
    assert 1 in spool.drain(blocks).received
    # A key that is refused, and what two events draw, is about all.
    spool = Spool(tmp_path / "key", [1])
    spool.drain(lambda _: status(401))
    assert spool.stopped == "paused"
    spool = Spool(tmp_path / "two", [1, 1])
    spool.drain(lambda _: blocked)
    assert spool.stopped == "paused"
    # Not at once by a server that accepted others: the next ones may be as they were.
    spool = Spool(tmp_path / "taken", [1, 1])
    said = []
    for _ in range(6):
        spool.drain(lambda _: blocked, accepted_before=True)
        said.append(spool.stopped)
    assert said == [*["waiting"] * 4, *["paused"] * 2]
    spool.drain(lambda _: status(401), failures=0, accepted_before=True)
    assert spool.stopped == "paused"


@pytest.mark.parametrize("turn", range(4))
def test_what_a_repaired_program_records_is_found_behind_all_that_is_refused(
    turn: int, tmp_path: Path
) -> None:
    """Each of its launches begins a segment, behind a hundred that hold bad events."""
    spool = Spool(tmp_path / "home", [3] * 100)
    spool.turn = turn
    bad = refusing(range(300), status(403))
    received: list[int] = []
    for launch in range(5):
        spool.write(200 + launch, 1)
        received += spool.drain(
            bad, batch_events_max=100, batch_segments_max=32
        ).received
        if launch == 1:
            assert received
    assert {300, 301, 302, 303} <= set(received)


def test_a_server_that_fails_where_all_was_refused_is_asked_no_more(
    tmp_path: Path,
) -> None:
    """Four times in all at most, and not behind an answer that says when."""
    spool = Spool(tmp_path / "home", [8, 1])
    spool.drain(refusing(range(8), status(400)), failures=0)
    posted = spool.drain(lambda _: DOWN, failures=0).posted
    assert [each.partition(" ")[2] for each in posted] == ["refused"] * 4
    answers = [status(400)]
    fails = spool.drain(
        lambda _: answers.pop() if answers else status(503), failures=0
    ).posted
    assert [each.partition(" ")[2] for each in fails] == ["400", *["503"] * 3]
    assert spool.drained.says_nothing
    asked = status(413, asked_s=600)
    assert len(spool.drain(lambda _: asked, failures=0).posted) == 1
    assert len(spool.drain(lambda _: asked, failures=1).posted) == 1
    assert spool.drained.says_nothing
    assert (spool.stopped, spool.left()) == ("waiting", (1, 8, 0))


def test_what_was_refused_and_then_lost_by_the_network_is_posted_again(
    tmp_path: Path,
) -> None:
    """Nothing else waits; a connection that is refused says nothing about the event."""
    spool = Spool(tmp_path / "home", [2, 1])
    spool.drain(refusing([0, 1], status(400)), failures=0)
    assert spool.drain(in_turn(DOWN), failures=0).posted[:2] == ["0 refused", "0 ok"]
    assert spool.left() == (3, 0, 0)


def test_bad_events_that_come_one_a_launch_die_as_they_come(tmp_path: Path) -> None:
    """Every second launch brings one, and others are accepted only in the rest."""
    spool = Spool(tmp_path / "home", [8])
    for flush in range(80):
        spool.drain(refusing(range(1, 99, 2), status(503)))
        spool.write(1 + flush, 1)
    delivered, pending, dead = spool.left()
    assert (delivered, dead > 15, pending < 28) == (44, True, True)


@pytest.mark.parametrize(("bad", "good"), [(6, 6), (3, 30)])
def test_launches_of_refused_events_do_not_pile_up_between_good_ones(
    bad: int, good: int, tmp_path: Path
) -> None:
    """Good events are accepted before them, and some of those are kept for behind."""
    spool, refused = Spool(tmp_path / "home", []), set[int]()
    for launch in range(40):
        is_bad = launch % 2 == 0
        first = spool.count
        spool.write(launch, bad if is_bad else good)
        refused |= {*range(first, spool.count)} if is_bad else set()
        spool.drain(
            refusing(refused, status(400)), batch_events_max=100, batch_segments_max=4
        )
    delivered, pending, _ = spool.left()
    assert (delivered, pending < 6 * bad) == (20 * good, True)


def a_spent_event(home: Path, number: int = 400) -> Spool:
    """Event 0 failed alone in four flushes that delivered others."""
    spool = Spool(home, [1, 1])
    for flush in range(4):
        spool.drain(refusing([0], status(number)), failures=0)
        spool.write(2 + flush, 1)
    (left,) = [each for each in spool.announced() if each.reason]
    assert left.windows == 4
    spool.drain(refusing([0], status(number)), failures=0)
    return spool


@pytest.mark.parametrize("batch", [9, 18, 100])
def test_new_events_are_kept_to_be_accepted_behind_what_may_die(
    batch: int, tmp_path: Path
) -> None:
    """At most four, and at most half: others are accepted first."""
    spool = a_spent_event(tmp_path / "home")
    first = spool.count
    spool.write(20, 9)
    posted = spool.drain(
        refusing([0], status(400)), failures=0, batch_events_max=batch
    ).posted
    sent, kept = f"{first}-{first + 4} ok", f"{first + 5}-{first + 8} ok"
    assert posted == [sent, *["0 400"] * 4, kept]
    assert spool.left()[1:] == (0, 1)


def test_nothing_is_kept_where_it_would_prove_nothing(tmp_path: Path) -> None:
    """Of a 503 it would not; and what the flush began with needs no other proof."""
    unwell = a_spent_event(tmp_path / "unwell", 503)
    first = unwell.count
    unwell.write(20, 4)
    posted = unwell.drain(refusing([0], status(503)), failures=0).posted
    assert posted[0] == f"{first}-{first + 3} ok"
    begun = a_spent_event(tmp_path / "begun")
    begun.write(20, 4)
    posted = begun.drain(refusing([0], status(400)), failures=1).posted
    assert posted[:3] == ["0 400", f"{first}-{first + 3} ok", "0 400"]


def test_what_is_kept_is_compared_with_only_where_others_are_accepted(
    tmp_path: Path,
) -> None:
    """It may be of the kind that has just failed: all that a launch recorded."""
    spool = a_spent_event(tmp_path / "home")
    first = spool.count
    spool.write(20, 8)
    spool.write(21, 1)
    bad = {0, *range(first, first + 8)}
    posted = spool.drain(
        lambda numbers: status(503) if bad & {*numbers} else OK, failures=0
    ).posted
    assert posted[:2] == [f"{first}-{first + 3} 503", f"{first + 8} ok"]


def test_what_is_recorded_meanwhile_is_not_kept(tmp_path: Path) -> None:
    """It stands behind what is."""
    spool = a_spent_event(tmp_path / "home")
    first = spool.count
    spool.write(20, 4)
    late = iter([3])
    posted = spool.drain(
        refusing([0], status(400)),
        failures=0,
        during=lambda _: [spool.write(20, events) for events in late],
    ).posted
    sent = [f"{first}-{first + 1} ok", f"{first + 4}-{first + 6} ok"]
    assert posted == [*sent, *["0 400"] * 4, f"{first + 2}-{first + 3} ok"]


def test_of_two_segments_the_new_event_of_the_second_is_kept(tmp_path: Path) -> None:
    """Of one event there is no half."""
    spool = a_spent_event(tmp_path / "home")
    first = spool.count
    spool.write(20, 1)
    spool.write(21, 1)
    posted = spool.drain(
        refusing([0], status(400)), failures=0, batch_segments_max=4
    ).posted
    assert posted == [f"{first} ok", *["0 400"] * 4, f"{first + 1} ok"]
    assert spool.left()[1:] == (0, 1)


def test_kept_events_that_are_refused_themselves_hold_back_no_other(
    tmp_path: Path,
) -> None:
    """They are cut as any others: the good ones prove what came before them."""
    spool = a_spent_event(tmp_path / "home")
    bad = spool.count + 5
    spool.write(20, 8)
    spool.drain(refusing([0, bad], status(400)), failures=0)
    assert spool.left()[1:] == (1, 1)


@pytest.mark.parametrize("ending", [DEADLINE, DOWN, status(429)], ids=str)
def test_kept_events_go_with_the_next_flush_where_one_ends_before(
    ending: Verdict | Halted, tmp_path: Path
) -> None:
    """They are as new as they were."""
    spool = a_spent_event(tmp_path / "home")
    spool.write(20, 9)
    answers = in_turn(OK, then=lambda _: ending)
    spool.drain(answers, failures=0, batch_events_max=20)
    assert spool.left()[1:] == (5, 0)
    spool.drain(refusing([0], status(400)), failures=0)
    assert spool.left()[1] <= 1


def test_more_bad_ranges_than_there_is_room_for_hold_back_no_good_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second batch of a large segment holds a bad event."""
    bound_parts(monkeypatch, singles=3, deep=3, most=6)
    spool = Spool(tmp_path / "home", [200])
    bad = refusing(range(3, 200, 20), status(400))
    most = 0
    for flush in range(60):
        spool.drain(bad)
        most = max(most, len(spool.announced()))
        delivered, _, dead = spool.left()
        if delivered == spool.count - 10:
            break
        spool.write(1 + flush, 1)
    assert dead < 10
    assert most < 16


@pytest.mark.parametrize("verdict", [status(400), status(403), status(503)], ids=str)
def test_no_event_dies_in_a_flush_that_did_not_begin_with_it(
    verdict: Verdict, spool: Spool
) -> None:
    """It may be what the server has taken before."""
    for flush in range(8):
        spool.drain(refusing([3], verdict), failures=0)
        spool.write(2 + flush, 1)
    assert spool.left()[1:] == (2, 0)
    again = [f"3 {verdict.reason}"]
    if verdict.reason != "400":
        # One that fails now and then, and has a limit, may fail the first and what
        # follows: a second flush begins with it as well.
        begun = spool.drain(refusing([3], verdict), failures=1)
        assert begun.posted == [*again, "35 ok", *again]
        assert spool.left()[1:] == (1, 0)
        spool.write(10, 1)
    begun = spool.drain(refusing([3], verdict), failures=1)
    assert begun.posted == [*again, f"{spool.count - 1} ok", *again * 4]
    assert spool.left()[1:] == (0, 1)


def test_a_segment_of_bad_events_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for few parts; the search goes down to events, and these die."""
    bound_parts(monkeypatch, singles=8, deep=6)
    spool = Spool(tmp_path / "home", [24])
    bad = refusing(range(20), status(400))
    for flush in range(1, 100):
        spool.drain(bad, batch_events_max=24)
        if not spool.pending:
            break
        spool.write(flush, 1)
    assert spool.left() == (spool.count - 20, 0, 20)


def test_a_good_event_behind_a_hundred_bad_ones_in_turn_is_not_held_back(
    tmp_path: Path,
) -> None:
    """A row of refusals ends the flush only once probes were refused as well."""
    spool = Spool(tmp_path / "home", [1] * 40)
    server = spool.drain(refusing(range(1, 39), status(400)))
    # 16 in a row, then one from elsewhere: its turn comes to the last segment.
    assert 39 in server.received
    assert spool.left()[0] == 2


def test_a_server_that_says_no_after_it_accepted_is_asked_a_bounded_number_of_times(
    tmp_path: Path,
) -> None:
    """Refusals of a server that works cost it little, but they have an end."""
    spool = Spool(tmp_path / "home", [1] * 60)
    server = spool.drain(lambda numbers: OK if numbers == [0] else status(400))
    assert server.requests == 1 + 31 + 3
    assert (spool.stopped, spool.left()) == ("waiting", (1, 59, 0))
    spool = Spool(tmp_path / "other", [1] * 60)
    server = spool.drain(lambda numbers: OK if numbers == [0] else status(401))
    assert (server.requests, spool.stopped) == (1 + 15 + 3, "paused")


@pytest.mark.parametrize("segments", [[12], [22], [42], [10, 1, 1]], ids=str)
@pytest.mark.parametrize("number", [429, 503])
def test_a_server_that_accepts_some_and_names_a_time_then_is_obeyed(
    number: int, segments: list[int], tmp_path: Path
) -> None:
    """However little is left, and whether it is tried in smaller parts or not."""
    spool = Spool(tmp_path / "home", segments)
    asked = status(number, asked_s=3600)
    spool.drain(in_turn(OK, then=lambda _: asked))
    assert spool.verdict is not None
    assert spool.verdict.retry_after_s == 3600
    # What is refused like that among others holds back none of them.
    spool = Spool(tmp_path / "other", [12, 30])
    spool.drain(refusing([3], asked))
    assert spool.verdict is not None
    assert (spool.left(), spool.verdict.retry_after_s) == ((41, 1, 0), None)


def test_a_server_that_breaks_down_sees_five_more_requests(tmp_path: Path) -> None:
    """The four that were under way, and a probe; then none is sent, or held against."""
    spool = Spool(tmp_path / "home", [1] * 60)
    server = spool.drain(lambda numbers: OK if numbers[0] < 8 else status(503))
    assert server.posted[8:] == ["8 503", "9 503", "10 503", "11 503", "59 503"]
    assert (spool.stopped, spool.left()) == ("waiting", (8, 52, 0))
    # A probe would come before the time that it asks for.
    spool = Spool(tmp_path / "later", [1] * 60)
    later = status(503, asked_s=30)
    server = spool.drain(lambda numbers: OK if numbers[0] < 8 else later)
    assert server.posted[8:] == ["8 503", "9 503", "10 503", "11 503"]
    # One batch that failed among others that did not is set aside.
    spool = Spool(tmp_path / "other", [1] * 20)
    server = spool.drain(refusing([8], status(503)))
    assert (server.requests, spool.left()) == (21, (19, 1, 0))


def test_two_batches_that_fail_beside_accepted_ones_are_each_compared(
    tmp_path: Path,
) -> None:
    """In single file, until one is accepted again."""
    spool = Spool(tmp_path / "home", [1] * 12)
    server = spool.drain(refusing([5, 6, 7], status(503)))
    assert spool.left() == (9, 3, 0)
    assert server.requests == 12 + 3  # each of the three once more


@pytest.mark.parametrize("halt", [DEADLINE, OFF])
def test_what_is_under_way_when_the_flush_ends_is_settled_or_stays(
    halt: Halted, tmp_path: Path
) -> None:
    """At the deadline its answers are there by then; after a no nothing is written."""
    spool = Spool(tmp_path / "home", [80])

    def during(numbers: list[int]) -> None:
        if numbers[0] == 50:
            raise halt

    server = spool.drain(during=during)
    assert spool.stopped == halt.stopped
    ended = halt.stopped == "deadline"
    assert spool.left() == ((50, 30, 0) if ended else (20, 60, 0))
    assert server.under_way == (0 if ended else 3)
    again = spool.drain()
    assert again.posted[0] == ("50-59 ok" if ended else "20-29 ok")
    assert spool.left() == (80, 0, 0)


def test_a_request_that_its_flush_has_no_time_for_ends_it(tmp_path: Path) -> None:
    """Those behind it were sent as well, and one of them is answered."""
    spool = Spool(tmp_path / "home", [60])
    answers = {30: DEADLINE, 40: OK, 50: status(503)}
    server = spool.drain(lambda numbers: answers.get(numbers[0], OK))
    assert server.posted[3:] == ["30-39 deadline", "40-49 ok", "50-59 503"]
    assert (spool.stopped, spool.left()) == ("deadline", (40, 20, 0))
    assert not any(each.reason for each in spool.announced())


def test_what_is_recorded_during_a_drain_is_sent_as_well(spool: Spool) -> None:
    """A segment that grew is not deleted, and a new one is found."""
    grown: list[int] = []

    def during(numbers: list[int]) -> None:
        if numbers == [25, 26, 27] and not grown:
            grown.append(1)
            spool.write(0, 2)
            spool.write(1, 2)
            spool.write(2, 2)

    server = spool.drain(during=during)
    assert sorted(server.received) == list(range(34))
    assert (spool.left(), spool.files()) == ((34, 0, 0), [])


def test_a_segment_that_is_written_stays_and_its_events_are_sent(spool: Spool) -> None:
    """Its writer has the lock; the flusher reads up to the last whole record."""
    path = spool.home.segment(spool.name(1))
    segment = adopt(path, 1 << 20)
    assert isinstance(segment, Segment)
    try:
        assert spool.drain().requests == 4
        assert (spool.left(), spool.files()) == ((28, 0, 0), [1])
        assert spool.verdict is None
        assert spool.drain().requests == 0
    finally:
        segment.close()
    spool.drain()
    assert spool.files() == []


def test_a_segment_that_cannot_be_read_holds_back_no_other(spool: Spool) -> None:
    """It is left as it is, and the flush says that the disk kept something."""
    os.mkdir(spool.home.segment(spool.name(2)))
    spool.drain()
    assert (spool.left(), spool.drained.is_blocked) == ((28, 0, 0), True)
    os.rmdir(spool.home.segment(spool.name(2)))
    spool.write(3, 1)
    path = Path(spool.home.segment(spool.name(3)))
    path.rename(path.with_suffix(".away"))
    path.symlink_to("nowhere")
    spool.drain()
    assert spool.drained.is_blocked


def test_a_letter_that_cannot_be_stored_settles_nothing_and_holds_back_no_other(
    spool: Spool,
) -> None:
    """The disk is at fault for one segment; its batch is sent again another time."""
    Path(spool.home.dead).touch()
    named = naming(3)
    server = spool.drain(lambda numbers: named if 3 in numbers else OK)
    assert (spool.drained.is_blocked, spool.left()) == (True, (3, 25, 0))
    assert server.posted[0] == "0-9 ok"
    assert "25-27 ok" in server.posted
    os.unlink(spool.home.dead)
    spool.drain(lambda numbers: named if 3 in numbers else OK)
    assert (spool.left(), spool.files()) == ((27, 0, 1), [])


def test_a_segment_full_of_bad_events_has_room_for_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a range of its own, and these have a bound; new events are no part of it."""
    bound_parts(monkeypatch, singles=8, deep=6, most=16)
    spool = Spool(tmp_path / "home", [1, 30])
    bad = refusing(range(1, 31), status(400))
    spool.drain(bad)
    assert sum(each.count == 1 for each in spool.announced()) == 8
    assert len(spool.announced()) <= 16
    spool.write(1, 30)
    spool.drain(bad)
    assert spool.left() == (31, 30, 0)


def test_a_drain_that_is_killed_at_any_request_loses_nothing(tmp_path: Path) -> None:
    """What was announced is announced, and what was settled is settled."""
    for at in range(1, 20, 3):
        spool = Spool(tmp_path / str(at), [25, 3, 12])
        count = itertools.count(1)

        def during(
            _: list[int], at: int = at, count: itertools.count[int] = count
        ) -> None:
            if next(count) == at:
                raise Killed

        with pytest.raises(Killed):
            spool.drain(refusing([3, 30], status(400)), during=during)
        spool.drain(refusing([3, 30], status(400)))
        assert spool.left() == (38, 2, 0)


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("verdict", [status(400), status(503)], ids=["400", "503"])
def test_a_flush_that_begins_with_what_was_set_aside_may_be_killed_at_any_request(
    verdict: Verdict, at: int, spool: Spool
) -> None:
    """The event is dead once, in the end, and all others arrive."""

    poison = refusing([3], verdict)
    for segment in range(2, 6):
        spool.drain(poison)
        spool.write(segment, 1)
    count = itertools.count(1)

    def during(_: list[int]) -> None:
        if next(count) == at:
            raise Killed

    with pytest.raises(Killed):
        spool.drain(poison, during=during)
    assert spool.letters() == []
    for segment in range(6, 10):
        spool.drain(poison)
        spool.write(segment, 1)
    spool.drain(poison)
    assert (spool.left(), len(spool.letters())) == ((35, 0, 1), 1)


def test_the_books_say_before_each_request_what_it_holds(spool: Spool) -> None:
    """Announce, post, settle: at each request no more than four are unsettled."""
    open_at: list[int] = []

    def during(_: list[int]) -> None:
        segments = read_snapshot(spool.home.ledger).segments.values()
        open_at.append(sum(len(entry.announced) for entry in segments))

    spool.drain(during=during, batch_events_max=3)
    # The one that is sent, three before it, and one that is answered and not written.
    assert max(open_at) <= 4
    assert spool.left() == (28, 0, 0)


def test_what_is_set_aside_is_told_at_the_end(spool: Spool) -> None:
    """`status` shows why something waits although the server is well."""
    spool.drain(refusing([3], status(400)))
    told = spool.drain(lambda _: OK if _ != [3] else status(413))
    assert told.posted == ["3 413"]
    assert (spool.stopped, spool.verdict) == ("waiting", status(413))
    assert isinstance(spool.verdict, Verdict)


def test_a_failure_that_passes_costs_one_more_request(tmp_path: Path) -> None:
    """The same batch again, after a pause; nothing was wrong with it."""
    spool = Spool(tmp_path / "home", [3])
    answers = [status(503), OK]
    assert spool.drain(lambda _: answers.pop(0)).posted == ["0-2 503", "0-2 ok"]
    assert (spool.left(), spool.verdict) == ((3, 0, 0), None)


def test_two_events_are_a_batch_that_one_of_them_is_taken_from(tmp_path: Path) -> None:
    """One of the four requests is kept for it; of a single event there is none."""
    spool = Spool(tmp_path / "home", [2])
    server = spool.drain(lambda _: status(503))
    assert server.posted == ["0-1 503", "0-1 503", "0-1 503", "0 503"]


def test_where_no_connection_comes_about_nothing_is_probed(spool: Spool) -> None:
    """No event was sent, so none can be at fault, however little time there is."""
    soon = Verdict(DOWN.action, DOWN.reason, retry_after_s=9)
    assert spool.drain(lambda _: soon).posted == ["0-9 refused"]


def test_the_last_batch_that_is_refused_is_cut_and_not_sent_again(spool: Spool) -> None:
    """Nothing comes after it, and what came before was accepted."""
    server = spool.drain(refusing([26], status(400)))
    assert server.posted[3:] == ["25-27 400", "26-27 400", "27 ok", "26 400", "25 ok"]
    spool = Spool(Path(spool.home.root).parent / "two", [1, 1, 1])
    spool.drain(lambda numbers: OK if numbers == [0] else status(400 + 13 * numbers[0]))
    assert spool.verdict == status(426)


def test_what_failed_before_others_were_accepted_is_set_aside_at_once(
    spool: Spool,
) -> None:
    """The flush may end at any time, and the next one must not begin with it."""
    bad = refusing([3], status(400))
    spool.drain(lambda numbers: DEADLINE if 20 in numbers else bad(numbers))
    assert spool.stopped == "deadline"
    assert spool.announced()[0].reason == "400"
    assert spool.drain(bad).posted[0] == "20-24 ok"


def test_damage_that_cannot_be_kept_holds_back_its_segment_alone(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied before what follows it is settled; the disk does not allow that."""
    path = Path(spool.home.segment(spool.name(0)))
    path.write_bytes(b"damage" + path.read_bytes())

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("telemetry.spool.reader.sync", failing)
        spool.drain()
    assert (spool.left(), spool.drained.is_blocked) == ((3, 25, 0), True)
    spool.drain()
    assert (spool.left(), spool.files()) == ((28, 0, 0), [])


def test_two_events_that_are_too_much_together_arrive_one_by_one(
    tmp_path: Path,
) -> None:
    """What was refused with others is posted alone in the same flush."""
    spool = Spool(tmp_path / "home", [2])
    server = spool.drain(lambda each: status(413) if len(each) > 1 else OK)
    assert server.posted == ["0-1 413", "1 ok", "0 ok"]
    assert (spool.left(), spool.files()) == ((2, 0, 0), [])


def test_a_network_that_goes_away_while_a_batch_is_narrowed_ends_the_flush(
    spool: Spool,
) -> None:
    """Nothing was posted, so nothing is held against the part that was tried."""
    bad = refusing([3], status(400))
    server = spool.drain(lambda each: DOWN if each == [5, 6, 7, 8, 9] else bad(each))
    assert server.posted[-1] == "5-9 refused"
    assert (spool.stopped, spool.verdict) == ("waiting", DOWN)
    assert not any(each.windows for each in spool.announced())


@pytest.mark.parametrize("number", [400, 500])
def test_where_each_batch_holds_a_bad_event_the_good_ones_arrive(
    tmp_path: Path, number: int
) -> None:
    """One of an app's kinds of events crashes its server: 59 of 3,600 good ones came."""
    spool = Spool(tmp_path / "home", [50])
    bad = set(range(0, 500, 10))
    for launch in range(1, 7):
        spool.drain(refusing(bad, status(number)))
        spool.write(launch, 50)
    delivered, pending, dead = spool.left()
    assert delivered >= 45 * 4
    assert delivered + pending + dead == 350


def test_parts_that_are_not_answered_are_compared_after_four(spool: Spool) -> None:
    """A server that breaks down while a batch is narrowed is left in peace."""
    server = spool.drain(refusing(range(10), status(503)))
    assert spool.left() == (18, 10, 0)
    failed = [each for each in server.posted if each.endswith("503")]
    parts, probes = failed[:6], failed[6:]
    assert parts == [
        each for part in ("0-9", "5-9", "7-9") for each in [f"{part} 503"] * 2
    ]
    # Events from elsewhere; one or two may have been of the kind that fails.
    assert len(probes) == 4
    assert not any("-" in each for each in probes)
    assert (spool.stopped, spool.verdict) == ("waiting", status(503))
    # Taken back: as it was, and what was answered counts as no try.
    (known,) = spool.announced()
    assert (known.count, known.tries) == (10, 0)


@pytest.mark.parametrize("number", [400, 403])
def test_a_word_that_is_refused_does_not_pause_what_is_recorded_next(
    tmp_path: Path, number: int
) -> None:
    """Only such events wait now, but the server took others in an earlier flush."""
    spool = Spool(tmp_path / "home", [3])
    answers = refusing([1, 3, 4], status(number))
    spool.drain(answers, batch_events_max=1)
    assert spool.left() == (2, 1, 0)
    for segment in (1, 2):
        spool.write(segment, 1)
        spool.drain(answers, batch_events_max=1)
        assert spool.stopped == "waiting"
    for segment in (3, 4):
        spool.write(segment, 1)
        spool.drain(answers, batch_events_max=1)
        assert spool.stopped != "paused"
    assert spool.left() == (4, 3, 0)


def test_a_server_that_refuses_everything_pauses_whatever_was_set_aside_before(
    tmp_path: Path,
) -> None:
    """A key that was revoked: after a few flushes it is asked every six hours."""
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([1], status(403)), batch_events_max=1)
    stops = []
    for segment in range(1, 6):
        spool.write(segment, 1)
        spool.drain(lambda _: status(403), batch_events_max=1)
        stops.append(spool.stopped)
    assert stops == ["waiting"] * 3 + ["paused"] * 2
