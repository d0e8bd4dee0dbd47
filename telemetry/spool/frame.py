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
_HEAD = b'{"crc":"'
# How every record begins; nothing inside one does.
MARK = RS + _HEAD
_MIDDLE = b'","seq":"'
_EVENT = b'","rec":'
_END = b"}\n"

# Offsets within a record behind its RS: where each part of the prefix begins.
_CRC_AT = len(_HEAD)
_MIDDLE_AT = _CRC_AT + 8
_SEQ_AT = _MIDDLE_AT + len(_MIDDLE)
_EVENT_MARK_AT = _SEQ_AT + 8
_EVENT_AT = _EVENT_MARK_AT + len(_EVENT)
# The checksum begins at the quote before `seq`.
_SUMMED_AT = _MIDDLE_AT + len(b'",')
# All of it before the event, for a checksum and a number.
_PREFIX = _HEAD + b"%08x" + _MIDDLE + b"%08x" + _EVENT
# What a record costs besides its event: 44 bytes.
OVERHEAD = len(RS) + _EVENT_AT + len(_END)
# A text behind its RS that is no longer holds no event.
_EMPTY = _EVENT_AT + len(_END)
# No record is longer: a reader need not hold more to know that it is not whole.
# Far above any bound on events that makes sense, so that one reader serves all.
RECORD_BYTES_MAX = 16 * 1024 * 1024
SEQ_MAX = 0xFFFFFFFF


class Record(msgspec.Struct, frozen=True, gc=False):
    """A whole record: bytes `start` to `end` of its segment, and its number.

    `text` is what stands there behind the RS. It is sliced when it is asked for:
    who counts records need not pay for what is in them.
    """

    start: int
    end: int
    seq: int
    text: bytes

    @property
    def crc(self) -> bytes:
        """Its checksum, as the 8 bytes that stand in the file."""
        return self.text[_CRC_AT:_MIDDLE_AT]

    @property
    def event(self) -> bytes:
        """The event, byte for byte as it was recorded."""
        return self.text[_EVENT_AT:-2]


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
    """The number of a record; None where it is not a whole one.

    `text` runs from behind the RS through the first LF.
    """
    crc = text[_CRC_AT:_MIDDLE_AT]
    if (
        crc != b"%08x" % crc32(memoryview(text)[_SUMMED_AT:-1])
        or text[:_CRC_AT] != _HEAD
        or text[_MIDDLE_AT:_SEQ_AT] != _MIDDLE
        or text[_EVENT_MARK_AT:_EVENT_AT] != _EVENT
        or text[-2:] != _END
    ):
        return None
    digits = text[_SEQ_AT:_EVENT_MARK_AT]
    try:
        seq = int(digits, 16)
    except ValueError:
        return None
    # `int` also takes signs, spaces, underscores and capitals.
    if seq < 0 or b"%08x" % seq != digits or len(text) <= _EMPTY:
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
    stop = at + len(content)
    resume = stop
    before, *texts = content.split(RS)
    start = at + len(before)
    seq = SEQ_MAX
    for text in texts:
        length = len(text)
        end = start + 1 + length
        # Nearly all are whole and follow the one before by number: they are known
        # by one comparison. Whatever else there is, `parse` looks at.
        if (
            text.startswith(_PREFIX % (crc32(text[_SUMMED_AT:-1]), seq + 1))
            and text.endswith(_END)
            and text.find(LF) == length - 1
            and answered == start
            and length > _EMPTY
            and seq < SEQ_MAX
        ):
            seq += 1
            items.append(Record(start, end, seq, text))
            answered = start = end
            continue
        line = text.find(LF) + 1
        if line == 0:
            if end == stop and length < RECORD_BYTES_MAX:
                resume = start  # it may be growing
        else:
            whole = text if line == length else text[:line]
            found = parse(whole)
            if found is not None:
                if answered < start:
                    items.append(Damage(answered, start))
                seq, answered = found, start + 1 + line
                items.append(Record(start, answered, seq, whole))
        start = end
    return Scan(items, answered, resume)


def last_record(content: bytes, *, at: int) -> Record | None:
    """The record that ends exactly where `content` ends; None where none does.

    `content` is the end of a segment from byte `at` on.
    """
    start = content.rfind(RS)
    if start < 0:
        return None
    text = content[start + 1 :]
    seq = parse(text) if text.find(LF) == len(text) - 1 else None
    if seq is None:
        return None
    return Record(at + start, at + len(content), seq, text)
