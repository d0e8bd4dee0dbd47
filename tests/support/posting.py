"""Transports for tests, closed at the end, with nothing left running."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from telemetry.wire.transport import Transport
from telemetry.wire.verdict import Failure, Outcome


KEY = "a-secret-key-of-some-length"
BODY = b'{"records":[]}'
# How much later than its deadline a post may come back on a busy machine. What does not
# keep its deadline waits for five seconds.
LATE_S = 4.0


@contextlib.contextmanager
def transport(endpoint: str, **named: Any) -> Iterator[Transport]:
    """A Transport with sensible times; its threads have ended on leaving."""
    options: dict[str, Any] = {
        "header": "x-api-key",
        "api_key": KEY,
        "user_agent": "app/1.0",
        "connect_timeout_s": 5.0,
        "read_timeout_s": 5.0,
        "request_timeout_s": 5.0,
        "reply_bytes_max": 64 * 1024,
        "gzip": False,
        "environment": {},
    }
    options |= named
    # Proxies are looked up in the process's own environment.
    plain = {n: v for n, v in os.environ.items() if not n.lower().endswith("_proxy")}
    made = Transport(endpoint=endpoint, **options)
    with mock.patch.dict(os.environ, {**plain, **options["environment"]}, clear=True):
        yield from _closed(made)


def _closed(made: Transport) -> Iterator[Transport]:
    try:
        yield made
    finally:
        made.close()
        for thread in posting_threads():
            thread.join(10)
        assert not posting_threads()


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no posting thread can be started, as in an ending interpreter."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "telemetry-post":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture(params=["on a thread", "without a thread"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: what holds only by leaving a thread behind fails once."""
    if request.param == "without a thread":
        refuse_threads(monkeypatch)


def posting_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "telemetry-post"]


def post(to: Transport, body: bytes = BODY, *, timeout_s: float = 60.0) -> Outcome:
    return to.post(body, key="batch-1", timeout_s=timeout_s)


def timed(to: Transport, body: bytes = BODY) -> tuple[Outcome, float]:
    """The outcome, and the seconds it took."""
    began = time.monotonic()
    outcome = post(to, body)
    return outcome, time.monotonic() - began


def sign(outcome: Outcome) -> object:
    """An outcome in short: a kind, or a status and what became of the body."""
    if isinstance(outcome, Failure):
        return outcome.kind
    ends = "cut" if not outcome.complete else "long" if outcome.truncated else "whole"
    return outcome.status, ends
