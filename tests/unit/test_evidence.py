"""What the answers of one flush say about the server, and about each range."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from telemetry.books.entries import Announced
from telemetry.delivery.evidence import Evidence, bound, whole
from telemetry.delivery.search import WINDOWS_MAX
from telemetry.wire.verdict import Action, Verdict
from tests.support.draining import DOWN, status


EVENT = Announced(start=10, end=20, count=1)
RANGE = Announced(start=30, end=90, count=6)
GOOD = Announced(start=100, end=110, count=1)
SPENT = replace(EVENT, windows=WINDOWS_MAX - 1)


def evidence(*, failures: int = 0) -> Evidence:
    return Evidence(failures=failures, aside=[])


def test_an_event_dies_if_the_flush_began_with_it_and_it_failed_again_beside_others() -> (
    None
):
    """Five flushes, the last of which shows it; else the fifth does not count."""
    found, known = evidence(), replace(SPENT, begun=1)
    found.begin("a", known, status(503))
    found.set_aside("a", known, [("a", known)], status(503))
    found.accept([("a", GOOD)])
    assert found.charge("a", known) == (replace(known, begun=2), False)
    found.fail_again("a", known, status(503))
    dead = replace(known, windows=WINDOWS_MAX, begun=2)
    assert found.charge("a", known) == (dead, True)
    assert found.charge("a", EVENT) == (replace(EVENT, windows=1, begun=1), False)
    pair = replace(EVENT, count=2)
    assert found.charge("a", pair) == (pair, False)


def test_one_flush_that_began_with_an_event_is_enough_for_a_refusal_alone() -> None:
    """A server that works reads what it refuses; one with a limit fails all that follows."""
    for number, is_dead in ((400, True), (403, False), (500, False)):
        found = evidence()
        found.begin("a", SPENT, status(number))
        found.set_aside("a", SPENT, [("a", SPENT)], status(number))
        found.accept([("a", GOOD)])
        assert found.is_tried_again("a", SPENT, status(number))
        found.fail_again("a", SPENT, status(number))
        assert found.charge("a", SPENT)[1] is is_dead
        found.set_aside("a", SPENT, [("a", SPENT)], status(number))
        # Where it cannot die in this flush, it is not tried as if it could.
        assert found.is_tried_again("a", SPENT, status(number)) is is_dead


def test_a_failure_counts_for_no_event_if_its_reason_came_and_went() -> None:
    """Nor for one that failed in a batch, or that was acquitted."""
    found = evidence()
    for known, verdict in ((EVENT, status(503)), (GOOD, status(400))):
        found.set_aside("a", known, [("a", known)], verdict)
    assert found.charge("a", EVENT)[0].windows == 1
    found.flap("503")
    assert found.charge("a", EVENT) == (EVENT, False)
    assert found.charge("a", GOOD)[0].windows == 1
    found.acquit(("a", GOOD.start))
    assert found.charge("a", GOOD) == (GOOD, False)
    assert found.charge("a", RANGE) == (RANGE, False)


def test_no_event_dies_of_a_limit_of_requests() -> None:
    """A limiter that has a token for others and none for this one, flush after flush."""
    found, known = evidence(), replace(SPENT, begun=1)
    found.begin("a", known, status(429))
    found.set_aside("a", known, [("a", known)], status(429))
    found.accept([("a", GOOD)])
    found.fail_again("a", known, status(429))
    assert found.charge("a", known) == (known, False)


def test_only_what_failed_since_the_last_acceptance_is_acquitted() -> None:
    """The server may take nothing any more; it did before."""
    found = evidence()
    found.set_aside("a", EVENT, [("a", EVENT)], status(400))
    found.accept([("a", RANGE)])
    found.set_aside("a", GOOD, [("a", GOOD)], status(400))
    found.acquit_suspects()
    assert list(found.alone) == [("a", EVENT.start)]


def test_a_range_is_tried_again_as_often_as_its_failure_may_be_the_servers() -> None:
    """Once where it waited, four times where it would die or the server flaps."""

    def tries(
        known: Announced,
        reason: int,
        *,
        begins: bool,
        flaps: str = "",
        others: bool = False,
    ) -> int:
        found = evidence()
        if others:
            found.has_others = True
        found.flap(flaps)
        verdict = status(reason)
        if begins:
            found.begin("a", known, verdict)
        count = 0
        while True:
            found.set_aside("a", known, [("a", known)], verdict)
            if not found.is_tried_again("a", known, verdict):
                return count
            count += 1

    assert tries(EVENT, 400, begins=False) == 0
    assert tries(EVENT, 503, begins=False) == 1
    assert tries(EVENT, 400, begins=True) == 1
    assert tries(RANGE, 400, begins=True) == 0  # cut instead
    assert tries(SPENT, 400, begins=False) == 0
    assert tries(SPENT, 400, begins=True) == 4
    assert tries(EVENT, 400, begins=False, flaps="400") == 4
    assert tries(SPENT, 400, begins=False, others=True) == 3
    assert tries(SPENT, 503, begins=False, others=True) == 1
    assert tries(SPENT, 400, begins=True, others=True) == 4


def test_a_refusal_between_two_acceptances_shows_that_the_event_is_at_fault() -> None:
    """The server took others all along. What only waits may be a server that fails."""
    for number, tries, is_proved in ((400, 4, True), (400, 3, False), (503, 4, False)):
        found = evidence()
        found.accept([("a", GOOD)])
        for _ in range(tries):
            found.set_aside("a", SPENT, [("a", SPENT)], status(number))
        assert not found.charge("a", SPENT)[1]
        found.accept([("a", RANGE)])
        assert found.charge("a", SPENT)[1] is is_proved


def test_an_acceptance_between_four_refusals_begins_them_anew() -> None:
    """Four servers that take turns may each have had another event."""
    found = evidence()
    found.accept([("a", GOOD)])
    for tries, is_proved in ((1, False), (3, False), (4, True)):
        for _ in range(tries):
            found.set_aside("a", SPENT, [("a", SPENT)], status(400))
        found.accept([("a", RANGE)])
        assert found.charge("a", SPENT)[1] is is_proved


def test_more_refused_events_than_unanswered_ones_are_tried_first() -> None:
    """Each is one request that fails, of which a server bears more that it answers."""
    for number, most in ((400, 8), (503, 4)):
        found = evidence()
        assert not found.bears_singles()
        found.accept([("a", GOOD)])
        for start in range(most):
            assert found.bears_singles()
            event = replace(EVENT, start=start)
            found.set_aside("a", event, [("a", event)], status(number))
            found.fail_again("a", event, status(number))
        assert not found.bears_singles()
        # Once one more is accepted, as many more that are refused.
        found.accept([("a", RANGE)])
        assert found.bears_singles() is (number == 400)


def test_a_server_that_asked_for_time_is_asked_once_more() -> None:
    """The longest time that it asked for is what it is held to."""
    found = evidence()
    found.row.append(status(503, asked_s=600))
    assert not found.has_asked_for_time()
    found.row.append(status(429, asked_s=60))
    assert found.has_asked_for_time()
    found.row.append(status(400))
    assert found.most_telling() == status(429, asked_s=600)
    found.accept([("a", GOOD)])
    assert not found.has_asked_for_time()
    assert not found.row


@pytest.mark.parametrize("accepts", [False, True])
def test_probes_are_bounded_by_what_the_server_bears(accepts: bool) -> None:
    """None where no connection came about: that says nothing of the batch."""
    found = evidence()
    if accepts:
        found.accept([("a", GOOD)])
    found.row += [status(503)] * 3

    def left(asked_s: float | None = None, number: int = 503) -> int:
        verdict = status(number, asked_s=asked_s)
        return found.probes_left(verdict, has_compared=False)

    assert found.probes_left(DOWN, has_compared=False) == 0
    assert left() == found.tries_left() == 1
    assert left(number=400) == (3 if accepts else 1)
    assert left(60) == (1 if accepts else 0)


def test_a_server_that_refuses_is_asked_about_more_than_one_that_fails() -> None:
    """It works, and the next event may be another kind. Not where it names a time."""
    found = evidence()
    for left in range(8, 0, -1):
        assert found.tries_left() == left
        found.row.append(status(400))
    assert found.tries_left() == 0
    found.row[2:] = [status(503)]
    assert found.tries_left() == 1
    found.row[2:] = [status(403)] * 4
    assert found.tries_left() == 0


def test_an_event_whose_refusal_is_counted_apart_is_charged_with_nothing_more() -> None:
    """It may be posted once more in the flush, beside others that are accepted."""
    found = evidence()
    for _ in range(2):
        found.set_aside("a", EVENT, [("a", EVENT)], status(400))
        found.count_apart(("a", EVENT.start))
        assert found.drew("a", EVENT) is None
    found.accept([("a", GOOD)])
    found.set_aside("a", EVENT, [("a", EVENT)], status(400))
    assert found.charge("a", EVENT) == (EVENT, False)


def test_a_time_that_is_asked_for_new_events_holds_until_one_is_accepted() -> None:
    """What was set aside before may be what it means."""
    found = evidence()
    aside = replace(RANGE, reason="503")
    found.fail(aside, status(503, asked_s=60))
    found.fail(RANGE, status(503))
    assert found.asked_s == 0
    found.fail(RANGE, status(503, asked_s=60))
    found.fail(RANGE, status(429, asked_s=30))
    found.fail(RANGE, status(429))
    assert (found.asked_s, len(found.row)) == (60, 5)
    found.accept([("a", GOOD)])
    assert (found.asked_s, found.row) == (0, [])


def test_a_time_that_was_asked_for_three_times_is_doubted_once() -> None:
    """Where nothing else can be compared with the batch."""
    found = evidence(failures=2)
    busy = status(503, asked_s=60)
    found.row.append(busy)
    assert found.probes_left(busy, has_compared=False) == 1
    assert found.probes_left(busy, has_compared=True) == 0


def test_who_is_at_fault_is_asked_at_once_until_something_is_accepted() -> None:
    """After that the next batches tell: of waits three, of refusals 31."""
    found = evidence()
    found.row.append(status(400))
    assert found.may_be_the_server(status(400))
    found.accept([("a", GOOD)])
    for verdict in (status(503), status(400)):
        found.row = [verdict] * (bound(verdict) - 2)
        assert not found.may_be_the_server(verdict)
        found.row.append(verdict)
        assert found.may_be_the_server(verdict)


def test_what_an_event_drew_in_a_batch_is_not_its_own() -> None:
    """Of a range it is known for each of its parts."""
    found = evidence()
    parts = [replace(RANGE, end=40, count=1), replace(RANGE, start=40, count=5)]
    found.set_aside("a", RANGE, [("a", each) for each in parts], status(400))
    assert found.drew("a", parts[0]) is None
    assert found.drew("a", parts[1]) == status(400)
    assert found.drew("b", parts[1]) is None
    assert found.drew("a", GOOD) is found.drew("a", EVENT) is None


def test_single_events_of_several_segments_did_not_fail_alone() -> None:
    """They were one batch, which is cut first."""
    found = evidence()
    places = [("a", EVENT), ("b", EVENT), ("c", GOOD)]
    name, known = whole(places)
    assert (name, known) == ("a", replace(EVENT, count=3))
    found.set_aside(name, known, places, status(400))
    assert found.drew(name, known) == status(400)
    for name, event in places:
        assert found.drew(name, event) is None
        assert found.charge(name, event) == (event, False)
    found.accept(places)
    assert found.was_accepted("a", known)
    assert not found.was_accepted("a", EVENT)
    assert {("b", EVENT.start), ("c", GOOD.end)} <= found.good


def test_a_range_that_the_flush_began_with_is_cut_next() -> None:
    """One failure is enough; an event cannot be cut, nor a part of it be meant."""
    found = evidence()
    pair = replace(RANGE, count=2)
    for known in (EVENT, pair):
        found.begin("a", known, status(400))
    assert found.is_cut_next("a", pair)
    assert not found.is_cut_next("a", EVENT)
    assert not found.is_cut_next("a", RANGE)
    assert not found.is_cut_next("b", pair)


def test_others_are_compared_once_enough_failed_in_a_row() -> None:
    """More than four waits, or 32 refusals; or time was asked for a second time."""
    for verdict in (status(503), status(400)):
        found = evidence()
        found.row = [verdict] * bound(verdict)
        assert found.is_compared("a", RANGE, verdict) is False
        found.row.append(verdict)
        assert found.is_compared("a", RANGE, verdict) is True
    assert [bound(status(each)) for each in (503, 403, 400)] == [4, 16, 32]
    found, busy = evidence(), status(503, asked_s=60)
    for is_second in (False, True):
        found.set_aside("a", RANGE, [("a", RANGE)], busy)
        assert found.is_compared("a", RANGE, busy) is is_second
        assert found.is_compared("a", RANGE, status(503)) is False


def test_what_is_refused_for_the_first_time_is_held_against_none() -> None:
    """Also what came and went; a range that was not answered has been no answer."""

    def is_doubtful(*reasons: str, flaps: str = "") -> bool:
        aside = [replace(RANGE, reason=reason) for reason in reasons]
        found = Evidence(failures=0, aside=aside)
        found.flap(flaps)
        return found.is_doubtful(status(400))

    assert is_doubtful() is is_doubtful("", "slow") is True
    assert is_doubtful("400") is is_doubtful("slow", "400") is False
    assert is_doubtful("400", flaps="400") is True
    assert is_doubtful("400", flaps="503") is False


def test_an_event_without_an_answer_is_at_fault_the_second_time() -> None:
    """An earlier flush that began with it drew none, or this one and another a failure."""
    for unanswered, begun, begins, is_dead in (
        (0, 2, False, False),
        (1, 0, False, True),
        (0, 0, True, False),
        (0, 1, True, True),
    ):
        known = replace(SPENT, unanswered=unanswered, begun=begun)
        found = evidence()
        if begins:
            found.begin("a", known, status(503))
        found.set_aside("a", known, [("a", known)], status(503))
        found.leave_unanswered("a", known)
        assert found.charge("a", known)[1] is is_dead


def test_only_an_event_that_the_flush_began_with_dies_of_one_more_failure() -> None:
    """Not a range, and not one that came later; a refusal without a fault is no sign."""
    often = replace(SPENT, begun=5)
    for known, begins in ((often, False), (replace(often, count=2), True)):
        found = evidence()
        if begins:
            found.begin("a", known, status(503))
        found.set_aside("a", SPENT, [("a", SPENT)], status(503))
        found.fail_again("a", known, status(503))
        assert found.charge("a", SPENT)[0].windows == SPENT.windows
        assert found.charge("a", SPENT)[1] is False
    found = evidence()
    found.begin("a", SPENT, DOWN)  # no connection: nothing is known of the event
    assert not found.began
    assert found.row == [DOWN]


def test_refusals_where_nothing_else_waited_count_as_flushes() -> None:
    """Five of both kinds together, of which this is one."""
    refused = replace(EVENT, windows=2, refusals=2)
    found = evidence()
    found.begin("a", refused, status(400))
    found.set_aside("a", refused, [("a", refused)], status(400))
    found.fail_again("a", refused, status(400))
    assert found.charge("a", refused) == (replace(refused, windows=3, begun=1), True)


def test_each_failure_is_one_of_the_row() -> None:
    """After four of them the server sees no more of the flush."""
    found = evidence()
    found.begin("a", EVENT, status(503))
    found.fail_again("a", EVENT, status(503))
    assert (len(found.row), found.tries_left()) == (2, 2)
    found.row += [status(503)] * 3
    assert found.tries_left() == 0
    assert found.most_telling().retry_after_s is None


def test_an_acceptance_begins_the_count_of_refusals_anew_and_no_other() -> None:
    """What waits, or what the flush began with, is tried as often as before it."""
    for number, begins, is_anew in (
        (400, False, True),
        (503, False, False),
        (400, True, False),
    ):
        found = evidence()
        if begins:
            found.begin("a", EVENT, status(number))
        for _ in range(2):
            found.set_aside("a", EVENT, [("a", EVENT)], status(number))
        assert not found.is_tried_again("a", EVENT, status(503))
        found.accept([("a", GOOD)])
        assert found.is_tried_again("a", EVENT, status(503)) is is_anew


def test_one_range_is_itself_and_pairs_are_cut_next() -> None:
    """A batch of one range is not copied; where two events began, their failure counts."""
    assert whole([("a", RANGE)])[1] is RANGE
    assert whole([("a", EVENT), ("b", EVENT)])[1].count == 2
    found = evidence()
    pair = replace(RANGE, count=2)
    for known, again in ((EVENT, True), (pair, False)):
        found.begin("a", known, status(503))
        found.set_aside("a", known, [("a", known)], status(503))
        assert found.is_tried_again("a", known, status(503)) is again
    never = replace(RANGE, count=0)
    assert not found.is_cut_next("b", never)


def test_what_was_acquitted_is_not_taken_up_by_the_next_acceptance() -> None:
    """An event that was the only one left, or moved: nothing of it is kept."""
    found = evidence()
    found.set_aside("a", SPENT, [("a", SPENT)], status(400))
    found.acquit(("a", SPENT.start))
    found.accept([("a", GOOD)])
    assert not found.alone


@pytest.mark.parametrize(
    ("verdict", "is_news"),
    [
        (status(500), False),
        (Verdict(Action.WAIT, "reset", narrow=True), False),
        (status(503), True),
        (status(429), True),
        (status(504), True),
        (status(500, asked_s=60), True),
        (Verdict(Action.WAIT, "timeout", narrow=True), True),
        (status(400), True),
    ],
    ids=lambda each: each.reason if isinstance(each, Verdict) else "",
)
def test_what_failed_alone_before_is_no_news_of_the_server(
    verdict: Verdict, is_news: bool
) -> None:
    """Four events of a kind that a server breaks on ended each flush that met them."""
    found = evidence()
    known = replace(EVENT, windows=1, reason=verdict.reason)
    for _ in range(2):
        found.fail_again("a", known, verdict)
    assert len(found.row) == (2 if is_news else 0)
    # By something else it is news, and so is an event that is new, or a range.
    found = evidence()
    others = replace(known, reason="502"), EVENT, replace(known, count=2)
    for start, fresh in enumerate(others):
        found.fail_again("b", replace(fresh, start=start), verdict)
    assert len(found.row) == 3
    found = evidence()
    for turn in range(3):  # counted from the beginning, and from each acceptance on
        if turn:
            found.accept([("a", GOOD)])
        for start in range(11):
            found.fail_again("a", replace(known, start=start), verdict)
        assert len(found.row) == (11 if is_news else 3)


def test_a_flush_that_began_with_a_range_did_not_begin_with_its_first_event() -> None:
    """The range was cut since; what it drew as a whole is not the event's."""
    found = evidence()
    found.begin("a", replace(EVENT, count=2), status(503))
    found.set_aside("a", EVENT, [("a", EVENT)], status(503))
    found.accept([("a", GOOD)])
    assert found.charge("a", EVENT) == (replace(EVENT, windows=1), False)
