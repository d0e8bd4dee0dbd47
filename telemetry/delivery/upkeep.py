"""What surrounds a drain on disk: what a crash left, and space on a full disk.

`tidy` finishes what a killed flusher or tool had begun. On a full disk `relieve` makes
space, first by what is settled, then by the reserve, which `keep_reserve` puts back.
It sends nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import Snapshot, Totals
from telemetry.books.view import read_snapshot
from telemetry.delivery.dead_letters import (
    finish_moves,
    is_move,
    learn_files,
    moved_segments,
)
from telemetry.delivery.opt_out import directories_set_aside
from telemetry.errors import LedgerError, SpoolError
from telemetry.files import FULL, TEMPORARY, free_bytes, sync_directory, write_whole
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.spool.writer import sizes_in


# Given back when a full disk has to be drained: enough for a ledger, or for some dead
# letters, with which the disk gets their segments back.
RESERVE_BYTES = 256 * 1024
# What a disk must take for it not to count as full: a ledger's birth, which needs
# about 220 KiB, and the segments that grow meanwhile.
_PROBE_BYTES = 2 * RESERVE_BYTES
# Three files, as a ledger is a directory, a database and its journal.
_PROBES = {"probe": _PROBE_BYTES, "probe-2": 0, "probe-3": 0}
# Nobody takes so long between making a temporary file and renaming it.
_OLD_S = 3600.0


def tidy(home: Home, books: Books) -> None:
    """Finish what a crash left: nothing of it is lost, only not yet written up."""
    finish_moves(home, books)
    with suppress(OSError):
        # A `dead/` that cannot be written now holds back no delivery.
        learn_files(home, books)
    snapshot = books.snapshot
    gone = snapshot.segments.keys() - set(segment_names(home))
    gone -= moved_segments(home, snapshot).keys()
    for directory in directories_set_aside(home):
        # A purge could not remove these. Their entries say that they are counted.
        gone -= set(segment_names(home, directory))
    if gone and os.path.isdir(home.spool):
        # The last flusher may have crashed between unlink and fsync. Sync first: a
        # segment that reappears after folding would be sent again.
        sync_directory(home.spool)
    for name in gone:
        books.gone(name)
    for directory in (home.spool, home.dead, home.quarantine):
        _sweep_temporaries(directory, snapshot)
    _sweep_old_temporaries(home.root)
    before = books.snapshot.totals
    totals = fold_refusals(before, refusals.read(home.refused))
    if totals != before:
        books.commit(totals=totals)


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


def _sweep_temporaries(directory: str, snapshot: Snapshot) -> None:
    """Remove files that were never renamed; only a flush writes here.

    One that counts under its final name already is the only copy of what it holds.
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        path = f"{directory}/{name}"
        if is_move(name, snapshot) or os.path.isdir(path):
            continue
        if TEMPORARY in name:
            with suppress(OSError):  # the next flush tries again
                os.unlink(path)


def _sweep_old_temporaries(root: str) -> None:
    """The same in the home itself, where others write too: one of theirs is new."""
    for name in os.listdir(root):
        if TEMPORARY in name or name in _PROBES:
            path = f"{root}/{name}"
            try:
                if time.time() - os.lstat(path).st_mtime > _OLD_S:
                    os.unlink(path)
            except OSError:
                pass  # the next flush tries again


def relieve(home: Home, release: Callable[[], None] = lambda: None) -> None:
    """Make space: delete segments that are settled for good, then the reserve."""
    if is_full(home.root):
        release()
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
            is_settled = not entry.announced and reader.holds(
                entry.offset, entry.seq, entry.crc
            )
            if is_settled and reader.lock():
                reader.delete(entry.offset + entry.tail)
        except OSError:
            pass  # it keeps its space; others may give theirs
        finally:
            reader.close()
    try:
        os.unlink(home.reserve)
    except OSError:
        pass  # given back already


def is_full(root: str) -> bool:
    """Whether the file system of `root` has no room for a ledger."""
    try:
        for name, size in _PROBES.items():
            write_whole(f"{root}/{name}", b"\0" * size)
    except OSError as error:
        return error.errno in FULL
    finally:
        for name in _PROBES:
            with suppress(OSError):  # it was not made; or the next flush sweeps it
                os.unlink(f"{root}/{name}")
    return False


def is_spool_full(home: Home, bytes_max: int) -> bool:
    """Whether nearly all of the program's bound is taken; 0: it is not known.

    No more than a sixteenth of it is left: a few events, of most sizes.
    """
    left = bytes_max - sum(sizes_in(home.spool, ".jseq").values())
    return bytes_max > 0 and left <= bytes_max // 16


def is_short_of_room(root: str) -> bool:
    """The same by what its file system says, which may be too much. Raises OSError."""
    return free_bytes(root) < _PROBE_BYTES


def keep_reserve(home: Home) -> None:
    """The reserve is there again, if the disk has room for it and for as much again."""
    try:
        if os.path.lexists(home.reserve) or not os.path.isdir(home.root):
            return
        if free_bytes(home.root) > 8 * RESERVE_BYTES:
            write_whole(home.reserve, b"\0" * RESERVE_BYTES)
    except OSError:
        pass  # the next flush tries again
