"""A recorded story, its power cut at every operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from telemetry.spool import frame
from tests.proofs.power_loss.disk import Disk, tree
from tests.proofs.power_loss.events import number_of
from tests.proofs.power_loss.judging import Judge, Owed
from tests.proofs.power_loss.losses import Bounds, states


if TYPE_CHECKING:
    from tests.proofs.power_loss.trace import Operation

# No list of findings is longer: one rule taken out makes thousands.
_FINDINGS_MAX = 20
_SPOOL = "/spool/"


class World:
    """What the outside world was told so far, and what was written."""

    def __init__(self) -> None:
        self._acked: set[int] = set()
        self._taken: set[int] = set()
        self._refused: set[int] = set()
        self._purged: set[int] = set()
        self._written: set[bytes] = set()
        self._stretch = False

    def see(self, done: Operation, disk: Disk) -> None:
        """Take in one more operation, which the disk has seen already."""
        if done.kind == "mark":
            word, *numbers = done.content.decode().split()
            named = set(map(int, numbers))
            if word == "ack":
                self._acked |= named
            elif word == "took":
                self._taken |= named
            elif word == "refused":
                self._refused |= named
            elif word == "stretch":
                self._stretch = True
            elif word == "purge":
                # Letters and quarantine go, and whatever stands in the spool.
                self._stretch = False
                self._purged |= _numbers_in(disk) | self._refused
        elif done.kind == "write" and _SPOOL in done.path:
            self._written.update(_events_of(done.content))

    def owed(self) -> Owed:
        """What a power loss at this moment must leave."""
        return Owed(
            frozenset(self._acked - self._taken - self._purged),
            frozenset(self._refused),
            frozenset(self._written),
            self._stretch,
        )


def _events_of(content: bytes) -> list[bytes]:
    items = frame.scan(content, at=0, answered=0).items
    return [item.event for item in items if isinstance(item, frame.Record)]


def _numbers_in(disk: Disk) -> set[int]:
    return {
        number_of(event)
        for path, content in tree(disk.root).items()
        if _SPOOL in path and content
        for event in _events_of(content)
    }


def replay(
    operations: Sequence[Operation],
    judge: Judge,
    bounds: Bounds,
    *,
    seed: int,
    since: int = 0,
) -> tuple[Counter[str], list[str]]:
    """Cut the power behind each operation from `since` on: totals, and what is wrong."""
    totals: Counter[str] = Counter()
    findings: list[str] = []
    disk, world = Disk(), World()
    flushed, looked_at = judge.flushed, judge.looked_at
    for number, done in enumerate(disk.play(operations)):
        world.see(done, disk)
        if number < since:
            continue
        totals["crash points"] += 1
        owed = world.owed()
        for state in states(disk, bounds, seed + number):
            problems = judge.problems(state, owed)
            if problems:
                totals["losses"] += any(each.startswith("lost") for each in problems)
                totals["wrong"] += 1
                if len(findings) < _FINDINGS_MAX:
                    findings.append(f"behind {number} ({_told(done)}): {problems[:4]}")
    totals["states"] += judge.looked_at - looked_at
    totals["flushes"] += judge.flushed - flushed
    return totals, findings


def _told(done: Operation) -> str:
    what = done.content.decode() if done.kind == "mark" else done.path
    return f"{done.kind} {what} {done.other}".strip()


def without(
    operations: Sequence[Operation], taken_out: Callable[[Operation], bool]
) -> list[Operation]:
    """The story as it would be if some of its operations were not made."""
    return [each for each in operations if not taken_out(each)]
