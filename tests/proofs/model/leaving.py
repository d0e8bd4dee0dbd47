"""The opt-out on Windows: a file that its writer has open cannot be moved away.

    idle -> move <-> retire -> ledger -> sweep <-> truncate -> done
              |        |
              +--------+--> fallback <-> truncate, where a file can be neither

Each segment is renamed, or gets an LF behind its end: its writer finds the end elsewhere
and asks again. That needs no flush lock. Where it fails, because a flusher has the
segment to itself or it is being deleted, all are removed as they are under the lock. What
is in use cannot be removed: it is erased, an LF first and then its length.
"""

from __future__ import annotations

from tests.proofs.model.books import Ledger
from tests.proofs.model.rules import Rule
from tests.proofs.model.scenario import FLUSHER, Scenario
from tests.proofs.model.segment import LF
from tests.proofs.model.world import (
    NO_FILE,
    Move,
    World,
    deleted,
    file_of,
    in_use,
    with_inode,
    with_names,
    with_purge,
    with_purged,
)


def leaving_moves(world: World, scenario: Scenario) -> list[Move]:
    """What the opt-out may do next, once the choice is written."""
    at, todo = world.purge.at, world.purge.todo
    if at == "set aside":
        return [_listed(world, at="move")]
    if at == "ledger" and world.flusher.at == "idle":
        text, after = _listed(world, at="sweep")
        return [(f"takes flush.lock, {text}", after)]
    if at == "sweep" and not todo:
        gone = world._replace(ledger=Ledger(), ledger_on_disk=Ledger())
        return [("removes the ledger", with_purge(gone, at="done"))]
    if not todo:
        return []
    name = todo[0]
    file = file_of(world, name)
    if file == NO_FILE:
        return [(f"finds segment {name} gone", _next(world))]
    if at == "move":
        move = _move(world, name, file)
    elif any(each.at == "finish" and each.file == file for each in world.writers):
        return []  # the system writes to a file one after the other
    elif at == "retire":
        move = _retire(world, name, file, scenario)
    elif at in {"fallback", "sweep"}:
        move = _remove(world, name, file)
    else:
        move = _truncate(world, name, file)
    return [move]


def finished(world: World) -> World:
    """The next launch has finished an opt-out that was killed, and all are gone."""
    for _, file in world.names:
        world = with_purged(world, file)
    return with_names(world, {})._replace(ledger=Ledger(), ledger_on_disk=Ledger())


def _listed(world: World, *, at: str) -> Move:
    todo = tuple(name for name, _ in world.names)
    text = f"lists the spool: {', '.join(map(str, todo)) or 'empty'}"
    if at == "move" and not todo:
        at = "ledger"
    return text, with_purge(world, at=at, todo=todo)


def _next(world: World) -> World:
    purge = world.purge
    todo = purge.todo[1:]
    at = {"retire": "move", "truncate": "sweep", "shorten": "fallback"}.get(
        purge.at, purge.at
    )
    if not todo and at in {"move", "fallback"}:
        at = "ledger"
    return with_purge(world, at=at, todo=todo)


def _move(world: World, name: int, file: int) -> Move:
    if in_use(world, file) or world.inodes[file].doomed:
        return f"cannot rename segment {name}", with_purge(world, at="retire")
    names = {n: f for n, f in world.names if n != name}
    after = with_names(_next(with_purged(world, file)), names)
    return f"renames segment {name}", after


def _retire(world: World, name: int, file: int, scenario: Scenario) -> Move:
    inode = world.inodes[file]
    if not scenario.has(Rule.RETIRE):
        return f"leaves segment {name}", _next(world)
    if inode.lock == FLUSHER or inode.doomed:
        _, after = _listed(world, at="fallback")
        return f"cannot open segment {name}, lists the spool again", after
    longer = with_inode(with_purged(world, file), file, units=(*inode.units, LF))
    return f"appends an LF to segment {name}", _next(longer)


def _remove(world: World, name: int, file: int) -> Move:
    inode = world.inodes[file]
    if inode.doomed:
        return f"finds segment {name} being deleted", _next(world)
    if not in_use(world, file):
        after = deleted(_next(with_purged(world, file)), name)
        return f"deletes segment {name}", after
    at = "truncate" if world.purge.at == "sweep" else "shorten"
    begun = with_inode(with_purged(world, file), file, units=(LF, *inode.units[1:]))
    return f"writes an LF over segment {name}", with_purge(begun, at=at)


def _truncate(world: World, name: int, file: int) -> Move:
    units = world.inodes[file].units
    shorter = with_inode(with_purged(world, file), file, units=units[:1])
    return f"cuts segment {name} behind its LF", _next(shorter)
