"""Bytes to records and back. Pure: takes bytes, returns values, opens nothing.

The format is described in `telemetry/spool/__init__.py`. Two rules hold here:
no input whatever raises, and every byte that is given is answered for: it is
part of a whole record, of a damaged stretch, or of the unfinished end.
"""

from __future__ import annotations

from zlib import crc32

import msgspec


RS = b"\x1e"
LF = b"\n"
# How every record begins; nothing inside one does.
MARK = b'\x1e{"crc":"'
# Where the parts stand behind the RS of {"crc":"e8ab4401","seq":"0000002a","rec":…}LF
_CRC = slice(8, 16)
_SEQ = slice(25, 33)
EVENT_AT = 41
_EVENT = slice(EVENT_AT, -2)
# What a record costs besides its event.
OVERHEAD = 44
# No record is longer: a reader need not hold more to know that it is not whole.
# Far above any bound on events that makes sense, so that one reader serves all.
RECORD_BYTES_MAX = 16 * 1024 * 1024
SEQ_MAX = 0xFFFFFFFF


class Record(msgspec.Struct, frozen=True, gc=False):
    """A whole record: bytes `start` to `end` of its segment, and its number.

    `text` is what stands there behind the RS.
    """

    start: int
    end: int
    seq: int
    text: bytes

    @property
    def crc(self) -> bytes:
        """Its checksum, as the 8 bytes that stand in the file."""
        return self.text[_CRC]

    @property
    def event(self) -> bytes:
        """The event, byte for byte as it was recorded."""
        return self.text[_EVENT]


class Damage(msgspec.Struct, frozen=True, gc=False):
    """A stretch between records, or before the first, that holds no whole record."""

    start: int
    end: int


class Scan(msgspec.Struct, frozen=True):
    """What some bytes of a segment hold; offsets count from the segment's start.

    items: whole records and the damaged stretches before them, without gaps
    answered: every byte before this one is in `items`; what follows is no record,
        or not yet one
    resume: where the next scan has to begin; not before `answered`
    """

    items: list[Record | Damage]
    answered: int
    resume: int


def encode(seq: int, event: bytes) -> bytes:
    """One record. `event` is compact JSON without raw control characters."""
    summed = b'"seq":"%08x","rec":%b}' % (seq, event)
    return b'\x1e{"crc":"%08x",%b\n' % (crc32(summed), summed)


def parse(text: bytes) -> int | None:
    """The number of a record; None if it is not whole.

    `text` runs from behind the RS through the first LF. It is whole if to encode what
    it says gives the same bytes.
    """
    try:
        seq = int(text[_SEQ], 16)
    except ValueError:
        return None
    event = text[_EVENT]
    # `int` also takes signs, spaces, underscores and capitals.
    if seq < 0 or not event or encode(seq, event) != RS + text:
        return None
    return seq


def scan(content: bytes, *, at: int, answered: int) -> Scan:
    """The records of `content`, whose first byte is byte `at` of its segment.

    `answered` and `at` are what the scan before this one gave as `answered` and
    `resume`; for the first, both are the offset where reading begins. Bytes
    behind the last whole record are never given as damage: whether they are is
    known only once another record follows or their writer is gone.
    """
    items: list[Record | Damage] = []
    stop = resume = at + len(content)
    before, *texts = content.split(RS)
    start = at + len(before)
    for text in texts:
        line = text.find(LF) + 1
        whole = text if line == len(text) else text[:line]
        seq = parse(whole)
        if seq is not None:
            if answered < start:
                items.append(Damage(answered, start))
            answered = start + 1 + line
            items.append(Record(start, answered, seq, whole))
        end = start + 1 + len(text)
        if line == 0 and end == stop and len(text) < RECORD_BYTES_MAX:
            resume = start  # it may be growing
        start = end
    return Scan(items, answered, resume)


def last_record(content: bytes, *, at: int) -> Record | None:
    """The record that ends exactly where `content` ends; None if none does.

    `content` is the end of a segment from byte `at` on.
    """
    start = max(content.rfind(RS), 0)
    found = scan(content[start:], at=at + start, answered=at + start)
    last = found.items[-1] if found.items else None
    if isinstance(last, Record) and last.end == at + len(content):
        return last
    return None
