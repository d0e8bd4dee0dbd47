"""The bounds of one run: who writes what, what may go wrong, which rules are out."""

from __future__ import annotations

from typing import NamedTuple

from tests.proofs.model.rules import Rule
from tests.proofs.model.world import Flusher, Left, Purge, World, Writer


OWNERS = ("A", "B")  # the writers' names, also as holders of locks
FLUSHER = "F"


class Scenario(NamedTuple):
    """`writers`: per slot the processes one after another, each with its events.

    `purge` is "", "opt-out" (consent off, flush.lock, all segments, the ledger)
    or "rm" (an `rm -rf spool/*`: no lock, consent stays on); it begins once
    `purge_after` events were answered True. `segment_records` is where a segment
    is full.
    """

    name: str
    writers: tuple[tuple[tuple[int, ...], ...], ...]
    flushes: int = 1
    purge: str = ""
    purge_after: int = 0
    left: Left = Left()
    power: bool = False  # durability="power"
    windows: bool = False  # sharing in place of unlinking
    segment_records: int = 9
    without: frozenset[Rule] = frozenset()

    def has(self, rule: Rule) -> bool:
        """Whether the rule is in force."""
        return not self.without or rule not in self.without

    def start(self) -> World:
        """The first state: an empty spool, nobody running."""
        return World(
            writers=tuple(Writer("idle", runs) for runs in self.writers),
            flusher=Flusher("idle", self.flushes),
            purge=Purge("idle" if self.purge else "dead"),
            left=self.left,
        )
