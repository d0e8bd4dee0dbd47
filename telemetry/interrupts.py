"""Exceptions of the host's that are raised while code of ours runs.

A handler of SIGALRM that raises TimeoutError interrupts whatever runs: its exception
comes up inside `track` and belongs to the host, which waits for it. Its class tells
nothing, as TimeoutError is an OSError; where it was raised does:

- in a function that was given the frame it interrupted, as signal handlers are;
- or in a frame of ours, while its class is none that our code or a library under it
  can raise (an exception that was set from another thread).

An exception that was translated meanwhile is found in the chain of causes; of that chain,
only what was caught in our code counts. Loaded only once something was raised.
"""

from __future__ import annotations

import os
from types import FrameType, TracebackType


_PACKAGE = os.path.dirname(__file__) + os.sep
_OURS = frozenset({"builtins", "telemetry", "msgspec", "zlib", "io"})
# Chains are short; one could be made into a circle.
_CHAIN_MAX = 20


def pass_on(error: BaseException) -> None:
    """Raise the host's own exception, where `error` is one or was made from one."""
    found: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if found is None:
            return
        if _is_the_hosts(found):
            raise found
        found = found.__cause__ or found.__context__


def _is_the_hosts(error: BaseException) -> bool:
    step: TracebackType | None = error.__traceback__
    if step is None or not _is_ours(step.tb_frame):
        return False
    while step.tb_next is not None:
        step = step.tb_next
        if _was_given_its_caller(step.tb_frame):
            return True
    library = type(error).__module__.partition(".")[0]
    return _is_ours(step.tb_frame) and library not in _OURS


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _was_given_its_caller(frame: FrameType) -> bool:
    """Whether an argument is the frame below, alone or among `*args`."""
    below = frame.f_back
    values = tuple(frame.f_locals.values())
    given = any(value is below for value in values)
    among = (value for value in values if type(value) is tuple)
    return below is not None and (given or any(below in each for each in among))
