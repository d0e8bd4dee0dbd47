"""The system calls of a recorded run, and what a tracer is told to do to one of them.

A recording says how many calls of each kind there are and which of them touch the
home. To fail the n-th `openat` of a later run of the same program is then to fail
that very call; the tracer's log of the later run says whether it was.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.proofs.system_calls.programs import END


KILL = "KILL"
_CALL = re.compile(r"^(\w+)\((.*)")
# What a write says, with its path, its size, its offset if told, and what was taken.
_WRITE = re.compile(
    r"^p?write(?:64)?\(\d+<([^>]*)>[^,]*, .*?, (\d+)(?:, (\d+))?\)\s+= (\d+)"
)


class Call(NamedTuple):
    """One call that touched the home: its kind, its number among its kind, its text.

    `order` is its number among all calls of the home.
    """

    name: str
    number: int
    order: int
    text: str


class Write(NamedTuple):
    """One write that succeeded. `offset` is None where the file's position decides."""

    path: str
    offset: int | None
    size: int
    taken: int


class Fault(NamedTuple):
    """What happens to a call, which is never carried out then.

    error: its failure; KILL, the program's end; or a number, which it answers
    onwards: the calls that fail from there on, in the home or not
    """

    call: Call
    error: str
    onwards: tuple[Call, ...] = ()

    def options(self) -> list[str]:
        """What the tracer has to be told."""
        if self.error == KILL:
            what = "signal=KILL"
        elif self.error.isdigit():
            what = f"retval={self.error}"
        else:
            what = f"error={self.error}"
        calls = self.onwards or (self.call,)
        when = "+" if self.onwards else ""
        return [
            "-e",
            "trace=" + ",".join(call.name for call in calls),
            *(
                f"--inject={call.name}:{what}:when={call.number}{when}"
                for call in calls
            ),
        ]

    def was_met(self, log: list[str], status: int, place: str) -> bool:
        """Whether the call that was to fail, or to be the last, was that call."""
        if self.error == KILL:
            return status == -9 and (END in self.call.text or place in log[-2])
        injected = [line for line in log if line.endswith("(INJECTED)")]
        return bool(injected) and place in injected[0]


def calls_of(log: list[str], place: str) -> list[Call]:
    """The calls of a recording that touch `place`, then the mark of the end."""
    numbers: dict[str, int] = {}
    found: list[Call] = []
    for line in log:
        match = _CALL.match(line)
        if match is None:
            continue
        name = match[1]
        numbers[name] = numbers.get(name, 0) + 1
        if place in line or END in line:
            found.append(Call(name, numbers[name], len(found), line))
        if END in line:
            break
    return found


def write_in(line: str) -> Write | None:
    """The write that a line of a log tells of; None where it tells of none."""
    match = _WRITE.match(line)
    if match is None:
        return None
    path, size, offset, taken = match.groups()
    at = None if offset is None else int(offset)
    return Write(path, at, int(size), int(taken))
