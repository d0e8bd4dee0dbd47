"""Walk through every state of a scenario, breadth first, until one is wrong.

    python -m tests.proofs.model.explore                  the short bounds, all rules
    python -m tests.proofs.model.explore --long           the long bounds, all rules
    python -m tests.proofs.model.explore --rules          every rule, and what it prevents
    python -m tests.proofs.model.explore --without ANCHOR the trace that leads to a loss

Breadth first, so a counterexample is a shortest one. States are compared as
whole values, not by a digest: what is called exhaustive is. Exit code 1 where a
breach was found.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.proofs.model.cases import (
    COVERED,
    DELIVERY_LONG,
    DELIVERY_SHORT,
    LONG,
    REMOVALS,
    SHORT,
    Removal,
)
from tests.proofs.model.delivering import Bounds, Delivering, Wrong
from tests.proofs.model.protocol import Judge, Protocol
from tests.proofs.model.rules import Breach, Rule
from tests.proofs.model.scenario import Scenario


STATES_MAX = 3_000_000  # about 2 GiB

Moves = Callable[[Any], Iterable[tuple[str, Any]]]
Judgement = Callable[[Any], Any]


class Found(NamedTuple):
    """What a walk saw. `depth`: the steps to the farthest state, or to the breach."""

    states: int
    steps: int
    depth: int
    seconds: float
    breach: Breach | Wrong | None = None
    trace: tuple[str, ...] = ()


class _Walk:
    def __init__(self, start: Any, moves: Moves, judge: Judgement, seek: Any) -> None:
        self.moves = moves
        self.judge = judge
        self.seek = seek
        self.start = start
        self.parents: dict[Any, tuple[Any, str] | None] = {start: None}
        self.steps = self.depth = 0

    def run(self) -> tuple[Any, Any] | None:
        layer = [self.start]
        while layer:
            following: list[Any] = []
            for world in layer:
                for text, after in self.moves(world):
                    self.steps += 1
                    if after in self.parents:
                        continue
                    self.parents[after] = (world, text)
                    following.append(after)
                    breach = self.judge(after)
                    if breach is not None and self.seek in {None, breach}:
                        self.depth += 1
                        return breach, after
            if len(self.parents) > STATES_MAX:
                raise RuntimeError(f"more than {STATES_MAX} states: draw the bounds in")
            layer = following
            self.depth += bool(layer)
        return None

    def trace(self, world: Any) -> tuple[str, ...]:
        texts = []
        came = self.parents[world]
        while came is not None:
            world, text = came
            texts.append(text)
            came = self.parents[world]
        return tuple(reversed(texts))


def explore(scenario: Scenario, *, seek: Breach | None = None) -> Found:
    """Every state within the bounds, or the first wrong one and how it came.

    `seek` passes over every other breach: a missing rule may show a wrong count
    first, and the lost event it leads to is the better explanation.
    """
    protocol = Protocol(scenario)
    return walked(scenario.start(), protocol.moves, Judge(protocol).breach, seek)


def explore_delivery(bounds: Bounds, *, seek: Wrong | None = None) -> Found:
    """The same of a delivery."""
    model = Delivering(bounds)
    return walked(model.start(), model.moves, model.wrong, seek)


def walked(start: Any, moves: Moves, judge: Judgement, seek: Any) -> Found:
    """Every state from `start` on, breadth first, or the first wrong one."""
    walk = _Walk(start, moves, judge, seek)
    began = time.perf_counter()
    collects = gc.isenabled()
    gc.disable()  # millions of values without a cycle: nothing for it to find
    try:
        wrong = walk.run()
    finally:
        if collects:
            gc.enable()
    seconds = time.perf_counter() - began
    found = Found(len(walk.parents), walk.steps, walk.depth, seconds)
    if wrong is None:
        return found
    return found._replace(breach=wrong[0], trace=walk.trace(wrong[1]))


def replay(scenario: Scenario, trace: tuple[str, ...]) -> Breach | None:
    """Walk a trace by its texts alone, and judge where it ends."""
    protocol = Protocol(scenario)
    world = scenario.start()
    for text in trace:
        (world,) = [after for said, after in protocol.moves(world) if said == text]
    return Judge(protocol).breach(world)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Walk through the protocol's states.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--long", action="store_true", help="the long bounds")
    what.add_argument("--rules", action="store_true", help="say what the rules are")
    what.add_argument("--without", metavar="RULE", choices=[r.name for r in Rule])
    args = parser.parse_args()
    if args.rules:
        for rule in Rule:
            print(f"{rule.name}\n  {rule.says}\n  Without it: {rule.prevents}\n")
        return 0
    if args.without:
        return _explain(Rule[args.without])
    if args.long:
        return _walk_all(LONG, DELIVERY_LONG)
    return _walk_all(SHORT, DELIVERY_SHORT)


def _walk_all(scenarios: tuple[Scenario, ...], delivery: tuple[Bounds, ...]) -> int:
    states, steps, seconds, breaches, depth = 0, 0, 0.0, 0, 0
    for scenario in (*scenarios, *delivery):
        is_delivery = isinstance(scenario, Bounds)
        found = explore_delivery(scenario) if is_delivery else explore(scenario)
        print(
            f"{scenario.name:24} {found.states:9,} states {found.steps:10,} steps, "
            f"depth {found.depth:2}, {found.seconds:6.1f} s, "
            f"{found.breach.value if found.breach else 'nothing wrong'}"
        )
        for text in found.trace:
            print(f"    {text}")
        states, steps = states + found.states, steps + found.steps
        seconds += found.seconds
        depth = max(depth, found.depth)
        breaches += found.breach is not None
    print(f"{states:,} states, depth {depth}, {seconds:.0f} s, {breaches} breaches")
    print(json.dumps({"states": states, "steps": steps, "breaches": breaches}))
    return 1 if breaches else 0


def _explain(rule: Rule) -> int:
    print(f"{rule.says}\n")
    for case in (case for case in REMOVALS if rule in case.rules):
        _show(case)
    for covered, scenario in COVERED:
        if covered is rule:
            found = explore(scenario._replace(without=frozenset([rule])))
            print(f"Without it alone, {scenario.name}: {found.states:,} states, fine")
    return 1


def _show(case: Removal) -> None:
    found = explore(case.bounds(), seek=case.breach)
    names = " and ".join(rule.name for rule in case.rules)
    print(f"Without {names} ({case.scenario.name}): {case.breach.value}")
    for text in found.trace:
        print(f"    {text}")
    print()


if __name__ == "__main__":
    sys.exit(main())
