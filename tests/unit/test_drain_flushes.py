"""What one flush of a drain leaves to the next: what it counts, sets aside, and repeats.

The segments and the books are real; the server is a function of the events in a request.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from telemetry.delivery import search
from telemetry.wire.retry import Halted
from telemetry.wire.verdict import SLOW, Action, Verdict
from tests.support.draining import (
    DEADLINE,
    DOWN,
    OFF,
    OK,
    Killed,
    Spool,
    in_turn,
    naming,
    refusing,
    status,
)


# The flush's time is up; with `narrow` there was time enough for an answer.
UNHEARD = Halted("deadline", Verdict(Action.WAIT, SLOW, narrow=True))
CUT_SHORT = Halted("deadline", Verdict(Action.WAIT, SLOW))


def spent(root: Path, events: int) -> Spool:
    """Events that were refused alone in four flushes, in a segment of their own."""
    spool = Spool(root, [events])
    for segment in range(1, 5):
        spool.write(segment, 1)
        refused = refusing(range(events), status(400))
        spool.drain(refused, batch_events_max=1, failures=0)
    assert [each.windows for each in spool.announced()] == [4] * events
    return spool


@pytest.mark.parametrize("at", ["first", "begun", "narrowed"])
def test_a_flush_that_is_killed_over_one_event_counts_it_first(
    tmp_path: Path, at: str
) -> None:
    """Whatever ends each flush on that event, all others arrive."""
    spool = Spool(tmp_path / "home", [10, 1])
    if at != "first":
        # As a whole the range was refused; the server was gone before it was cut.
        spool.drain(in_turn(status(503), OK, then=lambda _: DOWN))
    seen: list[Counter[int]] = []

    def during(numbers: list[int]) -> None:
        seen[-1].update(numbers)
        if 3 in numbers:
            raise Killed

    for _ in range(12):
        seen.append(Counter())
        try:
            spool.drain(during=during, failures={"begun": 1}.get(at, 0))
        except Killed:
            continue
    assert spool.left() == (10, 1, 0)


def test_no_event_is_dead_of_a_flush_that_its_user_ended(tmp_path: Path) -> None:
    """The last failure that counts came before the no, the letter would come behind it."""
    spool = spent(tmp_path / "home", 2)
    spool.write(9, 1)
    halts = in_turn(*[None] * 7, OFF, then=refusing([0, 1], status(400)))
    server = spool.drain(halts, failures=1)
    assert server.posted == ["0 400", "1 400", "6 ok", *["0 400"] * 4, "1 off"]
    assert (spool.left()[1:], spool.letters()) == ((2, 0), [])


def test_a_server_that_is_gone_is_asked_once_about_what_was_set_aside(
    tmp_path: Path,
) -> None:
    """There is nothing else to send, and nothing that was sent."""
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([1], status(503)), batch_events_max=1)
    assert spool.drain(lambda _: DOWN).posted == ["1 refused"]
    assert (spool.stopped, spool.verdict) == ("waiting", DOWN)
    assert not spool.drained.says_nothing


def test_what_came_too_soon_is_one_request_with_what_came_since(tmp_path: Path) -> None:
    """One request for each of them would come too soon again."""
    spool = Spool(tmp_path / "home", [1, 1, 1, 1])
    spool.drain(refusing([1, 2], status(429)))
    assert spool.left() == (2, 2, 0)
    assert spool.drain(batch_segments_max=9).posted == ["1-2 ok"]


def test_every_other_flush_begins_elsewhere_after_one_that_was_not_answered(
    tmp_path: Path,
) -> None:
    """More such probes would be requests for nothing, fewer would hold others back."""
    spool = Spool(tmp_path / "home", [10, 1])
    posted = [spool.drain(lambda _: DEADLINE).posted for _ in range(6)]
    first, other = ["0-9 deadline"], ["10 deadline"]
    assert posted == [first, first, other, first, other, first]


def test_a_limit_and_one_failure_that_came_first_are_held_against_no_event(
    tmp_path: Path,
) -> None:
    """Behind a limit every event fails, and so did this one, in each of five flushes."""
    spool = Spool(tmp_path / "home", [1])
    for segment in range(1, 5):
        spool.write(segment, 1)
        spool.drain(refusing([0], status(403)), batch_events_max=1, failures=0)
    assert [each.windows for each in spool.announced()] == [4]
    spool.write(9, 1)
    limited = in_turn(status(500), OK, then=lambda _: status(403))
    assert spool.drain(limited, failures=1).posted[:3] == ["0 500", "5 ok", "0 403"]
    assert spool.left() == (5, 1, 0)


@pytest.mark.parametrize(
    "busy",
    [status(503), status(429), Verdict(Action.WAIT, "reset", narrow=True)],
    ids=lambda verdict: verdict.reason,
)
def test_a_limit_of_one_request_a_flush_breaks_up_nothing(
    busy: Verdict, tmp_path: Path
) -> None:
    """It was taken for batches at fault, and single events came together no more."""
    spool = Spool(tmp_path / "home", [200])
    for flush in range(1, 31):
        spool.write(flush, 5)
        answers = in_turn(OK, then=lambda _: busy)
        spool.drain(answers, batch_events_max=50, batch_segments_max=64)
    # Four batches of new events wait for their turn, each as it was posted first.
    assert [known.count for known in spool.announced()] == [5] * 4
    assert spool.left() == (330, 20, 0)


def test_a_try_that_time_ended_stays_counted_behind_answers_of_one_kind(
    tmp_path: Path,
) -> None:
    """The range is cut the next time, or it could end each flush."""
    spool = Spool(tmp_path / "home", [10, 10, 10, 10])
    spool.drain(in_turn(OK, status(503), OK, status(503), then=lambda _: DEADLINE))
    assert [known.tries for known in spool.announced()] == [0, 1]


def test_what_was_set_aside_is_not_taken_for_what_was_never_answered(
    tmp_path: Path,
) -> None:
    """No probe goes to a server that is down: it sees four requests of a flush."""
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([1], status(503)), batch_events_max=1)
    spool.write(1, 1)
    requests = [spool.drain(lambda _: DOWN).requests for _ in range(6)]
    assert requests == [4] * 6
    (known,) = [each for each in spool.announced() if each.reason]
    assert known.tries == 2


def test_ranges_that_were_not_answered_are_tried_once_more_each(tmp_path: Path) -> None:
    """They failed as batches of their own, and each has one more try before it is cut."""
    spool = Spool(tmp_path / "home", [30, 1])
    answers = {10: DEADLINE, 20: DEADLINE}
    spool.drain(lambda numbers: answers.get(numbers[0], OK))
    spool.drain(lambda _: DOWN)
    spool.write(2, 1)
    server = spool.drain(refusing([13, 23], status(503)), failures=0)
    once = [server.posted.count(f"{each} 503") for each in ("10-19", "20-29")]
    assert once == [1, 1]


def test_a_server_that_breaks_down_behind_a_probe_is_compared_as_any(
    tmp_path: Path,
) -> None:
    """That it accepted the probe is no answer to what it says since."""
    spool = Spool(tmp_path / "home", [40, 1])
    for _ in range(2):
        spool.drain(lambda _: DEADLINE)
    server = spool.drain(in_turn(OK, then=lambda _: status(503)))
    batches = ["10-19 503", "20-29 503", "30-39 503"]
    assert server.posted == ["40 ok", *batches, "4 503"]


def test_a_range_that_was_not_tried_since_is_posted_as_it_was(tmp_path: Path) -> None:
    """The same bytes under the same key; refused as a whole, it is cut at once."""
    for verdict, counts in ((status(503), [10]), (status(413), [5, 5])):
        spool = Spool(tmp_path / verdict.reason, [25, 3])
        spool.drain(refusing(range(10), status(503)))
        assert [(each.count, each.tries) for each in spool.announced()] == [(10, 0)]
        server = spool.drain(in_turn(verdict, then=lambda _: status(503, asked_s=9)))
        assert server.posted[0] == f"0-9 {verdict.reason}"
        assert [each.count for each in spool.announced()] == counts


@pytest.mark.parametrize("failed", [range(3, 4), range(10)])
@pytest.mark.parametrize("halt", [OFF, DEADLINE, CUT_SHORT, UNHEARD], ids=str)
def test_only_an_event_that_had_its_time_alone_is_counted_as_not_answered(
    tmp_path: Path, failed: range, halt: Halted
) -> None:
    """What is not answered twice may die of it."""
    spool = Spool(tmp_path / "home", [25, 3])
    spool.drain(refusing(failed, status(503)))
    spool.drain(lambda _: halt)
    (known,) = spool.announced()
    assert known.count == len(failed)
    counts = len(failed) == 1 and halt.verdict is not None
    assert known.unanswered == counts


@pytest.mark.parametrize("failures", [None, 3])
def test_two_events_of_which_one_is_not_answered_are_cut(
    tmp_path: Path, failures: int | None
) -> None:
    """Tried once since they were set aside, they are two requests from then on."""
    spool = Spool(tmp_path / "home", [2])
    for flush in range(5):
        spool.drain(refusing([1], UNHEARD), failures=failures)
        assert spool.drained.says_nothing == (flush > 0)
    assert spool.left() == (1, 1, 0)


def test_what_failed_and_was_accepted_as_it_was_speaks_for_all_that_fail_so(
    tmp_path: Path,
) -> None:
    """The reason is the server's: it is held against no event in that flush."""
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([1], status(503)), batch_events_max=1)
    spool.write(1, 1)
    server = spool.drain(
        in_turn(status(503), OK, then=refusing([1], status(503))), failures=0
    )
    assert server.posted == ["3 503", "3 ok", *["1 503"] * 5]
    assert [each.windows for each in spool.announced()] == [1]
    # One that an earlier flush set aside, and this one posts as it was.
    spool = Spool(tmp_path / "range", [12, 1])
    spool.drain(in_turn(status(400), OK, DEADLINE, DEADLINE), batch_events_max=4)
    assert [each.reason for each in spool.announced()] == ["400", "", ""]
    server = spool.drain(refusing([11], status(400)), batch_events_max=4)
    begun = ["4-7 ok", "8-11 400", "0-3 ok", "8-9 ok"]
    assert server.posted == [*begun, *["10-11 400"] * 5, "10 ok", *["11 400"] * 5]
    assert [each.windows for each in spool.announced()] == [0]


def test_a_refusal_of_what_was_set_aside_alone_pauses_nothing(tmp_path: Path) -> None:
    """The server took others beside it; what comes next may not wait for six hours."""
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([1], status(503)), batch_events_max=1)
    spool.drain(lambda _: status(403))
    assert (spool.stopped, spool.verdict) == ("waiting", status(403))


def test_an_event_that_came_beside_a_refused_one_begins_at_nothing(
    tmp_path: Path,
) -> None:
    """The first is known to be refused alone; the other may be good."""
    spool = Spool(tmp_path / "home", [1])
    for segment in (1, 2):
        spool.drain(lambda _: status(400))
        (known, *others) = spool.announced()
        assert (known.reason, known.refusals) == ("400", 1)
        assert not any(each.reason or each.refusals for each in others)
        spool.write(segment, 1)


def test_what_stands_behind_a_range_that_failed_is_not_held_to_have_failed(
    tmp_path: Path,
) -> None:
    """It is posted whole: good, it is one request."""
    spool = Spool(tmp_path / "home", [20])
    server = spool.drain(refusing([12], status(400)))
    assert server.posted[:4] == ["0-9 ok", "10-19 400", "10-14 400", "10-11 ok"]
    assert "15-19 ok" in server.posted


def test_new_ranges_go_before_events_that_failed_alone(tmp_path: Path) -> None:
    """Where nothing was accepted yet before all of them, else before all but eight."""
    spool = Spool(tmp_path / "home", [10])
    spool.drain(refusing(range(10), status(400)), batch_events_max=1)
    spool.write(0, 1)
    spool.drain(refusing(range(10), status(400)), batch_events_max=1)
    spool.write(1, 10)
    spool.write(2, 1)
    spool.turn = 0
    server = spool.drain(refusing([*range(10), 16], status(400)), failures=0)
    assert server.posted[:2] == ["11-20 400", "21 ok"]
    assert server.posted[2:10] == [f"{each} 400" for each in range(8)]
    assert server.posted[10] == "16-20 400"
    assert server.posted[11:15] == ["16-17 400", "17 ok", "8 400", "9 400"]


def test_refused_events_die_together_where_others_are_accepted_behind_them(
    tmp_path: Path,
) -> None:
    """Two a flush were not enough where a program records three such events a launch."""
    spool = spent(tmp_path / "home", 4)
    spool.write(9, 10)
    server = spool.drain(refusing([*range(4), 10], status(400)), failures=0)
    assert spool.left()[2] == 4
    first = server.posted.index("0 400")
    assert server.posted[first : first + 4] == ["0 400"] * 4
    assert any(each.endswith("ok") for each in server.posted[first + 16 :])


def test_a_server_that_takes_a_few_requests_of_a_flush_kills_no_event(
    tmp_path: Path,
) -> None:
    """It refuses all that follow: nothing is accepted behind them."""
    spool = spent(tmp_path / "home", 4)
    for number in range(9, 15):
        spool.write(number, 10)
        taken = itertools.count()
        spool.drain(
            lambda _, taken=taken: OK if next(taken) < 2 else status(400), failures=0
        )
        assert spool.left()[2] == 0


def test_of_events_that_may_not_die_now_one_is_posted_and_the_last(
    tmp_path: Path,
) -> None:
    """Their failure cannot count, so more requests would tell nothing."""
    spool = spent(tmp_path / "home", 4)
    spool.write(9, 1)
    server = spool.drain(refusing(range(4), status(400)), failures=1)
    judged = [*["0 400"] * 4, *["1 400"] * 4]
    assert server.posted == ["0 400", "1 400", "8 ok", *judged, "2 400"]
    assert spool.left()[1:] == (2, 2)


def test_an_event_that_may_not_die_now_is_posted_behind_others_that_fail(
    tmp_path: Path,
) -> None:
    """The server may take it by now."""
    spool = spent(tmp_path / "home", 1)
    spool.write(8, 1)
    bad = spool.count - 1
    spool.write(9, 1)
    spool.drain(refusing([0, bad], status(400)), failures=0)
    spool.write(10, 1)
    server = spool.drain(refusing([bad], status(400)), failures=0)
    assert 0 in server.received


def test_what_a_probe_leaves_of_new_events_goes_out_in_the_same_flush(
    tmp_path: Path,
) -> None:
    """They came while what was set aside was narrowed."""
    spool = Spool(tmp_path / "home", [1, 2])

    requests = itertools.count(1)

    def during(_: list[int]) -> None:
        if next(requests) == 3:
            spool.write(1, 2)

    spool.drain(refusing([2], status(429, asked_s=60)), during=during)
    assert spool.left() == (4, 1, 0)


def test_a_set_aside_event_that_is_damaged_costs_itself(tmp_path: Path) -> None:
    """The flush that finds it so ends as any."""
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([1], status(400)), batch_events_max=1)
    path = Path(spool.home.segment(spool.name(0)))
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))
    spool.drain(failures=0)
    assert (spool.stopped, spool.verdict, spool.left()) == ("", None, (2, 0, 0))


def test_damage_in_the_first_part_of_a_range_is_not_missed_in_the_last(
    tmp_path: Path,
) -> None:
    """No byte of the last part shows where a record went; that ended every flush."""
    spool = Spool(tmp_path / "home", [1, 8])
    spool.drain(in_turn(OK, status(413), then=lambda _: DEADLINE), at_once=1)
    first = spool.announced()[0]
    assert (first.count, first.digest) == (4, "")
    path = Path(spool.home.segment(spool.name(1)))
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":0'))
    spool.drain(batch_events_max=2)
    assert (spool.stopped, spool.left()) == ("", (8, 0, 0))
    assert spool.census().damaged == 1


def test_a_range_that_cannot_be_cut_is_what_a_flush_tells_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` says why it waits, and not why another one did before."""
    monkeypatch.setattr(search, "SINGLES_MAX", 1)
    spool = Spool(tmp_path / "home", [3])
    spool.drain(refusing([0], status(400)), batch_events_max=1)
    spool.write(0, 2)
    spool.write(1, 1)
    answers = refusing([3, 4], status(413))
    server = spool.drain(
        lambda each: status(400) if 0 in each else answers(each), failures=1
    )
    assert server.posted == ["0 400", "3-4 413", "3 413", "5 ok", "0 400"]
    assert spool.verdict == status(413)


def test_a_segment_whose_letters_cannot_be_stored_is_not_probed(
    tmp_path: Path,
) -> None:
    """What it holds was accepted once already in this flush."""
    spool = Spool(tmp_path / "home", [2, 1, 1, 1])
    Path(spool.home.dead).touch()
    server = spool.drain(in_turn(naming(0), then=refusing([2, 3, 4], status(503))))
    assert server.posted == ["0-1 ok", "2 503", "3 503", "4 503", "4 503"]


def test_a_segment_that_grows_while_it_is_drained_is_not_read_from_its_beginning(
    tmp_path: Path,
) -> None:
    """It is deleted by whoever has read it to its end, and sent once."""
    spool = Spool(tmp_path / "home", [10, 10, 10])

    def during(numbers: list[int]) -> None:
        if numbers[0] == 20 and spool.count == 30:
            spool.write(1, 3)

    server = spool.drain(refusing([20], status(400)), during=during)
    assert sorted(server.received) == [n for n in range(33) if n != 20]


def test_the_rest_of_a_full_segment_waits_while_what_was_set_aside_is_narrowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event of it that is refused would be one range more."""
    monkeypatch.setattr(search, "SINGLES_MAX", 2)
    monkeypatch.setattr(search, "PARTS_MAX", 4)
    spool = Spool(tmp_path / "home", [12])
    busy = status(400, asked_s=60)
    spool.drain(refusing([1, 2, 3, 5], busy), batch_events_max=1)
    spool.write(2, 3)
    server = spool.drain(refusing([1, 2, 3, 5, 9, 10], busy), batch_events_max=1)
    assert 11 in server.received  # a probe
    assert [each.count for each in spool.announced() if each.reason] == [1] * 4


@pytest.mark.parametrize("way", ["a probe", "what was set aside"])
def test_what_was_drawn_before_an_acceptance_is_no_answer_behind_it(
    tmp_path: Path, way: str
) -> None:
    """Three events that a server never takes would hold back all behind them."""
    spool = Spool(tmp_path / "home", [2])
    if way == "a probe":
        for _ in range(2):
            spool.drain(lambda _: DEADLINE)
    else:
        spool.drain(refusing([0], status(503)), batch_events_max=1)
    spool.write(1, 15)
    answers = in_turn(status(503, asked_s=60.0), then=refusing([3, 4, 5], status(503)))
    server = spool.drain(answers, at_once=1, batch_events_max=1)
    assert server.posted[0].endswith("503")
    assert spool.left()[1] == 3


def test_a_flush_that_begins_with_new_events_posts_no_old_one_first(
    tmp_path: Path,
) -> None:
    """Flushes that are killed over what they begin with never came to new events."""
    spool = Spool(tmp_path / "home", [2])
    spool.drain(refusing([0], status(503)), batch_events_max=1)
    spool.write(1, 3)
    old = spool.drain(lambda _: DOWN, failures=1)
    assert old.posted[0] == "0 refused"
    new = spool.drain(refusing([0], status(503)), failures=1, begins_new=True)
    assert new.posted[0] == "2-4 ok"


def test_events_that_failed_in_earlier_flushes_are_no_word_of_the_server(
    tmp_path: Path,
) -> None:
    """One that it may take by now is posted; after five failures in a row none is."""
    spool = Spool(tmp_path / "home", [4, 1])
    spool.drain(refusing(range(4), status(400)), batch_events_max=1)
    spool.write(2, 1)
    down = status(503)
    asked = status(503, asked_s=60)
    answers = in_turn(OK, down, down, down, asked, then=lambda _: down)
    server = spool.drain(answers, batch_events_max=1, failures=0)
    assert server.posted == ["5 ok", *["0 503"] * 2, *["1 503"] * 2, "2 503"]
    assert (spool.stopped, spool.verdict) == ("waiting", down)
    assert [each.windows for each in spool.announced()] == [2, 2, 2, 1]


def test_refusals_in_a_row_end_no_flush_if_one_of_the_next_four_probes_is_accepted(
    tmp_path: Path,
) -> None:
    """The first probe may be a bad event too; good ones wait for no other flush."""
    spool = Spool(tmp_path / "home", [64, 1])
    no = status(400)
    answers = in_turn(no, OK, *[no] * 33, no, OK)
    server = spool.drain(answers, batch_events_max=64)
    assert server.posted[33:38] == ["51 400", "50 400", "24 400", "0 ok", "1-7 ok"]
    # Events that failed alone in it have their turn in the next one.
    assert spool.left() == (51, 14, 0)
    spool.drain()
    assert spool.left() == (65, 0, 0)


def test_what_fails_last_of_what_was_set_aside_asks_for_no_pause(
    tmp_path: Path,
) -> None:
    """The server takes new events before the time that it named for a bad one."""
    spool = Spool(tmp_path / "home", [10, 1])

    def during(numbers: list[int]) -> None:
        if 9 in numbers and len(numbers) < 10:
            raise DEADLINE

    spool.drain(refusing([9], status(503, asked_s=60)), during=during)
    assert (spool.stopped, spool.verdict) == ("deadline", status(503))
    assert spool.drained.says_nothing


def test_a_server_that_breaks_down_over_what_was_set_aside_says_so(
    tmp_path: Path,
) -> None:
    """It would be taken for one that works, and asked again too soon."""
    spool = Spool(tmp_path / "home", [8, 1])
    answers = in_turn(status(503), OK, then=lambda _: status(503))
    spool.drain(answers)
    assert spool.stopped == "waiting"
    assert not spool.drained.says_nothing


def test_a_segment_whose_file_is_put_back_in_a_flush_is_counted_once(
    tmp_path: Path,
) -> None:
    """What was set aside of it is not taken back: `status` would count each event twice."""
    spool = Spool(tmp_path / "home", [18, 8])
    path = Path(spool.home.segment(spool.name(0)))
    requests = itertools.count(1)

    def during(numbers: list[int]) -> None:
        if numbers[0] == 10 and next(requests) == 2:
            path.write_bytes(path.read_bytes().rpartition(b"\x1e")[0])

    spool.drain(in_turn(OK, then=lambda _: status(503)), during=during)
    assert (spool.stopped, spool.left()) == ("waiting", (10, 25, 0))
    spool.drain()
    assert spool.left() == (35, 0, 0)


def test_a_file_that_changes_while_it_is_sent_waits_for_the_next_flush(
    tmp_path: Path,
) -> None:
    """What was under way was settled in an entry that was gone: an error ended the flush."""
    spool = Spool(tmp_path / "home", [2])
    path = Path(spool.home.segment(spool.name(0)))

    def during(_: list[int]) -> None:
        path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))

    spool.drain(in_turn(status(503)), during=during)
    assert spool.drained.is_blocked
    assert spool.left() == (2, 1, 0), "it is another file now, with one record"
    spool.drain()
    assert spool.census().damaged == 1
    assert spool.left() == (3, 0, 0)


def test_a_range_that_a_probe_had_cut_is_announced_again_as_it_is_posted(
    tmp_path: Path,
) -> None:
    """Killed behind it, the next flush sent the same events under other keys."""
    spool = Spool(tmp_path / "home", [1, 1, 10])
    spool.drain(in_turn(OK, then=lambda _: DEADLINE))
    assert [each.count for each in spool.announced() if each.digest] == [1, 10]
    spool.write(1, 1)  # so this segment is not finished in between, with a commit
    # The server asserts of each request that it is in the ledger.
    server = spool.drain(in_turn(status(503), DOWN), batch_segments_max=4)
    assert server.posted == ["1 503", "11 refused", "1 ok", "2-11 ok", "12 ok"]


def test_events_that_failed_last_are_not_blamed_for_a_server_that_fails_for_all(
    tmp_path: Path,
) -> None:
    """Good events would come closer to a dead letter with each flush of that kind."""
    spool = Spool(tmp_path / "home", [3, 1])
    answers = in_turn(status(503), OK, then=lambda _: status(503))
    spool.drain(answers, batch_events_max=1)
    assert [each.windows for each in spool.announced()] == [0, 0, 0]


def test_an_event_that_is_damaged_before_it_is_buried_ends_no_flush(
    tmp_path: Path,
) -> None:
    """There is no letter of what cannot be read; it counts as damaged."""
    spool = spent(tmp_path / "home", 2)
    spool.write(9, 1)
    path = Path(spool.home.segment(spool.name(0)))
    requests = itertools.count(1)

    def during(numbers: list[int]) -> None:
        if numbers == [0] and next(requests) == 5:
            path.write_bytes(path.read_bytes().replace(b'"n":0', b'"n":9'))

    spool.drain(refusing([0, 1], status(400)), during=during, failures=1)
    assert spool.census().damaged == 1
    assert [letter.reason for letter in spool.letters()] == ["400"]
    assert spool.left() == (5, 0, 1)


def test_where_a_server_breaks_on_half_of_all_events_the_others_arrive(
    tmp_path: Path,
) -> None:
    """The first event of each launch, and three of ten others, draw a 500 for ever.

    Flushes spent their four requests on events that were known to fail, and a flush ended
    once four of those had failed in a row: 43 good ones waited after 40 launches.
    """
    waited, most = 0, 0
    for seed in 0, 3, 7:
        chance = random.Random(seed)
        spool = Spool(tmp_path / str(seed), [3])
        spool.drain()
        bad: set[int] = set()
        for launch in range(40):
            first = spool.count
            spool.write(10 + launch, 4)
            more = range(first + 1, spool.count)
            bad |= {first, *(each for each in more if chance.random() < 0.3)}
            spool.drain(
                refusing(bad, status(500)),
                batch_events_max=500,
                batch_segments_max=64,
                accepted_before=True,
            )
            left = spool.count - len(bad) - spool.left()[0]
            waited, most = waited + left, max(most, left)
    assert (waited < 700, most < 20) == (True, True), (waited, most)


TIMEOUT = Verdict(Action.WAIT, "timeout", narrow=True)


def test_a_link_on_which_half_a_batch_takes_its_time_is_sent_smaller_ones(
    tmp_path: Path,
) -> None:
    """Each flush spent its time on whole batches, and what waited grew with each launch."""
    spool = Spool(tmp_path / "home", [])
    waiting = []
    for flush in range(20):
        spool.write(flush, 50)
        left_s = [40.0]

        def answers(
            numbers: list[int], left_s: list[float] = left_s
        ) -> Verdict | Halted:
            """A request has ten seconds, which is enough for 24 events."""
            left_s[0] -= min(len(numbers) / 2.4, 10)
            if left_s[0] < 0:
                return DEADLINE
            return OK if len(numbers) <= 24 else TIMEOUT

        spool.drain(answers, batch_events_max=500, batch_segments_max=32)
        waiting.append(spool.pending)
    assert max(waiting) <= 100
    assert spool.left()[2] == 0


def test_an_event_that_has_no_answer_makes_batches_smaller_for_some_flushes_alone(
    tmp_path: Path,
) -> None:
    """What came with it shows, once it has arrived, that size is no question."""
    spool = Spool(tmp_path / "home", [])
    sizes = []
    for flush in range(12):
        spool.write(flush, 60)
        sent: list[int] = []
        hangs = refusing([7], TIMEOUT)
        spool.drain(
            hangs,
            during=lambda numbers, sent=sent: sent.append(len(numbers)),
            batch_events_max=60,
        )
        sizes.append(max(sent))
    assert sizes[-3:] == [60, 60, 60]
    assert spool.left() == (719, 0, 1)
