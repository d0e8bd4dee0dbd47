"""The one loop that drains a spool, and what it does with a batch that fails.

Once the server has accepted something, a few requests are under way at once. Their
answers are handled in the order in which they were sent, by this one thread: so the
results do not depend on which answer comes first. Each range goes its own way: announce,
post, settle; a segment is deleted once all of its ranges are settled (`settlement.py`).
What is left of small segments is posted together, and narrowed as a range is
(`gathering.py`).

A batch that is refused, or not answered, may be at fault itself, or the server may be.
The next answer decides which, whatever this one was:

    accepted    another batch, or a probe (one event from another place), is accepted:
                the batch is set aside, and all others go on. At the end of this flush
                and in later ones it is narrowed and tried again, down to the event
    not         the server fails for all: the flush ends, and nothing is held against
                any event

A server may also fail now and then, or accept only so many requests. A range that failed
and is accepted later, unchanged, shows it: in this flush that reason is held against no
event, and a range that draws it is tried four times before it is cut. Where events from
elsewhere are refused in the end, the ranges that were cut since the last acceptance are
joined again. An event that failed alone before fails again where the server breaks on it:
eight such failures may follow an acceptance without a sign of the server's (`KNOWN_MAX`).

A flush may end before it learns which: its time is over, or it is killed. So each range
that is posted again is counted first (`tries`): every other flush begins with a probe
from elsewhere, and what was set aside is cut after one try as a whole.

A server may take a few requests of a flush and fail all that follow. The range tried last
would then fail in every flush. So a flush that follows one which ended on ranges that were
set aside posts some of those first.

A server that accepts nothing sees at most four requests of one flush, or eight if it
refuses them (400, 413, 422), as that is about what was posted. One that says when to come
again (`Retry-After`) sees one more, the probe, and then none until that time. An event
becomes a dead letter only

- if an accepting reply named it;
- if it failed alone in five flushes (not by 429, which is about when, and not about what),
  the last of which posted it four times in a row after another one was accepted, and had
  posted it first, as an earlier one had. Where it draws no answer at all, an earlier flush
  that posted it first drew none either. Of a refusal (400, 413, 422) one flush that posted
  it first is enough, as the server works. It counts as well where it was not posted first
  and another one is accepted behind the four: a server that takes a few requests of a
  flush is out of the question then. It is tried for while a range of several is set aside,
  or new events are kept for it: a few, where others are accepted first;
- if it was refused in five flushes, of which four or all had nothing else pending but
  what had been set aside, or in which the spool was full. Each of them posts up to sixteen
  ranges: there is nothing to compare them with. Of a full spool nothing new ever comes.

Its caller holds the flush lock. It opens no ledger, takes no lock and starts nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from telemetry.books.entries import Announced, SegmentEntry, set_aside
from telemetry.delivery import search
from telemetry.delivery.census import count_pending_quickly
from telemetry.delivery.compaction import compact
from telemetry.delivery.evidence import FAILURES_MAX, Evidence, Place, bound, whole
from telemetry.delivery.gathering import Gathering
from telemetry.delivery.settlement import Batch, Desk, OpenSegment, Part
from telemetry.errors import SpoolError
from telemetry.spool.reader import segment_names
from telemetry.wire.retry import Halted, Poster, Sent, is_limit
from telemetry.wire.verdict import ABOUT_WHO_ASKS, REFUSALS, SLOW, Action, Verdict


T = TypeVar("T")

# Requests of FAILURES_MAX for what was set aside; the others may find one that is accepted.
BEGIN_MAX = 2
# So often a flush looks for what was recorded meanwhile, however little it finds.
PASSES_MAX = 8
# Requests of a flush in which nothing new waits, or has room.
REFUSED_MAX = 16
# New events that are kept until what may die was tried, to be accepted behind it.
WITNESSES_MAX = 4
# After so many flushes in a row without a delivery, the next one begins with new events:
# what was set aside is judged only beside an accepted event.
BEGIN_FLUSHES = 2
# After so many flushes in a row without a delivery, a refusal that ranges were set aside
# for is that of a server which refuses everything.
DOUBT_FLUSHES = 4


class _Failure(NamedTuple):
    """Ranges that failed as one batch. Whether by their own fault is not yet known."""

    places: list[Place]
    verdict: Verdict


class Drain:
    """One drain of one spool.

    `turn` is the number of the next probe. `failures` is how many flushes to this
    destination delivered nothing, in a row, before this one. With `begins_new` nothing
    that was set aside is posted before new events: whatever ended the last flushes may
    end each one there. `accepted_before` says that this destination accepted something in
    an earlier flush, `is_full` that events were refused since the last one, as there was
    no room in the spool.
    """

    def __init__(
        self,
        desk: Desk,
        poster: Poster,
        *,
        turn: int,
        failures: int,
        begins_new: bool,
        accepted_before: bool,
        is_full: bool,
    ) -> None:
        self.turn = turn
        # Whether the disk kept something from being settled.
        self.is_blocked = False
        # Whether it ended on what had been set aside: others were accepted beside it.
        self.says_nothing = False
        self._desk = desk
        self._books = desk.books
        self._poster = poster
        self._failed_before = failures
        self._begins_new = begins_new
        self._accepted_before = accepted_before
        self._is_full = is_full
        self._delivered = 0
        entries = desk.books.snapshot.segments.values()
        self._evidence = Evidence(
            failures=failures,
            aside=[known for entry in entries for known in entry.announced],
        )
        # Small parts that will be posted as one batch.
        self._gathered: Gathering[Part] = Gathering(
            events_max=desk.batch_events_max,
            bytes_max=desk.batch_bytes_max,
            segments_max=desk.batch_segments_max,
        )
        # Requests under way, in the order in which they were sent.
        self._sent: deque[tuple[Batch, Sent]] = deque()
        self._failures: list[_Failure] = []
        # Ranges that were posted in their turn, and answered, but not accepted.
        self._answered: list[Place] = []
        # New events that are kept to be sent last, and whether any are to be.
        self._kept: Place | None = None
        self._keeps = False
        # Segments that are read to their end, with requests under way.
        self._read_out: set[str] = set()
        self._left_alone: set[str] = set()
        # Entries as they were when something was last accepted, if they changed since.
        self._before: dict[str, SegmentEntry] = {}
        # Whether events from elsewhere were accepted while ranges failed alone.
        self._has_compared = False
        # What this flush began with last, if it failed.
        self._begun: tuple[Batch, Verdict] | None = None
        # Events that failed as probes: another one may tell more.
        self._probed: set[tuple[str, int]] = set()
        # What a probe from elsewhere drew at the beginning.
        self._compared: Verdict | None = None
        self._fit(self._waiting())

    def run(self) -> Verdict | None:
        """All is delivered on return; or what is left was set aside for this verdict.

        Raises Halted if network, server, consent or time end it before.
        """
        self._take_up()
        try:
            self._ask_elsewhere()
            self._begin_with_what_was_set_aside()
            self._keeps = self._may_prove()
            self._send_all()
            self._ask_about_what_was_set_aside()
            self._hold_against()
            self._narrow()
            if self._kept is not None:
                self._kept = None
                self._narrow()
        except Halted as halted:
            if halted.stopped == "deadline":
                self._land_the_accepted()
            self._note_answers()
            if halted.stopped != "off":
                self._blame()  # else no dead letter is written any more
            if halted.stopped == "deadline" and self._evidence.row:
                # Keep what the server said, and its Retry-After.
                found = self._evidence.most_telling()
                found = self._of_batch(found) if self.says_nothing else found
                raise Halted("deadline", found) from halted
            raise
        self._blame()
        for name in segment_names(self._desk.home):
            self._with(name, OpenSegment.finish)
        for name, entry in self._books.snapshot.segments.items():
            for known in entry.announced:
                if name in self._left_alone:
                    continue  # the disk keeps it, and not the server
                last = list(self._evidence.drawn.values())[-1:]
                return self._of_batch(
                    last[0] if last else Verdict(Action.WAIT, known.reason)
                )
        return None

    def make_room(self) -> None:
        """What is left of the segments of a full spool keeps no more room than it needs."""
        with contextlib.suppress(OSError):  # the disk has no room to make some
            for name in compact(self._desk.home, self._books):
                self._with(name, OpenSegment.finish)

    def close(self) -> None:
        """Close the file of dead letters."""
        self._desk.letters.close()

    def _with(self, name: str, work: Callable[[OpenSegment], T]) -> T | None:
        """What some work on a segment returns.

        One that cannot be read or stored is left alone, and holds back no other.
        """
        if name in self._left_alone:
            return None
        try:
            segment = OpenSegment(self._desk, name)
        except (OSError, SpoolError):
            self._leave_alone(name, os.path.lexists(self._desk.home.segment(name)))
            return None
        try:
            return work(segment)
        except (OSError, SpoolError):
            self._leave_alone(name)
            return None
        finally:
            segment.close()

    def _leave_alone(self, name: str, is_blocked: bool = True) -> None:
        self._left_alone.add(name)
        self.is_blocked = self.is_blocked or is_blocked

    def _take_up(self) -> None:
        """What came too soon is as if it had never been posted, and goes with the rest.

        The server has said that it did not take it, and nothing about what it is. One
        request for each such event would come too soon again.
        """
        self._desk.fold_changed()
        for name, entry in self._books.snapshot.segments.items():
            ranges = tuple(map(search.taken_up, entry.announced))
            if ranges != entry.announced:
                again = msgspec.structs.replace(entry, announced=ranges)
                self._books.stage(name, again)

    def _ask_elsewhere(self) -> None:
        """Every other flush begins with a probe, if a range went unanswered before.

        That range may be what the server never answers. If the probe is accepted, it is
        set aside.
        """
        unanswered = [
            (name, known)
            for name, entry in self._books.snapshot.segments.items()
            for known in entry.announced
            if known.digest and not known.reason
        ]
        if not unanswered:
            return
        self._count_try(unanswered)
        self._books.commit()
        if unanswered[0][1].tries % 2 == 0:
            return
        none = Verdict(Action.WAIT, SLOW)
        batches: dict[str, list[Place]] = {}
        for name, known in unanswered:
            batches.setdefault(known.joined or known.digest, []).append((name, known))
        self._failures = [_Failure(places, none) for places in batches.values()]
        found = self._probe(within=False)
        if not _is_accepted(found):
            self._failures, self._compared = [], found

    def _begin_with_what_was_set_aside(self) -> None:
        """Some of it is posted first, if the last flush ended on it. Raises Halted.

        Events whose next failure would be their last, or else one range. If two in a row
        delivered nothing, the next flush begins with new events.
        """
        if self._begins_new or not 1 <= self._failed_before <= BEGIN_FLUSHES:
            return
        aside = [each for each in self._waiting() if each[1].reason]
        first = search.first_ranges(aside, count_max=BEGIN_MAX)
        for name, known in first:
            # A refusal says that the server works. Where it only fails, or names a time,
            # events from elsewhere tell more.
            drew = self._evidence.row[-1:]
            if self._evidence.is_accepting or any(
                each.action is Action.WAIT or each.retry_after_s for each in drew
            ):
                return
            self._with(name, partial(self._begin_with, known))

    def _begin_with(self, known: Announced, segment: OpenSegment) -> None:
        """One range is posted, and settled or kept as a failure."""
        batch = self._read_to_try(known, segment)
        if batch is None:
            return
        try:
            verdict = self._answer(batch, self._poster.send(batch.request))
        except Halted as halted:
            if halted.verdict is not None and batch.known.count == 1:
                unanswered = batch.known.unanswered + 1
                self._change(batch.segment, batch.known, unanswered=unanswered)
            raise
        if verdict.action is Action.ACCEPTED:
            self._accept(batch, verdict)
            return
        self._evidence.begin(batch.segment, batch.known, verdict)
        if verdict.narrow:
            self._begun = batch, verdict
        if verdict.action is Action.SPLIT and self._cut(batch, segment):
            return  # cut now: the server may answer nothing more in this flush
        self._failures.append(_Failure(batch.places, verdict))

    def _read_to_try(self, known: Announced, segment: OpenSegment) -> Batch | None:
        """The batch of a range that was set aside, counted as tried.

        One that was posted before and not answered is cut first.
        """
        batch = self._read(known, segment)
        if batch is not None and known.tries:
            parts = self._cut(batch, segment)
            batch = self._read(parts[0], segment) if parts else batch
        if batch is not None:
            self._count_try(batch.places)
            self._books.commit()
        return batch

    def _count_try(self, places: list[Place]) -> None:
        for name, known in places:
            again = msgspec.structs.replace(known, tries=known.tries + 1)
            self._desk.change(name, again)

    def _note_answers(self) -> None:
        """The server took some, and then answered all that followed in one way.

        It takes no more now, whatever it is (a limit of requests): what it answered so
        needs no probe before it is posted again.
        """
        reasons = {each.reason for each in self._evidence.row}
        if self._evidence.is_accepting and len(reasons) == 1:
            for name, known in self._answered:
                now = self._now(name, known)
                if now is not None and not now.reason:
                    self._change(name, now, tries=0)

    def _change(self, name: str, known: Announced, **changes: int) -> Announced | None:
        """The range as it is in the books now, changed; None if it is no more."""
        now = self._now(name, known)
        if now is None:
            return None
        new = msgspec.structs.replace(now, **changes)
        self._desk.change(name, new)
        return new

    def _now(self, name: str, known: Announced) -> Announced | None:
        """The range as it is in the books now; None if not all of it is."""
        for each in self._books.entry(name).announced:
            if (each.start, each.count) == (known.start, known.count):
                return each
        return None

    # Sending, and what is done with answers.

    def _send_all(self) -> None:
        """All that waits is sent, and what is recorded meanwhile, but not for ever.

        Beside a program that records without a pause each pass finds a few more events.
        After PASSES_MAX it takes half a batch of them to go on; the others wait for the
        next flush.
        """
        enough = 1
        for passes in itertools.count(1):
            before = self._delivered
            for name in segment_names(self._desk.home):
                self._with(name, self._send_segment)
            self._send_parts(self._gathered.take())
            self._land()
            if self._delivered - before < enough:
                return
            if passes >= PASSES_MAX:
                enough = max(self._desk.batch_events_max // 2, 1)

    def _send_segment(self, segment: OpenSegment) -> None:
        name = segment.name
        # From here on it is not deleted before it is read to its end once more.
        self._read_out.discard(name)
        while name not in self._left_alone:
            busy = {part.known.start for part in self._busy() if part.segment == name}
            entry = segment.entry
            busy |= {e.start for e in entry.announced if self._is_kept(name, e)}
            part = segment.next(busy | self._failed(name))
            if part is not None:
                self._add(part, segment)
            elif busy:
                self._read_out.add(name)
                return
            elif segment.finish():
                return

    def _may_prove(self) -> bool:
        """Whether events wait that die where another one is accepted behind them.

        Where nothing but such events is set aside, only what is new can be.
        """
        return any(
            search.is_spent(known)
            and known.reason in REFUSALS
            and (name, known.start) not in self._evidence.began
            for name, known in self._waiting()
        )

    def _keep_some(self, parts: list[Part]) -> list[Part]:
        """Those of these new parts that are sent now; a few events of the last are not.

        Something is sent in any case: what is set aside is judged beside accepted events.
        """
        *sent, last = parts
        count = last.known.count
        kept = min(count // 2, WITNESSES_MAX)
        if not kept and not sent:
            return parts
        kept = kept or count
        split = partial(OpenSegment.split, part=last, left=count - kept)
        ranges = self._with(last.segment, split) or []
        sent += ranges[:-1]
        self._kept = (last.segment, ranges[-1].known) if ranges else None
        return sent

    def _is_kept(self, name: str, known: Announced) -> bool:
        if self._kept is None:
            return False
        segment, kept = self._kept
        return name == segment and kept.start <= known.start < kept.end

    def _busy(self) -> Iterator[Part]:
        """What is under way, or gathered."""
        for batch, _ in self._sent:
            yield from batch.parts
        yield from self._gathered.parts

    def _failed(self, name: str) -> set[int]:
        """Where ranges of the segment start that failed, by whose fault is not known."""
        places = [place for each in self._failures for place in each.places]
        return {known.start for each, known in places if each == name}

    def _add(self, part: Part, segment: OpenSegment) -> None:
        """It is under way on return, or gathered, or settled. Raises Halted."""
        if part.known.joined:
            batch = self._read(part.known, segment)
            if batch is not None:
                self._send(batch)
        elif part.known.digest:
            self._send(self._desk.batch([part]))
        else:
            for parts in self._gathered.add(part, part.records):
                self._send_parts(parts)

    def _send_parts(self, parts: list[Part]) -> None:
        """Those that a probe has not changed meanwhile are sent. Raises Halted."""
        standing = [part for part in parts if self._desk.stands(part)]
        if standing and self._keeps and self._kept is None:
            standing = self._keep_some(standing)
        if standing:
            self._send(self._desk.batch(standing))

    def _read(self, known: Announced, segment: OpenSegment) -> Batch | None:
        """The batch that the range is of; None if nothing is left of it.

        Ranges of several segments that were posted as one are posted so again: the same
        bytes, under the same key.
        """
        places = self._joined(known) or [(segment.name, known)]
        parts = [
            segment.read(each)
            if name == segment.name
            else self._with(name, partial(OpenSegment.read, known=each))
            for name, each in places
        ]
        left = [part for part in parts if part is not None]
        return self._desk.batch(left) if left else None

    def _joined(self, known: Announced) -> list[Place]:
        """The ranges that are posted together with this one, itself among them."""
        entries = self._books.snapshot.segments if known.joined else {}
        return [
            (name, each)
            for name, entry in sorted(entries.items())
            for each in entry.announced
            if each.joined == known.joined
        ]

    def _cut(self, batch: Batch, segment: OpenSegment) -> list[Announced]:
        """The batch in smaller ones: their ranges in this segment; none if it cannot be."""
        if len(batch.parts) == 1:
            (part,) = batch.parts
            if part.segment != segment.name:
                # Damage took the part that was in this one.
                return self._with(part.segment, lambda its: its.narrow(part)) or []
            return segment.narrow(part)
        starts = [known.start for name, known in batch.places if name == segment.name]
        self._desk.cut(batch)
        return [each for each in segment.entry.announced if each.start in starts]

    def _fit(self, places: list[Place]) -> None:
        """No batch holds more than half of what had no answer in a request's time.

        A slow link or server takes smaller ones. Where one event of it was what the
        server hangs on, they are smaller for some flushes in vain.
        """
        most = search.fitting(known for _, known in places)
        if most is not None and most < self._desk.batch_events_max:
            self._desk = self._desk._replace(batch_events_max=most)
            self._gathered.events_max = most

    def _send(self, batch: Batch) -> None:
        """The batch is under way on return, or settled, or set aside. Raises Halted."""
        self._sent.append((batch, self._poster.send(batch.request)))
        self._land(self._poster.at_once - 1)

    def _land(self, under_way: int = 0) -> None:
        """At most `under_way` requests are under way on return. Raises Halted.

        There are none if one has failed, or if nothing was accepted yet: then the
        server gets one request at a time.
        """
        last: tuple[Batch, Verdict] | None = None
        while self._sent:
            is_steady = self._evidence.is_accepting and not self._evidence.row
            if is_steady and len(self._sent) <= under_way:
                break
            batch, sent = self._sent.popleft()
            verdict = self._answer(batch, sent)
            if verdict.action is Action.ACCEPTED:
                self._accept(batch, verdict)
                continue
            self._failures.append(_Failure(batch.places, verdict))
            self._answered += batch.places
            self._evidence.fail(batch.known, verdict)
            last = batch, verdict
        if last is not None and self._evidence.may_be_the_server(last[1]):
            self._find_out(*last)

    def _land_the_accepted(self) -> None:
        """The flush's time is up, and so is that of the requests under way."""
        for batch, sent in self._sent:
            with contextlib.suppress(Halted):
                verdict = self._answer(batch, sent)
                if verdict.action is Action.ACCEPTED:
                    self._accept(batch, verdict)

    def _answer(self, batch: Batch, sent: Sent) -> Verdict:
        """What came of a request. Raises Halted if the flush's time ended it.

        It is set aside if it had time enough, as others that were accepted show.
        """
        try:
            return self._poster.answer(sent)
        except Halted as halted:
            verdict, known = halted.verdict, batch.known
            # Set aside before, a range of several was counted, and is cut next time.
            is_counted = known.count > 1 and bool(known.reason)
            self.says_nothing = verdict is not None and bool(known.reason)
            if verdict is not None and verdict.narrow and not is_counted:
                self._put_aside(batch.places, verdict)
                self._evidence.leave_unanswered(batch.segment, known)
            raise

    def _accept(self, batch: Batch, verdict: Verdict) -> None:
        names = list(dict.fromkeys(part.segment for part in batch.parts))
        try:
            self._delivered += self._desk.accept(batch, verdict)
        except OSError:
            for name, known in batch.places:
                if self._now(name, known) is not None:
                    self._leave_alone(name)
        self.says_nothing = False
        # What a probe drew before this says nothing of what fails from here on.
        self._compared = None
        self._hold_against()
        self._before.clear()
        self._evidence.accept(batch.places)
        for name in names:
            if name in self._read_out and not self._books.entry(name).announced:
                self._with(name, OpenSegment.finish)

    # Whose fault a failure is.

    def _find_out(self, batch: Batch, verdict: Verdict) -> None:
        """Whether it is the batch or the server. Raises Halted if it is the server."""
        elsewhere: Verdict | None = None
        if self._evidence.has_asked_for_time():
            self._give_up(batch, verdict)
            return
        # One that was set aside before is not waited for: its parts are tried at once.
        is_new = not (verdict.narrow and batch.known.reason)
        if verdict.action is Action.WAIT and is_new:
            # Those that were under way at once met one moment of a server with a limit.
            most = bound(verdict) + is_limit(verdict)
            is_borne = len(self._evidence.row) < most
            if verdict.narrow and (is_borne or self._may_compare(verdict)):
                elsewhere, self._compared = self._compared, None
                elsewhere = elsewhere or self._compare(verdict)
                if _is_accepted(elsewhere):
                    return
            # One request is kept for a probe out of the batch itself.
            kept = verdict.narrow and batch.events > 1
            verdict = self._post_again(batch, verdict, kept=kept)
            if verdict.action is Action.ACCEPTED:
                self._evidence.flap(self._failures.pop().verdict.reason)
                self._accept(batch, verdict)
                return
        probes = self._evidence.probes_left(verdict, has_compared=elsewhere is not None)
        while probes:
            found = self._probe(within=True)
            if _is_accepted(found):
                return
            probes -= 1
            if found is None or (
                found.retry_after_s and not self._evidence.is_accepting
            ):
                break
            if not self._evidence.is_accepting:
                probes = min(probes, self._evidence.tries_left())
        self._give_up(batch, verdict)

    def _post_again(self, batch: Batch, verdict: Verdict, *, kept: bool) -> Verdict:
        before = self._poster.requests
        tries = max(self._evidence.tries_left() - kept, 0)
        verdict = self._poster.post_again(batch.request, verdict, tries=tries)
        self._evidence.row += [verdict] * (self._poster.requests - before)
        return verdict

    def _probe(self, *, within: bool, besides: Batch | None = None) -> Verdict | None:
        """What one event from the next place draws; None if there is none.

        First it is one that was kept for this, where others are accepted, or of which
        nothing is known. Only `within` may it come out of a batch that has just failed, or
        be one that is counted as failed alone. If it is accepted, all that failed is set
        aside.
        """
        failed = [
            (name, known.start)
            for each in self._failures
            for name, known in each.places
            if not within or (known.count == len(each.places) == 1)
        ]
        failed += [(n, known.start) for n, known in besides.places] if besides else []
        alone = self._evidence.alone
        if self._kept is not None:
            name, _ = self._kept
            ranges = self._books.entry(name).announced
            kept = {each.start for each in ranges if self._is_kept(name, each)}
            others = {each.start for each in ranges} - kept
            if self._evidence.is_accepting:
                found = self._with(name, partial(self._probe_segment, 0, others, 0))
                if found is not None:
                    return found
            elif not within:
                failed += [(name, start) for start in kept]  # it may be of their kind
        names = segment_names(self._desk.home)
        turn, self.turn = self.turn, self.turn + 1
        at = search.probe_segment(turn, len(names)) if names else 0
        # A killed flush may have set aside good events with a bad one, and left nothing
        # else to compare it with.
        for doubt_max in range(2 + within):
            for name in names[at:] + names[:at]:
                passed = {start for each, start in {*alone, *failed} if each == name}
                verdict = self._with(
                    name, partial(self._probe_segment, turn, passed, doubt_max)
                )
                if verdict is not None:
                    return verdict
        return None

    def _probe_segment(
        self, turn: int, passed: set[int], doubt_max: int, segment: OpenSegment
    ) -> Verdict | None:
        before = segment.entry
        probed = {start for name, start in self._probed if name == segment.name}
        part = segment.single_out(turn, passed, probed, doubt_max=doubt_max)
        batch = part and self._desk.batch([part])
        verdict = None
        try:
            if batch is not None:
                verdict = self._poster.post(batch.request)
        finally:
            if not _is_accepted(verdict):
                # It says nothing about these events: larger batches hold them again.
                self._books.stage(segment.name, before)
        if batch is not None and verdict is not None:
            if verdict.action is Action.ACCEPTED:
                self._accept(batch, verdict)
            else:
                self._evidence.fail(batch.known, verdict)
                self._probed.add((segment.name, batch.known.start))
        return verdict

    def _give_up(self, batch: Batch, verdict: Verdict) -> None:
        """The server takes nothing now. Raises Halted.

        Unless it refuses, and there is nothing to compare that with: then what was refused
        before is posted, and one may be accepted, or all be dead, on return.
        """
        self.says_nothing = bool(batch.known.reason)
        if self.says_nothing:
            raise Halted("waiting", self._of_batch(verdict))
        is_refused = verdict.action is Action.SPLIT and not self._evidence.is_accepting
        if is_refused and (self._is_the_only_event() or self._is_full):
            self._try_refused()
            return
        raise self._halted(self._evidence.most_telling())

    # Where nothing waits but what was refused, or there is no room for anything else.

    def _is_the_only_event(self) -> bool:
        return count_pending_quickly(self._desk.home, self._books.snapshot) == 1

    def _ask_about_what_was_set_aside(self) -> None:
        """There was nothing else to send, or it could not be read. Raises Halted."""
        if self._is_all_set_aside():
            self._try_refused()
        if self._failures and not self._evidence.is_accepting:
            if self._begun is None:
                raise self._halted(self._evidence.most_telling())
            self._find_out(*self._begun)

    def _is_all_set_aside(self) -> bool:
        """Whether nothing new could be posted, and what was is refused, if anything was.

        Others were accepted before, and there is nothing left to compare the rest with.
        """
        return not (self._evidence.is_accepting or self.is_blocked) and all(
            verdict.action is Action.SPLIT and known.reason
            for places, verdict in self._failures
            for _, known in places
        )

    def _try_refused(self) -> None:
        """What was refused before is posted until something is accepted.

        Raises Halted if nothing is, and not all of it is dead. One request of four is a
        probe: what was set aside for another reason may be accepted now.
        """
        evidence = self._evidence
        done: set[tuple[str, int, int]] = set()
        refused = [each for each in self._failures if each[1].action is Action.SPLIT]
        self._failures = [each for each in self._failures if each not in refused]
        for places, verdict in refused:
            name, known = whole(places)
            done.add((name, known.start, known.count))
            self._count_refusal(places, verdict)
        for turn in itertools.count(1):
            row = evidence.row
            has_asked = any(each.retry_after_s for each in row)
            if evidence.is_accepting or has_asked or len(row) >= REFUSED_MAX:
                break
            if turn % 4 == 0:
                self._probe(within=True)
                continue
            left = [
                (name, known)
                for name, known in self._waiting()
                if known.reason in REFUSALS
                and (name, known.start, known.count) not in done
            ]
            if not left:
                break
            name, known = search.next_refused(left)
            self._with(name, partial(self._refuse_again, known, done))
            done.add((name, known.start, known.count))
        if not evidence.is_accepting and evidence.row and self._waiting():
            self.says_nothing = True
            raise Halted("waiting", self._of_batch(evidence.most_telling()))

    def _refuse_again(
        self, known: Announced, done: set[tuple[str, int, int]], segment: OpenSegment
    ) -> None:
        """One range is posted, and cut or counted where it is refused. Raises Halted."""
        batch = self._read_to_try(known, segment)
        if batch is None:
            return
        done.add((batch.segment, batch.known.start, batch.known.count))
        verdict = self._answer(batch, self._poster.send(batch.request))
        if verdict.action is Action.ACCEPTED:
            self._accept(batch, verdict)
            return
        self._evidence.row.append(verdict)
        if verdict.action is not Action.SPLIT:
            self._failures.append(_Failure(batch.places, verdict))
            self._find_out(batch, verdict)
            return
        self._count_refusal(batch.places, verdict)
        self._cut(batch, segment)

    def _count_refusal(self, places: list[Place], verdict: Verdict) -> None:
        """It is set aside; of a single event a refusal counts, and the fifth is the last."""
        name, known = whole(places)
        self._put_aside(places, verdict)
        if known.count > 1:
            return
        self._evidence.count_apart((name, known.start))
        charged = self._change(name, known, refusals=known.refusals + 1)
        if charged is None:
            return
        # One flush that delivered others counts as well, as one may be the first.
        if charged.refusals + min(charged.windows, 1) >= search.WINDOWS_MAX:
            self._with(name, partial(self._bury, charged, verdict))

    def _halted(self, verdict: Verdict) -> Halted:
        """The flush is over; after a refusal delivery is paused.

        Not if one request drew it, and there was no other to compare it with: the next
        flush may have one. Nor for some flushes where ranges were set aside for this very
        answer, or the server accepted others before: what came since may be of their kind.
        """
        is_wait = verdict.action is Action.WAIT
        was_accepting = self._evidence.is_accepting and verdict.action is Action.SPLIT
        may_be_some = (
            verdict.action is Action.PAUSE and verdict.reason not in ABOUT_WHO_ASKS
        )
        is_first = may_be_some and len(self._evidence.row) < 2
        has_doubt = (may_be_some and self._accepted_before) or any(
            known.reason == verdict.reason
            for entry in self._books.snapshot.segments.values()
            for known in entry.announced
        )
        has_doubt = has_doubt and self._failed_before < DOUBT_FLUSHES
        is_waiting = is_wait or was_accepting or is_first or has_doubt
        return Halted("waiting" if is_waiting else "paused", verdict)

    def _of_batch(self, verdict: Verdict) -> Verdict:
        """The verdict on a batch alone: the server takes others before the time it named.

        Unless it named one for what was not set aside before, and took nothing since.
        """
        asked_s = self._evidence.asked_s or None
        return msgspec.structs.replace(verdict, retry_after_s=asked_s)

    # What was set aside.

    def _hold_against(self) -> None:
        """What failed is set aside: others were accepted in this flush."""
        failures, self._failures = self._failures, []
        for places, verdict in failures:
            self._put_aside(places, verdict)

    def _put_aside(self, places: list[Place], verdict: Verdict) -> None:
        """Ranges that failed as one batch are set aside, or what is left of them."""
        # Cut if not now, then in the next flush.
        first, known = whole(places)
        tries = int(self._evidence.is_cut_next(first, known))
        left: list[Place] = []
        for name, its in places:
            before = self._books.entry(name)
            self._before.setdefault(name, before)
            entry = set_aside(before, its, verdict.reason, tries=tries)
            self._books.stage(name, entry)
            parts = [e for e in entry.announced if its.start <= e.start < its.end]
            left += [(name, each) for each in parts]
        self._evidence.set_aside(first, known, left, verdict)
        self._fit([whole(left)] if left else [])

    def _narrow(self) -> None:
        """Try what was set aside, and its parts. Raises Halted.

        Nothing is settled as dead here: what failed is judged at the end (`_blame`).
        """
        done: set[tuple[str, int]] = set()
        has_failed_idly = False
        evidence = self._evidence
        while True:
            left = self._waiting()
            aside = [each for each in left if not self._is_kept(*each)]
            waiting = [each for each in aside if _key(*each) not in done]
            if not waiting:
                break
            segments = self._books.snapshot.segments
            # An event that is refused, and not just unanswered, may die as well if
            # others are accepted behind it.
            has_several = any(each.count > 1 for _, each in aside)
            evidence.has_others = has_several or len(aside) < len(left)
            name, known = search.next_range(
                waiting,
                evidence.good,
                segments={name: segments[name].announced for name, _ in waiting},
                begun=evidence.began,
                # Some of them, so that many bad events do not use up what the server
                # bears.
                single_first=evidence.bears_singles(),
                has_others=evidence.has_others,
                small_first=evidence.is_failing_in_a_row(),
            )
            key = name, known.start
            may_die = evidence.has_others and known.reason in REFUSALS
            cannot_count = (
                search.is_spent(known) and not may_die and key not in evidence.began
            )
            if cannot_count and has_failed_idly:
                break  # nothing else is left
            if not self._with(name, partial(self._narrow_range, known)):
                done.add(key)
            has_failed_idly |= cannot_count and key in evidence.alone

    def _waiting(self) -> list[tuple[str, Announced]]:
        """The ranges that may be tried, by segment: not the rest of a full one.

        Those that are posted together are one, with the events of all.
        """
        batches: dict[str | Place, list[Place]] = {}
        for name, entry in self._books.snapshot.segments.items():
            for known in entry.announced if name not in self._left_alone else ():
                if known.reason or known.digest or not search.is_full(entry.announced):
                    place = name, known
                    batches.setdefault(known.joined or place, []).append(place)
        return [whole(places) for places in batches.values()]

    def _narrow_range(self, known: Announced, segment: OpenSegment) -> bool:
        """Whether the range is another one now, so that there is more to do."""
        # What it drew before, as it is. One that was not answered since drew nothing.
        drew = known.reason if known.digest and not known.tries else ""
        batch = self._read(known, segment)
        if batch is None:
            return True
        name, known, evidence = batch.segment, batch.known, self._evidence
        verdict = evidence.drew(name, known)
        is_large = known.count > self._desk.batch_events_max
        if verdict is None and (known.tries or is_large) and self._cut(batch, segment):
            # A flush ended while it waited for this one's answer, or began with it; or
            # it is larger than what had none.
            return True
        if verdict is None or evidence.is_tried_again(name, known, verdict):
            drew = drew if verdict is None else verdict.reason
            verdict = self._try(batch)
            if evidence.was_accepted(name, known) and drew not in {"", SLOW}:
                evidence.flap(drew)
            if verdict is None or not all(self._now(*each) for each in batch.places):
                return True  # settled, or a probe has cut it
        if evidence.is_tried_again(name, known, verdict):
            return True
        is_cut = bool(self._cut(batch, segment))
        if is_cut:
            for name, known in batch.places:
                evidence.drawn.pop((name, known.start), None)
        return is_cut

    def _try(self, batch: Batch) -> Verdict | None:
        """What a range drew that was set aside; None if nothing is to be drawn from it.

        Raises Halted.
        """
        # As it was before this try: once answered, it counts no more.
        for name, _ in batch.places:
            self._before.setdefault(name, self._books.entry(name))
        self._count_try(batch.places)
        self._books.commit()
        if not self._evidence.is_accepting:
            self._send(batch)
            return None
        verdict = self._answer(batch, self._poster.send(batch.request))
        if verdict.action is Action.ACCEPTED:
            self._accept(batch, verdict)
            return None
        if not verdict.narrow:
            raise self._halted(verdict)
        name, known, evidence = batch.segment, batch.known, self._evidence
        self._put_aside(batch.places, verdict)
        self.says_nothing = True
        evidence.fail_again(name, known, verdict)
        if evidence.is_compared(name, known, verdict):
            found = self._compare_or_end(batch, verdict)
            if found is not None and found.action is not Action.ACCEPTED:
                if evidence.is_doubtful(verdict):
                    self._take_back()
                self.says_nothing = False
                raise Halted("waiting", self._of_batch(found))
        return verdict

    def _compare_or_end(self, batch: Batch, verdict: Verdict) -> Verdict | None:
        """What events from elsewhere draw; never None once `bound` failed in a row."""
        is_bound = len(self._evidence.row) > bound(verdict)
        found = self._compare(verdict, besides=batch)
        if found is None and is_bound:
            found = self._probe(within=False) or verdict
        return found

    def _compare(
        self, verdict: Verdict, *, besides: Batch | None = None
    ) -> Verdict | None:
        """What events from elsewhere draw now; None if there is none to be had."""
        may_repeat = verdict.action is not Action.WAIT or self._may_compare(verdict)
        found = None
        for _ in range(FAILURES_MAX if may_repeat else 1):
            found = self._probe(within=False, besides=besides)
            if found is None or found.action is Action.ACCEPTED:
                break
        self._has_compared |= _is_accepted(found)
        return found

    def _may_compare(self, verdict: Verdict) -> bool:
        """Whether a probe that fails is no sign that the server takes nothing any more.

        Others were accepted beside such failures: it may have met one more of their kind.
        """
        has = self._has_compared and self._evidence.is_accepting
        return has and not verdict.retry_after_s

    def _take_back(self) -> None:
        """The server takes nothing any more: what it refused since is held against none."""
        for name, before in self._before.items():
            entry = self._books.entry(name)
            if (entry.offset, entry.damaged) == (before.offset, before.damaged):
                self._books.stage(name, before)
        self._evidence.acquit_suspects()

    def _blame(self) -> None:
        """Events that failed alone while others were accepted: that counts.

        Those that did so in enough flushes, the last of which shows their fault, are dead
        letters on return.
        """
        for (name, start), verdict in self._evidence.alone.items():
            entry = self._books.entry(name)
            for known in entry.announced:
                if known.start != start:
                    continue
                charged, is_dead = self._evidence.charge(name, known)
                if charged != known:
                    self._desk.change(name, charged)
                if is_dead:
                    self._with(name, partial(self._bury, charged, verdict))

    def _bury(self, known: Announced, verdict: Verdict, segment: OpenSegment) -> None:
        part = segment.read(known)
        if part is not None:
            self._desk.bury(part, verdict)


def _key(name: str, known: Announced) -> tuple[str, int]:
    return name, known.start


def _is_accepted(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.action is Action.ACCEPTED
