"""Plants one small fault after another, and counts those that the unit tests find.

    python -m tests.proofs.mutation                      every mutant
    python -m tests.proofs.mutation --sample 300         so many, spread over all
    python -m tests.proofs.mutation --only spool/frame.py
    python -m tests.proofs.mutation --list               their names, and nothing else

Ends with one line of JSON. The exit code is 1 if fewer than 90 of 100 were killed.
Survivors that no test can tell from the original are listed in `tests/README.md`; those
that are not listed there ask for a test.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time

from tests.proofs.mutation.mutants import Mutant, mutants_of
from tests.proofs.mutation.trying import REPOSITORY, Trial, tried


# Where a wrong comparison loses an event: what decides on bytes, books and answers.
PLACES = ("spool/*.py", "books/*.py", "wire/verdict.py", "wire/request.py")
PLACES += ("wire/formats/[a-z]*.py",)
_DELIVERY = ("drain", "evidence", "gathering", "search")
PLACES += tuple(f"delivery/{name}.py" for name in _DELIVERY)
KILLED_PERCENT_MIN = 90.0


def all_mutants(only: list[str]) -> list[tuple[str, Mutant]]:
    """The mutants of each module, or of those named, in a fixed order."""
    package = REPOSITORY / "telemetry"
    return [
        (module, mutant)
        for place in PLACES
        for path in sorted(package.glob(place))
        for module in [path.relative_to(package).as_posix()]
        if not only or module in only
        for mutant in mutants_of(path.read_text("utf-8"))
    ]


def main() -> int:
    """Try what was asked for, and say what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], metavar="MODULE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--least", type=float, default=KILLED_PERCENT_MIN)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    mutants = all_mutants(args.only)
    if args.sample is not None and args.sample < len(mutants):
        chosen = random.Random(args.seed).sample(range(len(mutants)), args.sample)
        mutants = [mutants[n] for n in sorted(chosen)]
    if args.list:
        for module, mutant in mutants:
            print(f"{module}: {mutant.name}")
        return 0
    began = time.monotonic()
    trials = []
    for trial in tried(mutants, jobs=args.jobs, say=_say):
        trials.append(trial)
        if trial.fate == "survived" and _name_of(trial) not in listed():
            _say(f"survived {_name_of(trial)}")
    return _conclude(trials, seconds=round(time.monotonic() - began), least=args.least)


def listed() -> list[str]:
    """The mutants that `tests/README.md` lists, with a reason for each group."""
    page = (REPOSITORY / "tests" / "README.md").read_text("utf-8")
    _, _, rest = page.partition("<!-- survivors -->")
    return re.findall(r"`([^`\n]+)`", rest.partition("<!-- end of survivors -->")[0])


def _name_of(trial: Trial) -> str:
    return f"{trial.module}: {trial.name}"


def _say(line: str) -> None:
    print(line, flush=True)


def _conclude(trials: list[Trial], *, seconds: int, least: float) -> int:
    modules = sorted({trial.module for trial in trials})
    for module in modules:
        fates = [trial.fate for trial in trials if trial.module == module]
        killed = len(fates) - fates.count("survived")
        _say(f"{module}: {killed} of {len(fates)} killed")
    fates = [trial.fate for trial in trials]
    survived = fates.count("survived")
    left = [each for each in trials if each.fate == "survived"]
    percent = 100 * (len(fates) - survived) / max(1, len(fates))
    totals = {
        "mutants": len(fates),
        "killed": len(fates) - survived,
        "slow": fates.count("slow"),
        "survived": survived,
        "not listed": sum(_name_of(each) not in listed() for each in left),
        "percent": round(percent, 1),
        "seconds": seconds,
    }
    _say(json.dumps(totals))
    return 0 if percent >= least else 1


if __name__ == "__main__":
    sys.exit(main())
