"""What a power loss may leave of a disk: every state, or a sample of them.

Of what is not safe, any part may be there:

- a step of a directory is there or not, whichever others are, and whatever became of
  the files it names;
- of a file's changes, any may be missing, or have ended at any byte; a new length may
  be there without the bytes, which are zeros then; a sector of 512 bytes that was
  written may be the new one, the old one, or (where the file has grown) zeros.

What is safe stays: a sector is not spoiled by writing beside its old bytes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.proofs.power_loss.disk import (
    Change,
    Disk,
    File,
    Folder,
    Step,
    changed,
    stepped,
)


SECTOR = 512
# What stands in a directory afterwards: bytes of a file, or the names of another.
Tree = dict[str, "bytes | Tree"]
# What became of each file with changes, and of each step.
Chosen = Mapping["File | Step", "bytes | bool"]
# One of them, and what may become of it.
Factor = tuple["File | Step", "list[bytes | bool]"]


class Bounds(NamedTuple):
    """How far the search goes at one crash point.

    every: products of choices up to so many are gone through whole
    recent: where there are more, so many of the latest are changed one by one
    sampled: random states besides
    cuts: at how many bytes the last changes are cut; 0: a record at each
    """

    every: int
    recent: int
    sampled: int
    cuts: int


SHORT = Bounds(every=2, recent=1, sampled=1, cuts=2)
LONG = Bounds(every=16, recent=3, sampled=3, cuts=0)
# Every record of a story is shorter. What is longer is a page of the ledger.
_RECORD_BYTES = 1024
_PAGE_CUTS = 4

# What was changed before the last few changes of a file was cut when they were made.
_FINE_CHANGES = 2


def states(disk: Disk, bounds: Bounds, seed: int) -> Iterator[Tree]:
    """What may be found after a power loss at this moment; some of it twice."""
    steps, files = _unsafe(disk.root)
    steps.sort(key=lambda each: each.ended)
    coarse: list[Factor] = [(step, [True, False]) for step in steps]
    coarse.extend((file, _coarse(file)) for file in files)
    count = 1
    for _, choices in coarse:
        count *= len(choices)
    if count <= bounds.every:
        for choice in itertools.product(*(choices for _, choices in coarse)):
            keys = (key for key, _ in coarse)
            yield _left(disk.root, dict(zip(keys, choice, strict=True)))
    else:
        recent = coarse[: len(steps)][-bounds.recent :]
        recent += [each for each in coarse if each[0] is disk.touched]
        yield from _one_by_one(disk, coarse, recent)
    kept: dict[File | Step, bytes | bool] = {key: first for key, (first, *_) in coarse}
    if disk.touched in kept:
        for content in _fine(disk.touched, bounds.cuts):
            yield _left(disk.root, {**kept, disk.touched: content})
    chance = random.Random(seed)
    for _ in range(bounds.sampled if count > bounds.every else 0):
        drawn: dict[File | Step, bytes | bool] = {
            step: chance.random() < 0.5 for step in steps
        }
        drawn.update((file, _drawn(file, chance)) for file in files)
        yield _left(disk.root, drawn)


def _one_by_one(
    disk: Disk,
    coarse: Sequence[Factor],
    recent: Sequence[Factor],
) -> Iterator[Tree]:
    """All of it, none of it, and either but for one that is recent."""
    for at in (0, -1):
        usual = {key: choices[at] for key, choices in coarse}
        yield _left(disk.root, usual)
        for key, choices in recent:
            for choice in choices:
                if choice is not choices[at]:
                    yield _left(disk.root, {**usual, key: choice})


def _unsafe(root: Folder) -> tuple[list[Step], list[File]]:
    """The steps and the files that may be there in part, if anything leads to them."""
    steps: list[Step] = []
    files: dict[int, File] = {}
    waiting: list[File | Folder] = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, File):
            if node.changes:
                files[id(node)] = node
            continue
        steps += node.steps
        waiting += node.safe.values()
        waiting += [new for step in node.steps for _, new in step.names if new]
    return steps, list(files.values())


def _coarse(file: File) -> list[bytes | bool]:
    """All of it, only its length, nothing of it."""
    whole = file.now()
    zeros = (file.safe + bytes(max(len(whole) - len(file.safe), 0)))[: len(whole)]
    return list(dict.fromkeys((whole, zeros, file.safe)))


def _fine(file: File, cuts: int) -> Iterator[bytes]:
    """A late change missing alone, cut, or with one of its sectors not written."""
    changes = file.changes
    first = max(len(changes) - _FINE_CHANGES, 0)
    for number, change in enumerate(changes[first:], first):
        before, behind = changes[:number], changes[number + 1 :]
        yield changed(file.safe, [*before, *behind])
        content = change.content
        if content is None or len(content) > 4 * 4096:
            continue
        size = len(content)
        lengths: Sequence[int] = range(1, size)
        if size > (cuts or _RECORD_BYTES):
            count = cuts or _PAGE_CUTS
            lengths = [1 + (size - 2) * n // (count - 1) for n in range(count)]
        for length in lengths:
            torn = change._replace(content=content[:length])
            yield changed(file.safe, [*before, torn])
            if length % 7 == 0:
                # The length is there, the end is not.
                end = change.at + size
                yield changed(file.safe, [*before, torn, Change(0, end, b"")])
        for start, end in _sectors(change):
            zeroed = bytearray(file.now())
            old = file.safe[start:end]
            zeroed[start:end] = old + bytes(end - start - len(old))
            yield bytes(zeroed[: len(file.now())])


def _sectors(change: Change) -> Iterator[tuple[int, int]]:
    """The parts of sectors that a change wrote."""
    at, end = change.at, change.at + len(change.content or b"")
    while at < end:
        upto = min((at // SECTOR + 1) * SECTOR, end)
        yield at, upto
        at = upto


def _drawn(file: File, chance: random.Random) -> bytes:
    """Some of its changes, some of their sectors, some of its length."""
    drawn: list[Change] = []
    for change in file.changes:
        fate = chance.random()
        if fate < 0.3:
            continue
        if change.content is None or fate < 0.6:
            drawn.append(change)
            continue
        length = chance.randrange(len(change.content) + 1)
        for start, end in _sectors(change):
            if fate < 0.8 and chance.random() < 0.5:
                continue
            piece = change.content[start - change.at : end - change.at]
            if fate >= 0.8:
                piece = piece[: max(length - (start - change.at), 0)]
            if piece:
                drawn.append(Change(0, start, piece))
    if chance.random() < 0.5:
        drawn.append(Change(0, file.size, b""))
    return changed(file.safe, drawn)


def _left(folder: Folder, chosen: Chosen) -> Tree:
    """The state that some choices make."""
    names = dict(folder.safe)
    stepped(names, [step for step in folder.steps if chosen[step]])
    found: Tree = {}
    for name, node in names.items():
        if isinstance(node, Folder):
            found[name] = _left(node, chosen)
        else:
            content = chosen.get(node, node.safe)
            assert isinstance(content, bytes)
            found[name] = content
    return found
