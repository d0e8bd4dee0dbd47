"""Which process flushes now: looks at the flush lock by taking it for microseconds.

A program that is launched in them finds it taken, and leaves the flush to the next one.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import sys
from typing import NamedTuple

from telemetry.files import open_regular, try_lock
from telemetry.paths import Home


class Holder(NamedTuple):
    """`none`, `running` or `unknown`; its process, where it is known.

    problem: why the file system cannot lock; empty: it can, or that is not known
    """

    state: str
    pid: int | None = None
    problem: str = ""


def flush_lock_holder(home: Home) -> Holder:
    """Whether the flush lock is held, and on Linux by which process."""
    try:
        try:
            # Where locks are those of records (NFS), a file is locked as it is opened.
            descriptor = open_regular(home.flush_lock, os.O_RDWR)
        except PermissionError:
            descriptor = open_regular(home.flush_lock, os.O_RDONLY)
    except FileNotFoundError:
        return Holder("none")
    except OSError:
        return Holder("unknown")
    try:
        if try_lock(descriptor):
            return Holder("none")
    except OSError as error:
        is_told = error.errno != errno.EBADF  # it could only be read
        problem = (error.strerror or str(error)) if is_told else ""
        return Holder("unknown", problem=problem)
    finally:
        os.close(descriptor)
    return Holder("running", _holding_process(os.path.realpath(home.flush_lock)))


def _holding_process(path: str) -> int | None:
    """The process that has the locked file open, as far as /proc tells.

    /proc/locks would name the one that took the lock, which is the program that
    started the flusher and may have ended long ago.
    """
    if not sys.platform.startswith("linux"):
        return None
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            if os.readlink(link) != path:
                continue
            with open(link.replace("/fd/", "/fdinfo/"), encoding="ascii") as lines:
                if any(line.startswith("lock:") for line in lines):
                    return int(link.split("/")[2])
    return None
