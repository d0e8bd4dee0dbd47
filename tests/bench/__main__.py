"""One command, one table: `python -m tests.bench`. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator

from tests.bench import (
    cold,
    comparison,
    drain,
    event,
    formats,
    full,
    launch,
    memory,
    processes,
    queues,
    syslog,
    tools,
    whole_launch,
)
from tests.bench.bench import Bench
from tests.bench.rows import Row, drawn, failed, heading, summary


GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "cold": cold.rows,
    "launch": launch.rows,
    "event": event.rows,
    "queues": queues.rows,
    "processes": processes.rows,
    "launches": whole_launch.rows,
    "drain": drain.rows,
    "formats": formats.rows,
    "syslog": syslog.rows,
    "memory": memory.rows,
    "tools": tools.rows,
    "full": full.rows,
}


def main() -> int:
    """Measure, print, and answer 1 where a row could not be measured at all."""
    args = _arguments()
    if args.install:
        comparison.install()
    told: list[Row] = []
    print(f"{_machine()}\n\n{heading()}", flush=True)
    with (
        # A flusher that a launch has left behind may still write when it is removed.
        tempfile.TemporaryDirectory(
            prefix="telemetry-bench-", dir=args.dir, ignore_cleanup_errors=True
        ) as place,
        Bench(
            os.path.realpath(place),
            is_short=args.short,
            comparison=comparison.interpreter(),
        ) as bench,
    ):
        for name in args.only or GROUPS:
            for row in _guarded(name, GROUPS[name](bench)):
                told.append(row)
                print(drawn(row), flush=True)
    print(f"\n{summary(told)}; load at the end {os.getloadavg()[0]:.1f}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            content = {"machine": _machine(), "rows": [row._asdict() for row in told]}
            json.dump(content, file, indent=1, ensure_ascii=False)
    return 1 if any(row.figure == "failed" for row in told) else 0


def _guarded(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a group; what stands in the way ends the group, not the run."""
    try:
        yield from rows
    except Exception as error:
        yield failed(name, error)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="fewer rounds: a minute in all"
    )
    parser.add_argument(
        "--only", action="append", choices=GROUPS, help="this group; repeatable"
    )
    parser.add_argument("--json", metavar="FILE", help="the figures, for a program")
    parser.add_argument(
        "--dir", help="where to write; a real disk, not a file system in memory"
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="install what is compared with, outside the checkout; as root, syslog-ng",
    )
    return parser.parse_args()


def _machine() -> str:
    return (
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
