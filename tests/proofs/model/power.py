"""A power loss: every process is gone, and what was not synced may be."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from tests.proofs.model.disturbances import everybody_gone
from tests.proofs.model.segment import ZERO, Units, records
from tests.proofs.model.world import NO_FILE, Inode, Move, World


if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.proofs.model.scenario import Scenario


Names = tuple[tuple[int, int], ...]


def power_moves(world: World, scenario: Scenario) -> Iterator[Move]:
    """Everything that one power loss may leave behind."""
    if not world.left.power_losses:
        return
    left = world.left._replace(power_losses=world.left.power_losses - 1)
    after = everybody_gone(world, scenario)._replace(left=left)
    ledgers = dict.fromkeys((world.ledger, world.ledger_on_disk))
    for names, ledger in product(_directories(world), ledgers):
        files = [file for _, file in names]
        for kept in product(*(_files(world.inodes[file]) for file in files)):
            inodes = [Inode()] * len(world.inodes)
            for file, units in zip(files, kept, strict=True):
                inodes[file] = Inode(units, len(units) if left.power_losses else 0)
            found = after._replace(
                inodes=tuple(inodes),
                names=names,
                names_on_disk=names,
                unlinked=(),
                ledger=ledger,
                ledger_on_disk=ledger,
            )
            text = _text(found) + (", an older ledger" * (ledger != world.ledger))
            yield text, found if scenario.power else _excused(found)


def _text(world: World) -> str:
    files = (f"{name} as {list(world.inodes[f].units)}" for name, f in world.names)
    return f"the power fails, keeping segments {', '.join(files) or 'none'}"


def _directories(world: World) -> Iterator[Names]:
    """What the directory may say afterwards."""
    now, disk = dict(world.names), dict(world.names_on_disk)
    choices = []
    for name in sorted({*now, *disk, *dict(world.unlinked)}):
        files = {now.get(name, NO_FILE), disk.get(name, NO_FILE)}
        once = {file for unlinked, file in world.unlinked if unlinked == name}
        files |= {*once, NO_FILE} if once else set()
        choices.append([(name, file) for file in sorted(files)])
    for chosen in product(*choices):
        yield tuple((name, file) for name, file in chosen if file != NO_FILE)


def _files(inode: Inode) -> list[Units]:
    """What may be left of a file: a shorter one, or its length filled with zeros."""
    units, found = inode.units, [inode.units]
    for upto in range(inode.synced, len(units)):
        found.append(units[:upto])
        found.append(units[:upto] + (ZERO,) * (len(units) - upto))
    return found


def _excused(world: World) -> World:
    """With durability="process" the power may take events; the rest is owed."""
    kept = set(world.received)
    for _, file in world.names:
        kept.update(event for _, _, event in records(world.inodes[file].units))
    return world._replace(acked=world.acked & kept)
