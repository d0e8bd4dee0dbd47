"""The model: the moves of a state, and what a state must never be.

Two writers, a flusher, a purge, kills and power losses share one spool. `moves`
gives every next state, one system call further. `Judge` asks of each state what
would be true if everything were killed now and the flusher then ran undisturbed
until nothing is left, so a crash at every step is part of every run:

- each event that was answered True is at the server, unless it stood whole in a
  file when a purge unlinked it, or a power loss took it (durability="process");
- what lies below a settled offset that its entry vouches for was sent;
- nothing is left, nothing is at the server that nobody wrote, and no byte of
  ours is in a file of the host;
- delivered + damaged = the events whose writing began (where no purge and no
  power loss took any uncounted);
- once an opt-out has taken effect no new event is recorded and none that it took is
  sent, also where it is killed, and if the user opts in later.

It is a model of the rules, and imports nothing of what it is a model of.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.proofs.model.books import agrees
from tests.proofs.model.disturbances import (
    everybody_gone,
    host_moves,
    kill_moves,
    look_moves,
    purge_moves,
)
from tests.proofs.model.flusher import Flushing
from tests.proofs.model.leaving import finished
from tests.proofs.model.power import power_moves
from tests.proofs.model.rules import Breach, Rule
from tests.proofs.model.scenario import OWNERS, Scenario
from tests.proofs.model.segment import records
from tests.proofs.model.world import Left, Move, Purge, World, file_of, with_flusher
from tests.proofs.model.writer import Writing


FLUSHES_TO_DRAIN = 4  # two are enough: one finds a file gone, one folds its entry


class Protocol:
    """The moves of all processes, and of what comes from outside."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.writing = Writing(scenario)
        self.flushing = Flushing(scenario)

    def moves(self, world: World) -> list[Move]:
        """Every next state and what leads there; no two have the same text."""
        found = [
            (f"{OWNERS[who]} {text}", after)
            for who in range(len(world.writers))
            for text, after in self.writing.moves(world, who)
        ]
        found += [(f"flusher {text}", w) for text, w in self.flushing.moves(world)]
        found += [(f"purge {text}", w) for text, w in purge_moves(world, self.scenario)]
        found += kill_moves(world, self.scenario)
        found += host_moves(world)
        found += look_moves(world)
        found += power_moves(world, self.scenario)
        return found


class Drained(NamedTuple):
    """What is true once all are killed and the flusher has run undisturbed."""

    received: frozenset[int]
    counted: tuple[int, int]
    empty: bool
    hidden: bool


class Judge:
    """Says what is wrong with a state; remembers what it has already drained."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.scenario = protocol.scenario
        self.counts = not self.scenario.purge and not self.scenario.left.power_losses
        self.drained: dict[object, Drained] = {}

    def breach(self, world: World) -> Breach | None:
        """The worst that is wrong with this state, or None."""
        if world.foreign:
            return Breach.FOREIGN
        if world.late:
            return Breach.LATE
        if self._is_unfinished(world):
            world = finished(world)
        inodes = world.inodes
        spool = tuple(
            (name, inodes[file].units)
            for name, file in world.names
            if not inodes[file].doomed  # gone with the last that has it open
        )
        key = (spool, world.ledger, world.keys, world.received)
        drained = self.drained.get(key)
        if drained is None:
            drained = self.drained[key] = self._drain(world)
        return self._compare(world, drained)

    def _is_unfinished(self, world: World) -> bool:
        """Whether an opt-out is left for the next launch, which a scenario may need."""
        return self.scenario.windows and not world.consent and world.purge.at != "done"

    def _compare(self, world: World, drained: Drained) -> Breach | None:
        if not drained.received <= world.whole:
            return Breach.INVENTED
        # Before its sync a power loss may bring back what it took; then the next
        # launch finds the choice unfinished and goes on.
        is_durable = not self.scenario.left.power_losses or world.purge.at == "done"
        opted_out = self.scenario.purge == "opt-out" and is_durable
        sent_after = drained.received - world.received
        if opted_out and sent_after & world.purged:
            return Breach.PURGED_SENT
        if (
            self.scenario.windows
            and opted_out
            and world.purge.at == "done"
            and sent_after
        ):
            return Breach.PURGED_SENT
        if not world.acked <= drained.received | world.purged:
            return Breach.LOST
        if drained.hidden:
            return Breach.HIDDEN
        if not drained.empty:
            return Breach.STUCK
        delivered = len(drained.received)
        truth = (delivered, len(world.begun) - delivered)
        if self.counts and drained.counted != truth:
            return Breach.UNCOUNTED
        return None

    def _drain(self, world: World) -> Drained:
        """Kill all, and flush until nothing is left; with consent, if it is off."""
        world = everybody_gone(world, self.scenario)._replace(
            writers=(),
            purge=Purge("dead"),
            left=Left(),
            consent=True,
            names_on_disk=world.names,
            unlinked=(),
            ledger_on_disk=world.ledger,
        )
        hidden = self._hides(world)
        for _ in range(FLUSHES_TO_DRAIN):
            if not world.names and not world.ledger.entries:
                break
            world = with_flusher(world, at="idle", runs=1)
            while following := self.protocol.flushing.moves(world):
                ((_, world),) = following
        empty = not world.names and not world.ledger.entries
        return Drained(world.received, world.ledger.counted(), empty, hidden)

    def _hides(self, world: World) -> bool:
        """Whether an event that was never sent begins below a settled offset."""
        anchored = self.scenario.has(Rule.ANCHOR)
        for name, entry in world.ledger.entries:
            file = file_of(world, name)
            units = () if file < 0 else world.inodes[file].units
            if agrees(entry, units, anchored=anchored) and any(
                start < entry.offset and event not in world.received
                for start, _, event in records(units)
            ):
                return True
        return False
