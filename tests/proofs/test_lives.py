"""A spool lives through flushes of every kind, kills, and damage at any moment.

After each life the server takes all there is: nothing may wait then. Where nothing was
damaged each event was accepted, or is a dead letter that was named, or failed alone in five
flushes.
On the way `Spool.drain` asserts that the sums hold, and its server that each request was in
the ledger as it was posted. More: `LIVES=20000 python -m pytest tests/proofs/test_lives.py`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from telemetry.books.books import Books
from telemetry.delivery.search import WINDOWS_MAX
from telemetry.delivery.upkeep import tidy
from telemetry.wire.retry import Halted
from telemetry.wire.verdict import Action, Verdict
from tests.support.draining import (
    DEADLINE,
    DOWN,
    OK,
    Answers,
    Killed,
    Spool,
    naming,
    refusing,
    status,
)


LIVES = int(os.environ.get("LIVES", "400"))
CHUNKS = 8

# What a server does in one flush.
TEMPERS = ["refuses", "names", "small", "down", "late", "any", "killed", "works"]


@pytest.mark.proof
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_waits_for_ever_whatever_happened(chunk: int, tmp_path: Path) -> None:
    """A range that damage, a kill or a probe left odd held its segment back for good."""
    for seed in range(chunk, LIVES, CHUNKS):
        home = tmp_path / f"{seed}"
        try:
            live(random.Random(seed), home)
        except Exception as error:
            raise AssertionError(f"life {seed}: {error!r}") from error
        shutil.rmtree(home)


class Fate:
    """What became of events, by their numbers, as the server has it."""

    def __init__(self) -> None:
        self.flushes = 0
        self.accepted: set[int] = set()
        self.named: set[int] = set()
        # The flushes in which each failed alone.
        self.alone: dict[int, set[int]] = {}

    def note(self, numbers: list[int], answer: Verdict | Halted) -> None:
        if isinstance(answer, Verdict) and answer.action is Action.ACCEPTED:
            named = {int(each.event_id[3:]) for each in answer.rejected}
            self.accepted |= set(numbers) - named
            self.named |= named
        elif len(numbers) == 1:
            self.alone.setdefault(numbers[0], set()).add(self.flushes)

    def may_be_dead(self, number: int) -> bool:
        failed = self.alone.get(number, set())
        return number in self.named or len(failed) >= WINDOWS_MAX


def live(dice: random.Random, home: Path) -> None:
    spool = Spool(home, dice.choices([0, 1, 3, 8, 20], k=dice.randint(1, 4)))
    fate, is_whole = Fate(), dice.random() < 0.4
    for step in range(dice.randint(1, 14)):
        if dice.random() < 0.5 and not is_whole:
            damage(dice, spool)
        if dice.random() < 0.1:
            spool.write(10 + step, dice.randint(1, 5))
        if dice.random() < 0.05:
            shutil.rmtree(spool.home.ledger, ignore_errors=True)
            begin(spool)
        flush(dice, spool, fate, 0.0 if is_whole else 0.03)
        if dice.random() < 0.3:
            begin(spool)
    server = spool.drain(batch_events_max=dice.choice([1, 2, 3, 10]), failures=0)
    if spool.drained.is_blocked:  # a file had changed since it was sent
        spool.drain(failures=0)
    assert spool.pending == 0, spool.announced()
    if is_whole:
        texts = b"".join(bytes(letter.event) for letter in spool.letters())
        dead = {int(number) for number in re.findall(rb'"n":(\d+)', texts)}
        assert fate.accepted | {*server.received} | dead == {*range(spool.count)}
        assert all(map(fate.may_be_dead, dead)), dead


def begin(spool: Spool) -> None:
    """What a flush does before it drains."""
    books = Books(
        spool.home.ledger, relieve=lambda: None, is_full=lambda: False, power=False
    )
    tidy(spool.home, books)
    books.close()


def flush(dice: random.Random, spool: Spool, fate: Fate, risk: float) -> None:
    fate.flushes += 1
    temper = dice.choice(TEMPERS)
    answers = a_server(dice, temper, spool.count)
    left = dice.randint(1, 8)

    def during(_: list[int]) -> None:
        nonlocal left
        left -= 1
        if temper == "killed" and left <= 0:
            raise Killed
        if dice.random() < risk:
            damage(dice, spool)

    def in_time(numbers: list[int]) -> Verdict | Halted:
        is_late = temper == "late" and left <= 0
        answer = DEADLINE if is_late else answers(numbers)
        fate.note(numbers, answer)
        return answer

    try:
        spool.drain(
            in_time,
            during=during,
            at_once=dice.choice([1, 4]),
            batch_events_max=dice.choice([1, 2, 3, 5, 10]),
            batch_segments_max=dice.choice([1, 4]),
            begins_new=dice.random() < 0.2,
            is_full=dice.random() < 0.1,
        )
    except Killed:
        pass


def a_server(dice: random.Random, temper: str, count: int) -> Answers:
    """A server that takes some events, or some batches, or nothing."""
    bad = {number for number in range(count) if dice.random() < 0.1}
    refusal = status(dice.choice([400, 413, 500, 503]))
    any_of = [OK, OK, DOWN, *map(status, (400, 413, 503))]
    tempers: dict[str, Answers] = {
        "names": lambda numbers: naming(*sorted(bad & set(numbers))),
        "small": lambda numbers: refusal if len(numbers) > 2 else OK,
        "down": lambda _: DOWN,
        "any": lambda _: dice.choice(any_of),
        "works": lambda _: OK,
    }
    return tempers.get(temper, refusing(bad, refusal))


def damage(dice: random.Random, spool: Spool) -> None:
    """One file of the spool is another one: flipped, zeroed, cut, shortened, torn."""
    paths = sorted(Path(spool.home.spool).iterdir())
    path = dice.choice(paths) if paths else None
    content = bytearray(path.read_bytes()) if path else bytearray()
    if path is None or not content:
        return
    at, size = dice.randrange(len(content)), dice.choice([1, 5, 50, 200])
    kind = dice.randrange(8)
    if kind < 4:
        content[at] ^= 1 << dice.randrange(8)
    elif kind == 4:
        content[at : at + size] = bytes(len(content[at : at + size]))
    elif kind == 5:
        del content[at:]
    elif kind == 6:
        del content[at : at + size]
    else:
        content += b'\x1e{"ha'
    path.write_bytes(content)
