"""What a kill at each system call of an opt-out leaves; writes the table in tests/README.md.

    python -m tests.proofs.system_calls.opting_out

The calls are those of an undisturbed opt-out of a home with events, dead letters and a
ledger. Before each of them one run is killed. What stands then is written down, and
judged as every case is: before the choice all is as it was; behind it nothing is sent,
nothing is recorded by a launch, and the next one removes the rest. Neighbours that leave the
same are one row.
"""

from __future__ import annotations

import os
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from telemetry.consent import read_choice
from telemetry.delivery.opt_out import directories_set_aside
from telemetry.files import names_in
from telemetry.paths import Home
from tests.proofs.system_calls.calls import KILL, Call, Fault
from tests.proofs.system_calls.cases import Case
from tests.proofs.system_calls.laboratory import Laboratory
from tests.proofs.system_calls.scenes import HOME
from tests.proofs.system_calls.tracing import can_trace


PAGE = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- opting out -->\n", "<!-- end of opting out -->\n"
_HEADING = (
    "| killed before | calls | choice | still there | then |\n|---|---|---|---|---|\n"
)


class Killed(NamedTuple):
    """One run that was killed: before which call, what it left, and what was wrong."""

    call: Call
    choice: str
    left: str
    problems: tuple[str, ...]


def killed_at_each_call(laboratory: Laboratory) -> list[Killed]:
    """A run for each call of the opt-out, killed before it."""
    scene, calls = laboratory.scene("forget")
    runs = []
    for call in calls:
        case = Case(scene, Fault(call, KILL))
        directory, ran = laboratory._play(scene, case.fault.options())  # type: ignore[union-attr]
        home = Home(f"{directory}/{HOME}")
        choice, left = _choice(home), _left(home)
        problems = laboratory._judge(directory, ran, case)
        runs.append(Killed(call, choice, left, tuple(problems)))
    return runs


def _choice(home: Home) -> str:
    choice = read_choice(home.consent)
    if choice is None or choice.on:
        return "as it was"
    return "off" if choice.is_finished else "off, unfinished"


def _left(home: Home) -> str:
    """What of the things that an opt-out removes is still there."""
    aside = directories_set_aside(home)
    there = {
        "events": bool(names_in(home.spool)),
        "events set aside": any(names_in(directory) for directory in aside),
        "dead letters": bool(names_in(home.dead)),
        "ledger": os.path.lexists(home.ledger),
        "id": os.path.lexists(home.user_uuid),
    }
    return ", ".join(name for name, is_there in there.items() if is_there) or "nothing"


def table(runs: list[Killed]) -> str:
    """One row for neighbours that leave the same."""
    rows = []
    for (choice, left, problems), group in groupby(runs, key=lambda run: run[1:]):
        calls = [run.call for run in group]
        if problems:
            then = "; ".join(problems)
        elif choice == "as it was":
            then = "nothing has changed"
        elif choice == "off":
            then = "done"
        elif left.startswith("events,"):
            then = (
                "nothing is sent, no launch records; a program with an open segment goes "
                "on until the next launch, which removes the rest"
            )
        else:
            then = "nothing is recorded or sent; the next launch removes the rest"
        first, last = _shown(calls[0]), _shown(calls[-1])
        which = first if first == last else f"{first} to {last}"
        rows.append(f"| {which} | {len(calls)} | {choice} | {left} | {then} |\n")
    return _HEADING + "".join(rows)


def _shown(call: Call) -> str:
    """`rename consent`: the call, and the last path in it, without what is random."""
    paths = re.findall(rf"/{HOME}(/[^\"<>]*)?[\"<>]", call.text)
    path = paths[-1].strip("/") if paths else ""
    return f"`{call.name} {re.sub(r'[0-9a-f]{8,}|[0-9]+', 'N', path) or 'home'}`"


def main() -> int:
    """Write the table; 1 where something was wrong, 2 where it cannot be run."""
    if not can_trace():
        print("no tracer here that may attach to a child", file=sys.stderr)
        return 2
    with Laboratory() as laboratory:
        runs = killed_at_each_call(laboratory)
    made = table(runs)
    print(made)
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}", "utf-8")
    return 1 if any(run.problems for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
