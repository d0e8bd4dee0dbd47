"""Removing what a spool holds: counted (`purge`), or without a trace (`forget`).

`purge` counts what it removes, so the conservation equation goes on to hold.
For each segment, in this order: what it holds is settled as purged in the
ledger, its name is removed, its end is read once more for what a writer had
added meanwhile, its entry is folded. Killed after the commit, the next flush
finds a segment in which all is settled and deletes it.

`forget` is for a user who opts out: the choice is on disk before it is called.
It removes the ledger and the user's id as well, and with them the counts.

Both hold the flush lock, so no flusher runs; writers notice by the link count
of their segment at their next event. An event that is under way at that moment
may go with the rest.
"""

from __future__ import annotations

import errno
import os
import shutil
import time

import msgspec

from telemetry.delivery import dead_letters
from telemetry.delivery.accounts import Accounts
from telemetry.delivery.books import DeadMark, SegmentEntry
from telemetry.delivery.census import count_letters
from telemetry.delivery.launch import flush_lock
from telemetry.delivery.ledger import open_ledger
from telemetry.delivery.ledger_view import read_snapshot
from telemetry.delivery.settling import settle, settle_tail
from telemetry.errors import SpoolError
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


# A flusher that is told to stop ends with its request, at the latest.
_WAIT_S = 20.0
_PAUSE_S = 0.05
_AT_ONCE = 1000
_DROPPED = DeadMark(state="dropped")
# A process that read the choice before it was written may make one more segment.
_PASSES = 3


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge removed: events that were pending, letters, quarantined files."""

    events: int
    letters: int
    stretches: int


def await_flush_lock(home: Home, *, wait_s: float = _WAIT_S) -> int | None:
    """A descriptor that holds the flush lock; None where a flusher kept it so long.

    Raises OSError.
    """
    until = time.monotonic() + wait_s
    while True:
        lock = flush_lock(home)
        if lock is not None or time.monotonic() > until:
            return lock
        time.sleep(_PAUSE_S)


def purge(home: Home) -> Purged:
    """Remove segments, letters and quarantine, and count them as purged.

    The caller holds the flush lock. Raises LedgerError before anything is
    removed, and OSError where something cannot be.
    """
    accounts = Accounts(
        open_ledger=lambda: open_ledger(home.ledger)[0],
        read_ledger=lambda: read_snapshot(home.ledger),
        relieve=lambda: None,
        is_full=lambda: False,
    )
    try:
        events = sum(
            _purge_segment(home, name, accounts) for name in segment_names(home)
        )
        letters = _purge_letters(home, accounts)
        return Purged(
            events=events, letters=letters, stretches=_remove_files(home.quarantine)
        )
    finally:
        accounts.close()


def drop_letters(home: Home, names: list[str], accounts: Accounts) -> int:
    """Remove dead letters and count them as purged; how many those were.

    One transaction counts and marks them; then their files go, then the marks.
    """
    marks = {name.removesuffix(dead_letters.RETRY): _DROPPED for name in names}
    totals = accounts.snapshot.totals
    accounts.commit(
        totals=msgspec.structs.replace(totals, purged=totals.purged + len(marks)),
        dead_marks=marks,
    )
    for name in names:
        dead_letters.remove(home.dead, name)
    accounts.commit(dead_marks=dict.fromkeys(marks))
    return len(marks)


def forget(home: Home) -> None:
    """Remove segments, letters, quarantine, ledger and the user's id.

    The caller has written the choice and holds the flush lock. Raises OSError.
    """
    for _ in range(_PASSES):
        if not _remove_files(home.spool):
            break
    for directory in (home.dead, home.quarantine):
        _remove_files(directory)
    for name in os.listdir(home.root):
        # Those that were set aside because they were malformed hold counts, too.
        path = f"{home.root}/{name}"
        if path == home.ledger or path.startswith(f"{home.ledger}."):
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                raise OSError(errno.EBUSY, "cannot be removed", path)
    for path in filter(os.path.lexists, (home.user_uuid, home.refused, home.reserve)):
        os.unlink(path)


def _purge_segment(home: Home, name: str, accounts: Accounts) -> int:
    try:
        reader = SegmentReader(home, name)
    except SpoolError:
        return 0  # no segment; it is left for a person to look at
    try:
        entry = accounts.entry(name)
        if not reader.holds(entry.offset, entry.seq, entry.crc):
            accounts.gone(name)
            entry = SegmentEntry(offset=0)
        reader.start_at(entry.offset)
        before = entry.purged
        entry = _settle_as_purged(reader, entry)
        size = reader.size()
        if size > entry.offset + entry.tail and reader.lock():
            entry = settle_tail(entry, size)
        accounts.commit(segments={name: entry})
        os.unlink(reader.path)
        accounts.stage(name, _settle_as_purged(reader, entry))
        purged = accounts.entry(name).purged - before
        accounts.gone(name)
        accounts.commit()
        return purged
    finally:
        reader.close()


def _settle_as_purged(reader: SegmentReader, entry: SegmentEntry) -> SegmentEntry:
    """The entry once all that follows is settled: purged, not delivered."""
    while items := reader.take(_AT_ONCE, 1 << 62):
        count = sum(isinstance(item, Record) for item in items)
        settled = settle(entry, items, dead=0)
        entry = msgspec.structs.replace(
            settled,
            delivered=entry.delivered,
            purged=entry.purged + count,
        )
    return entry


def _purge_letters(home: Home, accounts: Accounts) -> int:
    names = dead_letters.names(home.dead)
    counted = sum(count_letters(home, accounts.snapshot))
    if counted == len(names):
        drop_letters(home, names, accounts)
    else:
        # Some are of events that are still in their segment: those just go.
        for name in names:
            dead_letters.remove(home.dead, name)
    return len(names)


def _remove_files(directory: str) -> int:
    """Remove the files of a directory; how many there were. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    removed = 0
    for name in names:
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            continue  # not ours
        os.unlink(path)
        removed += 1
    return removed
