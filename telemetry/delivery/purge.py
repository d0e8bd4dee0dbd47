"""Removing what a spool holds and counting it as purged.

The conservation equation goes on to hold, and no acknowledged event goes
uncounted, wherever a purge is killed. In this order:

    rename     `spool/` is set aside (`opt_out.set_aside`): from here on every writer sees
               that its segment's path leads elsewhere, and records into another one
    settle     what the segments hold is in the ledger, as purged
    unlink     the segments, and the directory is synced: one that came back after a
               power loss would be counted twice
    fold       their entries go into the totals

Killed after the rename, the next purge or flush goes on here (`finish_purge`): what
was set aside is never sent. Killed before the fold, the next flush folds entries
whose files are gone.

The caller holds the flush lock, so no flusher runs.
"""

from __future__ import annotations

import errno
import os

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import (
    DeadFile,
    SegmentEntry,
    announce,
    settle_as_purged,
    settle_tail,
)
from telemetry.delivery.census import known_entry
from telemetry.delivery.dead_letters import finish_moves, learn_files, letters_by_file
from telemetry.delivery.opt_out import (
    directories_set_aside,
    remove_files,
    set_aside,
    sync_directories,
)
from telemetry.errors import SpoolError
from telemetry.files import make_directory, names_in, sync_directory
from telemetry.paths import Home
from telemetry.spool.reader import SegmentReader, segment_names


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge removed: events that were pending, letters, quarantined files."""

    events: int
    letters: int
    stretches: int


def purge(home: Home, books: Books) -> Purged:
    """Remove segments, letters and quarantine, and count them as purged.

    What cannot be opened as a segment is left for a person to look at. Raises
    LedgerError and OSError; what was not removed by then is kept.
    """
    finish_moves(home, books)
    # While their segments stand, early letters are told from those that count.
    learn_files(home, books)
    names = segment_names(home)
    try:
        set_aside(home)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise  # else it is a mount point
    events = finish_purge(home, books)
    # What has stayed, as in a mount point, or on Windows what a live writer has: it goes
    # with the next flush, once its writer gives it up.
    in_use = [name for name in names if os.path.lexists(home.segment(name))]
    events += _purge_segments(home, books, home.spool, in_use)[1]
    letters = _drop_all(home, books)
    remove_files(home.dead)
    stretches = remove_files(home.quarantine)
    sync_directories(home)
    # A file that could not be removed keeps its row, or its letters would count again.
    gone = set(books.snapshot.dead_files) - set(names_in(home.dead))
    books.commit(dead_files=dict.fromkeys(gone))
    return Purged(events=events, letters=letters, stretches=stretches)


def _drop_all(home: Home, books: Books) -> int:
    """Every letter counts as purged from here on; how many there were.

    Killed behind the commit, the next flush removes the files (`finish_moves`).
    """
    snapshot = books.snapshot
    found = dict(letters_by_file(home, snapshot))
    damaged = sum((letters or []).count(None) for letters in found.values())
    # One that cannot be read goes as well: how many letters it held is in the ledger.
    count = -damaged
    for name in snapshot.dead_files.keys() | found.keys():
        known = snapshot.dead_files.get(name)
        count += known.letters if known else len(found[name] or ())
    totals = msgspec.structs.replace(
        snapshot.totals,
        purged=snapshot.totals.purged + count,
        damaged=snapshot.totals.damaged + damaged,
    )
    names = snapshot.dead_files.keys() | set(segment_names(home, home.dead))
    files = dict.fromkeys(names, DeadFile(end=0, letters=0))
    books.commit(totals=totals, dead_files=files)
    return count


def finish_purge(home: Home, books: Books) -> int:
    """Remove and count what a purge has set aside; how many events were pending.

    Names that are no segments, or cannot be opened, go back into `spool/` for a
    person to look at. Raises LedgerError and OSError; then the next call goes on.
    """
    events = 0
    for directory in directories_set_aside(home):
        names = segment_names(home, directory)
        settled, purged = _purge_segments(home, books, directory, names)
        events += purged
        # First: the disk may need this room for the directory.
        for name in settled:
            os.unlink(f"{directory}/{name}")
        for name in names_in(directory):
            make_directory(home.spool)
            if not os.path.lexists(home.segment(name)):
                os.rename(f"{directory}/{name}", home.segment(name))
        sync_directories(home)
        sync_directory(directory)
        for name in settled:
            books.gone(name)
        books.commit()
        try:
            os.rmdir(directory)
        except OSError:
            pass  # a writer has just made a segment in it; the next flush goes on
    return events


def _purge_segments(
    home: Home, books: Books, directory: str, names: list[str]
) -> tuple[list[str], int]:
    """Those that could be opened are counted as purged; how many events they held."""
    settled, events = dict[str, SegmentEntry](), 0
    for name in names:
        try:
            reader = SegmentReader(home, name, directory)
        except SpoolError:
            continue
        try:
            known = books.entry(name)
            entry = known_entry(reader, known)
            if entry != known:
                books.gone(name)
            settled[name] = _settle_all_as_purged(reader, entry)
            events += settled[name].purged - entry.purged
        finally:
            reader.close()
    books.commit(segments=settled)
    return list(settled), events


def _settle_all_as_purged(reader: SegmentReader, entry: SegmentEntry) -> SegmentEntry:
    """The entry of a segment that was set aside once all in it is purged."""
    reader.start_at(entry.offset)
    # What a live writer has half written it records again, elsewhere.
    is_complete = reader.lock()
    while items := reader.take():
        entry = announce(entry, items)
    entry = settle_as_purged(entry)
    size = reader.size()
    if reader.is_given_up(entry.offset):
        # That line feed is ours, and no record was damaged.
        entry = msgspec.structs.replace(entry, tail=size - entry.offset)
    elif is_complete and size > entry.offset + entry.tail:
        entry = settle_tail(entry, size)
    return entry
