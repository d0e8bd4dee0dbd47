"""The host's own exceptions, told apart from those that an event cost us."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import telemetry
from tests.support.surroundings import (
    bare_environment,
    only_environment,
    quiet_config,
    spooled,
)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path) -> Iterator[None]:
    with only_environment(bare_environment(tmp_path / "user")):
        yield


class LateError(Exception):
    """What a host raises when its time is up."""


def plain(_number: int, _frame: FrameType | None) -> None:
    raise LateError


def once(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise LateError


class Handler:
    def __call__(self, *arguments: object) -> None:
        self.go_on(arguments)

    def go_on(self, arguments: object) -> None:
        raise TimeoutError("a class that the system's errors have, too")


HANDLERS: dict[str, Callable[[int, FrameType | None], Any]] = {
    "function": plain,
    "one that removes itself": once,
    "partial": functools.partial(lambda _more, *given: plain(*given), "more"),
    "object": Handler(),
    "lambda": lambda *given: plain(*given),  # noqa: PLW0108 - has arguments of its own
}


class Slow(telemetry.ToolEvent, frozen=True):
    """An event whose making takes until the alarm."""

    def to_structured_properties(self) -> telemetry.ToolPayload:
        # Set here, so that it goes off inside however slow the machine is.
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pass
        raise AssertionError("no alarm came")


@pytest.mark.parametrize("how", HANDLERS)
def test_the_hosts_alarm_reaches_the_host(how: str, tmp_path: Path) -> None:
    """A timeout that is swallowed is a program that hangs."""
    before = signal.signal(signal.SIGALRM, HANDLERS[how])
    try:
        with telemetry.Client(quiet_config(tmp_path / "home")) as client:
            assert client.track(telemetry.ToolEvent())
            with pytest.raises((LateError, TimeoutError)):
                client.track(Slow())
            assert client.track(telemetry.ToolEvent())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(spooled(tmp_path / "home")) == 2


# The standard library answers for these itself: they say no to whatever is raised.
SWALLOWED_BY_OTHERS = ("isdir", "lexists")
CALLS = (
    *("open", "read", "write", "lstat", "stat", "fstat", "close", "mkdir"),
    *("lseek", "pread", "utime", "unlink", "link", "urandom", "listdir"),
)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_hosts_alarm_reaches_the_host_at_every_call(
    is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TimeoutError is an OSError, too: what looks like the disk's may be the host's."""
    count, at, inside = 0, 0, False

    def alarming(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            answer = call(*arguments, **named)
            caller = sys._getframe(1).f_code.co_name
            count += inside and caller not in SWALLOWED_BY_OTHERS
            if inside and count == at and caller not in SWALLOWED_BY_OTHERS:
                HANDLERS["object"](signal.SIGALRM, sys._getframe())
            return answer

        return made

    for name in CALLS:
        monkeypatch.setattr(os, name, alarming(getattr(os, name)))
    while count >= at:
        at += 1
        with telemetry.Client(quiet_config(tmp_path / f"home-{at}")) as client:
            assert is_first or client.track(telemetry.ToolEvent())
            count, inside = 0, True
            try:
                client.track(telemetry.ToolEvent())
                assert count < at, f"the alarm at call {at} was swallowed"
            except TimeoutError:
                pass
            finally:
                inside = False
    assert at > (30 if is_first else 2)


class Failing(telemetry.ToolEvent, frozen=True):
    """An event that the program got wrong."""

    def to_structured_properties(self) -> telemetry.ToolPayload:
        raise LateError


def test_what_an_event_raises_itself_stays_inside(tmp_path: Path) -> None:
    """Also while the host is handling an exception of its own handler's."""
    with telemetry.Client(quiet_config(tmp_path / "home")) as client:
        assert not client.track(Failing())
        try:
            plain(signal.SIGALRM, sys._getframe())
        except LateError:
            assert not client.track(Failing())
            assert not client.track(telemetry.ToolEvent(action=5))  # type: ignore[arg-type]
