"""Invariant tested: whatever bytes stand in a ledger's place, `Books` end with a ledger
that takes a commit, no offset is believed that was never committed, nothing but
LedgerError is raised, and no file outside the place is touched.

An input is a script: each 5 bytes of it do one thing to a sound ledger's files, as
`apply` says; what follows a 0xFF replaces the database whole.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path

from telemetry.books.books import Books
from telemetry.books.entries import SegmentEntry, Snapshot, Totals
from telemetry.books.ledger import Ledger
from telemetry.books.view import read_snapshot, set_aside_names
from telemetry.errors import LedgerError, LedgerMalformedError


# A longer script does more things to one ledger; few at a time say more.
INPUT_BYTES_MAX = 200
NAMES = ("a", "b", "c")
OFFSETS = (100, 200)
DATABASE, JOURNAL = "cache.db", "cache.db-journal"


def make_sound(home: str) -> dict[str, bytes]:
    """The files of a ledger that has said each of `OFFSETS` in turn."""
    ledger = Ledger(f"{home}/sound")
    for offset in OFFSETS:
        entry = SegmentEntry(offset=offset, recorded=1)
        segments = dict.fromkeys(NAMES, entry)
        ledger.commit(Snapshot(segments=segments, totals=Totals(recorded=3)))
    ledger.close()
    files = {}
    for name in (DATABASE, JOURNAL):
        with open(f"{home}/sound/{name}", "rb") as file:
            files[name] = file.read()
    shutil.rmtree(f"{home}/sound")
    return files


def apply(script: bytes, sound: dict[str, bytes]) -> dict[str, bytes]:
    """The files after `script`: bits flipped, bytes written, cut, or put in place."""
    files = {name: bytearray(content) for name, content in sound.items()}
    while script:
        if script[0] == 0xFF:
            files[DATABASE] = bytearray(script[1:])
            break
        verb, where, byte = script[0], script[1:4], script[4:5]
        script = script[5:]
        content = files[JOURNAL if verb & 1 else DATABASE]
        if not content:
            continue
        at = int.from_bytes(where, "big") % len(content)
        if verb & 2:
            # Most of a ledger is free pages: stay among those that say something.
            at %= 28 * 1024
        if verb & 4 and verb & 8:
            del content[at:]
        elif verb & 4:
            content[at : at + 1] = byte
        else:
            content[at : at + 1] = bytes(
                old ^ new for old, new in zip(content[at : at + 1], byte, strict=False)
            )
    return {name: bytes(content) for name, content in files.items()}


def one_input(script: bytes, home: str, sound: dict[str, bytes]) -> None:
    """One script, in the directory `home` that holds nothing else."""
    place, victim = f"{home}/ledger", f"{home}/victim"
    os.mkdir(place)
    for name, content in {**apply(script, sound), "../victim": b"precious"}.items():
        with open(f"{place}/{name}", "wb") as file:
            file.write(content)
    believed = []
    try:
        try:
            believed.append(read_snapshot(place, busy_s=0))
        except LedgerMalformedError:
            pass
        try:
            books = Books(
                place, relieve=lambda: None, is_full=lambda: False, power=False
            )
            believed.append(books.snapshot)
            books.gone("b")
            books.commit(segments={"a": SegmentEntry(offset=7)}, totals=Totals())
        except LedgerError as error:
            raise AssertionError(f"a flusher would be stuck: {error}") from error
        books.close()
        assert read_snapshot(place) == books.snapshot
        for snapshot in believed:
            for name, entry in snapshot.segments.items():
                assert name in NAMES, name
                assert entry.offset in OFFSETS, entry
                assert entry == SegmentEntry(offset=entry.offset, recorded=1), entry
            assert snapshot.totals.recorded in (0, 3), snapshot.totals
        aside = set_aside_names(place)
        assert set(os.listdir(home)) == {"ledger", "victim", *aside}
        assert Path(victim).read_bytes() == b"precious"
    finally:
        for left in os.scandir(home):
            shutil.rmtree(left.path) if left.is_dir() else os.unlink(left.path)


@functools.cache
def sound_files() -> dict[str, bytes]:
    """The files of a sound ledger, made once."""
    with tempfile.TemporaryDirectory() as home:
        return make_sound(home)


def one(data: bytes) -> None:
    """One script, in a directory of its own."""
    with tempfile.TemporaryDirectory() as home:
        one_input(data, home, sound_files())
