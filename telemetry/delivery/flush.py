"""One flush: lock, tidy, drain, conclude, report.

The flush lock is held throughout, so two flushes of one home never meet.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping

import msgspec

from telemetry.books.books import Books
from telemetry.config import Config
from telemetry.delivery import schedule
from telemetry.delivery.backoff import Delays, conclude
from telemetry.delivery.dead_letters import DeadLetterWriter
from telemetry.delivery.drain import Drain
from telemetry.delivery.opt_out import finish_opt_out
from telemetry.delivery.purge import finish_purge
from telemetry.delivery.report import FlushReport, Progress
from telemetry.delivery.schedule import can_send, flush_lock
from telemetry.delivery.settlement import Desk
from telemetry.delivery.upkeep import is_full, keep_reserve, relieve, tidy
from telemetry.errors import ConfigError, LedgerError
from telemetry.locks import unlock
from telemetry.logs import TelemetryLogger
from telemetry.paths import Home
from telemetry.wire.endpoint import HTTPClient, redact
from telemetry.wire.retry import Halted, Poster
from telemetry.wire.transport import Transport
from telemetry.wire.verdict import Stopped, Verdict


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
) -> FlushReport:
    """Drain the spool for at most `timeout_s` seconds and say what came of it.

    `lock` is a descriptor that holds the flush lock already; without one it is
    taken here, and `busy` is the answer where somebody has it. Raises nothing
    for what network, server or disk do.
    """
    progress = progress or Progress()
    deadline = time.monotonic() + timeout_s
    held = lock
    try:
        if not allowed():
            _finish_opt_out(home, held)
            return progress.report(home, "off")
        if held is None:
            held = flush_lock(home)
        if held is None:
            return progress.report(home, "busy")
        report = _flush_locked(
            config, home, deadline, environment, allowed, http, logger, progress
        )
        _finish_opt_out(home, held)
        return report
    except (LedgerError, OSError) as error:
        if logger is not None:
            logger.debug("flush: %s; everything is kept", error)
        return progress.report(home, "disk")
    finally:
        if held is not None:
            try:
                try:
                    # A child that was forked meanwhile has a copy of the descriptor.
                    unlock(held)
                finally:
                    os.close(held)
            except OSError:
                pass  # it is closed all the same


def _finish_purge(home: Home, books: Books) -> None:
    try:
        finish_purge(home, books)
    except OSError:
        pass  # a file that cannot be removed holds back no delivery


def _finish_opt_out(home: Home, lock: int | None) -> None:
    try:
        finish_opt_out(home, lock=lock)
    except OSError:
        pass  # the next flush tries again, and `disable` says what is left


def _flush_locked(  # noqa: PLR0917 - the parts of one flush, used once, above
    config: Config,
    home: Home,
    deadline: float,
    environment: Mapping[str, str],
    allowed: Callable[[], bool],
    http: HTTPClient | None,
    logger: TelemetryLogger | None,
    progress: Progress,
) -> FlushReport:
    books = Books(
        home.ledger,
        relieve=lambda: relieve(home),
        is_full=lambda: is_full(home.root),
        power=config.durability == "power",
    )
    transport = None
    try:
        progress.begin(books)
        _finish_purge(home, books)
        tidy(home, books)
        try:
            transport = _transport(config, environment, http)
        except ConfigError as error:
            if logger is not None:
                logger.debug("flush: %s; everything is kept", error)
            _remember_problem(config, books, str(error))
            return progress.report(home, "off")
        poster = Poster(
            transport,
            request_timeout_s=config.request_timeout_s,
            accept_statuses=config.accept_statuses,
            allowed=allowed,
            clock=time.time,
            monotonic=time.monotonic,
            sleep=time.sleep,
            deadline=deadline,
        )
        progress.poster = poster
        drain = _drain_of(config, home, books, poster)
        stopped, verdict = _drained(drain)
        progress.verdict = verdict
        if stopped != "off":
            _conclude(config, home, books, drain, progress, stopped, verdict)
        if logger is not None and verdict is not None:
            logger.debug("flush: %s: %s", stopped, verdict.detail or verdict.reason)
        return progress.report(home, stopped)
    finally:
        if transport is not None:
            transport.close()
        books.close()
        keep_reserve(home)


def _transport(
    config: Config, environment: Mapping[str, str], http: HTTPClient | None
) -> Transport:
    """What posts to the endpoint. Raises ConfigError if there is no usable one."""
    if not config.endpoint:
        raise ConfigError("endpoint", "none is set; events are kept")
    if not can_send(config):
        raise ConfigError("api_key", "none is set; events are kept")
    return Transport(
        endpoint=config.endpoint,
        header=config.header,
        api_key=config.api_key if config.header else "",
        user_agent=f"{config.wire_source()}/{config.version}",
        connect_timeout_s=config.connect_timeout_s,
        read_timeout_s=config.read_timeout_s,
        request_timeout_s=config.request_timeout_s,
        reply_bytes_max=config.reply_bytes_max,
        gzip=config.gzip,
        environment=environment,
        http=http,
    )


def _drain_of(config: Config, home: Home, books: Books, poster: Poster) -> Drain:
    bytes_max = config.spool_bytes_max // 4
    desk = Desk(
        home=home,
        books=books,
        letters=DeadLetterWriter(home, books, bytes_max=bytes_max),
        batch_events_max=config.batch_events_max,
        batch_bytes_max=config.batch_bytes_max,
        quarantine_bytes_max=bytes_max,
        power=config.durability == "power",
    )
    return Drain(desk, poster, turn=books.snapshot.state.probe)


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


def _conclude(  # noqa: PLR0917 - what ended, and where it is written
    config: Config,
    home: Home,
    books: Books,
    drain: Drain,
    progress: Progress,
    stopped: Stopped,
    verdict: Verdict | None,
) -> None:
    """The time of the next flush, and what `status` says, are on disk on return."""
    destination, now = schedule.destination_of(config), time.time()
    plan = schedule.load(home.next_flush)
    state = conclude(
        books.snapshot.state,
        stopped=stopped,
        verdict=verdict,
        delivered=progress.delivered,
        requests=progress.poster.requests if progress.poster else 0,
        identity=destination,
        failures=plan.failures(destination),
        now=now,
        delays=Delays(
            flush_interval_s=config.flush_interval_s,
            retry_first_s=config.retry_first_s,
            retry_max_s=config.retry_max_s,
        ),
        random=random.SystemRandom().random,
    )
    state = msgspec.structs.replace(
        state, probe=drain.turn, endpoint=redact(config.endpoint)
    )
    books.commit(state=state)
    try:
        until = state.next_attempt_ms / 1000
        plan.end(destination, now, failures=state.failures, until=until)
        schedule.store(home.next_flush, plan)
    except OSError:
        pass  # the next launch looks again; the flush itself is done


def _remember_problem(config: Config, books: Books, problem: str) -> None:
    """Why nothing can be sent is in the ledger, for `status`. Raises LedgerError."""
    before = books.snapshot.state
    if (before.last_error, before.stopped) != (problem, "off"):
        state = msgspec.structs.replace(
            before,
            last_error=problem,
            last_error_ms=int(time.time() * 1000),
            stopped="off",
            endpoint=redact(config.endpoint),
        )
        books.commit(state=state)
