"""A drain over real files and real books, and a poster that needs no network.

Events are numbers. `Spool([5, 3])` has two segments, of events 0 to 4 and 5 to 7, and
`drain(answers)` drains it once; `answers` is asked for each request, with the numbers
that are in it. What was posted reads `0-4 ok`, `5 503`, and so on, in the order of the
answers.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from telemetry.books.books import Books
from telemetry.books.entries import Announced, Snapshot
from telemetry.books.view import DB_NAME, connected, read_snapshot
from telemetry.delivery.census import Census, take_census
from telemetry.delivery.dead_letters import DeadLetter, DeadLetterWriter, read_letters
from telemetry.delivery.drain import Drain
from telemetry.delivery.settlement import Desk
from telemetry.paths import Home, segment_name
from telemetry.spool import frame
from telemetry.wire.batch import Rejection, Request
from telemetry.wire.retry import Halted
from telemetry.wire.verdict import Action, Verdict
from tests.support.patience import PATIENCE_S


OK = Verdict(Action.ACCEPTED, "200")
# Nothing reached the server, so it cannot be about what was posted.
DOWN = Verdict(Action.WAIT, "refused")
# The time of the flush is up, or its user has said no.
DEADLINE, OFF = Halted("deadline"), Halted("off")
_ACTIONS = {400: Action.SPLIT, 413: Action.SPLIT, 401: Action.PAUSE, 403: Action.PAUSE}

Answers = Callable[[list[int]], Verdict | Halted]


def status(number: int, *, asked_s: float | None = None) -> Verdict:
    """What a status means; `asked_s` is its Retry-After."""
    action = _ACTIONS.get(number, Action.WAIT)
    return Verdict(action, str(number), retry_after_s=asked_s, narrow=True)


def naming(*numbers: int) -> Verdict:
    """An accepting answer that names these events as refused."""
    named = tuple(Rejection(f"id-{number}", "no such tool") for number in numbers)
    return Verdict(Action.ACCEPTED, "200", rejected=named)


def refusing(refused: Iterable[int], verdict: Verdict | Halted) -> Answers:
    """A server that takes all but requests with one of these events."""
    bad = frozenset(refused)
    return lambda numbers: verdict if bad & set(numbers) else OK


def in_turn(
    *verdicts: Verdict | Halted | None, then: Answers = lambda _: OK
) -> Answers:
    """These, one after the other, and `then` what follows; None is `then` as well."""
    left = list(verdicts)
    return lambda numbers: (left.pop(0) if left else None) or then(numbers)


class Killed(BaseException):
    """The process is gone: nothing that is not in the ledger is written any more."""


class Server:
    """A poster that answers at once, and looks at what is in the ledger by then.

    `during(numbers)` is called as each request is sent; to raise Halted is its answer
    to a flush that may send no more, and to raise Killed ends the process there.
    """

    at_once = 4

    def __init__(
        self,
        ledger: sqlite3.Connection,
        answers: Answers,
        during: Callable[[list[int]], Any],
    ) -> None:
        self.requests = 0
        self.posted: list[str] = []
        self.received: list[int] = []
        self.under_way = self.most_under_way = 0
        self._ledger = ledger
        self._answers = answers
        self._during = during

    def send(self, request: Request) -> tuple[list[int], Verdict | Halted]:
        numbers = numbers_in(request)
        self._during(numbers)
        assert self._is_announced(request.digest), "it is not announced"
        self.requests += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        verdict = self._answers(numbers)
        if isinstance(verdict, Verdict) and verdict.action is Action.ACCEPTED:
            self.received += numbers
        return numbers, verdict

    def _is_announced(self, digest: str) -> bool:
        """Whether it is on disk: a connection beside that of the books reads it."""
        query = "SELECT count(*) FROM Cache WHERE instr(value, ?)"
        row = self._ledger.execute(query, (f'"digest":"{digest}"'.encode(),)).fetchone()
        return bool(row[0])

    def answer(self, sent: tuple[list[int], Verdict | Halted]) -> Verdict:
        numbers, verdict = sent
        self.under_way -= 1
        word = verdict.stopped if isinstance(verdict, Halted) else verdict.reason
        self.posted.append(f"{spans(numbers)} {'ok' if word == '200' else word}")
        if isinstance(verdict, Halted):
            raise verdict
        return verdict

    def post(self, request: Request) -> Verdict:
        assert not self.under_way, "a single request beside others"
        return self.answer(self.send(request))

    def post_again(self, request: Request, first: Verdict, *, tries: int) -> Verdict:
        """Pauses are no longer than no time, but for those that a server asks for."""
        assert tries >= 0
        while tries and first.action is Action.WAIT and not first.retry_after_s:
            first = self.post(request)
            tries -= 1
        return first


class Spool:
    """A home whose segments hold so many events each, numbered from 0."""

    def __init__(self, root: Path, segments: Sequence[int]) -> None:
        self.home = Home(str(root))
        self.count = 0
        self.turn = self.failures = 0
        # How many events were left by the last drain.
        self.pending = 0
        self.stopped = ""
        self.verdict: Verdict | None = None
        self.drained: Drain
        for name in ("", "spool"):
            (root / name).mkdir(mode=0o700)
        for number, events in enumerate(segments):
            self.write(number, events)

    def name(self, segment: int) -> str:
        return segment_name(10**18 + segment, bytes(4))

    def write(self, segment: int, events: int) -> None:
        """So many more events at the end of a segment, which may be a new one."""
        path = Path(self.home.segment(self.name(segment)))
        seq = path.read_bytes().count(b"\x1e") if path.exists() else 0
        with path.open("ab") as file:
            for _ in range(events):
                properties = {"event_id": f"id-{self.count}", "n": self.count}
                event = {"event": "tool", "properties": properties}
                text = json.dumps(event, separators=(",", ":"))
                file.write(frame.encode(seq, text.encode()))
                seq, self.count = seq + 1, self.count + 1

    def drain(
        self,
        answers: Answers = lambda _: OK,
        *,
        during: Callable[[list[int]], Any] = lambda _: None,
        at_once: int = 4,
        batch_events_max: int = 10,
        batch_segments_max: int = 1,
        failures: int | None = None,
        begins_new: bool = False,
        is_full: bool = False,
        accepted_before: bool = False,
        server: type[Server] | None = None,
    ) -> Server:
        """One drain. `stopped` is why it ended, "" where it came to its own end.

        `failures` is how many before it delivered nothing, or ended on what had been set
        aside: those that this spool has seen, if none are given.
        """
        books = Books(
            self.home.ledger,
            relieve=lambda: None,
            is_full=lambda: False,
            power=False,  # no test here takes the power away
        )
        desk = Desk(
            home=self.home,
            books=books,
            letters=DeadLetterWriter(self.home, books, bytes_max=1 << 20),
            batch_events_max=batch_events_max,
            batch_bytes_max=1 << 20,
            quarantine_bytes_max=1 << 20,
            power=False,
            batch_segments_max=batch_segments_max,
        )
        known = self.failures if failures is None else failures
        self.stopped, self.verdict = "", None
        path = f"{self.home.ledger}/{DB_NAME}"
        with connected(path, mode="ro", busy_s=PATIENCE_S) as ledger:
            poster = (server or Server)(ledger, answers, during)
            poster.at_once = at_once
            self.drained = Drain(
                desk,
                poster,  # type: ignore[arg-type]
                turn=self.turn,
                failures=known,
                begins_new=begins_new,
                accepted_before=accepted_before,
                is_full=is_full,
            )
            try:
                self.verdict = self.drained.run()
            except Halted as halted:
                self.stopped, self.verdict = halted.stopped, halted.verdict
            except Killed:
                assert books._ledger is not None
                books._ledger.close()
                raise
            finally:
                self.drained.close()
            if is_full and self.stopped != "off":
                self.drained.make_room()
            books.close()
        assert books.is_saved
        assert desk.letters._file is None, "a file of letters is left open"
        self.turn = self.drained.turn
        is_over = self.stopped == "" and self.verdict is None
        if self.stopped == "deadline" and not self.drained.says_nothing:
            is_over = poster.received != []
        self.failures = 0 if is_over else (0 if poster.received else known) + 1
        census = take_census(self.home, books.snapshot)
        assert census.holds(), census
        self.pending = census.pending
        return poster

    @property
    def snapshot(self) -> Snapshot:
        return read_snapshot(self.home.ledger)

    def census(self) -> Census:
        return take_census(self.home, self.snapshot)

    def left(self) -> tuple[int, int, int]:
        """How many events are delivered, pending and dead."""
        census = self.census()
        return census.delivered, census.pending, census.dead

    def announced(self) -> list[Announced]:
        """The ranges that are not settled, oldest segment first."""
        segments = sorted(self.snapshot.segments.items())
        return [each for _, entry in segments for each in entry.announced]

    def letters(self) -> list[DeadLetter]:
        found = [each.letter for each in read_letters(self.home, self.snapshot)]
        return [letter for letter in found if letter is not None]

    def files(self) -> list[int]:
        """The segments that still stand, by number."""
        names = sorted(path.name for path in Path(self.home.spool).iterdir())
        return [int(name.partition("-")[0]) - 10**18 for name in names]


def numbers_in(request: Request) -> list[int]:
    return [int(n) for n in re.findall(rb'"n":(\d+)', request.body)]


def spans(numbers: Sequence[int]) -> str:
    """`0-4` for five numbers in a row; `0-1,7` where some are missing."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, each)) for each in found)
