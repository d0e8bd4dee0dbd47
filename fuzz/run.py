"""Runs fuzz targets, each in a process of its own, and says what came of it.

    python -m fuzz [--seconds N] [--seed N] [--plain] [--keep DIR] [TARGET …]

Standard output is one JSON object: executions by target and together, the engine,
the seed, and where the inputs of findings are. Exit codes: 0 no finding; 1 a finding,
or a target that looked at nothing but its corpus; 2 wrong usage.

Where atheris cannot be had it says so and mutates the corpus instead.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fuzz.engine import CORPUS, HANG_S, UnderWay, seeds


REPOSITORY = Path(__file__).resolve().parents[1]
TARGETS = sorted(
    path.stem.removeprefix("fuzz_") for path in CORPUS.parent.glob("fuzz_*.py")
)
_SECONDS = 5
# Loading, the corpus, and one input that hangs.
_GRACE_S = 60 + 2 * HANG_S
_SHOWN_BYTES = 4000


class Ended(NamedTuple):
    """What a run of one target came to; `finding` is where the input is, or why."""

    target: str
    executions: int
    finding: str | None


def run(target: str, *, seconds: int, seed: int, engine: str, keep: Path) -> Ended:
    """One target: its corpus, then `seconds` of search."""
    # Memory is quicker than a disk, and syncs for nothing.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}-", dir=memory) as scratch:
        place = Path(scratch)
        under_way, said = place / "under way", place / "said"
        under_way.touch()
        (place / "tmp").mkdir()
        command = [sys.executable, "-m", "fuzz.engine", target]
        command += [str(seconds), str(seed), engine, scratch]
        with said.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, "TMPDIR": str(place / "tmp"), "PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(timeout=seconds + _GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
        executions, data = UnderWay.read(under_way)
        finding = None
        if code != 0:
            finding = (
                str(_kept(keep, target, data)) if executions else "it cannot start"
            )
            text = said.read_bytes()[-_SHOWN_BYTES:].decode(errors="replace")
            print(
                f"{text}\n{target}: code {code}: {finding}: {data[:300]!r}",
                file=sys.stderr,
            )
        elif executions <= len(seeds(target)):
            finding = "it looked at nothing but its corpus"
    return Ended(target, executions, finding)


def _kept(keep: Path, target: str, data: bytes) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"of {', '.join(TARGETS)} (default: all)",
    )
    add(
        "--seconds",
        type=int,
        default=_SECONDS,
        help="for each target (default: %(default)s)",
    )
    add("--seed", type=int, default=None, help="of the search (default: drawn)")
    add(
        "--plain",
        action="store_true",
        help="mutate the corpus, also where atheris is there",
    )
    add(
        "--keep",
        type=Path,
        default=Path("fuzz-findings"),
        help="where the inputs of findings go (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if args.seconds < 1:
        parser.error("--seconds is a number above zero")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run what `argv` names; the exit code."""
    args = _arguments(argv)
    engine = "atheris"
    if args.plain or importlib.util.find_spec("atheris") is None:
        engine = "mutation"
        if not args.plain:
            print(
                "fuzz: no atheris for this Python; mutating the corpus", file=sys.stderr
            )
    seed = args.seed if args.seed is not None else time.time_ns() % 2**31
    ended = []
    for target in args.targets or TARGETS:
        began = time.monotonic()
        each = run(
            target, seconds=args.seconds, seed=seed, engine=engine, keep=args.keep
        )
        took_s = time.monotonic() - began
        print(
            f"fuzz: {target}: {each.executions:,} executions, {took_s:.0f} s",
            file=sys.stderr,
        )
        ended.append(each)
    findings = {each.target: each.finding for each in ended if each.finding is not None}
    told = {
        "engine": engine,
        "python": "{}.{}".format(*sys.version_info[:2]),
        "seconds": args.seconds,
        "seed": seed,
        "executions": {each.target: each.executions for each in ended},
        "total": sum(each.executions for each in ended),
        "findings": findings,
    }
    print(json.dumps(told))
    return 1 if findings else 0
