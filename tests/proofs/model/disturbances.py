"""What comes from outside: a purge, kills, looks, and hosts that close descriptors.

The opt-out writes the choice and sets the spool aside in one step, whatever a flusher
does; then it takes flush.lock (it waits for the flusher), removes the ledger, and
syncs the directory. On Windows, `leaving.py` has the opt-out. The `rm` is what a person does by hand: it unlinks one segment
after the other, takes no lock, and leaves consent and ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proofs.model.books import Ledger
from tests.proofs.model.flusher import end_flusher
from tests.proofs.model.leaving import leaving_moves
from tests.proofs.model.rules import Rule
from tests.proofs.model.scenario import OWNERS, Scenario
from tests.proofs.model.world import (
    NO_FILE,
    Move,
    World,
    tidy,
    with_names,
    with_purge,
    with_purged,
)
from tests.proofs.model.writer import end_process, lose_descriptor, running


if TYPE_CHECKING:
    from collections.abc import Iterator


def purge_moves(world: World, scenario: Scenario) -> list[Move]:
    """What the purge may do next."""
    purge = world.purge
    if purge.at == "idle":
        return _begin(world, scenario)
    if scenario.windows and scenario.purge == "opt-out":
        return leaving_moves(world, scenario)
    if purge.at == "set aside":
        return [_set_aside(world)]
    if purge.at == "rm":
        return _unlink(world, last="done")
    if purge.at == "ledger" and world.flusher.at == "idle":
        gone = world._replace(ledger=Ledger(), ledger_on_disk=Ledger())
        syncs = world.left.power_losses and scenario.has(Rule.PURGE_SYNC)
        at = "sync" if syncs else "done"
        return [("takes flush.lock, removes the ledger", with_purge(gone, at=at))]
    if purge.at == "sync":
        synced = with_names(world, dict(world.names), synced=True)
        return [("syncs the directory", with_purge(synced, at="done"))]
    return []


def _begin(world: World, scenario: Scenario) -> list[Move]:
    if len(world.acked) < scenario.purge_after:
        return []
    if scenario.purge == "rm":
        return _list(world, at="rm", last="done")
    off = world._replace(consent=False)
    return [("writes consent: off", with_purge(off, at="set aside"))]


def _list(world: World, *, at: str, last: str) -> list[Move]:
    todo = tuple(name for name, _ in world.names)
    after = with_purge(world, at=at if todo else last, todo=todo)
    return [(f"lists the spool: {', '.join(map(str, todo)) or 'empty'}", after)]


def _set_aside(world: World) -> Move:
    for _, file in world.names:
        world = with_purged(world, file)
    return "sets the spool aside", with_names(with_purge(world, at="ledger"), {})


def _unlink(world: World, *, last: str) -> list[Move]:
    name, todo = world.purge.todo[0], world.purge.todo[1:]
    names = dict(world.names)
    file = names.pop(name, NO_FILE)
    if file != NO_FILE:
        world = with_purged(world, file)
    after = with_purge(world, todo=todo, at=world.purge.at if todo else last)
    return [(f"unlinks segment {name}", with_names(after, names))]


def kill_moves(world: World, scenario: Scenario) -> Iterator[Move]:
    """SIGKILL, one process at a time."""
    if not world.left.kills:
        return
    left = world.left._replace(kills=world.left.kills - 1)
    after = world._replace(left=left)
    for who in range(len(world.writers)):
        if running(world, who, scenario):
            yield f"writer {OWNERS[who]} is killed", end_process(after, who)
    if world.flusher.at != "idle":
        yield "the flusher is killed", end_flusher(after)
    if world.purge.is_running:
        yield "the purge is killed", with_purge(after, at="dead", todo=())


def everybody_gone(world: World, scenario: Scenario) -> World:
    """Every running process is gone at once; nothing else changes."""
    for who in range(len(world.writers)):
        if running(world, who, scenario):
            world = end_process(world, who)
    if world.flusher.at != "idle":
        world = end_flusher(world)
    if world.purge.is_running:
        world = with_purge(world, at="dead", todo=())
    return tidy(world._replace(looked_at=NO_FILE))


def look_moves(world: World) -> Iterator[Move]:
    """A tool opens a segment to read it; on Windows a deletion waits for its end."""
    if world.looked_at != NO_FILE:
        yield "a tool ends its look", tidy(world._replace(looked_at=NO_FILE))
    elif world.left.looks:
        after = world._replace(left=world.left._replace(looks=world.left.looks - 1))
        for name, file in world.names:
            if not world.inodes[file].doomed:
                yield f"a tool looks at segment {name}", after._replace(looked_at=file)


def host_moves(world: World) -> Iterator[Move]:
    """Between two events the host closes our descriptor and opens its own file."""
    if not world.left.closed_by_host:
        return
    left = world.left._replace(closed_by_host=world.left.closed_by_host - 1)
    for who, writer in enumerate(world.writers):
        if writer.at == "idle" and writer.file >= 0:
            after = lose_descriptor(world._replace(left=left), who)
            yield f"the host of {OWNERS[who]} puts a file of its own there", after
