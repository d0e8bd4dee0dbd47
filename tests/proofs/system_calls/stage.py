"""The scenes: launches, flushers and purges, each in the middle of its life."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import structs

from telemetry.books.books import Books
from telemetry.books.entries import replace
from telemetry.consent import Choice, remember_choice
from telemetry.delivery import dead_letters, schedule
from telemetry.delivery.census import segment_records
from telemetry.delivery.search import WINDOWS_MAX
from telemetry.paths import Home
from telemetry.spool import frame, refusals
from telemetry.spool.reader import segment_names
from tests.proofs.system_calls.scenes import (
    FIRST,
    HOME,
    POISON,
    Collector,
    Scene,
    clean_flush,
    held_in,
    record,
)
from tests.support.delivering import census_of, letters_of


_FLUSHES_MAX = 10


class Stage:
    """Makes the scenes, each in a directory of its own below `directory`."""

    def __init__(self, directory: str, collector: Collector) -> None:
        self._directory = directory
        self._collector = collector
        # What a launch starts in the place of a Python, so that nothing is flushed.
        self._nothing = f"{directory}/python-that-does-nothing"
        os.symlink(shutil.which("true") or "/bin/true", self._nothing)

    def all(self) -> list[Scene]:
        """Every scene there is."""
        makers: list[Callable[[], Scene]] = [
            self._first,
            self._later,
            self._durable,
            self._refused,
            self._opted_out,
            self._birth,
            self._drain,
            self._synced,
            self._poison,
            self._letters,
            self._waiting,
            self._purge,
            self._forget,
        ]
        return [maker() for maker in makers]

    def _home(self, name: str) -> Home:
        home = Home(f"{self._directory}/{name}/{HOME}")
        os.makedirs(os.path.dirname(home.root))
        return home

    def _scene(self, program: str, home: Home, **told: object) -> Scene:
        directory = home.root.removesuffix(f"/{HOME}")
        if program == "record":
            told = {"first": FIRST, "count": 5, "executable": self._nothing, **told}
        self._collector.forget()
        return Scene(
            name=os.path.basename(directory),
            program=program,
            directory=directory,
            told=told,
            held=held_in(home),
            start=census_of(Path(home.root)),
        )

    def _first(self) -> Scene:
        """The first launch there ever was: not even the directory above exists."""
        home = self._home("record-first")
        os.rmdir(os.path.dirname(home.root))
        return self._scene("record", home)

    def _with_events(self, name: str) -> Home:
        """A home with a segment to go on with, and a flush that is due."""
        home = self._home(name)
        if name.startswith("record"):
            # A ledger is there, as most launches find it.
            assert clean_flush(home, self._collector.server.url).stopped == "drained"
        record(home, range(4), "before")
        remember_choice(home.consent, Choice(on=True, date="2026-01-01"))
        os.utime(home.next_flush, (time.time() - 60,) * 2)
        return home

    def _later(self) -> Scene:
        """A later launch: it adopts a segment, fills it, starts a flusher."""
        return self._scene("record", self._with_events("record-later"))

    def _durable(self) -> Scene:
        """The same where each event is synced."""
        home = self._with_events("record-power")
        return self._scene("record", home, durability="power", count=3)

    def _refused(self) -> Scene:
        """Some events are too big, which is counted."""
        return self._scene("record", self._with_events("record-refused"), refused=True)

    def _opted_out(self) -> Scene:
        """The user has said no: whatever fails, nothing is recorded."""
        home = self._with_events("record-off")
        remember_choice(home.consent, Choice(on=False, date="2026-01-01"))
        return self._scene("record", home)

    def _damaged(self, name: str) -> Home:
        """Two segments: one byte of the first is wrong, the second ends torn."""
        home = self._with_events(name)
        damaged = Path(home.segment(segment_names(home)[-1]))
        second = list(segment_records(home))[1]
        content = bytearray(damaged.read_bytes())
        content[second.start + 60] ^= 0x20
        damaged.write_bytes(bytes(content))
        # In a home of its own, or it would go on in the first segment.
        other = Home(f"{home.root}.other")
        record(other, range(4, 8), "before")
        (torn,) = segment_names(other)
        whole = Path(other.segment(torn)).read_bytes()
        Path(home.segment(torn)).write_bytes(whole + whole[:100])
        shutil.rmtree(other.root)
        assert refusals.add(home.refused, {"too_big": 2, "disk_error": 1})
        return home

    def _birth(self) -> Scene:
        """A flusher that meets damage, and no ledger yet."""
        return self._scene("drain", self._damaged("flush-birth"))

    def _drain(self) -> Scene:
        """A flusher with a ledger, as most find it."""
        return self._scene("drain", self._with_ledger("flush-drain"))

    def _synced(self) -> Scene:
        """The same where each commit is synced."""
        home = self._with_ledger("flush-power")
        return self._scene("drain", home, durability="power")

    def _with_ledger(self, name: str) -> Home:
        """A home from which something was delivered before it met damage."""
        home = self._home(name)
        record(home, range(100, 103), "before")
        assert clean_flush(home, self._collector.server.url).delivered == 3
        self._move(self._damaged(f"{name}-more"), home)
        return home

    def _move(self, more: Home, home: Home) -> None:
        """The segments of one home stand in another, with refusals and consent."""
        for name in segment_names(more):
            shutil.copy2(more.segment(name), home.segment(name))
        shutil.copy2(more.refused, home.refused)
        shutil.copy2(more.consent, home.consent)
        shutil.rmtree(more.root.removesuffix(f"/{HOME}"))

    def _poison(self) -> Scene:
        """Of two refused events one is searched for, the other made a dead letter."""
        home = self._with_events("flush-poison")
        assert clean_flush(home, self._collector.server.url).delivered == 4
        record(home, range(49, 50), "before", POISON)
        clean_flush(home, self._collector.server.url)
        self._make_spent(home)
        record(home, range(50, 51), "before", POISON)
        record(home, range(51, 54), "before")
        return self._scene("drain", home)

    def _make_spent(self, home: Home) -> None:
        """One more failure is the last of what waits, and the next flush begins with it."""
        books = Books(home.ledger, relieve=lambda: None, is_full=lambda: False)
        for name, entry in books.snapshot.segments.items():
            for known in entry.announced:
                spent = structs.replace(known, windows=WINDOWS_MAX - 1, reason="400")
                books.stage(name, replace(entry, known, spent))
        books.commit()
        books.close()
        plan = schedule.load(home.next_flush)
        plan.end(plan.destination, time.time(), failures=1, until=plan.at)
        schedule.store(home.next_flush, plan)

    def _with_letters(self, name: str) -> Home:
        """A ledger, a dead letter, and another that was written with it."""
        home = self._with_events(name)
        for number in (50, 51):
            record(home, range(number, number + 1), "before", POISON)
        # An event is dead once it was refused in several flushes that had others.
        for number in range(60, 60 + _FLUSHES_MAX):
            record(home, range(number, number + 1), "before")
            clean_flush(home, self._collector.server.url, batch_events_max=3)
            if len(letters_of(Path(home.root))) == 2:
                break
        assert len(letters_of(Path(home.root))) == 2
        return home

    def _letters(self) -> Scene:
        """A dead letter is to be sent again, which the collector takes by now."""
        home = self._with_letters("flush-letters")
        letters = letters_of(Path(home.root))
        # By now the collector takes it: it looks at the word alone.
        cured = b"potion".ljust(len(POISON), b"n")
        first, *others = [msgspec.json.encode(letter) for letter in letters]
        contents = [first.replace(POISON.encode(), cured), *others]
        (file,) = segment_names(home, home.dead)
        records = [frame.encode(seq, each) for seq, each in enumerate(contents)]
        Path(home.dead, file).write_bytes(b"".join(records))
        books = Books(home.ledger, relieve=lambda: None, is_full=lambda: False)
        assert dead_letters.retry(home, books, {letters[0].name}) == 1
        books.close()
        record(home, range(70, 72), "before")
        return self._scene("drain", home)

    def _waiting(self) -> Scene:
        """The server takes nothing now, and says when it may."""
        home = self._with_events("flush-waiting")
        assert clean_flush(home, self._collector.server.url).delivered == 4
        record(home, range(90, 95), "before")
        return self._scene("drain", home, key="one-that-has-to-wait")

    def _purge(self) -> Scene:
        """Everything that is kept is to go, and to be counted."""
        home = self._with_letters("purge")
        self._move(self._damaged("purge-more"), home)
        os.mkdir(home.quarantine, 0o700)
        Path(home.quarantine, "stretch").write_bytes(b"something")
        return self._scene("purge", home)

    def _forget(self) -> Scene:
        """Everything is to go without a trace."""
        home = self._with_letters("forget")
        record(home, range(80, 82), "before")
        return self._scene("purge", home, forget=True)
