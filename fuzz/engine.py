"""One target in a process of its own: its corpus, then inputs until the time is up.

- The corpus comes first, with or without an engine.
- With atheris the search follows what code an input reaches. Without it, inputs are
  drawn from the corpus by a seeded generator: the same seed gives the same inputs.
- Each input is in the file `under way` before it is looked at, with the number of
  those before it. Whatever ends this process, a kill included, leaves both there.

It judges nothing: a target raises, and whoever started this process sees how it ended.
"""

from __future__ import annotations

import faulthandler
import importlib
import mmap
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


CORPUS = Path(__file__).resolve().parent / "corpus"
# What is searched with the code's own branches in view.
INSTRUMENTED = ["telemetry", "spool_tools", "diskcache"]
# An input takes milliseconds; more than this is a hang, on a busy machine too.
HANG_S = 30
# No input is longer than what libFuzzer makes by itself, and a few seeds are.
INPUT_BYTES_MAX = 64 * 1024

_HEAD = struct.Struct("<QQ")
_UNDER_WAY_BYTES = _HEAD.size + 4 * INPUT_BYTES_MAX


class UnderWay(NamedTuple):
    """How many inputs were looked at, and the last of them."""

    executions: int
    data: bytes

    @classmethod
    def read(cls, path: Path) -> UnderWay:
        """What the file of a process that has ended says; nothing, where it is empty."""
        content = path.read_bytes()
        if len(content) < _HEAD.size:
            return cls(0, b"")
        executions, length = _HEAD.unpack_from(content)
        return cls(executions, content[_HEAD.size : _HEAD.size + length])


def seeds(target: str) -> list[Path]:
    """The corpus of a target, in the order of its names."""
    return sorted((CORPUS / target).iterdir())


def noted(one: Callable[[bytes], None], path: Path) -> Callable[[bytes], None]:
    """`one`, with each input in the file `path` before it is looked at."""
    with path.open("w+b") as file:
        file.truncate(_UNDER_WAY_BYTES)
        page = mmap.mmap(file.fileno(), _UNDER_WAY_BYTES)
    executions = 0

    def noting(data: bytes) -> None:
        nonlocal executions
        executions += 1
        kept = data[: _UNDER_WAY_BYTES - _HEAD.size]
        page[_HEAD.size : _HEAD.size + len(kept)] = kept
        _HEAD.pack_into(page, 0, executions, len(kept))
        one(data)

    return noting


def mutated(corpus: list[bytes], dice: random.Random, longest: int) -> Iterator[bytes]:
    """Inputs without end: one of the corpus, changed in one to eight places."""
    while True:
        data = bytearray(dice.choice(corpus))
        for _ in range(dice.randint(1, 8)):
            _mutate(data, corpus, dice)
        yield bytes(data[:longest])


def _mutate(data: bytearray, corpus: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    stretch = slice(at, at + dice.randint(1, 16))
    match dice.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            data[at : at + 1] = bytes([dice.randrange(256)])
        case 2:
            data[at:at] = dice.randbytes(dice.randint(1, 4))
        case 3:
            del data[stretch]
        case 4:
            data[at:at] = data[stretch] * dice.choice((1, 2, 100))
        case 5:
            del data[at:]
        case 6:
            data[at:at] = dice.choice((b"0", b"9" * 20, b"-1", b"\n", b"\r\n", b"\0"))
        case _:
            other = dice.choice(corpus)
            start = dice.randrange(len(other) + 1)
            data[stretch] = other[start : start + dice.randint(1, 64)]


def mutate(
    one: Callable[[bytes], None],
    target: str,
    *,
    seconds: float,
    seed: int,
    longest: int,
) -> None:
    """Look at mutations of the corpus for `seconds`."""
    corpus = [path.read_bytes() for path in seeds(target)]
    # A text as the seed: the same in every process, unlike the hash of a tuple.
    inputs = mutated(corpus, random.Random(f"{target} {seed}"), longest)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        one(next(inputs))
    faulthandler.cancel_dump_traceback_later()


def main(arguments: list[str]) -> None:
    """`<target> <seconds> <seed> <atheris|mutation> <scratch directory>`."""
    target, seconds, seed, engine, scratch = arguments
    name = f"fuzz.fuzz_{target}"
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=INSTRUMENTED):
            module = importlib.import_module(name)
    else:
        module = importlib.import_module(name)
    longest = getattr(module, "INPUT_BYTES_MAX", INPUT_BYTES_MAX)
    one = noted(module.one, Path(scratch) / "under way")
    for path in seeds(target):
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        one(path.read_bytes())
    faulthandler.cancel_dump_traceback_later()
    if engine != "atheris":
        mutate(one, target, seconds=float(seconds), seed=int(seed), longest=longest)
        return
    found = os.path.join(scratch, "found")
    os.mkdir(found)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-timeout={HANG_S}",
        f"-artifact_prefix={scratch}/",
        "-verbosity=0",
    ]
    if hasattr(module, "INPUT_BYTES_MAX"):
        options.append(f"-max_len={longest}")
    # What is new goes into the first directory; the corpus stays as it is.
    atheris.Setup([target, *options, found, str(CORPUS / target)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
