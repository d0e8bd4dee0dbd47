"""What is done to a scene, one case after the other.

    error     one call that touches the home fails once, with each of ERRORS
    short     one write says once that it took nothing; one to a segment, also that
              it took some
    onwards   from it on, every call that makes or grows a file fails, as on a disk that
              is full or broken; or every open, as where there is no descriptor left;
              or every read
    kill      the program is killed before it; before the first call behind the last, too
    length    no file may grow beyond so many bytes, chosen so that each write of the
              recording in turn is refused whole, or cut and really taken in part

To be killed before a call is to be killed after the one before it: what lies between
two calls that touch the home does not touch it.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.proofs.system_calls.calls import KILL, Call, Fault, write_in
from tests.proofs.system_calls.scenes import HOME, Scene


ERRORS = ("ENOSPC", "EIO", "EINTR", "EACCES", "EMFILE")
KINDS = ("error", "short", "onwards", "kill", "length")
_WRITES = ("write", "pwrite64")
# What a full or a broken disk refuses from some moment on.
_GROWING = (*_WRITES, "mkdir", "link", "rename", "ftruncate")
# Where no descriptor is left, and where nothing can be read any more.
_FOR_GOOD = {"openat": "EMFILE", "read": "EIO"}


class Case(NamedTuple):
    """One disturbance of one scene: a fault, or a bound on the length of files."""

    scene: Scene
    fault: Fault | None = None
    file_bytes_max: int | None = None

    @property
    def kind(self) -> str:
        """What it is counted as."""
        if self.fault is None:
            return "length"
        if self.fault.error == KILL:
            return "kill"
        if self.fault.error.isdigit():
            return "short"
        return "onwards" if self.fault.onwards else "error"

    def __str__(self) -> str:
        if self.fault is None:
            return f"{self.scene.name} length={self.file_bytes_max}"
        call = self.fault.call
        after = "+" if self.fault.onwards else ""
        return (
            f"{self.scene.name} {call.name}#{call.number}{after} {self.fault.error} "
            f"({call.text[:150]})"
        )


def cases(scene: Scene, calls: list[Call]) -> Iterator[Case]:
    """Every disturbance of a scene whose undisturbed run made these calls."""
    *touching, _after = calls
    for call in calls:
        yield Case(scene, Fault(call, KILL))
    for call in touching:
        for error in ERRORS:
            yield Case(scene, Fault(call, error))
    for call in touching:
        for answer in _short_answers(call):
            yield Case(scene, Fault(call, str(answer)))
    yield from _from_one_on(scene, touching)
    for length in _lengths(scene, touching):
        yield Case(scene, file_bytes_max=length)


def sample(every: list[Case], count: int) -> list[Case]:
    """`count` of them, or all: one of each stretch, the same ones every time."""
    if count >= len(every):
        return every
    # Not every n-th: the errors of a call repeat, and it would always be the same.
    die = random.Random(count)
    bounds = [number * len(every) // count for number in range(count + 1)]
    return [
        every[die.randrange(start, stop)] for start, stop in itertools.pairwise(bounds)
    ]


def _from_one_on(scene: Scene, calls: list[Call]) -> Iterator[Case]:
    """From a call on, it and its like fail for good."""
    for call in calls:
        if call.name in _GROWING:
            rest = [each for each in calls[call.order :] if each.name in _GROWING]
            first = {each.name: each for each in reversed(rest)}
            for error in ("ENOSPC", "EIO"):
                yield Case(scene, Fault(call, error, tuple(first.values())))
        if call.name in _FOR_GOOD:
            yield Case(scene, Fault(call, _FOR_GOOD[call.name], (call,)))


def _short_answers(call: Call) -> list[int]:
    """What a write may say that is less than it was given.

    The tracer can make it say so, but not carry it out in part. That it took nothing is
    true then; that it took some is believed only where it may be: who appends to a
    segment has to let it go in any case.
    """
    write = write_in(call.text) if call.name in _WRITES else None
    if write is None:
        return []
    is_segment = call.name == "write" and "/spool/" in write.path
    return [0, 1, write.size - 1] if is_segment else [0]


def _lengths(scene: Scene, calls: list[Call]) -> list[int]:
    """Bounds that each meet a write: all of it is beyond, or all but a part of it."""
    lengths: dict[str, int] = {}
    found: set[int] = set()
    for call in calls:
        write = write_in(call.text)
        if write is None:
            continue
        start = write.offset
        if start is None:
            name = write.path.partition(f"/{HOME}/")[2]
            known = lengths.get(name)
            start = _length(scene, name) if known is None else known
            lengths[name] = start + write.taken
        found |= {start, start + 1, start + write.size // 2, start + write.size - 1}
    return sorted(found)


def _length(scene: Scene, name: str) -> int:
    """How long a file of a scene's home is before its program begins."""
    try:
        return os.path.getsize(f"{scene.directory}/{HOME}/{name}")
    except FileNotFoundError:
        return 0
