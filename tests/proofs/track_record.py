"""Runs the long proofs and writes what they did into `tests/README.md`.

    python -m tests.proofs.track_record                 all of them: most of an hour
    python -m tests.proofs.track_record --only fuzz     one; the others keep their rows

Each proof is a command that ends with one line of JSON, its totals. A total that
has to be zero and is not, or a command that fails, is written down as it is, and
this program ends with 1. Nobody types a total.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple


REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "tests" / "README.md"
BEGIN, END = "<!-- totals -->\n", "<!-- end of totals -->\n"
# Whatever a proof counts under these names is a promise that was broken.
ZERO = (
    *("lost", "losses", "altered", "spurious", "wrong", "breaches", "findings"),
    *("failed", "hang", "host", "raised", "census", "stuck", "leak", "litter"),
    "after",
    "missing",
)
_HEADING = "| proof | command | when | what it did |\n|---|---|---|---|\n"


class Proof(NamedTuple):
    """One long run: what it says, and the command behind `python`."""

    name: str
    command: str
    variables: str = ""

    def shown(self) -> str:
        """The command as a person types it."""
        return " ".join(filter(None, [self.variables, "python", self.command]))


PROOFS = (
    Proof("system calls", "-m tests.proofs.system_calls.syscalls --count 800 --jobs 2"),
    Proof("power loss", "-m tests.proofs.power_loss --long"),
    Proof("damage", "-m tests.proofs.damage --long"),
    Proof("protocol", "-m tests.proofs.model.explore --long"),
    Proof(
        "use",
        "-m pytest -q -s -p no:cacheprovider tests/proofs/test_use.py",
        "USE_EXAMPLES=300 USE_STEPS=40",
    ),
    Proof("races", "-m tests.proofs.races --seconds 60"),
    Proof(
        "storm",
        "-m tests.proofs.races --acknowledged 1000000 --beside all --writers 16",
    ),
    Proof("fleet", "-m tests.proofs.fleet"),
    Proof("fleet, ClickHouse", "-m tests.proofs.fleet --receiver clickhouse"),
    Proof("windows", "-m tests.proofs.windows --seconds 60 --by .ci/windows-python"),
    Proof("fuzz", "-m fuzz --seconds 60"),
    Proof("mutation", "-m tests.proofs.mutation"),
)


def run(proof: Proof) -> tuple[dict[str, object], bool]:
    """Its totals, and whether it ended well."""
    pairs = (tuple(pair.split("=")) for pair in proof.variables.split())
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *proof.command.split()],
        env={**os.environ, **dict(pairs)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    totals = last_line(done.stdout)
    totals["seconds"] = round(time.monotonic() - began)
    if done.returncode:
        totals["exit code"] = done.returncode
    broken = [name for name in ZERO if totals.get(name)]
    return totals, not done.returncode and not broken and len(totals) > 1


def last_line(output: str) -> dict[str, object]:
    """The last line that is a JSON object; empty where there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{") and line.endswith("}"):
            found: dict[str, object] = json.loads(line)
            return found
    return {}


def row(proof: Proof, totals: dict[str, object], when: str) -> str:
    """One line of the table."""
    told = ", ".join(
        f"{name.replace('_', ' ')} {_plain(n)}" for name, n in totals.items()
    )
    return f"| {proof.name} | `{proof.shown()}` | {when} | {told} |\n"


def _plain(total: object) -> str:
    if isinstance(total, dict):
        inner = ", ".join(f"{name} {_plain(n)}" for name, n in total.items())
        return f"({inner})"
    return f"{total:,}" if isinstance(total, int) else str(total)


def written(page: str, rows: dict[str, str]) -> str:
    """The page with these rows in place of those of the same proofs."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {line.split(" | ")[0][2:]: line + "\n" for line in table.splitlines()[2:]}
    rows = {**kept, **rows}
    ordered = "".join(rows[each.name] for each in PROOFS if each.name in rows)
    return f"{before}{BEGIN}{_HEADING}{ordered}{END}{after}"


def main() -> int:
    """Run what was asked for, and write each row when it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [proof.name for proof in PROOFS]
    parser.add_argument("--only", choices=names, action="append")
    args = parser.parse_args()
    is_well = True
    for proof in PROOFS:
        if args.only and proof.name not in args.only:
            continue
        print(proof.shown(), flush=True)
        totals, ended_well = run(proof)
        is_well = is_well and ended_well
        today = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
        line = row(proof, totals, today)
        print(line, flush=True)
        PAGE.write_text(written(PAGE.read_text(), {proof.name: line}))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
