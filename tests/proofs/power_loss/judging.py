"""What must be true after a power loss: the next launch, and then a clean flush.

A state is laid out on a disk in memory, a host records a few events in it (it may
adopt what is there), a real flusher sends all to a real server on loopback. Then each
event that the outside world was told of has arrived, under one id, byte for byte as it
was written, or lies among the dead letters if it had been refused; nothing else has
arrived; damaged bytes that had been there are in quarantine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from telemetry.books.view import read_snapshot
from telemetry.client import Client
from telemetry.delivery.dead_letters import read_letters
from telemetry.delivery.flush import flush
from telemetry.paths import Home
from telemetry.pipeline import prepare
from telemetry.wire.batch import event_id_of
from tests.proofs.power_loss.events import STRETCH, Collector, config_of, number_of
from tests.proofs.power_loss.trace import home_in
from tests.support.delivering import census_of
from tests.support.writers import Numbered


if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.proofs.power_loss.losses import Tree

# The numbers of events that are recorded after the power is back.
_AFTER = range(9000, 9003)


class Owed(NamedTuple):
    """What the outside world knew at the moment of the power loss.

    acked: numbers that a host was answered True for, or that were rejected since, less
        those that the collector has taken, or a purge
    refused: numbers that may lie among the dead letters
    written: every event that was written, by its bytes
    stretch: whether damaged bytes stood in a segment
    """

    acked: frozenset[int]
    refused: frozenset[int]
    written: frozenset[bytes]
    stretch: bool


class Aftermath(NamedTuple):
    """What became of a state: events that arrived and those in letters, and the rest."""

    arrived: tuple[bytes, ...]
    letters: tuple[bytes, ...]
    is_quarantined: bool
    problems: tuple[str, ...]


class Judge:
    """Flushes states, each once. A context.

    Of those that it has not seen, it flushes one in `thin`. Whether the books balance
    is asked where the flusher's ledger was promised to survive, too.
    """

    def __init__(
        self, directory: Path, *, thin: int = 1, has_books: bool = True
    ) -> None:
        self._thin = thin
        self._has_books = has_books
        self.flushed = 0
        self.looked_at = 0
        self._directory = str(directory / "state-of-a-disk")
        self._collector = Collector(rejects=False)
        self._known: dict[bytes, Aftermath | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._collector.server.close()

    def problems(self, state: Tree, owed: Owed) -> list[str]:
        """Everything that is wrong with a state; empty where nothing is."""
        self.looked_at += 1
        digest = _digest(state)
        if digest not in self._known:
            is_thrown = len(self._known) % self._thin
            self._known[digest] = None
            if not is_thrown:
                adopts = bool(self.flushed % 4)
                self._known[digest] = self._aftermath(state, adopts=adopts)
                self.flushed += 1
        after = self._known[digest]
        return [] if after is None else _compare(after, owed)

    def _aftermath(self, state: Tree, *, adopts: bool) -> Aftermath:
        shutil.rmtree(self._directory, ignore_errors=True)
        os.mkdir(self._directory)
        _lay_out(state, self._directory)
        home = Home(home_in(self._directory))
        problems: list[str] = []
        try:
            prepare(home)
            if adopts:
                self._go_on(home)
            self._flush(home, problems)
            if not adopts:
                self._go_on(home)
                self._flush(home, problems)
            census = census_of(Path(home.root))
            if self._has_books and not census.holds():
                problems.append(f"books: {census}")
        except Exception as error:
            problems.append(f"raised: {type(error).__name__}: {error}")
        found = read_letters(home, read_snapshot(home.ledger))
        letters = [bytes(each.letter.event) for each in found if each.letter]
        return Aftermath(
            tuple(self._collector.take()),
            tuple(letters),
            _is_quarantined(home),
            tuple(problems),
        )

    def _go_on(self, home: Home) -> None:
        """The next launch, which writes beyond where what was lost had ended."""
        with Client(config_of(home, "", segment_bytes_max=4000)) as client:
            for number in _AFTER:
                assert client.track(Numbered(number, "w", "x" * (number % 100)))

    def _flush(self, home: Home, problems: list[str]) -> None:
        report = flush(
            config_of(home, self._collector.server.url),
            home,
            timeout_s=20.0,
            environment={},
            allowed=lambda: True,
        )
        if report.stopped != "drained" or report.pending:
            problems.append(f"stuck: {report}")


def _compare(after: Aftermath, owed: Owed) -> list[str]:
    problems = list(after.problems)
    ids: dict[int, set[str]] = {}
    for event in {*after.arrived, *after.letters}:
        number = number_of(event)
        ids.setdefault(number, set()).add(event_id_of(event))
        if number not in _AFTER and event not in owed.written:
            problems.append(f"altered or spurious: {event!r}")
    here = set(map(number_of, after.arrived))
    dead = set(map(number_of, after.letters))
    problems += [
        f"twice: {number} {each}" for number, each in ids.items() if len(each) > 1
    ]
    problems += [f"dead: {number}" for number in dead - owed.refused]
    lost = owed.acked - here - (dead & owed.refused)
    problems += [f"lost: {number}" for number in sorted(lost)]
    problems += [f"lost: {number} after it" for number in set(_AFTER) - here]
    if owed.stretch and not after.is_quarantined:
        problems.append("lost: the damaged stretch")
    return problems


def _lay_out(state: Tree, directory: str) -> None:
    for name, content in state.items():
        path = f"{directory}/{name}"
        if isinstance(content, dict):
            os.mkdir(path, 0o700)
            _lay_out(content, path)
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, content)
            os.close(descriptor)


def _is_quarantined(home: Home) -> bool:
    found = b""
    for name in sorted(
        os.listdir(home.quarantine) if os.path.isdir(home.quarantine) else ()
    ):
        with open(f"{home.quarantine}/{name}", "rb") as file:
            found += file.read()
    return STRETCH in found


def _digest(state: Tree) -> bytes:
    made = hashlib.blake2b(digest_size=16)
    _feed(made, state)
    return made.digest()


def _feed(made: hashlib.blake2b, state: Tree) -> None:
    for name in sorted(state):
        content = state[name]
        made.update(name.encode())
        if isinstance(content, dict):
            made.update(b"/(")
            _feed(made, content)
            made.update(b")")
        else:
            made.update(b"=%d:" % len(content))
            made.update(content)
