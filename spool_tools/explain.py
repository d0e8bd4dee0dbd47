"""Why telemetry is on or off: each rule, what it says, and which one decides."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from spool_tools.output import Screen
from spool_tools.table import print_table
from telemetry.build_values import build_values
from telemetry.consent import decide, read_choice
from telemetry.paths import Home
from telemetry.switches import Decision, environment_decision


class Rule(msgspec.Struct, kw_only=True):
    """One rule. `says` is `on`, `off`, or None where it has nothing to say."""

    rule: str
    says: str | None
    reason: str


class Explanation(msgspec.Struct, kw_only=True):
    """The decision, and the rules in the order in which they are asked."""

    home: str
    telemetry: str
    rule: str
    reason: str
    rules: list[Rule]


def decision_for(home: Home, environment: Mapping[str, str]) -> Decision:
    """What is decided for programs that do not turn it off themselves."""
    return decide(
        environment=environment,
        enabled=True,
        choice=read_choice(home.consent),
        build=build_values()["enabled"],
    )


def explain(home: Home, environment: Mapping[str, str]) -> Explanation:
    """Every rule by itself, and what follows from all of them."""
    decision = decision_for(home, environment)
    track = {"DO_NOT_TRACK": environment.get("DO_NOT_TRACK", "")}
    enabled = {"TELEMETRY_ENABLED": environment.get("TELEMETRY_ENABLED", "")}
    choice, build = read_choice(home.consent), build_values()["enabled"]
    remembered = decide(environment={}, enabled=True, choice=choice, build="")
    built = decide(environment={}, enabled=True, choice=None, build=build)
    return Explanation(
        home=home.root,
        telemetry=_word(decision),
        rule=decision.rule,
        reason=decision.reason,
        rules=[
            _rule("do-not-track", environment_decision(track), _unset(track)),
            _rule("environment", environment_decision(enabled), _unset(enabled)),
            _rule("program", None, "a program may turn it off for itself"),
            _rule(
                "remembered",
                remembered if choice is not None else None,
                "no choice is remembered (`disable` and `enable` make one)",
            ),
            _rule(
                "build",
                built if build else None,
                "the library was built without a value",
            ),
            _rule("notice", None, "a program may want its notice shown first"),
            _rule("default", Decision("", "on where no rule says off", on=True), ""),
        ],
    )


def tell(screen: Screen, explanation: Explanation) -> None:
    """The explanation as a table, or as JSON where nobody looks."""
    if not screen.is_terminal:
        screen.object(explanation)
        return
    style = "green" if explanation.telemetry == "on" else "yellow"
    screen.say(
        "telemetry is ", (explanation.telemetry, style), f": {explanation.reason}"
    )
    screen.say()
    rows = [
        (
            "->" if each.rule == explanation.rule else "",
            each.rule,
            each.says or "-",
            each.reason,
        )
        for each in explanation.rules
    ]
    headings = ("", "rule", "says", "because")
    print_table(screen, headings, rows, styles=["bold", "cyan", "", ""], folds=True)


def _rule(rule: str, decision: Decision | None, otherwise: str) -> Rule:
    return Rule(
        rule=rule,
        says=None if decision is None else _word(decision),
        reason=otherwise if decision is None else decision.reason,
    )


def _unset(variable: Mapping[str, str]) -> str:
    """What to say of a variable that turns nothing off. Its text is anybody's."""
    ((name, value),) = variable.items()
    return f"{name}={value[:20]}" if value else f"{name} is not set"


def _word(decision: Decision) -> str:
    return "on" if decision.on else "off"
