"""Threads of the library's own in the host's process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


# A program with thousands of threads may give each 32 KiB, in which urllib3 crashes.
_STACK_BYTES_MIN = 512 * 1024
_sizing = threading.RLock()  # a signal's handler may flush in here


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread that does `work`, with room enough for it.

    The size of stacks is set for the whole process: a thread that the host starts just
    now gets more than it asked for. Raises RuntimeError where none can be started.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    sizing, hosts = _sizing, 0
    try:  # not `with`, see `holding`
        sizing.acquire()
        hosts = threading.stack_size()
        if 0 < hosts < _STACK_BYTES_MIN:
            threading.stack_size(_STACK_BYTES_MIN)
        thread.start()
    finally:
        if hosts:
            threading.stack_size(hosts)
        try:
            sizing.release()
        except RuntimeError:
            pass  # a signal's handler raised before it was acquired
    return thread


def _after_fork() -> None:
    """In a child: another thread may have had the lock."""
    global _sizing  # noqa: PLW0603 - as the size is, one for the process
    _sizing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
