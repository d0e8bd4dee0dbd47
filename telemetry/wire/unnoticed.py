"""What a request does not do to the program whose thread it runs on.

- What urllib3 logs of it reaches no handler of the program's: it names paths and queries,
  and a handler that takes its time would hold up the program's end.
- A connection that the peer has closed raises an error and no SIGPIPE. A program that
  gave that signal back to the system, as `program | head` wants it, would end by it. The
  signal is blocked in this thread: OpenSSL has no other way to write without it.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # as numbers
import logging
from _thread import get_ident
from collections.abc import Iterator
from contextlib import contextmanager


# Threads that are in a request of ours.
_requesting: set[int] = set()
_BROKEN_PIPE = {signal.SIGPIPE} if hasattr(signal, "pthread_sigmask") else set()


class _Unheard(logging.Filter):
    """Lets through what was logged of other requests than ours."""

    def filter(self, _: logging.LogRecord) -> bool:
        return get_ident() not in _requesting


_UNHEARD = _Unheard()


def hush(package: str) -> None:
    """What this package logs, as far as it is loaded, is not heard of our requests."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == package and isinstance(logger, logging.Logger):
            logger.addFilter(_UNHEARD)


@contextmanager
def unnoticed() -> Iterator[None]:
    """A request is made in here."""
    thread = get_ident()
    blocked: set[int] = set()
    if _BROKEN_PIPE:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _BROKEN_PIPE)
    _requesting.add(thread)
    try:
        yield
    finally:
        _requesting.discard(thread)
        if _BROKEN_PIPE and not _BROKEN_PIPE & blocked:
            if _BROKEN_PIPE & signal.sigpending():
                signal.sigwait(_BROKEN_PIPE)  # ours; it is taken, and not waited for
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _BROKEN_PIPE)
