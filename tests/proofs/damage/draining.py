"""Draining a damaged spool, and what must be true afterwards.

For many cases the real flusher, reader and quarantine work on real files with books in
memory and a poster that accepts; for some, a whole flush with its ledger talks to a
server on loopback.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import Snapshot
from telemetry.books.view import read_snapshot
from telemetry.config import Config
from telemetry.delivery.census import take_census
from telemetry.delivery.dead_letters import DeadLetterWriter
from telemetry.delivery.drain import Drain
from telemetry.delivery.flush import flush
from telemetry.delivery.settlement import Desk
from telemetry.paths import Home
from telemetry.pipeline import prepare
from telemetry.spool.frame import OVERHEAD
from telemetry.wire.verdict import Action, Verdict
from tests.proofs.damage.spool import sound
from tests.support.loopback import Server


if TYPE_CHECKING:
    from telemetry.books.ledger import Ledger
    from telemetry.wire.batch import Request
    from tests.proofs.damage.spool import Case

RECORDED = frozenset(each.event for each in sound()[1])
_ACCEPTED = Verdict(Action.ACCEPTED, "200")


class _Body(msgspec.Struct):
    records: list[msgspec.Raw]


class _Accepting:
    """A poster that accepts, and keeps what it was given."""

    at_once = 4

    def __init__(self) -> None:
        self.requests = 0
        self.bodies: list[bytes] = []

    def send(self, request: Request) -> Request:
        self.requests += 1
        self.bodies.append(request.body)
        return request

    def answer(self, _: Request) -> Verdict:
        return _ACCEPTED

    def post(self, request: Request) -> Verdict:
        return self.answer(self.send(request))


class _SayingYes:
    """A ledger that keeps nothing."""

    snapshot = Snapshot()

    def commit(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def close(self) -> None:
        pass


class _InMemory(Books):
    """Books without a disk: a whole ledger for each of many cases takes too long."""

    def _open(self) -> Ledger:
        return _SayingYes()  # type: ignore[return-value]


class Bench:
    """A directory in which one spool after the other is laid out and drained."""

    def __init__(self, directory: Path) -> None:
        self.home = Home(str(directory / "home"))

    def drained(self, case: Case) -> list[str]:
        """What is wrong after the flusher's loop; empty where nothing is."""
        self._lay_out(case)
        poster = _Accepting()
        books = _InMemory("", relieve=lambda: None, is_full=lambda: False)
        desk = Desk(
            home=self.home,
            books=books,
            letters=DeadLetterWriter(self.home, books, bytes_max=1 << 30),
            batch_events_max=40,
            batch_bytes_max=1 << 20,
            quarantine_bytes_max=1 << 30,
            power=False,
        )
        drain = Drain(
            desk,
            poster,  # type: ignore[arg-type]
            turn=0,
            failures=0,
            begins_new=False,
            accepted_before=False,
            is_full=False,
        )
        try:
            drain.run()
            books.commit()
        except Exception as error:
            return [f"raised: {type(error).__name__}: {error}"]
        found = ["blocked: something was set aside"] if drain.is_blocked else []
        return found + self._problems(case, poster.bodies, books.snapshot)

    def flushed(self, case: Case, server: Server) -> list[str]:
        """The same after a whole flush."""
        self._lay_out(case)
        server.requests.clear()
        report = self._flush(server, 1 << 30)
        found = [] if report == "drained" else [f"stuck: {report}"]
        bodies = [each.body for each in server.requests]
        return found + self._problems(case, bodies, read_snapshot(self.home.ledger))

    def flushed_late(
        self, before: dict[str, bytes], case: Case, server: Server
    ) -> list[str]:
        """What is missing when the damage comes between two requests of a flush."""
        self._lay_out(case._replace(files=before))
        server.requests.clear()
        self._flush(server, 3)
        for name, content in case.files.items():
            if os.path.exists(self.home.segment(name)):
                Path(self.home.segment(name)).write_bytes(content)
        report = self._flush(server, 1 << 30)
        found = [] if report == "drained" else [f"stuck: {report}"]
        arrived = _events([each.body for each in server.requests])
        found += _lost(case, arrived)
        return found + _spurious(arrived, RECORDED)

    def _flush(self, server: Server, requests: int) -> str:
        left = iter(range(requests + 1))
        config = Config(
            app="app",
            home=self.home.root,
            endpoint=server.url,
            api_key="a-secret-key",
            flush="manual",
            batch_events_max=25,
        )
        return flush(
            config,
            self.home,
            timeout_s=20.0,
            environment={},
            allowed=lambda: next(left, None) is not None,
        ).stopped

    def _lay_out(self, case: Case) -> None:
        shutil.rmtree(self.home.root, ignore_errors=True)
        prepare(self.home)
        for name, content in case.files.items():
            descriptor = os.open(
                self.home.segment(name), os.O_WRONLY | os.O_CREAT, 0o600
            )
            os.write(descriptor, content)
            os.close(descriptor)

    def _problems(
        self, case: Case, bodies: list[bytes], snapshot: Snapshot
    ) -> list[str]:
        arrived = _events(bodies)
        found = _lost(case, arrived)
        found += _spurious(arrived, case.untouched if case.exact else RECORDED)
        if case.exact and max(arrived.values(), default=0) > 1:
            found.append("twice: one event")
        left = os.listdir(self.home.spool)
        if left:
            found.append(f"left: {left}")
        kept = self._quarantined(case, found)
        valid = sum(count * (len(e) + OVERHEAD) for e, count in arrived.items())
        everything = sum(map(len, case.files.values()))
        if valid + kept != everything:
            found.append(f"bytes: {valid} and {kept} are not {everything}")
        census = take_census(self.home, snapshot)
        if not census.holds() or census.delivered != arrived.total():
            found.append(f"books: {census}")
        return found

    def _quarantined(self, case: Case, found: list[str]) -> int:
        """Bytes in quarantine, each of which is what stood in its place."""
        size = 0
        if not os.path.isdir(self.home.quarantine):
            return 0
        for name in os.listdir(self.home.quarantine):
            segment, _, offset = name.rpartition("-")
            content = Path(self.home.quarantine, name).read_bytes()
            start = int(offset)
            if content != case.files[segment][start : start + len(content)]:
                found.append(f"altered: {name} in quarantine")
            size += len(content)
        return size


def _events(bodies: list[bytes]) -> Counter[bytes]:
    return Counter(event for body in bodies for event in _events_in(body))


def _events_in(body: bytes) -> list[bytes]:
    try:
        return list(map(bytes, msgspec.json.decode(body, type=_Body).records))
    except msgspec.DecodeError:
        return [body]  # which is no event that anybody recorded


def _lost(case: Case, arrived: Counter[bytes]) -> list[str]:
    lost = case.untouched - arrived.keys()
    return [f"lost: {len(lost)}, {min(lost)[:60]!r}"] if lost else []


def _spurious(arrived: Counter[bytes], there: frozenset[bytes]) -> list[str]:
    return [f"altered or spurious: {each!r}" for each in arrived.keys() - there]
