"""Removing what a spool holds: counted (`purge`), or without a trace (`forget`).

`purge` counts what it removes, so the conservation equation goes on to hold, and
no event that was acknowledged goes uncounted, wherever it is killed. For each
segment, in this order:

    link       a second name: from here on its writer sees that the link count is
               not one, and what it writes goes into another segment
    settle     what the segment holds is in the ledger, as purged
    unlink     both names
    sync       or a power loss brings it back, behind the fold
    read       its end once more, for what an unlucky writer had added between the
               two unlinks, when the count was one
    fold       its entry goes into the totals

Killed after the settling, the next flush finds a segment in which all is settled
and deletes it; the second name is a temporary file, which it sweeps.

`forget` is for a user who opts out: the choice is on disk before it is called.
It removes the ledger and the user's id as well, and with them the counts.

Whoever calls one of these holds the flush lock, so no flusher runs; writers
notice by the link count of their segment at their next event. An event that is
under way at that moment may go with the rest.
"""

from __future__ import annotations

import errno
import os
import shutil

import msgspec

from telemetry.books.books import Accounts
from telemetry.books.entries import DeadMark, SegmentEntry, settle, settle_tail
from telemetry.delivery import dead_letters
from telemetry.delivery.census import borne_out, letters
from telemetry.errors import SpoolError
from telemetry.files import TEMPORARY, make_directory, names_in, sync_directory
from telemetry.paths import Home
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names


_AT_ONCE = 1000
_NO_BOUND = 1 << 62
_DROPPED = DeadMark(state="dropped")
# A process that read the choice before it was written may make one more segment.
_PASSES = 10


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge removed: events that were pending, letters, quarantined files."""

    events: int
    letters: int
    stretches: int


def purge(home: Home, accounts: Accounts) -> Purged:
    """Remove segments, letters and quarantine, and count them as purged.

    What cannot be opened as a segment is left for a person to look at. Raises
    LedgerError and OSError; what was not removed by then is kept.
    """
    standings = letters(home, accounts.snapshot)
    for name, standing in standings.items():
        if standing == "early":
            # It counts for nothing while its segment has the event, so it goes first.
            dead_letters.remove(home.dead, name)
    events = sum(_purge_segment(home, name, accounts) for name in segment_names(home))
    accounts.commit()
    dropped = drop_letters(home, list(standings), accounts)
    _remove_files(home.dead)
    stretches = _remove_files(home.quarantine)
    _make_durable(home)
    return Purged(events=events, letters=dropped, stretches=stretches)


def drop_letters(home: Home, names: list[str], accounts: Accounts) -> int:
    """Remove letters and count them as purged; how many of them counted.

    One transaction counts and marks them; then their files go, then the marks:
    killed on the way, the next flush goes on. Raises LedgerError and OSError.
    """
    standings = letters(home, accounts.snapshot)
    counted = [name for name in names if standings.get(name) in {"dead", "retried"}]
    totals = accounts.snapshot.totals
    if counted:
        accounts.commit(
            totals=msgspec.structs.replace(totals, purged=totals.purged + len(counted)),
            dead_marks=dict.fromkeys(map(_stem, counted), _DROPPED),
        )
    if names:
        dead_letters.remove_for_good(home.dead, names)
        accounts.commit(dead_marks=dict.fromkeys(map(_stem, names)))
    return len(counted)


def forget(home: Home) -> None:
    """Remove segments, letters, quarantine, ledger and the user's id.

    Raises OSError where something of it cannot be removed; the rest is gone then.
    """
    for _ in range(_PASSES):
        if not _remove_files(home.spool):
            break
    for directory in (home.dead, home.quarantine):
        _remove_files(directory)
    gone = {home.user_uuid, home.refused, home.reserve}
    left = []
    for name in os.listdir(home.root):
        path = f"{home.root}/{name}"
        # A ledger that was set aside as malformed holds counts, too.
        if path == home.ledger or path.startswith(f"{home.ledger}."):
            _remove_tree(path)
        elif path in gone or TEMPORARY in name:
            _unlink(path)
        else:
            continue
        if os.path.lexists(path):
            left.append(path)
    for directory in (home.spool, home.dead, home.quarantine):
        left += [f"{directory}/{name}" for name in names_in(directory)]
    _make_durable(home)
    if left:
        raise OSError(errno.EBUSY, "cannot be removed, or is not ours", left[0])


def _make_durable(home: Home) -> None:
    """A power loss does not bring back what was removed: the next flush would send it."""
    for directory in (home.spool, home.dead, home.quarantine, home.root):
        if os.path.isdir(directory):
            sync_directory(directory)


def _purge_segment(home: Home, name: str, accounts: Accounts) -> int:
    """Remove one segment; how many of its events were pending."""
    try:
        reader = SegmentReader(home, name)
    except SpoolError:
        return 0
    try:
        second = _give_second_name(home, reader)
        known = accounts.entry(name)
        entry = borne_out(reader, known)
        if entry != known:
            accounts.gone(name)
        before = entry.purged
        reader.start_at(entry.offset)
        entry = _settle_as_purged(reader, entry)
        if reader.lock():
            # Its writer is gone: what it added since our look is a record, no tail.
            entry = _settle_as_purged(reader, entry)
            size = reader.size()
            if size > entry.offset + entry.tail:
                entry = settle_tail(entry, size)
        accounts.commit(segments={name: entry})
        if second:
            os.unlink(second)
        os.unlink(reader.path)
        # Once it is folded, nobody would know it if it came back: it would be sent.
        sync_directory(home.spool)
        entry = _settle_as_purged(reader, entry)
        # Written with the next commit: that of the next segment, or the last one.
        accounts.stage(name, entry)
        accounts.gone(name)
        return entry.purged - before
    finally:
        reader.close()


def _give_second_name(home: Home, reader: SegmentReader) -> str:
    """The second name that a segment now has; empty where it cannot be given one.

    Without it an event is lost uncounted if, besides, this process is killed
    between the unlink and the commit behind it.
    """
    path = f"{home.quarantine}/{reader.name}{TEMPORARY}purge"
    try:
        make_directory(home.quarantine)
        if os.path.lexists(path):
            os.unlink(path)  # of a purge that was killed
        os.link(reader.path, path)
    except OSError:
        return ""
    return path


def _settle_as_purged(reader: SegmentReader, entry: SegmentEntry) -> SegmentEntry:
    """The entry once all that follows is settled: purged, not delivered."""
    while items := reader.take(_AT_ONCE, _NO_BOUND):
        count = sum(isinstance(item, Record) for item in items)
        settled = settle(entry, items, dead=0)
        entry = msgspec.structs.replace(
            settled,
            delivered=entry.delivered,
            purged=entry.purged + count,
        )
    return entry


def _stem(name: str) -> str:
    return name.removesuffix(dead_letters.RETRY)


def _remove_files(directory: str) -> int:
    """Remove the files of a directory; how many there were. Raises OSError."""
    removed = 0
    for name in names_in(directory):
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            continue  # not ours
        _unlink(path)
        removed += 1
    return removed


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # a temporary file, renamed by its writer


def _remove_tree(path: str) -> None:
    """Remove a directory, or whatever stands in its place. Raises OSError."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
