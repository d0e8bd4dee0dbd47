"""Who holds the flush lock: nobody, or a flusher, and on Linux which process.

The lock is looked at by taking it for some microseconds. A program that is started
in just these finds it taken, and leaves the flush to the next one. The file is
not made here.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from telemetry.files import open_regular
from telemetry.locks import try_lock
from telemetry.paths import Home


class Holder(NamedTuple):
    """`state` is `none`, `running` or `unknown`; `told` is a sentence about it.

    `pid` is that of the process, where the system tells.
    """

    state: str
    told: str
    pid: int | None = None


def flush_lock_holder(home: Home) -> Holder:
    """Who flushes now."""
    try:
        descriptor = open_regular(home.flush_lock, os.O_RDONLY)
    except FileNotFoundError:
        return Holder("none", "none is at work")
    except OSError as error:
        return Holder("unknown", f"unknown: {error.strerror or error}")
    try:
        if try_lock(descriptor):
            return Holder("none", "none is at work")
    except OSError as error:
        return Holder("unknown", f"unknown: {error.strerror}")
    finally:
        os.close(descriptor)
    pid = _holding_process(os.path.realpath(home.flush_lock))
    if pid is None:
        return Holder("running", "at work")
    return Holder("running", f"at work: process {pid}", pid)


def _holding_process(path: str) -> int | None:
    """The process that has the locked file open, as far as /proc tells.

    /proc/locks would name the one that took the lock, which is the program that
    started the flusher and may have ended long ago.
    """
    if not sys.platform.startswith("linux"):
        return None
    for name in filter(str.isdecimal, _names("/proc")):
        for number in _names(f"/proc/{name}/fd"):
            try:
                if os.readlink(f"/proc/{name}/fd/{number}") != path:
                    continue
                with open(f"/proc/{name}/fdinfo/{number}", encoding="ascii") as lines:
                    if any(line.startswith("lock:") for line in lines):
                        return int(name)
            except OSError:
                continue  # it has ended, or is not ours to look at
    return None


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
