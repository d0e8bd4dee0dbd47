"""Every story, its power cut at every operation; totals as one line of JSON.

    python -m tests.power_loss            short
    python -m tests.power_loss --long     every cut of a record, and more states
    python -m tests.power_loss [--long] NAME…     these stories only

Findings go to standard error; the exit code is 1 where there are any.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.proofs.power_loss.events import Collector
from tests.proofs.power_loss.judging import Judge
from tests.proofs.power_loss.losses import LONG, SHORT
from tests.proofs.power_loss.program import STORIES
from tests.proofs.power_loss.replaying import replay
from tests.proofs.power_loss.trace import can_trace, record


SEED = 20_261
# One state in so many is flushed.
_THIN = {"small": 2}
_THIN_LONG = 6
_THIN_SHORT = 20


def main(stories: list[str], *, is_long: bool) -> int:
    """Run these stories and print the totals."""
    if not can_trace():
        print("needs strace", file=sys.stderr)
        return 2
    totals: Counter[str] = Counter()
    began = time.monotonic()
    findings: list[str] = []
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="power-", dir=memory) as scratch:
        for story in stories:
            with Collector(rejects=True) as collector:
                operations = record(story, f"{scratch}/{story}", collector.server.url)
            totals["operations"] += len(operations)
            thin = _THIN.get(story, _THIN_LONG) if is_long else _THIN_SHORT
            with Judge(
                Path(scratch), thin=thin, has_books=story != "unsynced"
            ) as judge:
                bounds = LONG if is_long else SHORT
                counted, found = replay(operations, judge, bounds, seed=SEED)
            totals += counted
            findings += [f"{story}: {each}" for each in found]
            print(f"{story}: {dict(counted)}", file=sys.stderr, flush=True)
    for finding in findings:
        print(finding, file=sys.stderr)
    said = {
        "proof": "power loss",
        "stories": len(stories),
        **totals,
        "wrong": totals["wrong"],
        "losses": totals["losses"],
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(said))
    return 1 if findings else 0


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name != "--long"]
    sys.exit(main(chosen or list(STORIES), is_long="--long" in sys.argv))
