"""One command, one table: `python -m tests.bench`. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
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
    pythons,
    queues,
    suite,
    syslog,
    tools,
    whole_launch,
)
from tests.bench.bench import REPOSITORY, Bench
from tests.bench.rows import Row, drawn, failed, heading, markdown, summary


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
    "suite": suite.rows,
}
README = REPOSITORY / "README.md"
# What stands around the table in it.
_BEFORE, _BEHIND = "\nMeasured on ", "\n\nWhere the aim is missed"


def main() -> int:
    """Measure, print, and answer 1 where a row could not be measured at all."""
    args = _arguments()
    if args.install:
        comparison.install()
    told: list[Row] = []
    took_s: dict[str, float] = {}
    machine = _machine()
    print(f"{machine}\n\n{heading()}", flush=True)
    with (
        # A flusher that a launch has left behind may still write when it is removed.
        tempfile.TemporaryDirectory(
            prefix="telemetry-bench-", dir=args.dir, ignore_cleanup_errors=True
        ) as place,
        Bench(
            os.path.realpath(place),
            is_short=args.short,
            comparison=comparison.interpreter(),
            pythons=pythons.installed(comparison.cache()),
        ) as bench,
    ):
        for name in args.only or GROUPS:
            began = time.monotonic()
            for row in _guarded(name, GROUPS[name](bench)):
                told.append(row)
                print(drawn(row), flush=True)
            took_s[name] = time.monotonic() - began
    print(f"\n{summary(told)}; load at the end {os.getloadavg()[0]:.1f}")
    each = ", ".join(f"{name} {seconds:.0f}" for name, seconds in took_s.items())
    print(f"{sum(took_s.values()) / 60:.1f} minutes; seconds: {each}")
    if args.readme:
        _put_into_readme(told, machine)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            content = {"machine": machine, "rows": [row._asdict() for row in told]}
            json.dump(content, file, indent=1, ensure_ascii=False)
    return 1 if any(row.figure == "failed" for row in told) else 0


def _guarded(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a group; what stands in the way ends the group, not the run."""
    try:
        yield from rows
    except Exception as error:
        yield failed(name, error)


def _put_into_readme(rows: list[Row], machine: str) -> None:
    """README.md has this table, and when and where it was measured, on return."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEFORE)
    _, _, behind = rest.partition(_BEHIND)
    assert behind, "README.md has lost the place of the table"
    said = f"{time.strftime('%Y-%m-%d', time.gmtime())}: {machine}."
    text = f"{before}{_BEFORE}{said}\n\n{markdown(rows)}{_BEHIND}{behind}"
    README.write_text(text, encoding="utf-8")


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
        "--readme", action="store_true", help="put the table into README.md"
    )
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
