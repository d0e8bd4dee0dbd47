"""Delivery: several requests under way, a server that refuses or is silent, and kills.

The spool is written; what is modelled is what becomes of it. A flusher takes any step
that the program may take, in any order: so the program's own order (which range first,
where a probe comes from, whose answer is handled first) is one among those walked.

    begin -> announce -> post -> [answer] -> settle, set aside or restore -> ... -> end
                                    narrow, probe, bury, delete

What is staged is in memory until the next commit, and a kill takes it. The server has
what a request held or has not, whatever it answered. It refuses a request with an event
of `refused`, and may name one of `named` in an answer that accepts all others. `downs`
flushes find it down; `silent` answers are lost, the request with it or not. After
`takes` requests of a flush it refuses every other one. With `joins` what is left of two
segments may be announced with one commit and posted as one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple


UNDER_WAY_MAX = 2
BATCH_MAX = 2
WINDOWS_MAX = 2


class Bug(Enum):
    """A rule that is broken, and what comes of it."""

    POST_FIRST = "a range is posted before it is in the ledger"
    FORGETS_ASIDE = "what was set aside leaves the entry when more is announced"
    DELETES_EARLY = "a segment is deleted while a range of it is not settled"
    OTHERS_ANSWER = "an answer settles the range that was sent first"
    LETTER_LATER = "an event is settled before its letter is on the disk"
    LETTER_COUNTS = "a letter counts before the commit that settles its event"
    BLAMES_ALL = "an event is blamed where nothing else was accepted"
    CUTS_BLINDLY = "a range is cut by what was known before a probe had cut it"
    BESIDE_A_PROBE = "other requests are under way beside a probe, which restores"
    BLAMES_THE_LAST = "an event dies of a flush that did not begin with it"
    DELETES_FIRST = "a segment is deleted before the ledger knows what of it is settled"
    COMMITS_ONE = "of a batch of two segments, one is in the ledger as it is posted"
    BLAMES_JOINED = "an event that failed with one of another segment failed alone"


class Wrong(Enum):
    """What the walk may find, the worst first."""

    LOST = "an event is neither at the server nor a dead letter, nor will it be"
    KILLED = "an event that the server takes is a dead letter"
    UNANNOUNCED = "what is posted is not in the ledger, so a retry may be another batch"
    UNCOUNTED = "delivered and dead are not the events there were"


class Bounds(NamedTuple):
    """Segments and what may go wrong with them."""

    name: str
    segments: tuple[tuple[int, ...], ...]
    refused: frozenset[int] = frozenset()
    named: frozenset[int] = frozenset()
    flushes: int = 2
    kills: int = 1
    downs: int = 0
    silent: int = 0
    takes: int = 0  # 0: all of them
    joins: bool = False
    bug: Bug | None = None


class Range(NamedTuple):
    """Events of a segment, by their places, that are not settled."""

    start: int
    end: int
    aside: bool = False
    windows: int = 0
    joined: int = 0  # what has the same one is posted together

    @property
    def is_single(self) -> bool:
        """Whether it is one event, which is posted alone."""
        return self.end == self.start + 1 and not self.joined


Place = tuple[int, Range]


class Entry(NamedTuple):
    """What is known of one segment; `gone` once it is deleted and folded."""

    offset: int = 0
    ranges: tuple[Range, ...] = ()
    delivered: int = 0
    dead: frozenset[int] = frozenset()
    gone: bool = False


class Sent(NamedTuple):
    """Ranges under way. `answer` is "", "ok" or "no"; `before` a probe's entry."""

    places: tuple[Place, ...]
    answer: str = ""
    before: Entry | None = None
    is_first: bool = False  # nothing else was under way, or accepted before


Ledger = tuple[Entry, ...]


class World(NamedTuple):
    """One state. Without a flusher `memory` is the ledger, and what follows is empty."""

    disk: Ledger
    memory: Ledger
    files: frozenset[int]
    received: frozenset[int]
    letters: frozenset[int]
    left: tuple[int, int, int, int]  # flushes, kills, downs, silent answers
    runs: bool = False
    down: bool = False
    accepting: bool = False
    sent: tuple[Sent, ...] = ()
    failed: tuple[Place, ...] = ()  # whose fault is not known
    alone: frozenset[tuple[int, int]] = frozenset()  # failed alone in this flush
    seen: frozenset[Place] = frozenset()  # ranges as they were when they failed
    asked: int = 0  # requests of this flush, up to the bound
    first: frozenset[tuple[int, int]] = frozenset()  # failed alone before an acceptance
    proved: frozenset[tuple[int, int]] = frozenset()  # and once more behind it
    unannounced: bool = False


Move = tuple[str, World]


class Delivering:
    """All moves of a state, and what is wrong with it."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds

    def start(self) -> World:
        """Nothing is sent."""
        b = self.bounds
        ledger = tuple(Entry() for _ in b.segments)
        files = frozenset(range(len(b.segments)))
        left = (b.flushes, b.kills, b.downs, b.silent)
        return World(ledger, ledger, files, frozenset(), frozenset(), left)

    def events(self, segment: int, known: Range) -> frozenset[int]:
        """What stands there."""
        return frozenset(self.bounds.segments[segment][known.start : known.end])

    def moves(self, world: World) -> list[Move]:
        """Every next state; no two have the same text."""
        if not world.runs:
            return list(self._begin(world))
        found = [*self._answered(world)]
        if any(each.before for each in world.sent) and not self._is(Bug.BESIDE_A_PROBE):
            return found + list(self._killed(world))
        for segment in range(len(world.memory)):
            found += self._of_segment(world, segment)
        if self.bounds.joins and not world.failed and len(world.sent) < UNDER_WAY_MAX:
            found += self._announced_together(world)
        if not world.sent:
            found.append(("the flush ends", _idle(world._replace(disk=world.memory))))
        return found + list(self._killed(world))

    def _is(self, bug: Bug) -> bool:
        return self.bounds.bug is bug

    def _killed(self, world: World) -> Iterator[Move]:
        if world.left[1]:
            killed = world._replace(left=_less(world.left, 1))
            yield "the flusher is killed", _idle(killed)

    def _begin(self, world: World) -> Iterator[Move]:
        if not world.left[0] or all(entry.gone for entry in world.disk):
            return
        memory = tuple(
            entry if segment in world.files else entry._replace(gone=True)
            for segment, entry in enumerate(world.disk)
        )
        began = world._replace(runs=True, memory=memory, left=_less(world.left, 0))
        yield "a flush begins", began
        if began.left[2]:
            left = _less(began.left, 2)
            yield (
                "a flush begins, the server is down",
                began._replace(down=True, left=left),
            )

    def _of_segment(self, world: World, segment: int) -> Iterator[Move]:
        entry = world.memory[segment]
        if entry.gone:
            return
        places = [place for each in world.sent for place in each.places]
        busy = {known.start for at, known in places if at == segment}
        has_room = len(world.sent) < UNDER_WAY_MAX
        if has_room and not world.failed:
            yield from self._announced(world, segment, entry)
        for known in entry.ranges if has_room else ():
            if known.start not in busy:
                yield from self._of_range(world, segment, known)
        if self._is(Bug.CUTS_BLINDLY):
            for known in (each for each in entry.ranges if each.aside):
                for at, old in world.seen:
                    if (at, old.start) == (
                        segment,
                        known.start,
                    ) and old.end > known.end:
                        text = f"{known} as {old}"
                        yield self._narrowed(world, segment, known, old.end, text)
        yield from self._deleted(world, segment, entry)

    def _of_range(self, world: World, segment: int, known: Range) -> Iterator[Move]:
        """What may become of a range that is not under way."""
        text = f"{known.start} to {known.end} of segment {segment}"
        key = segment, known.start
        together = self._together(world, segment, known)
        if together[0] != (segment, known):
            return  # what becomes of it is said of the first
        failed_alone = key in world.alone
        is_last_try = key in world.first and key not in world.proved
        if (segment, known) not in world.failed and (not failed_alone or is_last_try):
            # One that an earlier flush left, or that was set aside.
            yield from self._posted(world, together, f"again {text}")
        if not known.is_single:
            for place in together if world.failed and not world.sent else ():
                yield from self._probed(world, *place, f"{place[0]} in {text}")
            if known.aside and known.joined:
                yield f"takes apart {text}", self._taken_apart(world, together)
            elif known.aside:
                yield self._narrowed(world, segment, known, known.end, text)
        elif (
            failed_alone
            and known.windows >= WINDOWS_MAX
            and (key in world.proved or self._is(Bug.BLAMES_THE_LAST))
        ):
            dead = self.events(segment, known)
            yield from self._settled(world, together, dead)

    def _together(self, world: World, segment: int, known: Range) -> tuple[Place, ...]:
        """What is posted with a range, and itself."""
        if not known.joined:
            return ((segment, known),)
        return tuple(
            (at, each)
            for at, entry in enumerate(world.memory)
            for each in entry.ranges
            if each.joined == known.joined
        )

    def _taken_apart(self, world: World, places: tuple[Place, ...]) -> World:
        for segment, known in places:
            entry = _replaced(world.memory[segment], known, known._replace(joined=0))
            world = _with(world, segment, entry)
        return world

    def _announced_together(self, world: World) -> Iterator[Move]:
        """What is left of two segments, with one commit."""
        left = [
            (segment, Range(entry.offset, len(self.bounds.segments[segment])))
            for segment, entry in enumerate(world.memory)
            if not entry.gone and entry.offset < len(self.bounds.segments[segment])
        ]
        for number, (segment, _) in enumerate(left):
            for other, _ in left[number + 1 :]:
                after, places = world, []
                for at, known in left:
                    if at in {segment, other}:
                        joined = known._replace(joined=1 + segment)
                        entry = after.memory[at]
                        entry = entry._replace(
                            offset=known.end, ranges=(*entry.ranges, joined)
                        )
                        after = _with(after, at, entry)
                        places.append((at, joined))
                text = f"all of segments {segment} and {other}"
                yield from self._posted(after, tuple(places), text)

    def _announced(self, world: World, segment: int, entry: Entry) -> Iterator[Move]:
        end = min(entry.offset + BATCH_MAX, len(self.bounds.segments[segment]))
        if end == entry.offset:
            return
        known = Range(entry.offset, end)
        ranges = entry.ranges
        if self._is(Bug.FORGETS_ASIDE):
            ranges = tuple(each for each in ranges if not each.aside)
        entry = entry._replace(offset=end, ranges=(*ranges, known))
        world = _with(world, segment, entry)
        text = f"{known.start} to {known.end} of segment {segment}"
        yield from self._posted(world, ((segment, known),), text)

    def _posted(
        self,
        world: World,
        places: tuple[Place, ...],
        text: str,
        before: Entry | None = None,
    ) -> Iterator[Move]:
        """It is committed, then it is sent; the answer is taken later."""
        if self._is(Bug.COMMITS_ONE) and len(places) > 1:
            at = places[0][0]
            disk = (*world.disk[:at], world.memory[at], *world.disk[at + 1 :])
            world = world._replace(disk=disk)
        elif not self._is(Bug.POST_FIRST):
            world = world._replace(disk=world.memory)
            yield f"commits {text}", world
        for segment, known in places:
            ranges = world.disk[segment].ranges
            if not any(known[:2] == each[:2] for each in ranges):
                world = world._replace(unannounced=True)
        events = frozenset[int]().union(*(self.events(*place) for place in places))
        taken = world._replace(received=world.received | (events - self.bounds.named))

        def sent(after: World, answer: str) -> World:
            mine = Sent(places, answer, before, is_first)
            return after._replace(sent=(*world.sent, mine))

        is_busy = 0 < self.bounds.takes <= world.asked
        world = world._replace(asked=min(world.asked + 1, self.bounds.takes))
        taken = taken._replace(asked=world.asked)
        is_first = not world.sent and not world.accepting
        if world.down or events & self.bounds.refused or is_busy:
            yield f"posts {text}, refused", sent(world, "no")
            return
        yield f"posts {text}, accepted", sent(taken, "ok")
        if world.left[3]:
            left = _less(world.left, 3)
            yield f"posts {text}, lost", sent(world._replace(left=left), "no")
            silent = sent(taken._replace(left=left), "no")
            yield f"posts {text}, accepted, the answer is lost", silent

    def _answered(self, world: World) -> Iterator[Move]:
        """Any answer is taken next, whichever was sent first."""
        for number, each in enumerate(world.sent):
            rest = (*world.sent[:number], *world.sent[number + 1 :])
            after, places = world._replace(sent=rest), each.places
            segment, known = places[0]
            text = f"{known.start} to {known.end} of segment {segment}"
            if each.answer == "ok":
                if self._is(Bug.OTHERS_ANSWER):
                    places = world.sent[0].places
                events = (self.events(*place) for place in places)
                dead = self.bounds.named.intersection(frozenset[int]().union(*events))
                after = self._held_against(after._replace(accepting=True))
                yield from self._settled(after, places, dead)
                continue
            if each.before is not None:
                restored = _with(after, segment, each.before)
                yield f"restores what the probe cut {text}", restored
                continue
            after = self._failed(after, each)
            if self._is(Bug.CUTS_BLINDLY):
                after = after._replace(seen=after.seen | {(segment, known)})
            if world.accepting or self._is(Bug.BLAMES_ALL):
                after = self._held_against(after)
            yield f"takes the refusal of {text}", after

    def _failed(self, world: World, sent: Sent) -> World:
        """Whose fault it is is not known yet."""
        for segment, known in sent.places:
            key = {(segment, known.start)}
            if self._is_alone(known) and sent.is_first:
                world = world._replace(first=world.first | key)
            elif self._is_alone(known) and key & world.alone & world.first:
                world = world._replace(proved=world.proved | key)
        return world._replace(failed=(*world.failed, *sent.places))

    def _is_alone(self, known: Range) -> bool:
        """Whether what it drew is held against the one event that it is."""
        is_one = known.end == known.start + 1
        return known.is_single or (is_one and self._is(Bug.BLAMES_JOINED))

    def _held_against(self, world: World) -> World:
        """What failed is set aside: something else was accepted."""
        for segment, failed in world.failed:
            is_alone = self._is_alone(failed)
            entry = world.memory[segment]
            ranges = tuple(
                each._replace(
                    aside=True, windows=min(each.windows + is_alone, WINDOWS_MAX)
                )
                if failed.start <= each.start < failed.end
                else each
                for each in entry.ranges
            )
            world = _with(world, segment, entry._replace(ranges=ranges))
            if is_alone:
                world = world._replace(alone=world.alone | {(segment, failed.start)})
        return world._replace(failed=())

    def _settled(
        self, world: World, places: tuple[Place, ...], dead: frozenset[int]
    ) -> Iterator[Move]:
        """Its ranges are found by their starts: setting aside may have changed them."""
        after = world
        for segment, known in places:
            entry = after.memory[segment]
            its = dead & self.events(segment, known)
            settled = entry._replace(
                ranges=tuple(e for e in entry.ranges if e.start != known.start),
                delivered=entry.delivered + known.end - known.start - len(its),
                dead=entry.dead | its,
            )
            after = _with(after, segment, settled)
        segment, known = places[0]
        text = f"{known.start} to {known.end} of segment {segment}"
        if not dead:
            yield f"settles {text}", after
            return
        lettered = after._replace(letters=world.letters | dead, disk=after.memory)
        if self._is(Bug.LETTER_LATER):
            yield (
                f"settles {text}, not yet its letter",
                after._replace(disk=after.memory),
            )
        else:
            # Killed here: a letter that counts for nothing.
            left, memory = world.left, world.disk
            if left[1]:
                gone = world._replace(letters=lettered.letters, memory=memory)
                killed = _idle(gone._replace(left=_less(left, 1)))
                yield f"is killed behind the letter of {text}", killed
        yield f"settles {text}, with a letter", lettered

    def _probed(
        self, world: World, segment: int, known: Range, text: str
    ) -> Iterator[Move]:
        before = world.memory[segment]
        for at in range(known.start, known.end):
            single = Range(at, at + 1)
            parts = [known._replace(end=at), single, known._replace(start=at + 1)]
            entry = _replaced(before, known, *(p for p in parts if p.end > p.start))
            cut = _with(world, segment, entry)
            for said, after in self._posted(
                cut, ((segment, single),), f"{at} as a probe, out of {text}", before
            ):
                if after.sent:
                    yield said, after

    def _narrowed(
        self, world: World, segment: int, known: Range, end: int, text: str
    ) -> Move:
        middle = (known.start + end) // 2
        parts = Range(known.start, middle, aside=True), Range(middle, end, aside=True)
        entry = _replaced(
            world.memory[segment], known, *(p for p in parts if p.end > p.start)
        )
        return f"narrows {text}", _with(world, segment, entry)

    def _deleted(self, world: World, segment: int, entry: Entry) -> Iterator[Move]:
        is_read = entry.offset == len(self.bounds.segments[segment])
        is_settled = not entry.ranges or self._is(Bug.DELETES_EARLY)
        if not (is_read and is_settled) or segment not in world.files:
            return
        if not self._is(Bug.DELETES_FIRST):
            world = world._replace(disk=world.memory)
        files = world.files - {segment}
        after = _with(world, segment, entry._replace(gone=True))
        yield f"deletes segment {segment}", after._replace(files=files)

    def wrong(self, world: World) -> Wrong | None:
        """What is wrong if all is killed now and a sound server takes the rest."""
        if world.unannounced:
            return Wrong.UNANNOUNCED
        good = {e for each in self.bounds.segments for e in each}
        good -= self.bounds.refused | self.bounds.named
        counted = delivered = 0
        dead: set[int] = set()
        arrived = set(world.received)
        for segment, entry in enumerate(world.disk):
            delivered += entry.delivered
            counts = entry.dead if not self._is(Bug.LETTER_COUNTS) else world.letters
            dead |= counts & world.letters & set(self.bounds.segments[segment])
            if segment in world.files:
                rest = Range(entry.offset, len(self.bounds.segments[segment]))
                for known in (*entry.ranges, rest):
                    events = self.events(segment, known)
                    counted += len(events)
                    arrived |= events
        every = {e for each in self.bounds.segments for e in each}
        if not every <= arrived | dead:
            return Wrong.LOST
        if dead & good:
            return Wrong.KILLED
        if counted + delivered + len(dead) != len(every):
            return Wrong.UNCOUNTED
        return None


def _less(left: tuple[int, int, int, int], which: int) -> tuple[int, int, int, int]:
    return (*left[:which], left[which] - 1, *left[which + 1 :])  # type: ignore[return-value]


def _with(world: World, segment: int, entry: Entry) -> World:
    memory = (*world.memory[:segment], entry, *world.memory[segment + 1 :])
    return world._replace(memory=memory)


def _idle(world: World) -> World:
    """Nobody flushes: only what is on the disk is left."""
    return world._replace(
        memory=world.disk, runs=False, down=False, accepting=False, sent=(), failed=(),
        alone=frozenset(), seen=frozenset(), asked=0, first=frozenset(),
        proved=frozenset(),
    )  # fmt: skip


def _replaced(entry: Entry, known: Range, *parts: Range) -> Entry:
    at = [each.start for each in entry.ranges].index(known.start)
    ranges = (*entry.ranges[:at], *parts, *entry.ranges[at + 1 :])
    return entry._replace(ranges=ranges)
