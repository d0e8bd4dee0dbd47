"""The writer: what becomes of one event once a segment is open.

    idle -> [opening] -> write -> finish -> sync -> links -> idle
                ^                                     |
                +---- the file has no name any more --+

A write is two steps, for a reader may see its first half and a kill may leave
it. A short write ends after the first half too. The answer comes with the last
step: what a purge takes after that it would have taken an instant later.
"""

from __future__ import annotations

from tests.proofs.model.opening import Opening, close, next_event
from tests.proofs.model.rules import Rule
from tests.proofs.model.scenario import OWNERS, Scenario
from tests.proofs.model.segment import records
from tests.proofs.model.world import (
    FOREIGN_FILE,
    NO_FILE,
    Move,
    World,
    linked,
    release,
    with_inode,
    with_writer,
)


def running(world: World, who: int, scenario: Scenario) -> bool:
    """Whether a process has begun, so that a kill makes a difference."""
    writer = world.writers[who]
    if not writer.runs:
        return False
    fresh = writer.runs[0] in scenario.writers[who]
    return not fresh or writer.at != "idle" or writer.file != NO_FILE


def end_process(world: World, who: int) -> World:
    """The process is gone, by exit or by kill: its locks with it."""
    runs = world.writers[who].runs[1:]
    return with_writer(close(world, who), who, at="idle", runs=runs, late=False)


def lose_descriptor(world: World, who: int) -> World:
    """The host closed it, the lock with it, and has its own file there now."""
    world = release(world, world.writers[who].file, OWNERS[who])
    return with_writer(world, who, file=FOREIGN_FILE, name=0)


class Writing:
    """All steps of a writer, those of opening included."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.opening = Opening(scenario)
        self.steps = {
            **self.opening.steps,
            "idle": self.begin,
            "position": self.position,
            "write": self.write,
            "finish": self.finish,
            "sync": self.sync,
            "links": self.links,
        }

    def moves(self, world: World, who: int) -> list[Move]:
        """What this writer may do next; none if it has nothing left to do."""
        writer = world.writers[who]
        if not writer.runs:
            return []
        if writer.at == "idle" and not writer.runs[0]:
            return [("exits", end_process(world, who))]
        return self.steps[writer.at](world, who)

    def begin(self, world: World, who: int) -> list[Move]:
        """The first system call of an event: the write, if a segment is open."""
        late = self.opening.asks and world.purge.has_returned
        world = with_writer(world, who, late=late)
        file = world.writers[who].file
        if file == FOREIGN_FILE:
            if not self.scenario.has(Rule.POSITION):
                text = f"writes event {_event(world, who)} into the host's file"
                return [(text, world._replace(foreign=True))]
            world = with_writer(world, who, file=NO_FILE)
        elif file != NO_FILE:
            if len(records(world.inodes[file].units)) < self.scenario.segment_records:
                if self.scenario.windows:
                    return self.position(world, who)
                return self.write(world, who)
            world = close(world, who)
        return self.opening.begin(world, who)

    def position(self, world: World, who: int) -> list[Move]:
        """On Windows: the end is where we left it. What comes next may move it."""
        writer = world.writers[who]
        found = len(world.inodes[writer.file].units)
        if found == writer.size or not self.scenario.has(Rule.POSITION):
            text = "finds the end where it was"
            return [(text, with_writer(world, who, at="write"))]
        return self._elsewhere(world, who, "finds the end elsewhere, closes")

    def write(self, world: World, who: int) -> list[Move]:
        file, event = world.writers[who].file, _event(world, who)
        units = (*world.inodes[file].units, 2 * event)
        text = f"writes half of event {event} to segment {world.writers[who].name}"
        if linked(world, file):
            world = world._replace(begun=world.begun | {event})
        world = with_inode(world, file, units=units)
        return [(text, with_writer(world, who, at="finish"))]

    def finish(self, world: World, who: int) -> list[Move]:
        file, event = world.writers[who].file, _event(world, who)
        text = f"writes the rest of event {event}"
        whole = with_inode(
            world._replace(whole=world.whole | {event}),
            file,
            units=(*world.inodes[file].units, 2 * event + 1),
        )
        if self.scenario.power:
            moves = [(text, with_writer(whole, who, at="sync"))]
        elif self.scenario.has(Rule.PATH_CHECK) or self.scenario.windows:
            size = world.writers[who].size + 2 * self.scenario.windows
            moves = [(text, with_writer(whole, who, at="links", size=size))]
        else:
            moves = [(f"{text}, answers True", _answer(whole, who))]
        if world.left.short_writes:
            left = world.left._replace(short_writes=world.left.short_writes - 1)
            short = next_event(close(world._replace(left=left), who), who)
            moves.append(("has a short write, closes, answers False", short))
        return moves

    def sync(self, world: World, who: int) -> list[Move]:
        file = world.writers[who].file
        inode = world.inodes[file]
        upto = len(inode.units)
        if not self.scenario.has(Rule.SYNC_AFTER_WRITE):
            upto -= 2  # another thread's sync, begun before our write, ends now
        world = with_inode(world, file, synced=max(upto, inode.synced))
        if self.scenario.has(Rule.PATH_CHECK):
            return [("syncs the segment", with_writer(world, who, at="links"))]
        return [("syncs the segment, answers True", _answer(world, who))]

    def links(self, world: World, who: int) -> list[Move]:
        writer = world.writers[who]
        ends_here = len(world.inodes[writer.file].units) == writer.size
        if self.scenario.windows and self.scenario.has(Rule.END_CHECK):
            if not ends_here:
                return self._elsewhere(world, who, "finds another end, closes")
        elif not linked(world, writer.file):
            return self._elsewhere(world, who, "finds its path leads elsewhere, closes")
        text = f"finds its path, answers True for event {_event(world, who)}"
        return [(text, _answer(world, who))]

    def _elsewhere(self, world: World, who: int, text: str) -> list[Move]:
        asks = self.opening.asks and self.scenario.has(Rule.CONSENT_REREAD)
        at = "consent" if asks else "list"
        return [(text, with_writer(close(world, who), who, at=at))]


def _event(world: World, who: int) -> int:
    return world.writers[who].runs[0][0]


def _answer(world: World, who: int) -> World:
    event = _event(world, who)
    if world.writers[who].late:
        world = world._replace(late=world.late | {event})
    return next_event(world._replace(acked=world.acked | {event}), who)
