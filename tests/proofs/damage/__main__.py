"""Every byte flipped, every length cut, every sector zeroed: totals as one line of JSON.

    python -m tests.damage            short
    python -m tests.damage --long     every case; some end to end over loopback

Findings go to standard error; the exit code is 1 where there are any.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.proofs.damage.draining import Bench
from tests.proofs.damage.spool import KINDS, RECORDS, cases, sound
from tests.support.loopback import Server


# One case in so many of a short run.
SHORT = {
    "flip": 97,
    "mark": 397,
    "missing": 397,
    "cut": 97,
    "sector": 5,
    "mixed": 7,
    "several": 31,
}
# The two kinds that nobody has asked for are sampled in a long run, too.
_LONG = {"mark": 7, "missing": 7}
# End to end: one case in so many of those.
_WHOLE = 211
_FINDINGS_MAX = 20


def main(*, is_long: bool) -> int:
    """Run all kinds and print the totals."""
    totals: Counter[str] = Counter()
    findings: list[str] = []
    began = time.monotonic()
    files, _ = sound()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="damage-", dir=memory) as scratch,
        Server() as server,
    ):
        bench = Bench(Path(scratch))
        for kind in KINDS:
            every = _LONG.get(kind, 1) if is_long else SHORT[kind]
            for number, case in enumerate(cases(kind, every=every)):
                found = bench.drained(case)
                totals[kind] += 1
                if number % _WHOLE == 0:
                    found += bench.flushed(case, server)
                    found += bench.flushed_late(files, case, server)
                    totals["end to end"] += 2
                totals["wrong"] += bool(found)
                if found and len(findings) < _FINDINGS_MAX:
                    findings.append(f"{kind} {case.text}: {found}")
            print(f"{kind}: {totals[kind]}", file=sys.stderr, flush=True)
    for finding in findings:
        print(finding, file=sys.stderr)
    said = {
        "proof": "damage",
        "records": RECORDS,
        "segments": len(files),
        "bytes": sum(map(len, files.values())),
        **totals,
        "wrong": totals["wrong"],
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(said))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(is_long="--long" in sys.argv[1:]))
