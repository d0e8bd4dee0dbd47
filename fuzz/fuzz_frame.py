"""Invariant tested: whatever bytes a segment holds, nothing raises, a record is whole
only if it is byte for byte what `encode` makes of its number and event, records and
damaged stretches answer for every byte up to the last record's end without a gap, and
neither the places where a reader stops nor the length that
the file had so far change the items.

An input is a segment; its last byte says where the looks of a reader end.
"""

from __future__ import annotations

from zlib import crc32

from telemetry.spool.frame import (
    SEQ_MAX,
    Damage,
    Record,
    encode,
    last_record,
    scan,
)


CRC_AT, SUMMED_AT = 9, 19


def look(content: bytes, step: int) -> tuple[list[Record | Damage], int]:
    """The items of a file that is `step` bytes longer at each look."""
    items: list[Record | Damage] = []
    at = answered = 0
    for end in [*range(step, len(content), step), len(content)]:
        found = scan(content[at:end], at=at, answered=answered)
        assert answered <= found.answered <= found.resume <= end
        items += found.items
        at, answered = found.resume, found.answered
    return items, answered


def check(content: bytes, step: int) -> int:
    """The number of records in `content`."""
    found = scan(content, at=0, answered=0)
    assert (found.items, found.answered) == look(content, step)
    at = records = 0
    for item in found.items:
        assert item.start == at < item.end
        at = item.end
        stretch = content[item.start : item.end]
        if isinstance(item, Record):
            records += 1
            assert 0 <= item.seq <= SEQ_MAX
            assert stretch == encode(item.seq, item.event)
            assert item.crc == stretch[CRC_AT : CRC_AT + 8]
            assert b"\n" not in item.event
            assert b"\x1e" not in item.event
            assert item.event
            last = last_record(content[: item.end], at=0)
            assert last == item
        else:
            assert scan(stretch, at=0, answered=0).items == []
    assert at == found.answered
    rest = content[at:]
    assert scan(rest, at=0, answered=0).items == []
    whole = last_record(content, at=0)
    assert (whole is not None) == (0 < at == len(content))
    return records


def sound(content: bytes) -> bytes:
    """The same with a checksum that is right wherever one may stand.

    No search by chance finds a checksum; what lies behind it is reached this way.
    """
    texts = content.split(b"\x1e")
    for number, text in enumerate(texts[1:], start=1):
        end = text.find(b"\n")
        if end > SUMMED_AT:
            crc = b"%08x" % crc32(text[SUMMED_AT - 1 : end])
            texts[number] = text[: CRC_AT - 1] + crc + text[CRC_AT + 7 :]
    return b"\x1e".join(texts)


def one(content: bytes) -> None:
    """One input, as it is and with checksums made right."""
    step = max(content[-1] if content else 1, 1)
    check(content, step)
    repaired = sound(content)
    check(repaired, step)
    # Between two records, neither of them is touched by it.
    record = encode(7, b"{}")
    items = scan(record + content + record, at=0, answered=0).items
    assert items[0] == Record(0, len(record), 7, record[1:])
    assert isinstance(items[-1], Record)
    assert items[-1].end == 2 * len(record) + len(content)
