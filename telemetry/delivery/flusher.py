"""The one loop that drains a spool: read, announce, post, settle, delete.

Whoever runs it holds the flush lock. The order in which it does things is the
promise, so that a kill between any two of them loses nothing:

    announce n      the exact range, key and hash of a batch are in the ledger
    post n          a retry after a kill sends the same bytes under the same key
    settle n        in the same transaction that announces n+1
    delete          once all is settled, under the segment's own lock
    fold            the entry of a segment that is gone goes into the totals

Killed after the post and before the commit, the batch is sent again: twice on
the wire, once after deduplication. Only proof of acceptance settles a batch;
`verdict.py` says what proof is, `bisection.py` how a bad event is found, and
`conclusion.py` when the next flush may begin.

It reads no configuration file, takes no lock and starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import msgspec
import tenacity

from telemetry.delivery import dead_letters
from telemetry.delivery.accounts import Accounts
from telemetry.delivery.batch import Batch, Request, batch_of, records_request
from telemetry.delivery.bisection import Bisection
from telemetry.delivery.books import SegmentEntry
from telemetry.delivery.report import Stopped
from telemetry.delivery.settling import (
    announce,
    letter,
    rejected_numbers,
    settle,
    settle_tail,
)
from telemetry.delivery.verdict import Action, Outcome, Verdict, judge
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.frame import Damage, Record
from telemetry.spool.reader import SegmentReader, segment_names


# Between two tries of one flush: full jitter, from half a second.
_RETRY_FIRST_S = 0.5
_RETRY_MAX_S = 10.0
# After so many flushes that a batch drew server errors in, it is split: one event
# that breaks the server must not hold the others for ever.
WINDOWS_5XX_MAX = 5
# An event that is the only one pending is given up after so many flushes.
REFUSALS_MAX = 5
# A batch that was announced is taken again whole, whatever the bounds are now.
_NO_BOUND = 1 << 62


class Post(Protocol):
    """What is needed of a transport."""

    def post(self, body: bytes, *, key: str, timeout_s: float) -> Outcome:
        """What came of one request."""
        ...


class Halted(Exception):  # noqa: N818 - no error: it ends a flush early
    """The flush is over before the spool is empty, for the reason of a verdict."""

    def __init__(self, stopped: Stopped, verdict: Verdict | None = None) -> None:
        super().__init__(stopped)
        self.stopped = stopped
        self.verdict = verdict


class _SetAsideError(Exception):
    """This segment waits, the others go on."""


class Flusher:
    """One flush of one spool.

    `accounts` are its books. `allowed` is asked before each request. `clock` is
    seconds since 1970, `monotonic` seconds, and `deadline` a time of the latter.
    """

    def __init__(
        self,
        *,
        home: Home,
        accounts: Accounts,
        transport: Post,
        batch_events_max: int,
        batch_bytes_max: int,
        request_timeout_s: float,
        accept_statuses: tuple[int, ...],
        allowed: Callable[[], bool],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        deadline: float,
    ) -> None:
        self._home = home
        self._accounts = accounts
        self._transport = transport
        self._batch_events_max = batch_events_max
        self._batch_bytes_max = batch_bytes_max
        self._request_timeout_s = request_timeout_s
        self._accept_statuses = accept_statuses
        self._allowed = allowed
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._deadline = deadline
        self.delivered = 0
        self.damaged = 0
        self.requests = 0
        # Whether the disk kept something from being settled.
        self.blocked = False
        # Segments whose event was refused alone while nothing was accepted yet.
        self.suspects: dict[str, Verdict] = {}
        self._set_aside: set[str] = set()

    def drain(self) -> None:
        """Everything is delivered on return, but for what had to be set aside.

        Raises Halted where network, server, consent or time end it before.
        """
        moved = True
        while moved:
            before = self.delivered
            for name in segment_names(self._home):
                if name not in self._set_aside:
                    self._drain_segment(name)
            if self.delivered and self.suspects:
                # By now something was accepted: it is the events, not the server.
                self._set_aside -= self.suspects.keys()
                self.suspects = {}
                continue
            moved = self.delivered > before

    def post(self, request: Request, *, patient: bool = True) -> Verdict:
        """What came of a request, retried under backoff while there is time.

        Without `patient` a server error is an answer and is not retried. Raises
        Halted where consent or time do not allow a request.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(
                lambda verdict: (
                    verdict.action is Action.WAIT
                    and (patient or not verdict.server_error)
                )
            ),
            wait=_pause_s,
            stop=lambda state: (
                self._monotonic() + state.upcoming_sleep >= self._deadline
            ),
            sleep=self._sleep,
            before=tenacity.before_nothing,
            after=tenacity.after_nothing,
            before_sleep=None,
            reraise=True,
            retry_error_callback=_last_verdict,
        )
        return retrying(self._post_once, request)

    def give_up_alone(self, pending: int) -> Stopped:
        """What to do with events that were refused alone while nothing was accepted.

        One that is the only one `pending` has no other to be compared with: it is
        given up after five flushes. Where there are more, it is the server that
        refuses, and nothing is given up.
        """
        names = list(self.suspects)
        if pending != 1 or len(names) != 1:
            return "paused"
        name = names[0]
        entry = self._accounts.entry(name)
        known = entry.inflight
        if known is None:
            return "waiting"
        refusals = known.refusals + 1
        if refusals < REFUSALS_MAX:
            known = msgspec.structs.replace(known, refusals=refusals)
            entry = msgspec.structs.replace(entry, inflight=known)
            self._accounts.commit(segments={name: entry})
            return "waiting"
        reader = SegmentReader(self._home, name)
        try:
            entry = self._known(reader)
            items = reader.take(1, _NO_BOUND)
            verdict = self.suspects[name]
            letters = {
                record.start: letter(
                    record,
                    verdict,
                    reply=verdict.detail,
                    now=self._clock(),
                    attempts=refusals,
                )
                for record in items
                if isinstance(record, Record)
            }
            self._finish(reader, self._settle(reader, entry, items, letters))
        finally:
            reader.close()
        return "drained"

    def _post_once(self, request: Request) -> Verdict:
        if not self._allowed():
            raise Halted("off")
        left_s = self._deadline - self._monotonic()
        if left_s <= 0:
            raise Halted("deadline")
        self.requests += 1
        outcome = self._transport.post(
            request.body,
            key=request.key,
            timeout_s=min(left_s, self._request_timeout_s),
        )
        verdict = judge(
            outcome, now=self._clock(), accept_statuses=self._accept_statuses
        )
        short = left_s < self._request_timeout_s
        if short and verdict.reason == "timeout" and verdict.action is Action.WAIT:
            # Our time was up, not the server's: that says nothing about it.
            raise Halted("deadline")
        return verdict

    def _drain_segment(self, name: str) -> None:
        try:
            reader = SegmentReader(self._home, name)
        except SpoolError:
            self.blocked = self.blocked or os.path.lexists(self._home.segment(name))
            self._set_aside.add(name)
            return
        try:
            entry = self._known(reader)
            while True:
                entry, batch = self._announced(reader, entry)
                if batch is None:
                    if self._finish(reader, entry):
                        return
                else:
                    self._deliver(reader, entry, batch)
                entry = self._accounts.entry(name)
        except _SetAsideError:
            self._set_aside.add(name)
        except (OSError, SpoolError):
            # What cannot be read or quarantined waits, and holds back no other.
            self.blocked = True
            self._set_aside.add(name)
        finally:
            reader.close()

    def _known(self, reader: SegmentReader) -> SegmentEntry:
        """What is settled of a segment, if the file still bears it out.

        A power loss may have shortened it, and another file may have its name:
        then what was settled is folded and the segment begins anew.
        """
        entry = self._accounts.entry(reader.name)
        behind = reader.size() < entry.offset + entry.tail
        if behind or not reader.holds(entry.offset, entry.seq, entry.crc):
            self._accounts.gone(reader.name)
            entry = SegmentEntry(offset=0)
        reader.start_at(entry.offset)
        return entry

    def _announced(
        self, reader: SegmentReader, entry: SegmentEntry
    ) -> tuple[SegmentEntry, Batch | None]:
        """The next batch of a segment, in the ledger before anybody posts it."""
        known = entry.inflight
        if known is not None and known.start == entry.offset:
            items = reader.take(known.count, _NO_BOUND, until=known.end)
            if items and items[-1].end == known.end:
                batch = batch_of(items)
                if _request(batch.records).digest == known.digest:
                    return entry, batch
            # The file is not the one that was announced: that batch is void.
            reader.start_at(entry.offset)
        items = reader.take(self._batch_events_max, self._batch_bytes_max)
        if not items:
            return entry, None
        batch = batch_of(items)
        return self._announce(reader, entry, batch.records), batch

    def _announce(
        self, reader: SegmentReader, entry: SegmentEntry, records: list[Record]
    ) -> SegmentEntry:
        """What is settled and what is posted next are in the ledger on return."""
        request = _request(records)
        entry = announce(entry, records, key=request.key, digest=request.digest)
        self._accounts.commit(segments={reader.name: entry})
        return entry

    def _deliver(
        self, reader: SegmentReader, entry: SegmentEntry, batch: Batch
    ) -> None:
        """The batch is posted and settled on return. Raises Halted, or sets aside."""
        known = entry.inflight
        windows = known.windows_5xx if known else 0
        patient = windows < WINDOWS_5XX_MAX
        verdict = self.post(_request(batch.records), patient=patient)
        if verdict.action is Action.ACCEPTED:
            letters = self._rejected(batch.records, verdict)
            self._settle(reader, entry, batch.items, letters)
        elif verdict.action is Action.SPLIT or (verdict.server_error and not patient):
            self._search(reader, entry, batch, verdict)
        else:
            if verdict.server_error and known is not None:
                known = msgspec.structs.replace(known, windows_5xx=windows + 1)
                entry = msgspec.structs.replace(entry, inflight=known)
                self._accounts.commit(segments={reader.name: entry})
            raise _halted(verdict)

    def _settle(
        self,
        reader: SegmentReader,
        entry: SegmentEntry,
        items: list[Record | Damage],
        letters: dict[int, dead_letters.DeadLetter],
    ) -> SegmentEntry:
        """`items` are settled: damage quarantined, letters written, entry staged.

        The transaction that announces what follows commits it.
        """
        for item in items:
            if isinstance(item, Damage):
                reader.quarantine(item.start, item.end)
        for offset, each in letters.items():
            name = dead_letters.name_of(reader.name, offset)
            dead_letters.write(self._home.dead, name, each)
        settled = settle(entry, items, dead=len(letters))
        if entry.inflight is not None and settled.inflight is None:
            kept = entry.inflight.windows_5xx
            if kept >= WINDOWS_5XX_MAX and settled.offset < entry.inflight.end:
                settled = msgspec.structs.replace(settled, inflight=entry.inflight)
        self.damaged += settled.damaged - entry.damaged
        self.delivered += settled.delivered - entry.delivered
        self._accounts.stage(reader.name, settled)
        return settled

    def _rejected(
        self, records: list[Record], verdict: Verdict
    ) -> dict[int, dead_letters.DeadLetter]:
        """Letters for the records that an accepting reply named, by their offset."""
        return {
            records[number].start: letter(
                records[number],
                msgspec.structs.replace(verdict, reason="rejected"),
                reply=reason,
                now=self._clock(),
                attempts=1,
            )
            for number, reason in rejected_numbers(records, verdict).items()
        }

    def _search(
        self, reader: SegmentReader, entry: SegmentEntry, batch: Batch, verdict: Verdict
    ) -> None:
        """Find the bad events of a refused batch; settle what is certain of it."""
        if self.suspects and not self.delivered:
            # A second batch is refused and nothing was accepted: it is the server.
            raise Halted("paused", verdict)
        records = batch.records
        search = Bisection(
            [len(record.event) for record in records],
            by_size=verdict.by_size,
            evidence=self.delivered > 0,
        )
        letters: dict[int, dead_letters.DeadLetter] = {}
        alone = {0: verdict} if len(records) == 1 else {}
        attempts, done = 1, 0
        while (span := search.next()) is not None:
            part = records[span[0] : span[1]]
            if span[0] == done:
                entry = self._announce(reader, entry, part)
            answer = self.post(_request(part), patient=False)
            attempts += 1
            is_refused = answer.action is Action.SPLIT or answer.server_error
            if answer.action is Action.ACCEPTED:
                letters.update(self._rejected(part, answer))
            elif not is_refused:
                raise _halted(answer)
            elif len(part) == 1:
                alone[span[0]] = answer
            search.tell(accepted=not is_refused)
            done, entry = self._advance(
                reader, entry, batch, search, letters, alone, attempts, done
            )
        done, entry = self._advance(
            reader, entry, batch, search, letters, alone, attempts, done
        )
        if done < len(records):
            self.suspects[reader.name] = verdict
            raise _SetAsideError

    def _advance(  # noqa: PLR0917 - the state of one search, which has no other home
        self,
        reader: SegmentReader,
        entry: SegmentEntry,
        batch: Batch,
        search: Bisection,
        letters: dict[int, dead_letters.DeadLetter],
        alone: dict[int, Verdict],
        attempts: int,
        done: int,
    ) -> tuple[int, SegmentEntry]:
        """Settle the beginning of a batch whose events' fates are known."""
        settled = search.settled()
        if settled == done:
            return done, entry
        start, end = entry.offset, batch.records[settled - 1].end
        for number in range(done, settled):
            if number in search.refused:
                record, answer = batch.records[number], alone[number]
                letters[record.start] = letter(
                    record,
                    answer,
                    reply=answer.detail,
                    now=self._clock(),
                    attempts=attempts,
                )
        items = [item for item in batch.items if start <= item.start < end]
        due = {at: each for at, each in letters.items() if start <= at < end}
        return settled, self._settle(reader, entry, items, due)

    def _finish(self, reader: SegmentReader, entry: SegmentEntry) -> bool:
        """Whether this segment is done with; False where it has grown meanwhile.

        Without its lock it is being written: what follows the last whole record
        is left alone. Under its lock its end is read once more.
        """
        if not reader.lock():
            return True
        reader.start_at(entry.offset)
        if reader.take(1, _NO_BOUND, until=None):
            reader.start_at(entry.offset)
            return False
        size = reader.size()
        if size > entry.offset + entry.tail:
            reader.quarantine(entry.offset, size)
            settled = settle_tail(entry, size)
            self.damaged += settled.damaged - entry.damaged
            self._accounts.stage(reader.name, settled)
        if not self._accounts.is_saved:
            # The settled offset is on disk before its segment is gone. On a full
            # disk it cannot be, and the space is what the disk needs.
            self._accounts.commit()
        if reader.delete(size):
            self._accounts.gone(reader.name)
        return True


def _request(records: list[Record]) -> Request:
    return records_request([record.event for record in records])


def _halted(verdict: Verdict) -> Halted:
    return Halted("paused" if verdict.action is Action.PAUSE else "waiting", verdict)


_jitter = tenacity.wait_random_exponential(multiplier=_RETRY_FIRST_S, max=_RETRY_MAX_S)


def _pause_s(state: tenacity.RetryCallState) -> float:
    """What the server asked for, else full jitter under an exponential bound."""
    verdict = _last_verdict(state)
    if verdict.retry_after_s is not None:
        return verdict.retry_after_s
    return _jitter(state)


def _last_verdict(state: tenacity.RetryCallState) -> Verdict:
    outcome = state.outcome
    assert outcome is not None, "tenacity asks after an attempt"  # noqa: S101
    verdict: Verdict = outcome.result()
    return verdict
