"""The flusher: one system call, request or commit a step.

    idle -> list -> [gone] -> read -> announce -> post -> settle -> lock
                               ^                                     |
                               +----- more at its end <------- read again
                                                                     |
                         next segment <- fold <- unlink <- [tail] <--+

It holds flush.lock from `list` until it is idle again, so nobody else commits
and what it knows of the ledger is what the ledger says. A lost request or a lost
answer ends the flush as a kill before or after the request does, so those are
not modelled apart. The server is the least helpful one that keeps the promise of
its key: a key seen before is answered yes, its body ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proofs.model.books import Batch, Entry, agrees, settled
from tests.proofs.model.rules import Rule
from tests.proofs.model.scenario import FLUSHER, Scenario
from tests.proofs.model.segment import Units, is_erased, records, whole_end
from tests.proofs.model.world import (
    NO_FILE,
    Move,
    World,
    commits,
    deleted,
    file_of,
    in_use,
    linked,
    release,
    tidy,
    with_flusher,
    with_inode,
    with_names,
)


if TYPE_CHECKING:
    from collections.abc import Callable


def end_flusher(world: World) -> World:
    """The flusher is gone, done or killed: its locks with it."""
    world = release(world, world.flusher.file, FLUSHER)
    runs = world.flusher.runs - 1
    return tidy(
        with_flusher(world, at="idle", runs=runs, todo=(), file=NO_FILE, seen=0, done=0)
    )


class Flushing:
    """All steps of the flusher, each by its name."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.has = scenario.has
        self.steps: dict[str, Callable[[World], list[Move]]] = {
            "idle": self.list_spool,
            "gone": self.gone,
            "read": self.read,
            "announce": self.announce,
            "post": self.post,
            "settle": self.settle,
            "lock": self.lock,
            "read again": self.read_again,
            "tail": self.tail,
            "unlink": self.unlink,
            "fold": self.fold,
        }

    def moves(self, world: World) -> list[Move]:
        """What the flusher may do next; none if no flush is left or a purge runs."""
        purged = world.flusher.at == "idle" and world.purge.holds_flush_lock
        if not world.flusher.runs or purged:
            return []
        return self.steps[world.flusher.at](world)

    def list_spool(self, world: World) -> list[Move]:
        todo = tuple(sorted(name for name, _ in world.names))
        gone = any(name not in todo for name, _ in world.ledger.entries)
        text = f"takes flush.lock, lists: {', '.join(map(str, todo)) or 'empty'}"
        if not todo and not gone:
            return [(text, end_flusher(world))]
        at = "gone" if gone else "read"
        return [(text, with_flusher(world, at=at, todo=todo))]

    def gone(self, world: World) -> list[Move]:
        ledger, folds = world.ledger, self.has(Rule.FOLD)
        for name, _ in world.ledger.entries:
            if name not in world.flusher.todo:
                ledger = ledger.fold(name) if folds else ledger.drop(name)
        verb = "folds" if folds else "drops"
        moves = commits(world, f"{verb} the entries whose file is gone", ledger)
        if not world.flusher.todo:
            return [(text, end_flusher(after)) for text, after in moves]
        return [(text, with_flusher(after, at="read")) for text, after in moves]

    def read(self, world: World) -> list[Move]:
        name = world.flusher.todo[0]
        file = file_of(world, name)
        if file == NO_FILE:
            return [(f"opens segment {name}: it is gone", _next(world))]
        if world.inodes[file].doomed:
            return [(f"opens segment {name}: it is being deleted", _next(world))]
        units, entry = self._units(world, file), world.ledger.entry(name)
        text = f"reads segment {name} up to {len(units)}"
        if not agrees(entry, units, anchored=self.has(Rule.ANCHOR)):
            text += ": its entry speaks of another, folds it"
            moves = commits(world, text, world.ledger.fold(name))
            return [(said, with_flusher(after, at="read")) for said, after in moves]
        at = "announce"
        if self._is_announced(entry, units):
            at = "post"
        elif whole_end(units, entry.offset) == entry.offset:
            at = "lock"
        seen, done = len(units), entry.offset
        return [(text, with_flusher(world, at=at, file=file, seen=seen, done=done))]

    def _is_announced(self, entry: Entry, units: Units) -> bool:
        batch = entry.batch
        if batch is None or batch.end > len(units):
            return False
        same = units[batch.start : batch.end] == batch.digest
        return same or not self.has(Rule.BATCH_HASH)

    def announce(self, world: World) -> list[Move]:
        name, entry, units = self._at_hand(world)
        end = whole_end(units[: world.flusher.seen], entry.offset)
        in_flight = [e.batch.key for _, e in world.ledger.entries if e.batch]
        key = max((*world.keys, *in_flight), default=0) + 1
        batch = Batch(entry.offset, end, key, units[entry.offset : end])
        text = f"commits: {batch.start} to {end} of segment {name} in flight, key {key}"
        ledger = world.ledger.put(name, entry._replace(batch=batch))
        moves = commits(world, text, ledger)
        return [(said, with_flusher(after, at="post")) for said, after in moves]

    def post(self, world: World) -> list[Move]:
        _, entry, units = self._at_hand(world)
        batch = entry.batch
        if not world.consent or batch is None:
            return [("finds consent withdrawn, sends nothing", end_flusher(world))]
        events = {event for _, _, event in records(units[: batch.end], batch.start)}
        text = f"posts events {', '.join(map(str, sorted(events)))}, key {batch.key}"
        if batch.key in world.keys:
            text += " (seen before: ignored)"
        else:
            world = world._replace(
                keys=world.keys | {batch.key}, received=world.received | events
            )
        if self.has(Rule.SETTLE_FIRST):
            return [(text, with_flusher(world, at="settle"))]
        return [(text, with_flusher(world, at="lock", done=batch.end))]

    def settle(self, world: World) -> list[Move]:
        name, entry, units = self._at_hand(world)
        entry = settled(entry, units, entry.batch.end if entry.batch else 0)
        text = f"commits: segment {name} is settled up to {entry.offset}"
        moves = commits(world, text, world.ledger.put(name, entry))
        return [
            (said, with_flusher(after, at="lock", done=entry.offset))
            for said, after in moves
        ]

    def lock(self, world: World) -> list[Move]:
        name, entry, units = self._at_hand(world)
        flusher = world.flusher
        if self._may_lock(world, name):
            holds = not self.scenario.windows or self.has(Rule.SHUT_OUT)
            lock = FLUSHER if holds else world.inodes[flusher.file].lock
            after = with_inode(world, flusher.file, lock=lock)
            return [(f"locks segment {name}", with_flusher(after, at="read again"))]
        if flusher.done != entry.offset:
            return self.settle(world)
        end = whole_end(units[: flusher.seen], flusher.done)
        if flusher.seen > end + entry.tail and not self.has(Rule.TAIL_LOCK):
            return self.tail(world)
        return [(f"finds segment {name} locked", _next(world))]

    def read_again(self, world: World) -> list[Move]:
        name, entry, units = self._at_hand(world)
        flusher = world.flusher
        seen = len(units) if self.has(Rule.READ_END_AGAIN) else flusher.seen
        text = f"reads the end of segment {name} again: {seen}"
        if whole_end(units[:seen], flusher.done) > flusher.done:
            at = "read" if flusher.done == entry.offset else "settle"
            unlocked = release(world, flusher.file, FLUSHER)
            return [(f"{text}, unlocks it", with_flusher(unlocked, at=at))]
        at = "tail" if seen > flusher.done + entry.tail else "unlink"
        return [(text, with_flusher(world, at=at, seen=seen))]

    def tail(self, world: World) -> list[Move]:
        name, entry, _ = self._at_hand(world)
        seen, file = world.flusher.seen, world.flusher.file
        damaged = entry.damaged + (0 if entry.tail else 1)
        entry = entry._replace(damaged=damaged, batch=None)
        if self.has(Rule.TAIL_BESIDE):
            entry = entry._replace(tail=seen - entry.offset)
        else:
            entry = entry._replace(offset=seen)
        text = f"commits: the tail of segment {name}, up to {seen}, is damaged"
        moves = commits(world, text, world.ledger.put(name, entry))
        if world.inodes[file].lock != FLUSHER:
            return [(said, _next(after)) for said, after in moves]
        return [
            (said, with_flusher(after, at="unlink", done=entry.offset))
            for said, after in moves
        ]

    def unlink(self, world: World) -> list[Move]:
        name = world.flusher.todo[0]
        text = f"deletes segment {name}"
        if not linked(world, world.flusher.file):
            text += ", which is not the file it has locked"
        if self.scenario.windows:
            file = world.flusher.file
            goes = file_of(world, name) == file and not in_use(world, file)
            after = deleted(world, name) if goes else world
        else:
            names = {n: file for n, file in world.names if n != name}
            after = with_names(world, names)
        is_known = any(entry == name for entry, _ in world.ledger.entries)
        return [(text, with_flusher(after, at="fold") if is_known else _next(after))]

    def fold(self, world: World) -> list[Move]:
        name, entry, units = self._at_hand(world)
        ledger = world.ledger
        if world.flusher.done != entry.offset:
            ledger = ledger.put(name, settled(entry, units, world.flusher.done))
        moves = commits(world, f"folds the entry of segment {name}", ledger.fold(name))
        return [(text, _next(after)) for text, after in moves]

    def _at_hand(self, world: World) -> tuple[int, Entry, Units]:
        """The segment at hand: its name, its entry, its bytes as they are now."""
        name, file = world.flusher.todo[0], world.flusher.file
        return name, world.ledger.entry(name), self._units(world, file)

    def _units(self, world: World, file: int) -> Units:
        units = world.inodes[file].units
        ignored = self.scenario.windows and self.has(Rule.ERASED) and is_erased(units)
        return () if ignored else units

    def _may_lock(self, world: World, name: int) -> bool:
        file = world.flusher.file
        if not self.scenario.windows:
            return not world.inodes[file].lock
        # An exclusive opening, by name: no writer can open it from here on.
        if self.has(Rule.SHUT_OUT) and in_use(world, file):
            return False
        return file_of(world, name) == file and not world.inodes[file].doomed


def _next(world: World) -> World:
    """Close this segment, its lock with it, and go to the next."""
    todo = world.flusher.todo[1:]
    if not todo:
        return end_flusher(world)
    world = release(world, world.flusher.file, FLUSHER)
    return tidy(with_flusher(world, at="read", todo=todo, file=NO_FILE, seen=0, done=0))
