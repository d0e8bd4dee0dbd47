"""When the next flush may begin: for each destination, across launches and crashes."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import time
from pathlib import Path

import pytest

from telemetry.config import Config
from telemetry.delivery import schedule
from telemetry.delivery.schedule import HORIZON_S, STARTS_MAX, WINDOW_S, Schedule
from telemetry.files import try_lock
from telemetry.paths import Home


NOW = 1_900_000_000.0
HOUR_S = 3600.0
OURS, OTHER = "0a1b2c3d", "ffffffff"


def waiting(
    destination: str = OURS, *, until: float = NOW + HOUR_S, failures: int = 1
) -> Schedule:
    """A schedule after a flush that ended now and waits until then."""
    plan = Schedule()
    plan.end(destination, NOW, failures=failures, until=until)
    return plan


def again(plan: Schedule) -> Schedule:
    """The same as another process reads it."""
    return Schedule(plan.content(), plan.at)


def test_the_file_is_what_the_docstring_says() -> None:
    """A person reads it with `cat`; each line is overwritten in place."""
    plan = waiting()
    plan.count_start()
    content = plan.content()
    assert content.startswith(b"0a1b2c3d 01 1900000000\n0a1b2c3d 01 1900003601\n")
    assert len(content) == len(Schedule().content()) == 9 * 23
    assert again(plan).content() == content


def test_a_time_is_a_time_within_the_horizon() -> None:
    """Beyond it a clock was changed, and nothing is held back."""
    for ahead_s in (1.0, HOUR_S, HORIZON_S):
        plan = again(waiting(until=NOW + ahead_s))
        assert plan.not_before(OURS, NOW) == NOW + ahead_s
        assert plan.not_before(OURS, NOW + ahead_s + 1) <= NOW + ahead_s + 1
    for ahead_s in (HORIZON_S + 2, 365 * HORIZON_S, -365 * HORIZON_S):
        plan = Schedule(waiting().content(), NOW + ahead_s)
        assert plan.not_before(OURS, NOW) <= NOW


def test_no_time_holds_that_a_clock_set_which_was_put_back() -> None:
    """It was ahead by hours, less than the horizon, and some flushes failed."""
    plan = Schedule()
    plan.end("00000001", NOW + 3 * HOUR_S, failures=2, until=NOW + 5 * HOUR_S)
    plan.end("00000002", NOW + 3 * HOUR_S, failures=0, until=NOW + 4 * HOUR_S)
    for destination in ("00000001", "00000002"):
        assert plan.not_before(destination, NOW + 3 * HOUR_S) > NOW + 3 * HOUR_S
        assert plan.not_before(destination, NOW) == 0.0
        # A second or two say nothing.
        assert plan.not_before(destination, NOW + 3 * HOUR_S - 2) > NOW + 3 * HOUR_S
    plan.begin("00000002", NOW)
    assert plan.not_before("00000001", NOW + WINDOW_S) <= NOW + WINDOW_S


def test_another_destination_waits_for_a_window_and_no_longer() -> None:
    """A corrected key ends a pause of hours; two keys in turns end no backoff."""
    plan = again(waiting())
    assert plan.not_before(OTHER, NOW) == NOW + WINDOW_S
    assert plan.not_before(OTHER, NOW + WINDOW_S) <= NOW + WINDOW_S


def test_each_destination_keeps_its_own_backoff() -> None:
    """A released build beside a development one: each waits for its own server."""
    plan = waiting()
    plan.end(OTHER, NOW + WINDOW_S, failures=3, until=NOW + 2 * HOUR_S)
    plan = again(plan)
    assert (plan.failures(OURS), plan.failures(OTHER)) == (1, 3)
    at = NOW + 2 * WINDOW_S
    assert plan.not_before(OURS, at) == NOW + HOUR_S + 1
    assert plan.not_before(OTHER, at) == NOW + 2 * HOUR_S
    assert plan.not_before("11111111", at) <= at


def test_alternating_destinations_make_no_more_requests_than_one() -> None:
    """Launches each ten seconds for a day, against a server that always says 503."""

    def flushes(destinations: list[str]) -> int:
        plan, count = Schedule(), 0
        for launch in range(24 * 360):
            now = NOW + 10.0 * launch
            destination = destinations[launch % len(destinations)]
            if plan.not_before(destination, now) <= now:
                plan.begin(destination, now)
                failures = plan.failures(destination) + 1
                wait_s = min(60.0 * 2**failures, 6 * HOUR_S)
                plan.end(destination, now, failures=failures, until=now + wait_s)
                plan, count = again(plan), count + 1
        return count

    assert flushes([OURS, OTHER]) <= 2 * flushes([OURS]) < 30


def test_the_destinations_that_are_kept_are_the_latest() -> None:
    """A program with a key for each customer must not grow a file of fixed size."""
    plan = Schedule()
    for number in range(20):
        plan.end(f"{number:08x}", NOW, failures=1, until=NOW + HOUR_S)
    plan = again(plan)
    assert list(plan.waits) == [f"{number:08x}" for number in range(12, 20)]


def test_at_exit_only_a_failure_is_waited_for() -> None:
    """In CI the machine is gone after the program; a server that is down is not asked."""
    ended_well = again(waiting(failures=0, until=NOW + WINDOW_S))
    assert ended_well.not_before(OURS, NOW) > NOW
    for destination in (OURS, OTHER):
        at = ended_well.not_before(destination, NOW, after_failure_only=True)
        assert at <= NOW
    failed = again(waiting())
    assert failed.not_before(OURS, NOW, after_failure_only=True) == NOW + HOUR_S
    assert failed.not_before(OTHER, NOW, after_failure_only=True) == NOW + WINDOW_S


def test_flushers_that_never_finish_are_given_up_and_tried_again() -> None:
    """A container ends with its command; the next one may not."""
    plan, given_up = Schedule(), []
    for _ in range(200):
        given_up.append(plan.flushers_never_finish(NOW))
        plan.count_start()
        plan = again(plan)
    assert given_up[: STARTS_MAX + 1] == [False] * STARTS_MAX + [True]
    assert given_up[STARTS_MAX:20] == [n != 10 for n in range(STARTS_MAX, 20)]
    assert not all(given_up[100:])
    assert plan.starts >= STARTS_MAX


def test_a_flush_at_exit_that_falls_short_has_a_detached_flusher_tried_next(
    home: Home,
) -> None:
    """Three that were killed in a container must not leave a host with a second each."""
    tried, others = [], []
    plan = Schedule()
    for _ in range(STARTS_MAX):
        plan.count_start()
    schedule.store(home.next_flush, plan)
    for n in range(220):
        plan = schedule.load(home.next_flush)
        is_tried = not plan.flushers_never_finish(NOW)
        tried.append(is_tried)
        plan.begin(OURS, NOW, is_within=not is_tried)
        plan.count_start()
        others.append(plan.is_every_other)
        plan.at = NOW
        schedule.store(home.next_flush, plan)
        if is_tried:
            continue  # killed as well
        if n % 4 < 2:
            schedule.note_ended_within(home, falls_short=True)
        else:
            schedule.note_cut(home)
    assert tried == [n % 2 == 1 for n in range(220)]
    # One batch that ends each flush at exit is not what all of them begin with.
    for taking_turns in (others[2::2], others[3::2]):
        assert all(a != b for a, b in itertools.pairwise(taking_turns))
    schedule.note_finished(home)
    assert schedule.load(home.next_flush).starts == 0
    schedule.note_ended_within(home, falls_short=True)
    assert schedule.load(home.next_flush).starts == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"\n" * 207, b"0a1b2c3d", b"\xff" * 207, b"0a1b2c3d -1 +2\n", b"\0" * 23],
    ids=["empty", "newlines", "cut", "noise", "signs", "zeros"],
)
def test_damage_costs_one_early_flush(content: bytes, tmp_path: Path) -> None:
    """A power loss in between must neither hold a flush back nor raise."""
    path = str(tmp_path / "next-flush")
    Path(path).write_bytes(content)
    os.utime(path, (NOW + HOUR_S, NOW + HOUR_S))
    plan = schedule.load(path)
    assert plan.not_before(OURS, NOW) <= NOW
    plan.end(OURS, NOW, failures=1, until=NOW + HOUR_S)
    schedule.store(path, plan)
    assert schedule.load(path).not_before(OURS, NOW) == NOW + HOUR_S


def test_a_destination_is_all_five() -> None:
    """A time that was set for one says nothing of another."""
    parts = ["https://a/", "x-api-key", "key", "records", "None"]
    made = {schedule.destination_crc(*parts)}
    for number in range(len(parts)):
        changed = [*parts[:number], "other", *parts[number + 1 :]]
        made.add(schedule.destination_crc(*changed))
    assert len(made) == 6
    assert all(len(each) == 8 for each in made)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home as a launch finds it."""
    made = Home(str(tmp_path))
    schedule.make(made.next_flush)
    return made


CONFIG = Config(app="app", endpoint="https://a.example/", api_key="k")


def is_free(home: Home) -> bool:
    with Path(home.flush_lock).open() as lock:
        return try_lock(lock.fileno())


def test_a_claim_is_one_turn_and_keeps_the_lock_until_it_is_closed(home: Home) -> None:
    """Fifty launches at once start one flusher, and the next one a window later."""
    lock = schedule.claim(CONFIG, home, NOW, is_start=True)
    assert lock is not None
    with lock:
        assert schedule.claim(CONFIG, home, NOW) is None
        assert not is_free(home)
    assert is_free(home)
    assert schedule.read(home.next_flush) == NOW + WINDOW_S == lock.next_flush
    assert schedule.claim(CONFIG, home, NOW + WINDOW_S - 1) is None
    assert is_free(home)
    assert schedule.load(home.next_flush).starts == 1
    schedule.note_finished(home)
    assert schedule.load(home.next_flush).starts == 0
    assert schedule.read(home.next_flush) == NOW + WINDOW_S


def test_a_lock_that_is_dropped_is_free(home: Home) -> None:
    """Ctrl-C at any step between claim and start leaves no reference behind."""
    lock = schedule.claim(CONFIG, home, NOW)
    assert lock is not None
    assert not is_free(home)
    del lock
    assert is_free(home)


def test_a_claim_after_a_failure_waits_and_moves_the_next_behind(home: Home) -> None:
    """A fleet that launches by the clock must not arrive by the clock."""
    destination, waits = schedule.destination_of(CONFIG), set()
    for number in range(20):
        now = NOW + number * HOUR_S
        plan = schedule.load(home.next_flush)
        plan.end(destination, now - WINDOW_S, failures=1, until=now - 1)
        schedule.store(home.next_flush, plan)
        lock = schedule.claim(CONFIG, home, now, spread_s=300.0)
        assert lock is not None
        assert 0 <= lock.wait_s < 300
        assert lock.next_flush == now + lock.wait_s + WINDOW_S
        waits.add(lock.wait_s)
        lock.close()
    assert len(waits) == 20
    assert max(waits) - min(waits) > 100


def test_a_failed_start_is_noted_and_due_at_once(home: Home) -> None:
    """The flush at exit takes over from a flusher that could not be started."""
    lock = schedule.claim(CONFIG, home, NOW, is_start=True)
    assert lock is not None
    lock.close()
    schedule.note_failed_start(home, NOW)
    plan = schedule.load(home.next_flush)
    assert plan.flushers_never_finish(NOW)
    assert plan.not_before(schedule.destination_of(CONFIG), NOW) <= NOW


def test_flushes_that_end_their_programs_come_ever_more_rarely(home: Home) -> None:
    """A program near its limit of memory was killed at its end once a minute, for ever."""
    now, waits = NOW, []
    for _ in range(7):
        lock = schedule.claim(CONFIG, home, now, is_start=True, is_within=True)
        assert lock is not None
        lock.close()  # killed here
        later = now + WINDOW_S
        plan = schedule.load(home.next_flush)
        destination = schedule.destination_of(CONFIG)
        # Nothing of that is a detached flusher's concern.
        assert plan.not_before(destination, later) <= later
        ends = plan.not_before(destination, now, is_within=True)
        assert schedule.claim(CONFIG, home, ends - 1, is_within=True) is None
        # Meanwhile a flusher of its own process is tried in each window again.
        assert not plan.flushers_never_finish(ends - 1)
        assert plan.flushers_never_finish(ends) == (plan.starts > 2)
        waits.append(round((ends - now) / WINDOW_S))
        now = ends
    assert waits == [1, 6, 36, 216, 360, 360, 360]
    assert plan.never_ended_within == 7
    # That no other flusher could be started tells nothing of these.
    schedule.note_failed_start(home, now)
    assert schedule.load(home.next_flush).never_ended_within == 7
    for note in (schedule.note_ended_within, schedule.note_cut):
        note(home)
        plan = schedule.load(home.next_flush)
        assert plan.never_ended_within == 0
        plan.begin(destination, now, is_within=True)
        schedule.store(home.next_flush, plan)
        # The other destinations have their lines; this one stays.
        for number in range(9):
            plan.end_beside(f"{number:08x}", now, failures=1, until=now)
        assert plan.never_ended_within == 1
    schedule.note_cut(home)
    plan = schedule.load(home.next_flush)
    plan.begin(destination, now, is_within=True)
    plan.end(destination, now, failures=0, until=now + HOUR_S)
    assert plan.never_ended_within == 0


def test_a_server_that_deletes_nothing_holds_back_no_event(home: Home) -> None:
    """It answered 404 for six hours, and the events waited as long."""
    events = schedule.destination_of(CONFIG)
    deletion = schedule.destination_of(CONFIG, asks=True)
    assert deletion != events
    # Off: nothing but the request is sent.
    lock = schedule.claim(CONFIG, home, NOW, asks=True)
    assert lock is not None
    with lock:
        plan = schedule.load(home.next_flush)
        plan.end_beside(deletion, NOW, failures=1, until=NOW + 6 * HOUR_S)
        schedule.store(home.next_flush, plan)
    assert schedule.claim(CONFIG, home, NOW + HOUR_S, asks=True) is None
    # On again.
    later = NOW + WINDOW_S
    lock = schedule.claim(CONFIG, home, later)
    assert lock is not None
    with lock:
        plan = schedule.load(home.next_flush)
        assert plan.wait_ends(deletion, later) > later
        plan.end(events, later, failures=0, until=later + HOUR_S)
        assert plan.wait_ends(deletion, later) > later
        plan.end_beside(deletion, later, failures=2, until=later + 6 * HOUR_S)
        assert plan.at == later + HOUR_S
        plan.end_beside(deletion, later, failures=0, until=later)
        assert deletion not in plan.waits


def test_launches_that_leave_all_to_their_end_are_counted_until_a_flush_begins(
    home: Home,
) -> None:
    """Those that are killed count; where ends flush, the count never comes to three."""
    due = schedule.load(home.next_flush).at
    assert [schedule.note_launch(home) for _ in range(3)] == [1, 2, 3]
    with schedule.take_flush_lock(home) as lock:
        assert lock is not None
        assert schedule.note_launch(home) == 0  # a flush is at work
    plan = schedule.load(home.next_flush)
    # Other counts have nothing to do with it.
    assert (plan.starts, plan.never_ended_within) == (0, 0)
    assert abs(plan.at - due) < 0.001
    for number in range(20):  # more destinations than there are lines
        plan.end(f"{number:08d}", NOW, failures=1, until=NOW)
    assert plan.failures("launches") == 3
    plan = schedule.load(home.next_flush)
    lock = schedule.claim(CONFIG, home, NOW, is_within=True)
    assert lock is not None
    lock.close()
    assert schedule.note_launch(home) == 1


def test_what_else_waits_is_told_of_destinations_of_events_alone() -> None:
    """Not of a request for deletion, nor of flushes that may have killed a program."""
    config = Config(app="app", endpoint="https://x.example/v1", api_key="k")
    deletion = schedule.destination_of(config, asks=True)
    plan = Schedule()
    plan.end("0" * 8, NOW, failures=1, until=NOW + 60)
    plan.begin("0" * 8, NOW, is_within=True)
    plan.end_beside(deletion, NOW, failures=1, until=NOW + HOUR_S)
    assert plan.others_wait_until(NOW) == 0.0
    assert NOW + HOUR_S <= plan.deletion_waits_until(NOW) <= NOW + HOUR_S + 1
    assert plan.deletion_waits_until(NOW + HOUR_S + 2) == 0.0
    plan.end_beside("1" * 8, NOW, failures=1, until=NOW + 600)
    plan.end_beside("2" * 8, NOW, failures=1, until=NOW + 300)
    assert NOW + 600 <= plan.others_wait_until(NOW) <= NOW + 601
    assert plan.others_wait_until(NOW + 700) == 0.0
    assert (plan.destination, plan.failures("0" * 8)) == ("0" * 8, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="sets times by another call")
def test_where_no_time_can_be_set_flushes_begin_and_failures_wait(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some mounts and sandboxes refuse it: no flush ever began by itself there."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", refuse)
    now = time.time()
    for second in 5.0, 10.0:
        lock = schedule.claim(CONFIG, home, now + second, spread_s=300.0)
        assert lock is not None
        lock.close()
    plan = schedule.load(home.next_flush)
    plan.end(schedule.destination_of(CONFIG), now, failures=2, until=now + 600.0)
    schedule.store(home.next_flush, plan)
    assert schedule.claim(CONFIG, home, now + 500.0) is None
    lock = schedule.claim(CONFIG, home, now + 602.0, spread_s=300.0)
    assert lock is not None
    assert lock.wait_s == 0.0
    lock.close()
