"""Settling a batch that was refused as a whole: which of its events are bad.

`bisection.py` says what to post next; this posts it and settles the beginning
of the batch whose events' fates are known, so that a kill in the middle costs
at most the requests after it. Each part that begins where the books end is
announced first, like any batch.
"""

from __future__ import annotations

from telemetry.delivery.batch import Batch, Request, records_request
from telemetry.delivery.bisection import Bisection
from telemetry.delivery.books import SegmentEntry
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.delivery.posting import Halted, Poster
from telemetry.delivery.settlement import Settlement
from telemetry.delivery.verdict import Action, Verdict
from telemetry.spool.reader import SegmentReader


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
