"""The protocol's model: with all rules nothing is wrong, without any one something is.

These are the short bounds. `python -m tests.proofs.model.explore --long` walks
through the long ones.
"""

from __future__ import annotations

import ast
import os

import pytest

from tests.proofs.model.cases import (
    BUGS,
    COVERED,
    DELIVERY_SHORT,
    REMOVALS,
    SHORT,
    Removal,
)
from tests.proofs.model.delivering import Bounds, Bug, Wrong
from tests.proofs.model.explore import explore, explore_delivery, replay
from tests.proofs.model.rules import Rule
from tests.proofs.model.scenario import Scenario


# Every state that each scenario has. A step that drops out of the model makes
# fewer, and would otherwise pass for a proof.
STATES = {
    "small segments": 9_683,
    "crash": 31_263,
    "power loss": 76_196,
    "power loss, durable": 13_409,
    "opt-out": 213_750,
    "opt-out, power loss": 2_638,
    "opt-out later": 801,
    "rm -rf": 4_938,
    "closed by the host": 18_712,
    "full segments": 39_483,
    "windows": 4_913,
    "windows, opt-out": 2_764,
    "windows, opt-out later": 4_468,
    "poison": 8_402,
    "poison, two kills": 8_922,
    "named in an answer": 324,
    "a server that is down": 3_010,
    "three segments": 10_328,
    "a server that takes one request": 2_381,
}


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_nothing_is_wrong_with_all_rules(scenario: Scenario) -> None:
    """An acknowledged event that can be lost would be lost in some of these states."""
    found = explore(scenario)
    assert found.breach is None, "\n".join(found.trace)
    assert found.states == STATES[scenario.name]


@pytest.mark.parametrize("bounds", DELIVERY_SHORT, ids=lambda bounds: bounds.name)
def test_every_event_is_delivered_or_dead_however_requests_end(bounds: Bounds) -> None:
    """Several are under way, some refused, and a kill may come between any two steps."""
    found = explore_delivery(bounds)
    assert found.breach is None, "\n".join(found.trace)
    assert found.states == STATES[bounds.name]


@pytest.mark.parametrize(("bug", "bounds", "wrong"), BUGS, ids=lambda value: value.name)
def test_each_bug_of_delivery_is_found(bug: Bug, bounds: Bounds, wrong: Wrong) -> None:
    """A model that cannot fail proves nothing."""
    found = explore_delivery(bounds._replace(bug=bug), seek=wrong)
    assert found.breach is wrong
    assert {bug for bug, _, _ in BUGS} == set(Bug)


def _name(case: Removal) -> str:
    rules = "+".join(rule.name for rule in case.rules)
    return f"{rules}-{case.breach.name}-{case.scenario.name}"


@pytest.mark.parametrize("case", REMOVALS, ids=_name)
def test_without_a_rule_there_is_a_counterexample(case: Removal) -> None:
    """A rule that nothing needs is a rule that somebody may take out."""
    found = explore(case.bounds(), seek=case.breach)
    assert found.breach is case.breach
    assert replay(case.bounds(), found.trace) is case.breach
    assert replay(case.bounds(), found.trace[:-1]) is not case.breach


@pytest.mark.parametrize(("rule", "scenario"), COVERED, ids=lambda value: value.name)
def test_another_rule_stands_behind_it(rule: Rule, scenario: Scenario) -> None:
    """Two rules against one loss: this says which bounds one of them suffices in."""
    found = explore(scenario._replace(without=frozenset([rule])))
    assert found.breach is None, "\n".join(found.trace)


def test_every_rule_is_taken_out_somewhere() -> None:
    """A rule added to the list without a counterexample would look proven."""
    taken_out = {rule for case in REMOVALS for rule in case.rules}
    assert taken_out == set(Rule)


def test_the_model_imports_nothing_of_what_it_models() -> None:
    """A model that shared code with the program would share its mistakes."""
    folder = os.path.join(os.path.dirname(__file__), "model")
    for file in (name for name in os.listdir(folder) if name.endswith(".py")):
        with open(os.path.join(folder, file), encoding="utf-8") as source:
            tree = ast.parse(source.read())
        for node in ast.walk(tree):
            names = [alias.name for alias in getattr(node, "names", ())]
            module = getattr(node, "module", None) or ""
            assert not any(
                name.split(".")[0] in {"telemetry", "spool_tools"}
                for name in (*names, module)
                if isinstance(node, (ast.Import, ast.ImportFrom))
            ), file
