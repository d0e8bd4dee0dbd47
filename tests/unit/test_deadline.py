"""A call that can be abandoned: what its caller gets, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from telemetry.wire.deadline import (
    ABANDONED_MAX,
    Bounds,
    DeadlineError,
    OversizeError,
    Runner,
    StillHangingError,
)


T = TypeVar("T")


class Belonging:
    """What one thread has to itself."""

    def __init__(self) -> None:
        self.closed = threading.Event()


def runner(made: list[Belonging]) -> Runner[Belonging]:
    def make() -> Belonging:
        made.append(Belonging())
        return made[-1]

    return Runner(make=make, close=lambda belonging: belonging.closed.set())


def run(
    it: Runner[Belonging], call: Callable[[Belonging], T], *, wait_s: float
) -> T | None:
    until = time.monotonic() + wait_s
    return it.result(it.start(call), until=lambda: until)


def test_calls_follow_each_other_on_one_thread_with_one_belonging() -> None:
    """A kept connection is what makes a drain fast."""
    made: list[Belonging] = []
    it = runner(made)
    threads = [
        run(it, lambda _: threading.current_thread(), wait_s=60) for _ in range(3)
    ]
    assert len(set(threads)) == len(made) == 1
    it.abandon()
    assert made[0].closed.wait(60)


def test_the_end_is_waited_for_but_not_that_of_a_call_that_hangs() -> None:
    """Of a sub-interpreter that ends with a thread in it nothing is left but a signal."""
    made: list[Belonging] = []
    it = runner(made)
    it.end()
    thread = run(it, lambda _: threading.current_thread(), wait_s=60)
    assert thread is not None
    it.end()
    assert made[0].closed.is_set()
    assert not thread.is_alive()
    hanging, began = threading.Event(), threading.Event()
    it.start(lambda _: began.set() or hanging.wait(60))
    assert began.wait(60)
    it.end()
    assert not made[1].closed.is_set()
    hanging.set()
    assert made[1].closed.wait(60)


def test_an_abandoned_call_ends_by_itself_and_the_next_has_a_new_thread() -> None:
    """Nothing ends a resolver that hangs; the flush goes on all the same."""
    made: list[Belonging] = []
    it, resume = runner(made), threading.Event()
    assert run(it, lambda _: resume.wait(60), wait_s=0.01) is None
    assert run(it, lambda belonging: belonging, wait_s=60) is made[1]
    assert not made[0].closed.is_set()
    resume.set()
    assert made[0].closed.wait(60), "it is closed on the thread that used it"
    it.abandon()
    assert made[1].closed.wait(60)


def test_no_more_threads_hang_than_the_bound() -> None:
    """Each would only hang like the others."""
    made: list[Belonging] = []
    it, resume = runner(made), threading.Event()
    for _ in range(ABANDONED_MAX):
        assert run(it, lambda _: resume.wait(60), wait_s=0.01) is None
    with pytest.raises(StillHangingError):
        run(it, lambda _: 1, wait_s=60)
    resume.set()
    assert all(each.closed.wait(60) for each in made)


def test_a_call_runs_in_its_caller_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some interpreters start none while they end, when a flush at exit runs."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made: list[Belonging] = []
    here = run(runner(made), lambda _: threading.current_thread(), wait_s=60)
    assert here is threading.current_thread()
    assert made[0].closed.is_set()


class Socket:
    """Keeps the timeout that it was given."""

    timeout_s = 0.0

    def settimeout(self, seconds: float) -> None:
        self.timeout_s = seconds


def bounds(*, left_s: float) -> Bounds:
    made = Bounds(connect_timeout_s=20, read_timeout_s=30)
    made.begin(deadline=time.monotonic() + left_s, reply_bytes_max=1000)
    return made


def test_each_step_has_its_own_time_and_no_more_than_is_left() -> None:
    """A byte now and then would otherwise begin every silence anew."""
    sock = Socket()
    plenty, little = bounds(left_s=1000), bounds(left_s=5)
    plenty.connecting(sock)
    assert sock.timeout_s == 20
    plenty.waiting(sock)
    assert sock.timeout_s == 30
    for step in (little.connecting, little.waiting):
        step(sock)
        assert 0 < sock.timeout_s <= 5
    over = bounds(left_s=-1)
    for step in (over.connecting, over.waiting):
        with pytest.raises(DeadlineError):
            step(sock)


def test_a_reply_that_does_not_end_is_an_error() -> None:
    """A server must not fill the memory of those who talk to it."""
    it = bounds(left_s=1000)
    it.read(512 * 1024)
    it.read(6 * 1000)
    with pytest.raises(OversizeError):
        it.read(1)
