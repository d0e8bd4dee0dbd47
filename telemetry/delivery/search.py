"""Settling a batch that was refused as a whole: which of its events are bad.

`bisection.py` says what to post next; this posts it and settles the beginning
of the batch whose events' fates are known, so that a kill in the middle costs
at most the requests after it. Each part that begins where the books end is
announced first, like any batch.

Finding the bad events of a refused batch in few requests. Pure.

The batch was refused as a whole. Its halves are posted in turn, and a half that
is refused is halved again: one bad event among n costs 2·log2(n) requests more.

A server that refuses everything must not draw a request for each event. So
until something was accepted (the evidence that it is the events, not the
endpoint), only one event is singled out; every other range that is refused is
set aside, and taken up again once there is evidence.
"""

from __future__ import annotations

from collections.abc import Sequence

from telemetry.books.entries import SegmentEntry
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.delivery.settlement import Settlement
from telemetry.spool.reader import SegmentReader
from telemetry.wire.formats import Batch, Request, records_request
from telemetry.wire.retry import Halted, Poster
from telemetry.wire.verdict import Action, Verdict


class Bisection:
    """The search in one batch whose events have `sizes` bytes.

    With `by_size` ranges are halved by bytes, else by count. `evidence` says
    that something was accepted; it may be known before. `delivered` and
    `refused` are numbers of events in the batch.
    """

    def __init__(self, sizes: Sequence[int], *, by_size: bool, evidence: bool) -> None:
        self.evidence = evidence
        self.delivered: set[int] = set()
        self.refused: set[int] = set()
        self._sizes = sizes
        self._by_size = by_size
        self._to_post: list[tuple[int, int]] = []
        self._set_aside: list[tuple[int, int]] = []
        self._refuse(0, len(sizes))

    def next(self) -> tuple[int, int] | None:
        """The range (first, one behind the last) to post next; None at the end."""
        if not self._to_post and self.evidence and self._set_aside:
            for first, stop in reversed(self._set_aside):
                self._halve(first, stop)
            self._set_aside = []
        return self._to_post[-1] if self._to_post else None

    def tell(self, *, accepted: bool) -> None:
        """What came of the range that `next` gave."""
        first, stop = self._to_post.pop()
        if accepted:
            if not self.evidence:
                # Refused before anything was accepted: the server may have been
                # down for all. Asked once more, now that it is known to accept.
                again = sorted(self.refused, reverse=True)
                self._to_post += [(number, number + 1) for number in again]
                self.refused.clear()
            self.evidence = True
            self.delivered.update(range(first, stop))
        else:
            self._refuse(first, stop)

    def is_settled(self, number: int) -> bool:
        """Whether this event's fate is known: delivered, or refused for good."""
        return number in self.delivered or (self.evidence and number in self.refused)

    def settled(self) -> int:
        """How many events from the first on are settled, without a gap."""
        count = 0
        while count < len(self._sizes) and self.is_settled(count):
            count += 1
        return count

    def _refuse(self, first: int, stop: int) -> None:
        if stop - first == 1:
            self.refused.add(first)
        elif self.evidence or not self.refused:
            self._halve(first, stop)
        else:
            self._set_aside.append((first, stop))

    def _halve(self, first: int, stop: int) -> None:
        if stop - first == 1:
            self._to_post.append((first, stop))
            return
        middle = self._middle(first, stop)
        # The left half on top: what is settled is always a beginning.
        self._to_post += [(middle, stop), (first, middle)]

    def _middle(self, first: int, stop: int) -> int:
        """Where to cut a range of at least two events."""
        count = stop - first
        if not self._by_size:
            return first + count // 2
        half = sum(self._sizes[first:stop]) / 2
        size, middle = 0, first
        while middle < stop and size + self._sizes[middle] / 2 < half:
            size += self._sizes[middle]
            middle += 1
        # No side holds more events than the next smaller power of two, so cutting by
        # bytes takes no more cuts to come to one event than cutting by count. The
        # left one holds no more than half: an event that is refused alone there, with
        # nothing accepted before it, is asked once more.
        count_max = 1 << ((count - 1).bit_length() - 1)
        return min(max(middle, stop - count_max, first + 1), first + count // 2)


# Where it is server errors that single out an event, it has to draw one so often
# in a row: a server that fails now and then must not cost a good event.
_TRIES_ALONE = 3


class Search:
    """The search in one refused batch of a segment.

    `verdict` is what the whole batch drew. `evidence` says that this flush saw
    something accepted already.
    """

    def __init__(
        self,
        reader: SegmentReader,
        entry: SegmentEntry,
        batch: Batch,
        verdict: Verdict,
        *,
        poster: Poster,
        settlement: Settlement,
        evidence: bool,
    ) -> None:
        self._reader = reader
        self._entry = entry
        self._batch = batch
        self._poster = poster
        self._settlement = settlement
        # Elsewhere a server error is the server's own affair.
        self._is_poisoned = verdict.server_error
        self._bisection = Bisection(
            [len(record.event) for record in batch.records],
            by_size=verdict.by_size,
            evidence=evidence,
        )
        self._alone = {0: verdict} if len(batch.records) == 1 else {}
        self._letters: dict[int, DeadLetter] = {}
        self._attempts = 1
        self._done = 0
        # In a storm of server errors one acceptance speaks for one event, not for all.
        self._has_proof = True

    def run(self) -> bool:
        """Whether the whole batch is settled; False: nothing was accepted.

        Raises Halted where an answer says nothing about events, and OSError.
        """
        self._advance()
        while (span := self._bisection.next()) is not None:
            first, stop = span
            part = self._batch.records[first:stop]
            request = records_request([record.event for record in part])
            if first == self._done:
                self._entry = self._settlement.announce(
                    self._reader.name, self._entry, part, request
                )
            answer = self._post(request, alone=len(part) == 1)
            is_accepted = answer.action is Action.ACCEPTED
            if is_accepted:
                self._has_proof = True
                self._letters.update(
                    self._settlement.rejected(part, answer, attempts=self._attempts)
                )
            elif not self._is_refusal(answer):
                raise Halted(
                    "paused" if answer.action is Action.PAUSE else "waiting", answer
                )
            elif len(part) == 1:
                if answer.server_error and not self._has_proof:
                    raise Halted("waiting", answer)
                self._has_proof = not answer.server_error
                self._alone[first] = answer
            self._bisection.tell(accepted=is_accepted)
            self._advance()
        return self._done == len(self._batch.records)

    def _post(self, request: Request, *, alone: bool) -> Verdict:
        tries = _TRIES_ALONE if self._is_poisoned and alone else 1
        while True:
            answer = self._poster.post(request, patient=not self._is_poisoned)
            self._attempts += 1
            tries -= 1
            if tries <= 0 or not answer.server_error:
                return answer

    def _is_refusal(self, answer: Verdict) -> bool:
        return answer.action is Action.SPLIT or (
            self._is_poisoned and answer.server_error
        )

    def _advance(self) -> None:
        """Settle the beginning of the batch whose events' fates are known."""
        settled = self._bisection.settled()
        if settled == self._done:
            return
        records = self._batch.records
        start, end = self._entry.offset, records[settled - 1].end
        for number in range(self._done, settled):
            if number in self._bisection.refused:
                self._letters[records[number].start] = self._settlement.letter(
                    records[number], self._alone[number], attempts=self._attempts
                )
        self._entry = self._settlement.settle(
            self._reader,
            self._entry,
            [item for item in self._batch.items if start <= item.start < end],
            {at: each for at, each in self._letters.items() if start <= at < end},
        )
        self._done = settled
