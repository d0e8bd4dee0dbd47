"""What must be true after a program was disturbed, whatever disturbed it.

At once: the host has ended as ever and said what it says; the books balance. After
clean flushes: everything that was acknowledged arrived, each event under one id, byte
for byte, nothing else did, and what was counted as delivered is what the collector
has. Nothing is left behind that a home does not have.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from telemetry.books.view import read_snapshot
from telemetry.client import Client
from telemetry.consent import consent, read_choice
from telemetry.delivery.census import Census
from telemetry.delivery.flush import flush
from telemetry.delivery.opt_out import finish_opt_out, opt_out
from telemetry.paths import Home
from tests.proofs.system_calls.aftermath import (
    answers_of,
    directory_of,
    files_in,
    is_free,
    kept_in,
    telling,
)
from tests.proofs.system_calls.arrivals import events_problems
from tests.proofs.system_calls.calls import KILL, Fault
from tests.proofs.system_calls.programs import HOST_CODE, HOST_SAYS
from tests.proofs.system_calls.scenes import (
    Collector,
    Scene,
    clean_flush,
    config_of,
    play,
    record,
)
from tests.proofs.system_calls.tolerated import is_tolerated
from tests.proofs.system_calls.tracing import Ran
from tests.support.delivering import census_of
from tests.support.writers import Numbered, wait_until


# Refused alone, the only one pending is given up in its fifth flush; of two, each flush
# counts one, and ends where it gives one up.
_FLUSHES_MAX = 12
# What a home may hold when all is delivered. What is left of a ledger's birth is
# cleared away by the next birth.
_EXPECTED = re.compile(
    r"(consent|user-uuid|next-flush|flush\.lock|refused|reserve|mistakes|spool-summary"
    r"|spool|dead|quarantine|ledger|ledger/cache\.db(-journal)?|ledger/birth(/.+)?"
    r"|dead/[^/]+\.v1\.jseq|quarantine/([^/]+\.v1\.jseq-\d+|stretch))"
)
# Events that are recorded in peace, after what was disturbed.
_AFTER = range(5000, 5002)
_FORGOTTEN = {"consent", "next-flush", "flush.lock", "spool", "dead", "quarantine"}


class Ending(NamedTuple):
    """What an undisturbed end of a scene leaves: the census, and files by name."""

    census: Census
    files: dict[str, bytes]


class Judge:
    """Knows how a scene ends when nothing disturbs it, and compares.

    tolerated: whether what was wrong the last time all followed from its fault
    """

    def __init__(self, scene: Scene, collector: Collector, directory: str) -> None:
        self.scene = scene
        self.collector = collector
        self.tolerated = False
        self._ending = Ending(scene.start, {})
        if scene.program == "drain":
            collector.forget()
            home = play(scene, directory)
            self._flush(home)
            self._ending = Ending(census_of(Path(home.root)), kept_in(home))

    def problems(self, home: Home, ran: Ran, fault: Fault | None) -> list[str]:
        """Everything that is wrong, each as `kind: what`; empty where nothing is."""
        found = self._problems(home, ran, fault)
        wrong = [each for each in found if not is_tolerated(each, fault)]
        self.tolerated = bool(found) and not wrong
        return wrong

    def _problems(self, home: Home, ran: Ran, fault: Fault | None) -> list[str]:
        if ran.hung:
            return ["hang: it did not end"]
        killed = fault is not None and fault.error == KILL
        found = self._of_the_host(ran, killed=killed)
        if fault is None or fault.call.name != "close":
            # The tracer fails a close by not letting it happen.
            found += [f"leak: {line}" for line in ran.said if line.startswith("leaked")]
        if self.scene.told.get("forget"):
            return found + self._of_the_forgotten(home, ran)
        with telling("hang: somebody flushes on", found):
            wait_until(lambda: is_free(home))
        if os.path.isdir(home.root):
            with telling("census: unreadable at once", found):
                found += self._of_the_census(census_of(Path(home.root)), "at once")
        with telling("stuck: clean flush", found):
            if self._goes_on:
                # The next launch takes over what this one left.
                record(home, _AFTER, "after")
            stopped = self._flush(home)
            if stopped != "drained":
                found.append(f"stuck: clean flushes end with {stopped}")
            after = _AFTER if self._goes_on else range(0)
            found += events_problems(self.scene, self.collector, home, ran, after)
            found += self._of_the_books(home, ran)
            found += self._of_the_files(home)
        return found

    @property
    def _goes_on(self) -> bool:
        return self.scene.writes and self.scene.name != "record-off"

    def _flush(self, home: Home) -> str:
        for _ in range(_FLUSHES_MAX):
            report = clean_flush(home, self.collector.server.url, batch_events_max=3)
            if report.stopped == "drained" and report.pending == 0:
                return "drained"
        return report.stopped

    def _of_the_host(self, ran: Ran, *, killed: bool) -> list[str]:
        raised = [line for line in ran.said if line.startswith(("raised", "  "))]
        if raised:
            return ["raised: " + " | ".join(raised)]
        if killed:
            return []
        found = []
        if ran.status != HOST_CODE:
            found.append(f"host: it ended with {ran.status}")
        if ran.output != (HOST_SAYS, ""):
            found.append(f"host: it said {ran.output}")
        return found

    def _of_the_census(self, census: Census, when: str) -> list[str]:
        found = []
        if not census.holds():
            found.append(f"census: does not hold {when}: {census}")
        recorded, before = census.recorded, self.scene.start.recorded
        wrong = recorded < before if self.scene.writes else recorded != before
        if wrong:
            found.append(f"books: {recorded} recorded {when}, not {before}")
        return found

    def _of_the_books(self, home: Home, ran: Ran) -> list[str]:
        """The end is the one that it has undisturbed."""
        census = census_of(Path(home.root))
        found = self._of_the_census(census, "in the end")
        if census.pending:
            found.append(f"stuck: {census.pending} pending")
        ids = self.collector.arrived().keys() | self.scene.accepted
        delivered = census.delivered - self.scene.start.delivered
        # An event can stand in two segments: once under a failed look at the first.
        spare = 1 if self.scene.writes else 0
        if not len(ids) <= delivered <= len(ids) + spare:
            found.append(f"books: {delivered} delivered, the collector has {len(ids)}")
        if self.scene.program == "drain":
            if census != self._ending.census:
                found.append(f"books: {census} is not {self._ending.census}")
            found += self._of_what_is_kept(kept_in(home))
        return found + self._of_the_refused(home, ran)

    def _of_what_is_kept(self, kept: dict[str, bytes]) -> list[str]:
        """Each letter, and a copy of each damaged stretch."""
        lost = self._ending.files.keys() - kept.keys()
        copies = [name for name in lost if name.startswith("quarantine/")]
        found = [f"copy: there is none of {name}" for name in copies]
        expected = dict(self._ending.files)
        for name in copies:
            del expected[name]
        return found if kept == expected else [f"books: kept are {sorted(kept)}"]

    def _of_the_refused(self, home: Home, ran: Ran) -> list[str]:
        """Each refusal is counted once at most, those of a flusher's scene exactly."""
        refused = read_snapshot(home.ledger).totals.refused
        if self.scene.writes:
            answers = list(answers_of(ran).values())
            # Killed in between, one is counted that nobody was told of.
            unheard = 1 if ran.status < 0 else 0
            is_wrong = sum(refused.values()) > answers.count(False) + unheard
        else:
            is_wrong = bool(refused) and refused != {"too_big": 2, "disk_error": 1}
        return [f"books: refused are {refused}"] if is_wrong else []

    def _of_the_files(self, home: Home) -> list[str]:
        """Nothing lies about, and the user is who he was."""
        # Whatever temporary file is left in the home is swept once it is old.
        old = time.time() - 2 * 3600
        for name in files_in(home.root):
            if ".tmp-" in name or name == "probe":
                os.utime(f"{home.root}/{name}", (old, old))
        self._flush(home)
        found = [
            f"litter: {re.sub(r'[0-9a-f]{8,}|[0-9]+', 'N', name)}"
            for name in files_in(home.root)
            if not _EXPECTED.fullmatch(name)
        ]
        below = os.path.relpath(home.user_uuid, directory_of(home))
        before = f"{self.scene.directory}/{below}"
        with contextlib.suppress(FileNotFoundError):
            if Path(before).read_bytes() != Path(home.user_uuid).read_bytes():
                found.append("identity: the user's id is another one")
        return found

    def _of_the_forgotten(self, home: Home, ran: Ran) -> list[str]:
        """All as it was, or off for good; whoever comes next removes what was kept."""
        found: list[str] = []
        choice = read_choice(home.consent)
        if choice is None or choice.on:
            if "stopped recording" in ran.said:
                found.append("consent: it said that it is off")
            census = census_of(Path(home.root))
            if census != self.scene.start:
                found.append(f"altered: {census} before the choice")
            opt_out(home)
        if clean_flush_is_sent(home, self.collector):
            found.append("consent: sent after the choice")
        with telling("stuck: the removal is not finished", found):
            with Client(config_of(home, "")) as client:
                if client.track(Numbered(1, "after", "")):
                    found.append("consent: recorded after the choice")
            assert finish_opt_out(home)
        if not re.fullmatch(rb"off [0-9-]{10}\n", Path(home.consent).read_bytes()):
            found.append("altered: the choice")
        return found + [
            f"litter: {name}" for name in files_in(home.root) if name not in _FORGOTTEN
        ]


def clean_flush_is_sent(home: Home, collector: Collector) -> bool:
    """Whether a flusher of the program sends anything."""
    config = config_of(home, collector.server.url)
    report = flush(
        config,
        home,
        timeout_s=10.0,
        environment={},
        allowed=lambda: consent(home, {}, config).on,
    )
    return bool(report.requests)
