"""Why telemetry is on or off: each rule, what it says, and which one decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spool_tools.screen import Screen
from spool_tools.target import misread_variables
from telemetry import mistakes
from telemetry.consent import consent, rules_of
from telemetry.paths import Home
from telemetry.switches import Decision


# What is said of a rule that has nothing to say.
_SILENT = {
    "program": "a program may turn it off for itself",
    "notice": "a program may want its notice shown first",
    "remembered": "no choice is remembered (`disable` and `enable` make one)",
    "build": "the library was built without a value",
}
_VARIABLES = {"do-not-track": "DO_NOT_TRACK", "environment": "TELEMETRY_ENABLED"}


def explain(home: Home, environment: Mapping[str, str]) -> dict[str, Any]:
    """The decision, and every rule in the order in which they are asked, as JSON has it.

    `says` is `on`, `off`, or null where a rule has nothing to say; `mistakes` are
    settings and variables that do not count as they stand.
    """
    decision = consent(home, environment)
    rules = []
    for rule, said in rules_of(home, environment).items():
        variable = _VARIABLES.get(rule, "")
        value = environment.get(variable, "")
        silent = f"{variable}={value[:20]}" if value else f"{variable} is not set"
        reason = said.reason if said else _SILENT.get(rule, silent)
        word = _word(said) if said else None
        rules.append({"rule": rule, "says": word, "reason": reason})
    return {
        "home": home.root,
        "telemetry": _word(decision),
        "rule": decision.rule,
        "reason": decision.reason,
        "rules": rules,
        "mistakes": mistakes_of(home),
    }


def mistakes_of(home: Home) -> list[str]:
    """Settings of the program, and variables, that do not count as they stand."""
    return list(dict.fromkeys([*mistakes.read(home.mistakes), *misread_variables()]))


def tell(screen: Screen, found: Mapping[str, Any]) -> None:
    if not screen.is_terminal:
        screen.object(found)
        return
    word = found["telemetry"]
    style = "green" if word == "on" else "yellow"
    screen.say("telemetry is ", (word, style), f": {found['reason']}")
    screen.say()
    rows = []
    for each in found["rules"]:
        mark = "->" if each["rule"] == found["rule"] else ""
        rows.append((mark, each["rule"], each["says"] or "-", each["reason"]))
    headings = ("", "rule", "says", "because")
    screen.table(headings, rows, styles=["bold", "cyan", "", ""], folds=True)
    for mistake in found["mistakes"]:
        screen.say(("wrong setting: ", "yellow"), mistake)


def _word(decision: Decision) -> str:
    return "on" if decision.on else "off"
