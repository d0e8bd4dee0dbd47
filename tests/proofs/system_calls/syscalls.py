"""Every system call that touches a home fails once, and is once the last.

    python -m tests.proofs.system_calls.syscalls            a sample, a minute or two
    python -m tests.proofs.system_calls.syscalls --long     all of them, an hour or so; --jobs divides it

An undisturbed run of each scene is recorded (`scenes.py`), which says how many calls
there are; then each is disturbed in turn (`cases.py`), and `judging.py` says what must
be true afterwards. What is found and how far it is goes to standard error, the totals
to standard output, as one JSON object in one line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter

from tests.proofs.system_calls.cases import KINDS, cases, sample
from tests.proofs.system_calls.laboratory import SCENES, Laboratory
from tests.proofs.system_calls.tracing import can_trace


# Cases of each scene that make a minute or two together.
SAMPLE = 100
# One line of progress for so many cases.
_PROGRESS = 500
_NOTED = ("cut", "missed", "tolerated")
_WRONG = (
    *("lost", "altered", "spurious", "twice", "hang", "host", "raised"),
    *("census", "books", "stuck", "leak", "litter", "identity"),
)


def main() -> int:
    """Run the proof; 1 where anything was wrong, 2 where it cannot be run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--long", action="store_true", help="all cases, not a sample")
    parser.add_argument("--count", type=int, default=SAMPLE, help="cases of a scene")
    parser.add_argument(
        "--scene", action="append", help="only this one", choices=SCENES
    )
    parser.add_argument("--kind", action="append", help="only these", choices=KINDS)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--part", default="0/1", help="every n-th case: 0/n to n-1/n")
    options = parser.parse_args()
    if not can_trace():
        print("no tracer here that may attach to a child", file=sys.stderr)
        return 2
    began = time.monotonic()
    if options.jobs > 1:
        totals = _divided(options.jobs)
    else:
        totals = _totals(
            options.scene or list(SCENES),
            options.kind or list(KINDS),
            options.part,
            None if options.long else options.count,
        )
    totals["seconds"] = round(time.monotonic() - began)
    print(json.dumps(totals), flush=True)
    return 1 if any(totals[name] for name in _WRONG) else 0


def _totals(
    scenes: list[str], kinds: list[str], part: str, count: int | None
) -> dict[str, int]:
    """Play and judge; each finding is printed as it is made."""
    first, step = map(int, part.split("/"))
    began = time.monotonic()
    with Laboratory() as laboratory:
        for name in scenes:
            scene, calls = laboratory.scene(name)
            every = [case for case in cases(scene, calls) if case.kind in kinds]
            chosen = sample(every, len(every) if count is None else count)[first::step]
            laboratory.totals["calls"] += len(calls) - 1 if first == 0 else 0
            for number, case in enumerate(chosen, 1):
                for problem in laboratory.check(case):
                    _say(f"{case}\n    {problem}")
                if number % _PROGRESS == 0 or number == len(chosen):
                    seconds = time.monotonic() - began
                    _say(
                        f"{name}, part {part}: {number} of {len(chosen)} cases, "
                        f"{seconds:.0f} s so far"
                    )
        known = dict.fromkeys(("calls", *KINDS, *_NOTED, *_WRONG), 0)
        return known | dict(laboratory.totals)


def _divided(jobs: int) -> dict[str, int]:
    """The same command in so many processes, each with its part; their sum."""
    command = [
        sys.executable,
        "-m",
        "tests.proofs.system_calls.syscalls",
        *sys.argv[1:],
    ]
    running = [
        subprocess.Popen(
            [*command, "--jobs", "1", "--part", f"{number}/{jobs}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(jobs)
    ]
    totals: Counter[str] = Counter()
    for process in running:
        out, _ = process.communicate()
        part = Counter(json.loads(out))
        # An update, unlike a sum, keeps the zeros.
        totals.update(part)
    return dict(totals)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
