"""The one loop that drains a spool, and what it does with a batch that fails.

Each segment is drained from its beginning: announce, post, settle, delete
(`settlement.py`). A batch that is refused, or not answered, may be at fault itself, or
the server may be. Which of the two is told by what comes next:

    accepted    another batch, or a probe (one event from another place), is accepted:
                the batch is set aside, and all others go on. At the end of this flush
                and in later ones it is narrowed and tried again, down to the event
    not         the server fails for all: the flush ends, and nothing is held against
                any event

A server that accepts nothing sees at most four requests of one flush. An event dies
only if an accepting reply named it, or if it failed alone in five flushes in which
others were accepted, or was refused in five flushes as the only one pending.

Its caller holds the flush lock. It opens no ledger, takes no lock and starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from telemetry.books.entries import Announced, set_aside
from telemetry.delivery import search
from telemetry.delivery.census import count_pending_quickly
from telemetry.delivery.settlement import Batch, Desk, OpenSegment
from telemetry.errors import SpoolError
from telemetry.spool.reader import segment_names
from telemetry.wire.retry import Halted, Poster
from telemetry.wire.verdict import Action, Verdict


# Requests in a row that may fail before a flush ends; the server sees no more of it.
FAILURES_MAX = 4
# The same where others were accepted in this flush, and the server says no itself.
REFUSALS_MAX = 16
# An event that failed alone in so many flushes, while others were accepted, is dead.
WINDOWS_MAX = 5


class _Failure(NamedTuple):
    """A range that failed, and whether by its own fault is not yet known."""

    name: str
    known: Announced
    verdict: Verdict


class Drain:
    """One drain of one spool. `turn` is the number of the next probe."""

    def __init__(self, desk: Desk, poster: Poster, *, turn: int = 0) -> None:
        self._delivered = 0
        self.turn = turn
        # Whether the disk kept something from being settled.
        self.is_blocked = False
        self._desk = desk
        self._books = desk.books
        self._poster = poster
        self._is_accepting = False
        self._in_a_row = 0
        self._failures: list[_Failure] = []
        # Ranges that were set aside in this flush, by segment and start, and why.
        self._set_aside: dict[tuple[str, int], Verdict] = {}
        self._waits = 0
        self._left_alone: set[str] = set()

    def run(self) -> Verdict | None:
        """All is delivered on return; or what is left was set aside for this verdict.

        Raises Halted if network, server, consent or time end it before.
        """
        moved = True
        while moved:
            before = self._delivered
            for name in segment_names(self._desk.home):
                self._with(name, self._drain_segment)
            moved = self._delivered > before
        self._hold_against()
        for name in segment_names(self._desk.home):
            if self._books.entry(name).announced:
                self._with(name, self._narrow_segment)
        for entry in self._books.snapshot.segments.values():
            for known in entry.announced:
                last = list(self._set_aside.values())[-1:]
                return last[0] if last else Verdict(Action.WAIT, known.reason)
        return None

    def close(self) -> None:
        """Close the file of dead letters."""
        self._desk.letters.close()

    def _with(self, name: str, work: Callable[[OpenSegment], None]) -> None:
        """Do some work on a segment. One that cannot be read or stored holds no other."""
        if name in self._left_alone:
            return
        try:
            segment = OpenSegment(self._desk, name)
        except (OSError, SpoolError):
            self._left_alone.add(name)
            there = os.path.lexists(self._desk.home.segment(name))
            self.is_blocked = self.is_blocked or there
            return
        try:
            work(segment)
        except (OSError, SpoolError):
            self._left_alone.add(name)
            self.is_blocked = True
        finally:
            segment.close()

    def _drain_segment(self, segment: OpenSegment) -> None:
        while True:
            failed = {e.known.start for e in self._failures if e.name == segment.name}
            batch = segment.next(failed)
            if batch is not None:
                self._deliver(segment, batch)
            elif segment.finish():
                return

    def _deliver(self, segment: OpenSegment, batch: Batch) -> None:
        """The batch is settled on return, or may be set aside. Raises Halted."""
        verdict = self._poster.post(batch.request)
        if verdict.action is Action.WAIT and not verdict.narrow:
            verdict = self._post_again(
                batch, verdict, FAILURES_MAX - self._in_a_row - 1
            )
        if verdict.action is Action.ACCEPTED:
            self._accept(segment, batch, verdict)
        elif not verdict.narrow:
            raise _halted(verdict)
        else:
            self._failures.append(_Failure(segment.name, batch.known, verdict))
            self._in_a_row += 1
            # While others are accepted, the next batch is as good as a probe.
            bound = FAILURES_MAX if verdict.action is Action.WAIT else REFUSALS_MAX
            if not self._is_accepting or self._in_a_row >= bound - 1:
                self._find_out(segment, batch, verdict)

    def _find_out(self, segment: OpenSegment, batch: Batch, verdict: Verdict) -> None:
        """Whether it is the batch or the server. Raises Halted if it is the server."""
        # One that was set aside before is not waited for: its parts are tried at once.
        if verdict.action is Action.WAIT and not batch.known.reason:
            if self._probe(within=False):
                return
            # One request is kept for a probe out of the batch itself.
            tries = FAILURES_MAX - self._in_a_row - (len(batch.records) > 1)
            verdict = self._post_again(batch, verdict, tries)
            if verdict.action is Action.ACCEPTED:
                self._failures.pop()
                self._accept(segment, batch, verdict)
                return
        while self._in_a_row < FAILURES_MAX:
            is_accepted = self._probe(within=True)
            if is_accepted:
                return
            if is_accepted is None:
                break
        self._give_up(segment, batch, verdict)

    def _post_again(self, batch: Batch, verdict: Verdict, tries: int) -> Verdict:
        before = self._poster.requests
        verdict = self._poster.post_again(batch.request, verdict, tries=max(tries, 0))
        self._in_a_row += self._poster.requests - before
        return verdict

    def _probe(self, *, within: bool) -> bool | None:
        """Whether one event from the next place is accepted; None if there is none.

        Only `within` may it come out of a batch that has just failed.
        """
        names = segment_names(self._desk.home)
        for _ in names:
            turn, self.turn = self.turn, self.turn + 1
            name = names[search.probe_segment(turn, len(names))]
            besides = {
                each.known.start
                for each in self._failures
                if each.name == name and (each.known.count == 1 or not within)
            }
            answers: list[bool] = []
            self._with(
                name, partial(self._probe_segment, turn, len(names), besides, answers)
            )
            if answers:
                return answers[0]
        # No place has one, so none has had its turn.
        self.turn -= len(names)
        return None

    def _probe_segment(
        self,
        turn: int,
        segments: int,
        besides: set[int],
        answers: list[bool],
        segment: OpenSegment,
    ) -> None:
        before = segment.entry
        batch = segment.single_out(turn, segments, besides)
        if batch is not None:
            verdict = self._poster.post(batch.request)
            answers.append(verdict.action is Action.ACCEPTED)
            if answers[0]:
                self._accept(segment, batch, verdict)
                return
            self._in_a_row += 1
        # It says nothing about these events; they are posted in larger batches again.
        self._books.stage(segment.name, before)

    def _accept(self, segment: OpenSegment, batch: Batch, verdict: Verdict) -> None:
        self._delivered += segment.accept(batch, verdict)
        self._is_accepting = True
        self._in_a_row = 0
        self._hold_against()

    def _hold_against(self) -> None:
        """What failed is set aside, if others were accepted in this flush."""
        if self._is_accepting:
            failures, self._failures = self._failures, []
            for name, known, verdict in failures:
                self._put_aside(name, known, verdict)

    def _put_aside(self, name: str, known: Announced, verdict: Verdict) -> None:
        entry = set_aside(self._books.entry(name), known, verdict.reason)
        self._books.stage(name, entry)
        for each in entry.announced:
            if known.start <= each.start < known.end:
                self._set_aside[name, each.start] = verdict

    def _narrow_segment(self, segment: OpenSegment) -> None:
        """Try each range that was set aside, and its parts, oldest first."""
        start = -1
        while True:
            behind = [each for each in segment.entry.announced if each.start > start]
            if not behind:
                segment.finish()
                return
            known = behind[0]
            batch = segment.read(known)
            if batch is None:
                continue
            known = batch.known
            verdict = self._set_aside.get((segment.name, known.start))
            if verdict is None or (known.count > 1 and verdict.action is Action.WAIT):
                # What was not answered is tried once more as a whole: it may have been
                # the network.
                self._set_aside.pop((segment.name, known.start), None)
                if self._is_accepting:
                    verdict = self._try(segment, batch)
                else:
                    self._deliver(segment, batch)
                    continue
            if verdict is None:
                continue
            if known.count == 1 and self._windows(segment, known) >= WINDOWS_MAX:
                segment.bury(batch, verdict)
            elif known.count == 1 or not segment.narrow(batch):
                start = known.start
            else:
                self._set_aside.pop((segment.name, known.start), None)

    def _try(self, segment: OpenSegment, batch: Batch) -> Verdict | None:
        """What a range drew that was set aside; None if it is settled. Raises Halted."""
        verdict = self._poster.post(batch.request)
        if verdict.action is Action.ACCEPTED:
            self._accept(segment, batch, verdict)
            return None
        if not verdict.narrow:
            raise _halted(verdict)
        self._put_aside(segment.name, batch.known, verdict)
        self._in_a_row += 1
        self._waits += verdict.action is Action.WAIT
        is_bound = self._waits > FAILURES_MAX or self._in_a_row > REFUSALS_MAX
        if is_bound and not self._probe(within=False):
            raise Halted("waiting", verdict)
        return verdict

    def _windows(self, segment: OpenSegment, known: Announced) -> int:
        return next(
            e.windows for e in segment.entry.announced if e.start == known.start
        )

    def _give_up(self, segment: OpenSegment, batch: Batch, verdict: Verdict) -> None:
        """The server takes nothing now: Halted, or the only event there is is dead."""
        if (
            verdict.action is Action.SPLIT
            and len(batch.records) == 1
            and count_pending_quickly(self._desk.home, self._books.snapshot) == 1
        ):
            self._failures = []
            self._put_aside(segment.name, batch.known, verdict)
            if self._windows(segment, batch.known) < WINDOWS_MAX:
                raise Halted("waiting", verdict)
            segment.bury(batch, verdict)
            return
        waits = [e.verdict for e in self._failures if e.verdict.action is Action.WAIT]
        raise _halted(waits[-1] if waits else verdict)


def _halted(verdict: Verdict) -> Halted:
    return Halted("waiting" if verdict.action is Action.WAIT else "paused", verdict)
