"""Homes made of bytes, and what they hold, found without the code that is tested.

The form of an input is described in `fuzz_spool.py`. Whatever the bytes are, a home
comes of them; nothing is written outside the directory that is given.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from fuzz.fuzz_frame import sound
from telemetry.books.entries import SegmentEntry, Snapshot, Totals
from telemetry.books.ledger import Ledger
from telemetry.paths import is_segment
from telemetry.spool.frame import encode


GONE, *SEGMENTS = (f"0000170000000000000{n}-0000000{n}.v1.jseq" for n in range(4))
FIRST = encode(0, b'{"event":"settled"}')
PLACES = (
    *(f"spool/{name}" for name in SEGMENTS),
    f"dead/{SEGMENTS[0]}",
    f"dead/{SEGMENTS[1]}.tmp-moved",
    f"dead/{GONE}",
    f"quarantine/{SEGMENTS[0]}-0",
    *("consent", "user-uuid", "next-flush", "refused", "flush.lock", "reserve"),
    *("ledger/cache.db", "ledger/cache.db-journal"),
    f"spool/{GONE}.tmp-moved",
)
NAMED = ("", "spool/", "dead/", "quarantine/", "ledger/")
DIRECTORIES = ("spool", "dead", "quarantine", "ledger")
# What tells a home from a directory of somebody else's, besides a segment.
OURS = ("consent", "user-uuid", "next-flush", "ledger/cache.db")
_RECORD = re.compile(
    rb'\x1e\{"crc":"([0-9a-f]{8})",("seq":"([0-9a-f]{8})","rec":([^\n\x1e]+)\})\n'
)


class Whole(NamedTuple):
    """A whole record, found without the reader that is tested."""

    start: int
    end: int
    seq: int
    crc: str
    event: bytes


def records(content: bytes) -> list[Whole]:
    """Every whole record of a segment."""
    return [
        Whole(*found.span(), int(found[3], 16), found[1].decode(), found[4])
        for found in _RECORD.finditer(content)
        if found[1] == b"%08x" % crc32(found[2])
    ]


@functools.cache
def sound_ledger() -> dict[str, bytes]:
    """The files of a ledger that has settled FIRST, and a segment that is gone."""
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(f"{directory}/ledger")
        entry = SegmentEntry(
            offset=len(FIRST), seq=0, crc=records(FIRST)[0].crc, recorded=1, delivered=1
        )
        totals = Totals(recorded=5, delivered=5)
        ledger.commit(Snapshot(segments={SEGMENTS[0]: entry}, totals=totals))
        ledger.close()
        return {
            name: (Path(directory) / "ledger" / name).read_bytes()
            for name in ("cache.db", "cache.db-journal")
        }


class Input:
    """A home made of an input. `segments` are those that are regular files."""

    def __init__(self, data: bytes, scratch: Path) -> None:
        letters, *parts = data.split(b"\n%%\n")
        self.letters = letters.decode("latin-1")
        self.root = scratch / "home"
        self.segments: dict[str, bytes] = {}
        # Nothing but segments; and nothing that a flush could not pass.
        self.is_plain = self.is_open = True
        for name in DIRECTORIES:
            (self.root / name).mkdir(mode=0o700, parents=True)
        self.root.chmod(0o700)
        self.has_ledger = "L" in self.letters
        for name, content in sound_ledger().items() if self.has_ledger else ():
            (self.root / "ledger" / name).write_bytes(content)
        for part in parts:
            self._put(part, scratch)
        born_with_it = self.root / "next-flush"
        if "N" not in self.letters and not os.path.lexists(born_with_it):
            born_with_it.write_bytes(b"00000000")
        self.is_home = any(os.path.lexists(self.root / name) for name in OURS) or any(
            map(is_segment, os.listdir(self.root / "spool"))
        )

    def _put(self, part: bytes, scratch: Path) -> None:
        number = (part[0] - ord("a")) % (len(PLACES) + len(NAMED)) if part else 0
        kind, content = part[1:2], part[2:]
        if number < len(PLACES):
            name = PLACES[number]
        else:
            given, _, content = content.partition(b"\n")
            text = os.fsdecode(given.replace(b"/", b"").replace(b"\0", b""))
            if text in {"", ".", ".."} or len(given) > 200:
                return
            name = NAMED[number - len(PLACES)] + text
        path = self.root / name
        if os.path.lexists(path):
            return
        is_spool = name.startswith("spool/")
        is_odd = kind in {b"d", b"l", b"p"}
        self.is_plain &= is_spool and not is_odd
        is_in_the_way = name.startswith(("ledger/", "quarantine/")) or (
            is_odd and (is_spool or name == "flush.lock")
        )
        self.is_open &= not is_in_the_way
        if kind == b"d":
            path.mkdir()
        elif kind == b"l":
            path.symlink_to(scratch / "victim")
        elif kind == b"p":
            os.mkfifo(path)
        else:
            content = sound(content) if kind == b"s" else content
            path.write_bytes(content)
            if is_spool and is_segment(path.name):
                self.segments[path.name] = content

    def settled(self, snapshot: Snapshot) -> dict[str, int]:
        """Where what is not settled begins in each segment, as its file bears out."""
        found = {}
        for name, content in self.segments.items():
            entry = snapshot.segments.get(name)
            found[name] = 0
            if entry and entry.offset + entry.tail <= len(content):
                ends = {each.end: each for each in records(content)}
                anchor = ends.get(entry.offset)
                if anchor and (anchor.seq, anchor.crc) == (entry.seq, entry.crc):
                    found[name] = entry.offset
        return found

    def pending(self, snapshot: Snapshot) -> list[bytes]:
        """Every event that is not settled, in the order of sending."""
        settled = self.settled(snapshot)
        return [
            each.event
            for name in sorted(self.segments)
            for each in records(self.segments[name])
            if each.start >= settled[name]
        ]


def state_of(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything below, with all that a change would show in."""
    found: dict[str, tuple[object, ...]] = {}
    for place, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(place) / name
            stat = path.lstat()
            content = path.read_bytes() if stat.st_mode >> 12 == 0o10 else b""
            about = (stat.st_mode, stat.st_mtime_ns, stat.st_ino, stat.st_nlink)
            found[str(path)] = (*about, content)
    return found


def segment_files(root: Path) -> list[Path]:
    """The segments that are still there as regular files."""
    return [
        path
        for path in (root / "spool").iterdir()
        if is_segment(path.name) and path.is_file() and not path.is_symlink()
    ]
