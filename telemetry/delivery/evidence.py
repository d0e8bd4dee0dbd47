"""What the answers of one flush say about the server, and about each range. Pure.

A failure is held against a range only beside others that were accepted. It may still be
the server's: one that fails now and then, one that takes a few requests of a flush, one
of several behind an address. So what is kept of each answer is what tells them apart: what
failed in a row, what the flush began with, what failed and was accepted later as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from telemetry.books.entries import Announced
from telemetry.delivery.search import NOT_NOW, WINDOWS_MAX, is_spent
from telemetry.wire.verdict import LIMITS, SLOW, Action, Verdict


Key = tuple[str, int]
"""A segment, and the offset at which one of its ranges begins."""

Place = tuple[str, Announced]
"""A segment, and one of its ranges."""

# Requests in a row that may fail before a flush ends; twice as many that are refused.
FAILURES_MAX = 4
# Requests in a row that may fail while others are accepted, and one more of a limit
# (`is_limit`), which several under way may meet at once. A refusal of what was posted
# says that the server works; where half of all events draw one, 16 in a row do occur.
_BOUNDS = {Action.WAIT: FAILURES_MAX, Action.PAUSE: 16, Action.SPLIT: 32}
# Failures since the last acceptance that were to be expected, and are not in the row of
# `FAILURES_MAX`: two tries each of four events.
KNOWN_MAX = 8
# So many flushes begin with an event and draw a failure; in the last of them it dies. Behind
# a limit of requests everything fails, and now and then a server fails what comes first.
# Where one was enough, 95 good events of 10,800 died of both together; now 8 (one request
# of ten fails, 3 of a flush are taken, which never drains the spool).
BEGUN_MIN = 2
# Answers that are about time, and not about an event.
_ABOUT_TIME = LIMITS | {"408", "425", "504"}
# Flushes in a row that end because the server names a time, before its word is doubted
# where only the batch itself can be compared with it.
ASKED_MAX = 2


class Evidence:
    """The evidence of one flush.

    `failures` is how many flushes to this destination delivered nothing, in a row, before
    this one; `aside` are the ranges that it found announced.
    """

    def __init__(self, *, failures: int, aside: Iterable[Announced]) -> None:
        self.is_accepting = False
        # Whether a range of several events is still set aside: some may be accepted.
        self.has_others = False
        # What requests drew since one was accepted.
        self.row: list[Verdict] = []
        # What a server asked for since then about what was not set aside before.
        self.asked_s = 0.0
        # What ranges drew that were set aside in this flush.
        self.drawn: dict[Key, Verdict] = {}
        # Events that failed alone, and of them those since the last acceptance.
        self.alone: dict[Key, Verdict] = {}
        self._suspects: set[Key] = set()
        # Where what was accepted begins and ends, and the ranges that were.
        self.good: set[Key] = set()
        self._accepted: set[tuple[str, int, int]] = set()
        # What this flush began with, if it was posted and failed: how many events.
        self.began: dict[Key, int] = {}
        # What events drew alone in earlier flushes, and how often they did so again.
        self._failed_before: dict[Key, str] = {}
        self._known_count = 0
        self._failures = failures
        # Whether nothing was set aside for an answer before this flush.
        self._is_first_time = all(each.reason in {"", SLOW} for each in aside)
        self._tried: Counter[Key] = Counter()
        # Events whose refusal is counted already.
        self._counted: set[Key] = set()
        # Events that this flush shows to be at fault.
        self._proved: set[Key] = set()
        # Reasons of what failed and was accepted later as it was: it was not at fault.
        self._flaps: set[str] = set()

    # What happened.

    def accept(self, places: Sequence[Place]) -> None:
        """A batch was accepted: what failed before it was not the server's fault."""
        self.is_accepting = True
        self.row, self.asked_s, self._known_count = [], 0.0, 0
        for name, known in places:
            self.good |= {(name, known.start), (name, known.end)}
        name, known = whole(places)
        self._accepted.add((name, known.start, known.count))
        for key in self._suspects:
            if self._is_refused(key):
                # Accepted before it and behind it: the server took events all along.
                self._proved.add(key)
            elif key not in self.began and self.alone[key].action is Action.SPLIT:
                self._tried[key] = 0  # in a row, or it may have met one server of four
        self._suspects.clear()

    def fail(self, known: Announced, verdict: Verdict) -> None:
        """The range failed, which was posted in its turn."""
        self.row.append(verdict)
        if not known.reason:
            self.asked_s = max(self.asked_s, verdict.retry_after_s or 0.0)

    def begin(self, name: str, known: Announced, verdict: Verdict) -> None:
        """The flush began with the range, and it drew this."""
        self.row.append(verdict)
        if verdict.narrow:
            self.began[name, known.start] = known.count
            if known.count > 1:
                self._tried[name, known.start] += 1  # it is not tried again, but cut

    def set_aside(
        self, name: str, known: Announced, left: Iterable[Place], verdict: Verdict
    ) -> None:
        """The range, of which these are left, was set aside for what it drew."""
        self._tried[name, known.start] += 1
        for segment, each in left:
            self.drawn[segment, each.start] = verdict
        if known.count == 1 and verdict.narrow and verdict.reason != NOT_NOW:
            self.alone[name, known.start] = verdict
            self._suspects.add((name, known.start))

    def fail_again(self, name: str, known: Announced, verdict: Verdict) -> None:
        """The range was set aside, and failed once more beside others.

        An event that failed alone in earlier flushes, by the same answer, is no news of
        the server.
        """
        key = name, known.start
        before = known.reason if known.count == 1 and known.windows else ""
        before = self._failed_before.setdefault(key, before)
        if (
            verdict.reason == before
            and _is_about_one(verdict)
            and self._known_count < KNOWN_MAX
        ):
            self._known_count += 1
        else:
            self.row.append(verdict)
        if known.count == 1 and self._tells(name, known, verdict):
            self._proved.add(key)

    def leave_unanswered(self, name: str, known: Announced) -> None:
        """The range had time enough for an answer, and drew none."""
        if known.unanswered or self._has_begun(name, known, BEGUN_MIN):
            self._proved.add((name, known.start))

    def flap(self, reason: str) -> None:
        """What failed for this reason was accepted later, as it was."""
        self._flaps.add(reason)

    def acquit(self, key: Key) -> None:
        """The event's failure alone does not count."""
        self.alone.pop(key, None)
        self._suspects.discard(key)

    def count_apart(self, key: Key) -> None:
        """The event's refusal is counted by itself, whatever comes in this flush."""
        self.acquit(key)
        self._counted.add(key)

    def acquit_suspects(self) -> None:
        """Nor does that of any event since the last acceptance."""
        for key in tuple(self._suspects):
            self.acquit(key)

    def _is_refused(self, key: Key) -> bool:
        """Whether it was refused alone FAILURES_MAX times since the last acceptance."""
        is_read = self.alone[key].action is Action.SPLIT
        return is_read and self._tried[key] >= FAILURES_MAX

    def _is_begun(self, name: str, known: Announced) -> bool:
        """Whether this flush began with just this range, and not with one it is left of."""
        return self.began.get((name, known.start)) == known.count

    def _has_begun(self, name: str, known: Announced, least: int) -> bool:
        """Whether so many flushes, this one among them, began with it in vain."""
        return self._is_begun(name, known) and known.begun + 1 >= least

    def _tells(self, name: str, known: Announced, verdict: Verdict) -> bool:
        """Whether enough flushes began with the event for this failure to be its own.

        A refusal says that the server works: then this one is enough.
        """
        is_read = verdict.action is Action.SPLIT
        return self._has_begun(name, known, 1 if is_read else BEGUN_MIN)

    # What it says.

    def may_be_the_server(self, verdict: Verdict) -> bool:
        """Whether it has to be found out who is at fault before more is sent.

        While others are accepted, the next batch is as good as a probe.
        """
        return len(self.row) >= (bound(verdict) - 1 if self.is_accepting else 1)

    def has_asked_for_time(self) -> bool:
        """Whether the server has said when to come again, and failed one more since."""
        return not self.is_accepting and any(
            each.retry_after_s for each in self.row[:-1]
        )

    def tries_left(self) -> int:
        """How many more requests may fail, where nothing was accepted yet.

        A refusal says that the server works, and is about what was posted.
        """
        is_refused = all(each.action is Action.SPLIT for each in self.row)
        most = 2 * FAILURES_MAX if is_refused else FAILURES_MAX
        return max(most - len(self.row), 0)

    def probes_left(self, verdict: Verdict, *, has_compared: bool) -> int:
        """How many probes out of a batch that drew this may follow."""
        if not verdict.narrow:
            return 0
        if self.is_accepting and verdict.action is not Action.WAIT:
            return FAILURES_MAX - 1
        if verdict.retry_after_s and not self.is_accepting:
            # Before the time that was asked for only where nothing else can tell.
            return int(self._failures >= ASKED_MAX and not has_compared)
        return self.tries_left()

    def most_telling(self) -> Verdict:
        """A wait before a refusal, and the longest time that one of them asked for."""
        found = max(reversed(self.row), key=lambda each: each.action is Action.WAIT)
        asked_s = max(each.retry_after_s or 0 for each in self.row)
        return msgspec.structs.replace(found, retry_after_s=asked_s or None)

    def was_accepted(self, name: str, known: Announced) -> bool:
        """Whether just this range was accepted."""
        return (name, known.start, known.count) in self._accepted

    def drew(self, name: str, known: Announced) -> Verdict | None:
        """What the range drew in this flush. What an event drew in a batch is not its."""
        found = self.alone if known.count == 1 else self.drawn
        return found.get((name, known.start))

    def is_cut_next(self, name: str, known: Announced) -> bool:
        """Whether the flush began with the range: that it failed then is enough."""
        return known.count == self.began.get((name, known.start), 0) > 1

    def is_tried_again(self, name: str, known: Announced, verdict: Verdict) -> bool:
        """Whether it may have been the network, or a server that fails now and then.

        One that may die now is tried so often in a row that each of a few servers behind
        one address has it once, whichever of them are broken.
        """
        key = name, known.start
        may_die = is_spent(known) and self._tells(name, known, verdict)
        if may_die or verdict.reason in self._flaps:
            return self._tried[key] <= FAILURES_MAX
        if is_spent(known) and self.has_others and verdict.action is Action.SPLIT:
            return self._tried[key] < FAILURES_MAX
        may_repeat = verdict.action is Action.WAIT or key in self.began
        return may_repeat and self._tried[key] <= 1

    def is_compared(self, name: str, known: Announced, verdict: Verdict) -> bool:
        """Whether others have to be accepted before one more such range is tried."""
        is_bound = len(self.row) > bound(verdict)
        has_asked = bool(verdict.retry_after_s) and self._tried[name, known.start] > 1
        return is_bound or has_asked

    def bears_singles(self) -> bool:
        """Whether more events that failed alone are tried before anything else."""
        others = sum(each.action is not Action.SPLIT for each in self.alone.values())
        return (
            self.is_accepting
            and not self.is_failing_in_a_row()
            and others < FAILURES_MAX
        )

    def is_failing_in_a_row(self) -> bool:
        """Whether so much failed since the last acceptance that one more is needed soon."""
        return len(self.row) >= 2 * FAILURES_MAX

    def is_doubtful(self, verdict: Verdict) -> bool:
        """Whether what failed since the last acceptance is held against no range."""
        return self._is_first_time or verdict.reason in self._flaps

    def charge(self, name: str, known: Announced) -> tuple[Announced, bool]:
        """An event that failed alone, with this flush counted, and whether it is dead.

        Unchanged if the failure does not count.
        """
        key = name, known.start
        verdict = self.alone.get(key)
        is_event = known.count == 1 and key not in self._counted
        if verdict is None or not is_event or verdict.reason in self._flaps:
            return known, False
        is_proved = key in self._proved
        most = WINDOWS_MAX if is_proved else WINDOWS_MAX - 1
        windows = min(known.windows + 1, most)
        begun = known.begun + self._is_begun(name, known)
        charged = msgspec.structs.replace(known, windows=windows, begun=begun)
        return charged, is_proved and windows + known.refusals >= WINDOWS_MAX


def whole(places: Sequence[Place]) -> Place:
    """Ranges that are posted as one batch: the first of them, with the events of all.

    So a batch of several single events is no single event, and is cut before any of them
    is held to have failed alone.
    """
    name, known = places[0]
    if len(places) == 1:
        return name, known
    count = sum(each.count for _, each in places)
    return name, msgspec.structs.replace(known, count=count)


def _is_about_one(verdict: Verdict) -> bool:
    """Whether a server that breaks on one event answers so, and at once.

    Of a refusal many are borne anyway.
    """
    is_status = verdict.reason.isdigit() and verdict.reason not in _ABOUT_TIME
    is_answer = is_status or verdict.reason == "reset"
    return is_answer and verdict.action is Action.WAIT and not verdict.retry_after_s


def bound(verdict: Verdict) -> int:
    """Requests in a row that may fail so, while others are accepted."""
    return _BOUNDS[verdict.action]
