"""What a request does not do to the program whose thread it runs on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import pytest

from telemetry.wire.unnoticed import hush, unnoticed


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE there")
@pytest.mark.parametrize("is_blocked", [False, True])
def test_a_write_to_nobody_raises_and_sends_no_signal(*, is_blocked: bool) -> None:
    """In this very thread, where no other could be started; its mask is as it was."""
    blocked = {signal.SIGPIPE} if is_blocked else set()
    came: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError), unnoticed(), unnoticed():
            os.write(writing, b"x")
        assert signal.SIGPIPE not in signal.sigpending()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask | blocked
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        assert came == []
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")
        assert came == [signal.SIGPIPE]
    finally:
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGPIPE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE there")
def test_a_signal_that_was_pending_stays_so() -> None:
    """It is the program's own."""
    before = signal.signal(signal.SIGPIPE, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        signal.raise_signal(signal.SIGPIPE)
        with unnoticed():
            pass
        assert signal.SIGPIPE in signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGPIPE, before)


def test_only_what_is_logged_of_our_requests_is_not_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor is another thread's, nor another package's."""
    caplog.set_level(logging.DEBUG)
    theirs, others = logging.getLogger("hushed.pool"), logging.getLogger("hushed2")
    hush("hushed")
    with unnoticed():
        with unnoticed():
            pass
        theirs.debug("ours")
        others.debug("another package's")
        thread = threading.Thread(target=theirs.debug, args=("another thread's",))
        thread.start()
        thread.join()
    theirs.debug("theirs")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["another package's", "another thread's", "theirs"]
