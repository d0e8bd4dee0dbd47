"""One flush: lock, tidy, drain, conclude, report.

The flush lock is held throughout, so two flushes of one home never meet.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.consent import consent
from telemetry.delivery import forgetting, schedule
from telemetry.delivery.backoff import conclude
from telemetry.delivery.dead_letters import DeadLetterWriter
from telemetry.delivery.drain import Drain
from telemetry.delivery.opt_out import (
    finish_opt_out,
    is_owed,
    note_asked,
    requests_waiting,
)
from telemetry.delivery.purge import finish_purge
from telemetry.delivery.report import FlushReport, Progress
from telemetry.delivery.settlement import Desk
from telemetry.delivery.upkeep import is_full, keep_reserve, relieve, tidy
from telemetry.errors import ConfigError, LedgerError, SpoolFullError
from telemetry.files import unlock
from telemetry.logs import TelemetryLogger, discreet
from telemetry.paths import Home
from telemetry.privacy import OwnKey, own_key_of
from telemetry.wire.endpoint import HTTPClient, redact
from telemetry.wire.formats import format_of, is_compressed
from telemetry.wire.retry import Halted, Poster
from telemetry.wire.transport import Transport
from telemetry.wire.verdict import Action, Stopped, Verdict


def flush(
    config: Config,
    home: Home,
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    allowed: Callable[[], bool],
    http: HTTPClient | None = None,
    logger: TelemetryLogger | None = None,
    lock: int | None = None,
    progress: Progress | None = None,
    ends: Callable[[], float] = lambda: math.inf,
    release: Callable[[], None] = lambda: None,
    by_hand: bool = False,
) -> FlushReport:
    """Drain the spool for at most `timeout_s` seconds and say what came of it.

    `ends` is a time of `time.monotonic()` before which it ends as well; another thread
    may bring it forward.
    `lock` is a descriptor that holds the flush lock already; without one it is
    taken here, and `busy` is the answer where somebody has it.
    `release` gives up the segment of this process, where the disk is full: only what is
    deleted stays settled there, and nobody deletes a segment that is in use. `by_hand` is a
    person with a tool: a request for deletion is made whatever its wait, and where events
    go now is not remembered as where the program sends them. Raises nothing for what
    network, server or disk do.
    """
    progress = progress or Progress()
    own_key = own_key_of(config, environment)
    deadline = time.monotonic() + timeout_s
    this = _Flush(
        config,
        home,
        lambda: min(deadline, ends()),
        environment,
        http,
        discreet(logger, own_key),
        own_key,
        progress,
        release,
        by_hand,
    )
    held = lock
    try:
        on = allowed()
        if not on and held is None and not is_owed(home):
            return progress.report(home, "off")  # nothing is made on disk
        if held is None:
            held = schedule.flush_lock(home)
        if held is None:
            return progress.report(home, "busy" if on else "off")
        report = progress.report(home, this.drain(allowed) if on else "off")
        with suppress(OSError):
            # The next flush tries again, and `disable` says what is left.
            finish_opt_out(home, lock=held)
        if report.stopped in {"drained", "off"}:
            with suppress(OSError):
                # The request is kept, or the next flush finds it gone.
                this.ask()
        return report
    except (LedgerError, OSError) as error:
        this.say("%s; everything is kept", error)
        return progress.report(home, "disk")
    finally:
        if held is not None:
            with suppress(OSError):  # it is closed all the same
                try:
                    # A child that was forked meanwhile has a copy of the descriptor.
                    unlock(held)
                finally:
                    os.close(held)


class _Flush(NamedTuple):
    """What one flush works with. `ends` says when it is over, of `time.monotonic()`."""

    config: Config
    home: Home
    ends: Callable[[], float]
    environment: Mapping[str, str]
    http: HTTPClient | None
    logger: TelemetryLogger | None
    own_key: OwnKey
    progress: Progress
    release: Callable[[], None]
    by_hand: bool

    def say(self, message: str, *args: object) -> None:
        """One line for whoever develops."""
        if self.logger is not None:
            self.logger.debug("flush: %s", message % args)

    def drain(self, allowed: Callable[[], bool]) -> Stopped:
        """Deliver what waits; why that ended. Raises LedgerError and OSError."""
        config, home, progress = self.config, self.home, self.progress
        books = Books(
            home.ledger,
            relieve=lambda: relieve(home, self.release),
            is_full=lambda: is_full(home.root),
            power=config.durability == "power",
        )
        transport = None
        try:
            progress.begin(books)
            with suppress(OSError):
                # A file that cannot be removed holds back no delivery.
                finish_purge(home, books)
            # Refusals that `tidy` takes note of came since the last flush.
            counted = _refused_as_full(books)
            tidy(home, books)
            is_spool_full = _refused_as_full(books) > counted
            plan = schedule.load(home.next_flush)
            failures = self._failed_before(plan, books.snapshot.state)
            try:
                # After a failure another address of the server's name comes first.
                transport = self._transport(config, turn=failures)
            except ConfigError as error:
                self.say("%s; everything is kept", error)
                self._remember_problem(books, self.own_key.without(str(error)))
                progress.is_concluded = books.is_saved
                return "off"
            poster = self._poster(transport, self._noting_progress(plan, allowed))
            progress.poster = poster
            # Flushes that do not finish may all end on what they begin with.
            begins_new = plan.is_every_other
            drain = self._drain_of(
                books,
                poster,
                failures,
                begins_new=begins_new,
                is_spool_full=is_spool_full,
            )
            stopped, verdict = _drained(drain)
            progress.verdict = verdict
            if is_spool_full and stopped != "off":
                drain.make_room()
            if stopped != "off":
                before = books.snapshot.state
                state = self._concluded(
                    before, plan, stopped, verdict, drain.says_nothing
                )
                is_elsewhere = self._is_elsewhere(before)
                kept = before  # what is known of the program's delivery
                if not is_elsewhere:
                    kept = msgspec.structs.replace(state, **self._learnt(before))
                kept = msgspec.structs.replace(
                    kept, requests=state.requests, probe=drain.turn
                )
                books.commit(state=kept)
                progress.is_concluded = books.is_saved
                _store(home, plan, state, is_beside=is_elsewhere)
            if verdict is not None:
                self.say("%s: %s", stopped, verdict.detail or verdict.reason)
            return stopped
        finally:
            if transport is not None:
                transport.close()
            books.close()
            keep_reserve(home)

    def _failed_before(self, plan: schedule.Schedule, before: DeliveryState) -> int:
        """How many flushes in a row have delivered nothing to this endpoint.

        Also under another key, which may be renewed for each launch: what was set aside
        would never be what a flush begins with.
        """
        failures = plan.failures(schedule.destination_of(self.config))
        is_same = before.endpoint == self._where()["endpoint"]
        return max(failures, before.failures if is_same else 0)

    def _noting_progress(
        self, plan: schedule.Schedule, allowed: Callable[[], bool]
    ) -> Callable[[], bool]:
        """`allowed`, asked before each request.

        After a delivery this flush no longer counts as one that may kill its program.
        """

        def may_post() -> bool:
            is_suspect = plan.never_ended_within > 0
            if is_suspect and self.progress.delivered and plan.end_within():
                with suppress(OSError):
                    schedule.store(self.home.next_flush, plan)
            return allowed()

        return may_post

    def ask(self) -> None:
        """Post the requests that a server delete what it has, if any wait and are due.

        What came of it, and when it may be asked again, are on disk on return: beside
        the requests, as the ledger may be gone. A person who asks waits for no backoff.
        """
        config, home = self.config, self.home

        def may_ask() -> bool:
            decision = consent(home, self.environment, config)
            return decision.on or decision.asks

        if not requests_waiting(home):
            note_asked(home)  # killed behind the last answer, the choice still says so
            return
        destination = schedule.destination_of(config, asks=True)
        now, plan = time.time(), schedule.load(home.next_flush)
        has_to_wait = plan.wait_ends(destination, now) > now and not self.by_hand
        if has_to_wait or not may_ask():
            return
        stopped: Stopped = "waiting"
        try:
            transport = self._transport(forgetting.addressed(config))
            try:
                poster = self._poster(transport, may_ask)
                verdict = forgetting.ask(config, home, poster, format_of(config.format))
            finally:
                transport.close()
        except Halted as halted:
            stopped, verdict = halted.stopped, halted.verdict
        except ConfigError as error:
            self.say("%s; the request for deletion is kept", error)
            return
        if verdict is None:
            return
        self.progress.verdict = verdict
        self.say("request for deletion: %s", verdict.detail or verdict.reason)
        if not requests_waiting(home):
            stopped = "drained"
            note_asked(home)
        elif verdict.action is Action.PAUSE:
            stopped = "paused"
        said = verdict.detail or verdict.reason
        if verdict.rejected:
            said = verdict.rejected[0].reason or "the server rejected it"
        self._note_try(said)
        state = self._concluded(
            DeliveryState(),
            plan,
            stopped,
            verdict,
            destination=destination,
            delivered=0,
        )
        until = state.next_attempt_ms / 1000
        plan = schedule.load(home.next_flush)
        plan.end_beside(destination, time.time(), failures=state.failures, until=until)
        schedule.store(home.next_flush, plan)

    def _note_try(self, said: str) -> None:
        where = forgetting.last_try(self.home)
        if not self.by_hand or not where.deletion_url:
            where = msgspec.convert(self._where(), forgetting.Note)
        forgetting.note_try(self.home, msgspec.structs.replace(where, said=said))

    def _transport(self, config: Config, *, turn: int = 0) -> Transport:
        """What posts to the endpoint. Raises ConfigError if there is no usable one."""
        if lacks := config.lacks():
            raise ConfigError(lacks, "none is set; events are kept")
        form = format_of(config.format)
        return Transport(
            endpoint=config.endpoint,
            header=config.header,
            api_key=config.api_key if config.header else "",
            user_agent=f"{config.wire_source()}/{config.version}",
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
            request_timeout_s=config.request_timeout_s,
            reply_bytes_max=config.reply_bytes_max,
            gzip=is_compressed(config.format, config.gzip),
            environment=self.environment,
            http=self.http,
            form=form,
            ends=self.ends,
            turn=turn,
        )

    def _poster(self, transport: Transport, allowed: Callable[[], bool]) -> Poster:
        config = self.config
        return Poster(
            transport,
            request_timeout_s=config.request_timeout_s,
            accept_statuses=config.accept_statuses,
            allowed=allowed,
            clock=time.time,
            monotonic=time.monotonic,
            sleep=time.sleep,
            ends=self.ends,
            logger=self.logger if config.debug else None,
            form=format_of(config.format),
            own_key=self.own_key,
        )

    def _drain_of(
        self,
        books: Books,
        poster: Poster,
        failures: int,
        *,
        begins_new: bool,
        is_spool_full: bool,
    ) -> Drain:
        config, home, state = self.config, self.home, books.snapshot.state
        bytes_max = config.spool_bytes_max // 4
        desk = Desk(
            home=home,
            books=books,
            letters=DeadLetterWriter(home, books, bytes_max=bytes_max),
            batch_events_max=config.batch_events_max,
            batch_bytes_max=config.batch_bytes_max,
            quarantine_bytes_max=bytes_max,
            power=config.durability == "power",
            form=format_of(config.format),
            full_bytes=state.full_bytes if self.by_hand else self._full_bytes(state),
        )
        turn = state.probe
        here = schedule.destination_of(config)
        return Drain(
            desk,
            poster,
            turn=turn,
            failures=failures,
            begins_new=begins_new,
            accepted_before=state.accepted == here,
            is_full=is_spool_full,
        )

    def _concluded(
        self,
        before: DeliveryState,
        plan: schedule.Schedule,
        stopped: Stopped,
        verdict: Verdict | None,
        says_nothing: bool = False,
        *,
        destination: str = "",
        delivered: int | None = None,
    ) -> DeliveryState:
        """How delivery fares now, with the time of the next flush."""
        config, progress = self.config, self.progress
        destination = destination or schedule.destination_of(config)
        return conclude(
            before,
            stopped=stopped,
            verdict=verdict,
            delivered=progress.delivered if delivered is None else delivered,
            requests=progress.poster.requests if progress.poster else 0,
            identity=destination,
            failures=plan.failures(destination),
            says_nothing=says_nothing,
            now=time.time(),
            config=config,
            random=random.SystemRandom().random,
        )

    def _full_bytes(self, before: DeliveryState) -> int:
        """From this size on a segment may be full, by the smallest bound of its programs.

        Several may share a home, as versions of one do, and any of them flushes for all.
        """
        ours = max(self.config.segment_bytes_max - self.config.event_bytes_max, 1)
        return min(ours, before.full_bytes or ours)

    def _where(self) -> dict[str, Any]:
        """Where events go, as `status` shows it, and in what parts."""
        config, without = self.config, self.own_key.without
        shown = without(redact(config.endpoint))
        deletion = without(redact(config.deletion_endpoint))
        return {
            "endpoint": shown,
            "url": shown if shown == config.endpoint else "",
            "header": without(config.header),
            "format": config.format,
            "gzip": config.gzip,
            "batch_events_max": config.batch_events_max,
            "batch_bytes_max": config.batch_bytes_max,
            "spool_bytes_max": config.spool_bytes_max,
            "accept_statuses": tuple(config.accept_statuses),
            "deletion_endpoint": deletion,
            "deletion_url": deletion if deletion == config.deletion_endpoint else "",
        }

    def _is_elsewhere(self, before: DeliveryState) -> bool:
        """Whether a person sends to another destination than the program did last."""
        is_known = bool(before.identity) and not before.by_hand
        here = schedule.destination_of(self.config)
        return self.by_hand and is_known and before.identity != here

    def _learnt(self, before: DeliveryState) -> dict[str, Any]:
        """Where events go, for the ledger: what the program said, if it said anything."""
        where = {**self._where(), "by_hand": self.by_hand}
        where["full_bytes"] = self._full_bytes(before)
        if self.by_hand and before.identity and not before.by_hand:
            known = msgspec.structs.asdict(before)
            return {name: known[name] for name in where}
        if self.by_hand:
            where["full_bytes"] = where["spool_bytes_max"] = 0  # those of a tool
        return where

    def _remember_problem(self, books: Books, problem: str) -> None:
        """Why nothing can be sent is in the ledger, for `status`."""
        before = books.snapshot.state
        if self._is_elsewhere(before):
            return
        if (before.last_error, before.stopped) != (problem, "off"):
            state = msgspec.structs.replace(
                before,
                last_error=problem,
                last_error_ms=int(time.time() * 1000),
                stopped="off",
                **self._learnt(before),
            )
            books.commit(state=state)


def _refused_as_full(books: Books) -> int:
    return books.snapshot.totals.refused.get(SpoolFullError.reason, 0)


def _drained(drain: Drain) -> tuple[Stopped, Verdict | None]:
    """Drain; why it ended, and on what verdict."""
    try:
        verdict = drain.run()
    except Halted as halted:
        return halted.stopped, halted.verdict
    finally:
        drain.close()
    if verdict is not None:
        return "waiting", verdict
    return ("disk" if drain.is_blocked else "drained"), None


def _store(
    home: Home, plan: schedule.Schedule, state: DeliveryState, *, is_beside: bool
) -> None:
    """Where it cannot be, the next launch looks again; the flush itself is done."""
    with suppress(OSError):
        until = state.next_attempt_ms / 1000
        end = plan.end_beside if is_beside else plan.end
        end(state.identity, time.time(), failures=state.failures, until=until)
        schedule.store(home.next_flush, plan)
