"""One flush, from the lock to the report: everything that stands around the loop.

In this order: the flush lock, the books, what a crash left (entries without a
file, letters that are accounted for, refusals, temporary files), the loop, the
retried letters, the conclusion, the report. The lock is held throughout, so two
flushes of one home never meet.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Mapping

import msgspec

from telemetry.config import Config
from telemetry.delivery import dead_letters, schedule
from telemetry.delivery.accounts import Accounts
from telemetry.delivery.books import Snapshot, Totals
from telemetry.delivery.census import count_pending_quickly, letters
from telemetry.delivery.conclusion import Delays, conclude
from telemetry.delivery.due import can_send
from telemetry.delivery.flusher import Flusher
from telemetry.delivery.http import HTTPClient
from telemetry.delivery.launch import flush_lock
from telemetry.delivery.ledger import open_ledger
from telemetry.delivery.ledger_view import read_snapshot
from telemetry.delivery.posting import Halted, Poster
from telemetry.delivery.progress import Progress
from telemetry.delivery.report import FlushReport, Stopped
from telemetry.delivery.resend import resend, sweep
from telemetry.delivery.settlement import Settlement
from telemetry.delivery.transport import Transport
from telemetry.delivery.verdict import Verdict
from telemetry.errors import ConfigError, LedgerError, SpoolError
from telemetry.files import TEMPORARY, sync_directory, write_whole
from telemetry.locks import unlock
from telemetry.logs import TelemetryLogger
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import SegmentReader, segment_names


# Given back when a full disk has to be drained: enough for a ledger.
RESERVE_BYTES = 256 * 1024
# What a disk must take for it not to count as full: a ledger's birth, which needs
# about 220 KiB, and the segments that grow meanwhile.
_PROBE_BYTES = 2 * RESERVE_BYTES
_PROBE = "probe"
# Nobody takes so long between making a temporary file and renaming it.
_OLD_S = 3600.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


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
    if not allowed():
        return progress.report(home, "off")
    held = lock
    try:
        if held is None:
            held = flush_lock(home)
        if held is None:
            return progress.report(home, "busy")
        return _flush_locked(
            config, home, deadline, environment, allowed, http, logger, progress
        )
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
    accounts = Accounts(
        open_ledger=lambda: open_ledger(
            home.ledger, power=config.durability == "power"
        )[0],
        read_ledger=lambda: read_snapshot(home.ledger),
        relieve=lambda: relieve(home),
        is_full=lambda: is_full(home.root),
    )
    transport = None
    try:
        progress.snapshot = accounts.snapshot
        _tidy(home, accounts)
        if not can_send(config):
            return progress.report(home, "off")
        try:
            transport = Transport(
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
        except ConfigError as error:
            if logger is not None:
                logger.debug("flush: %s; everything is kept", error)
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
        settlement = Settlement(home, accounts, clock=time.time)
        flusher = Flusher(
            home=home,
            accounts=accounts,
            poster=poster,
            settlement=settlement,
            batch_events_max=config.batch_events_max,
            batch_bytes_max=config.batch_bytes_max,
            power=config.durability == "power",
        )
        progress.poster, progress.settlement = poster, settlement
        stopped, verdict = _drain(home, config, flusher, accounts)
        _conclude(home, config, flusher, accounts, stopped, verdict)
        progress.snapshot = accounts.snapshot
        if logger is not None and verdict is not None:
            logger.debug("flush: %s: %s", stopped, verdict.detail or verdict.reason)
        return progress.report(home, stopped)
    finally:
        if transport is not None:
            transport.close()
        accounts.close()
        _keep_reserve(home)


def _drain(
    home: Home, config: Config, flusher: Flusher, accounts: Accounts
) -> tuple[Stopped, Verdict | None]:
    """Run the loop, then the retried letters; why it ended, and on what verdict."""
    try:
        flusher.drain()
        if flusher.suspects:
            refused = next(iter(flusher.suspects.values()))
            return flusher.give_up_alone(
                count_pending_quickly(home, accounts.snapshot)
            ), refused
        delivered, verdict = resend(
            home.dead,
            accounts,
            flusher.poster.post,
            events_max=config.batch_events_max,
            bytes_max=config.batch_bytes_max,
        )
        flusher.settlement.delivered += delivered
    except Halted as halted:
        return halted.stopped, halted.verdict
    if verdict is not None:
        return "waiting", verdict
    return ("disk" if flusher.blocked else "drained"), None


def _conclude(  # noqa: PLR0917 - what ended, and where it is written
    home: Home,
    config: Config,
    flusher: Flusher,
    accounts: Accounts,
    stopped: Stopped,
    verdict: Verdict | None,
) -> None:
    if stopped == "off":
        return
    identity = schedule.identity_of(config.endpoint, config.header, config.api_key)
    state = conclude(
        accounts.snapshot.state,
        stopped=stopped,
        verdict=verdict,
        delivered=flusher.settlement.delivered,
        requests=flusher.poster.requests,
        identity=identity,
        now=time.time(),
        delays=Delays(
            flush_interval_s=config.flush_interval_s,
            retry_first_s=config.retry_first_s,
            retry_max_s=config.retry_max_s,
        ),
        random=random.SystemRandom().random,
    )
    accounts.commit(state=state)
    try:
        schedule.postpone(home.next_flush, state.next_attempt_ms / 1000, identity)
    except OSError:
        pass  # the next launch looks again; the flush itself is done


def _tidy(home: Home, accounts: Accounts) -> None:
    """Finish what a crash left: nothing of it is lost, only not yet written up."""
    _tidy_letters(home, accounts)
    gone = accounts.snapshot.segments.keys() - set(segment_names(home))
    if gone and os.path.isdir(home.spool):
        # Who deleted them may have died before that was synced, and once they are
        # folded nobody would know one that came back.
        sync_directory(home.spool)
    for name in gone:
        accounts.gone(name)
    sweep(home.dead, accounts)
    for directory in (home.dead, home.quarantine):
        _sweep_temporaries(directory)
    _sweep_old_temporaries(home.root)
    before = accounts.snapshot.totals
    totals = fold_refusals(before, refusals.read(home.refused))
    if totals != before:
        accounts.commit(totals=totals)


def _tidy_letters(home: Home, accounts: Accounts) -> None:
    """Letters that a crash left early go; those that a lost ledger knew are counted."""
    orphans = 0
    early: list[str] = []
    for name, standing in letters(home, accounts.snapshot).items():
        if standing == "early":
            # Its segment has the event, which may well be accepted this time: back
            # after a power loss, it would be counted besides.
            early.append(name)
        elif standing != "done":
            segment, _ = dead_letters.origin_of(name) or ("", 0)
            orphans += segment not in accounts.snapshot.segments
    if early:
        dead_letters.remove_for_good(home.dead, early)
    totals = accounts.snapshot.totals
    if orphans and not totals.recorded:
        # The totals began anew: a letter's own segment was folded into the old ones.
        accounts.commit(totals=msgspec.structs.replace(totals, recorded=orphans))


def fold_refusals(totals: Totals, counts: Mapping[str, int]) -> Totals:
    """The totals with what was refused since it was last looked at. Pure.

    A count that is lower than its mark belongs to a new file: all of it is new.
    """
    refused, marks = dict(totals.refused), dict(totals.refused_marks)
    for reason, count in counts.items():
        mark = marks.get(reason, 0)
        refused[reason] = refused.get(reason, 0) + (
            count - mark if count >= mark else count
        )
        marks[reason] = count
    return msgspec.structs.replace(totals, refused=refused, refused_marks=marks)


def _sweep_temporaries(directory: str) -> None:
    """Remove files that were never renamed; only a flush writes here."""
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if TEMPORARY in name:
            dead_letters.remove(directory, name)


def _sweep_old_temporaries(root: str) -> None:
    """The same in the home itself, where others write too: one of theirs is new."""
    for name in os.listdir(root):
        if TEMPORARY in name or name == _PROBE:
            path = f"{root}/{name}"
            try:
                if time.time() - os.lstat(path).st_mtime > _OLD_S:
                    os.unlink(path)
            except OSError:
                pass  # the next flush tries again


def relieve(home: Home) -> None:
    """Make space: delete segments that are settled for good, then the reserve."""
    try:
        snapshot = read_snapshot(home.ledger)
    except (LedgerError, OSError):
        snapshot = Snapshot()
    for name, entry in snapshot.segments.items():
        try:
            reader = SegmentReader(home, name)
        except SpoolError:
            continue
        try:
            if reader.holds(entry.offset, entry.seq, entry.crc) and reader.lock():
                reader.delete(entry.offset + entry.tail)
        finally:
            reader.close()
    try:
        os.unlink(home.reserve)
    except OSError:
        pass  # given back already


def is_full(root: str) -> bool:
    """Whether the file system of `root` has no room for a ledger."""
    probe = f"{root}/{_PROBE}"
    try:
        write_whole(probe, b"\0" * _PROBE_BYTES)
        os.unlink(probe)
    except OSError as error:
        return error.errno in _FULL
    return False


def _keep_reserve(home: Home) -> None:
    """The reserve is there again, if the disk has room for it and for as much again."""
    try:
        if os.path.lexists(home.reserve) or not os.path.isdir(home.root):
            return
        free = os.statvfs(home.root)
        if free.f_bavail * free.f_frsize > 8 * RESERVE_BYTES:
            write_whole(home.reserve, b"\0" * RESERVE_BYTES)
    except OSError:
        pass  # the next flush tries again
