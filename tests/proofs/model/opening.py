"""How a writer comes by a segment: one system call a step.

    consent -> list -> open -> lock -> check -> consent again -> sync directory
                |       ^        |       |
                |       +--------+-------+  not this one: the next
                +-> create -> lock ...      none left: create one

Reads that nobody can disturb are no step of their own: the tail is read with
the name check (the lock is held), and consent only where a purge may withdraw
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proofs.model.rules import Rule
from tests.proofs.model.scenario import FLUSHER, OWNERS, Scenario
from tests.proofs.model.segment import is_erased, records, whole_end
from tests.proofs.model.world import (
    NO_FILE,
    Inode,
    Move,
    World,
    file_of,
    release,
    tidy,
    with_inode,
    with_names,
    with_writer,
)


if TYPE_CHECKING:
    from collections.abc import Callable


def close(world: World, who: int) -> World:
    """Close the descriptor, if it is still ours, and forget the segment."""
    world = release(world, world.writers[who].file, OWNERS[who])
    return tidy(with_writer(world, who, file=NO_FILE, name=0, tries=(), size=0))


def next_event(world: World, who: int) -> World:
    """The event at hand is answered; the process turns to its next."""
    runs = world.writers[who].runs
    return with_writer(world, who, at="idle", runs=(runs[0][1:], *runs[1:]), late=False)


class Opening:
    """The steps from consent to the first byte, each by its name."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.asks = scenario.purge == "opt-out"
        self.steps: dict[str, Callable[[World, int], list[Move]]] = {
            "consent": self.consent,
            "list": self.list_spool,
            "open": self.open_segment,
            "create": self.create,
            "lock": self.lock,
            "check": self.check,
            "consent again": self.consent_again,
            "sync directory": self.sync_directory,
        }

    def begin(self, world: World, who: int) -> list[Move]:
        """The first step, for an event that finds no segment open."""
        return self.consent(world, who) if self.asks else self.list_spool(world, who)

    def consent(self, world: World, who: int) -> list[Move]:
        if not world.consent:
            return [("reads consent: off, answers False", next_event(world, who))]
        return [("reads consent: on", with_writer(world, who, at="list"))]

    def list_spool(self, world: World, who: int) -> list[Move]:
        tries = tuple(sorted((name for name, _ in world.names), reverse=True))
        at = "open" if tries else "create"
        text = f"lists the spool: {', '.join(map(str, tries)) or 'empty'}"
        return [(text, with_writer(world, who, at=at, tries=tries))]

    def open_segment(self, world: World, who: int) -> list[Move]:
        name = world.writers[who].tries[0]
        file = file_of(world, name)
        if file == NO_FILE:
            return [(f"opens segment {name}: it is gone", _try_next(world, who))]
        if self._shuts_out(world.inodes[file]):
            return [(f"cannot open segment {name}", _try_next(world, who))]
        after = with_writer(world, who, at="lock", file=file, name=name)
        return [(f"opens segment {name}", after)]

    def create(self, world: World, who: int) -> list[Move]:
        used, file = dict(world.names), len(world.inodes)
        name = file + 1
        if not self.scenario.has(Rule.FRESH_NAME):
            name = min(n for n in range(1, name + 1) if n not in used)
        world = world._replace(inodes=(*world.inodes, Inode()))
        world = with_writer(world, who, at="lock", file=file, name=name, tries=())
        return [(f"creates segment {name}", with_names(world, {**used, name: file}))]

    def _shuts_out(self, inode: Inode) -> bool:
        """Whether Windows refuses to open it, or it is erased."""
        if not self.scenario.windows:
            return False
        if self.scenario.has(Rule.ERASED) and is_erased(inode.units):
            return True
        return inode.lock == FLUSHER or inode.doomed

    def lock(self, world: World, who: int) -> list[Move]:
        name, file = world.writers[who].name, world.writers[who].file
        if world.inodes[file].lock and self.scenario.has(Rule.LOCK):
            return [(f"finds segment {name} locked", _try_next(world, who))]
        locked = with_inode(world, file, lock=OWNERS[who])
        return [(f"locks segment {name}", with_writer(locked, who, at="check"))]

    def check(self, world: World, who: int) -> list[Move]:
        name, file = world.writers[who].name, world.writers[who].file
        if self.scenario.has(Rule.NAME_CHECK) and file_of(world, name) != file:
            text = f"finds segment {name} no longer under its name"
            return [(text, _try_next(world, who))]
        units, synced = world.inodes[file].units, world.inodes[file].synced
        if len(records(units)) >= self.scenario.segment_records:
            return [(f"finds segment {name} full", _try_next(world, who))]
        text = f"checks name and tail of segment {name}"
        if whole_end(units) != len(units):
            if not self.scenario.has(Rule.NEVER_TRUNCATE):
                kept = units[: whole_end(units)]
                world = with_inode(
                    world, file, units=kept, synced=min(synced, len(kept))
                )
                text = f"cuts the torn tail of segment {name}"
            elif self.scenario.has(Rule.WHOLE_END):
                text = f"finds segment {name} with an unclean tail"
                return [(text, _try_next(world, who))]
        if self.asks and self.scenario.has(Rule.CONSENT_AFTER_OPEN):
            return [(text, with_writer(world, who, at="consent again"))]
        return [(text, self._allowed(world, who))]

    def consent_again(self, world: World, who: int) -> list[Move]:
        if not world.consent:
            after = next_event(close(world, who), who)
            return [("reads consent again: off, closes, answers False", after)]
        return [("reads consent again: on", self._allowed(world, who))]

    def _allowed(self, world: World, who: int) -> World:
        # `tries` still begins with the segment at hand, unless it was created.
        rule = Rule.SYNC_ADOPTED if world.writers[who].tries else Rule.SYNC_CREATED
        syncs = self.scenario.power and self.scenario.has(rule)
        if self.scenario.windows:
            size = len(world.inodes[world.writers[who].file].units)
            return with_writer(world, who, at="position", tries=(), size=size)
        at = "sync directory" if syncs else "write"
        return with_writer(world, who, at=at, tries=())

    def sync_directory(self, world: World, who: int) -> list[Move]:
        after = with_names(world, dict(world.names), synced=True)
        return [("syncs the directory", with_writer(after, who, at="write"))]


def _try_next(world: World, who: int) -> World:
    tries = world.writers[who].tries[1:]
    at = "open" if tries else "create"
    return with_writer(close(world, who), who, at=at, tries=tries)
