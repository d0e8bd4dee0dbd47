"""Why telemetry is on or off: each rule, what it says, and which one decides."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from spool_tools.screen import Screen
from spool_tools.target import misread_variables
from telemetry import mistakes
from telemetry.consent import consent, rules_of
from telemetry.paths import Home
from telemetry.switches import Decision


class Rule(msgspec.Struct, kw_only=True):
    """One rule. `says` is `on`, `off`, or None where it has nothing to say."""

    rule: str
    says: str | None
    reason: str


class Explanation(msgspec.Struct, kw_only=True):
    """The decision, and the rules in the order in which they are asked.

    mistakes: settings and variables that do not count as they stand
    """

    home: str
    telemetry: str
    rule: str
    reason: str
    rules: list[Rule]
    mistakes: list[str]


# What is said of a rule that has nothing to say.
_SILENT = {
    "program": "a program may turn it off for itself",
    "notice": "a program may want its notice shown first",
    "remembered": "no choice is remembered (`disable` and `enable` make one)",
    "build": "the library was built without a value",
}
_VARIABLES = {"do-not-track": "DO_NOT_TRACK", "environment": "TELEMETRY_ENABLED"}


def explain(home: Home, environment: Mapping[str, str]) -> Explanation:
    """Every rule by itself, and what follows from all of them."""
    decision = consent(home, environment)
    rules = []
    for rule, said in rules_of(home, environment).items():
        variable = _VARIABLES.get(rule, "")
        value = environment.get(variable, "")
        silent = f"{variable}={value[:20]}" if value else f"{variable} is not set"
        reason = said.reason if said else _SILENT.get(rule, silent)
        rules.append(Rule(rule=rule, says=_word(said) if said else None, reason=reason))
    return Explanation(
        home=home.root,
        telemetry=_word(decision),
        rule=decision.rule,
        reason=decision.reason,
        rules=rules,
        mistakes=mistakes_of(home),
    )


def mistakes_of(home: Home) -> list[str]:
    """Settings of the program, and variables, that do not count as they stand."""
    return list(dict.fromkeys([*mistakes.read(home.mistakes), *misread_variables()]))


def tell(screen: Screen, explanation: Explanation) -> None:
    """The explanation as a table, or as JSON off a terminal."""
    if not screen.is_terminal:
        screen.object(explanation)
        return
    style = "green" if explanation.telemetry == "on" else "yellow"
    screen.say(
        "telemetry is ", (explanation.telemetry, style), f": {explanation.reason}"
    )
    screen.say()
    decides = {explanation.rule: "->"}
    rows = [
        (decides.get(each.rule, ""), each.rule, each.says or "-", each.reason)
        for each in explanation.rules
    ]
    headings = ("", "rule", "says", "because")
    screen.table(headings, rows, styles=["bold", "cyan", "", ""], folds=True)
    for mistake in explanation.mistakes:
        screen.say(("wrong setting: ", "yellow"), mistake)


def _word(decision: Decision) -> str:
    return "on" if decision.on else "off"
