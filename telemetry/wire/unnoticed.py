"""What a request does not do to the program whose thread it runs on.

- What urllib3 logs of it reaches no handler of the program's: it names paths and queries,
  and a handler that takes its time would hold up the program's end.
- A connection that the peer has closed raises an error and no SIGPIPE. A program that
  gave that signal back to the system, as `program | head` wants it, would end by it.
  OpenSSL writes without asking for that, so the signal is blocked in this thread; on
  macOS, where it goes to the process, the socket is told (`connection.py`).
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # as numbers
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


_SIGPIPE: set[int] = {signal.SIGPIPE} if hasattr(signal, "pthread_sigmask") else set()


class _Thread(threading.local):
    is_requesting = False


_thread = _Thread()


class _Others(logging.Filter):
    """Lets through what was logged of other requests than ours."""

    def filter(self, _: logging.LogRecord) -> bool:
        return not _thread.is_requesting


_OTHERS = _Others()


def hush(package: str) -> None:
    """What this package logs, as far as it is loaded, is not heard of our requests."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == package and isinstance(logger, logging.Logger):
            logger.addFilter(_OTHERS)


@contextmanager
def unnoticed() -> Iterator[None]:
    """A request is made in here."""
    was_requesting = _thread.is_requesting
    with _sigpipe_blocked():
        try:
            _thread.is_requesting = True
            yield
        finally:
            _thread.is_requesting = was_requesting


@contextmanager
def _sigpipe_blocked() -> Iterator[None]:
    """For this thread, and no longer than it was; what came meanwhile is gone."""
    if not _SIGPIPE:
        yield
        return
    # To ask first: a signal's handler may run, and raise, as soon as one is blocked.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pending = signal.sigpending()
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGPIPE)
        yield
    finally:
        if _SIGPIPE & (signal.sigpending() - pending):
            _take()
        if not _SIGPIPE & blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGPIPE)


def _take() -> None:
    """The signal that is pending is so no more; it is not waited for."""
    if hasattr(signal, "sigtimedwait"):
        signal.sigtimedwait(_SIGPIPE, 0)
    else:
        signal.sigwait(_SIGPIPE)
