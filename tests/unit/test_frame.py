"""Bytes and records: what is whole, what is damage, and that nothing is left out.

What the parser says is held against a second one, made of one regular
expression, that shares no line with it.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from telemetry.spool import frame
from telemetry.spool.frame import (
    Damage,
    Record,
    Scan,
    encode,
    last_record,
    scan,
)
from tests.support.examples import examples
from tests.support.surroundings import REPOSITORY


EXAMPLE = b'\x1e{"crc":"e8ab4401","seq":"0000002a","rec":{"event":"tool"}}\n'
SHORT = encode(7, b"{}")
RECORDS = [
    EXAMPLE,
    SHORT,
    encode(0, b'{"event":"command","properties":{"a":[1,2,{"b":null}]}}'),
    encode(frame.SEQ_MAX, b'{"text":"\xc3\xa9\xe2\x82\xac}\\n\\u001e"}'),
    encode(1, b'{"crc":"e8ab4401","seq":"0000002a","rec":{}}'),
]
_WHOLE = re.compile(
    rb'\x1e\{"crc":"([0-9a-f]{8})",("seq":"([0-9a-f]{8})","rec":([^\x1e\n]+)\})\n'
)


def expected(content: bytes) -> tuple[list[Record | Damage], int]:
    """What stands in `content`, and up to where, by the grammar alone."""
    items: list[Record | Damage] = []
    answered = 0
    for match in _WHOLE.finditer(content):
        if b"%08x" % crc32(match[2]) != match[1]:
            continue
        if match.start() > answered:
            items.append(Damage(answered, match.start()))
        answered = match.end()
        record = Record(match.start(), answered, int(match[3], 16), match[0][1:])
        assert (record.crc, record.event) == (match[1], match[4])
        items.append(record)
    return items, answered


def growing(content: bytes, ends: list[int]) -> Scan:
    """What is found where the file grows: it is looked at when it has each length."""
    items: list[Record | Damage] = []
    at = answered = 0
    for end in [*ends, len(content)]:
        found = scan(content[at:end], at=at, answered=answered)
        assert answered <= found.answered <= found.resume <= end
        assert at <= found.resume
        items += found.items
        at, answered = found.resume, found.answered
    return Scan(items, answered, at)


def in_chunks(content: bytes, size: int) -> list[Record | Damage]:
    """What is found by one who reads `size` bytes at a time, more where that is short."""
    items: list[Record | Damage] = []
    at = answered = 0
    length = size
    while at < len(content):
        chunk = content[at : at + length]
        found = scan(chunk, at=at, answered=answered)
        if found.resume == at:
            if at + length >= len(content):
                break
            length += size
            continue
        items += found.items
        at, answered, length = found.resume, found.answered, size
    return items


def check(content: bytes) -> list[Record | Damage]:
    """The items of `content`, which leave no byte out and agree with the grammar."""
    found = scan(content, at=0, answered=0)
    at = 0
    for item in found.items:
        assert item.start == at
        assert item.end > at
        at = item.end
        if isinstance(item, Record):
            assert content[item.start : item.end] == encode(item.seq, item.event)
    assert at == found.answered
    assert (found.items, found.answered) == expected(content)
    return found.items


def test_worked_example_is_exact_to_the_byte() -> None:
    """Somebody else will read these files with a program of his own."""
    assert encode(0x2A, b'{"event":"tool"}') == EXAMPLE
    [record] = check(EXAMPLE)
    assert record == Record(0, 60, 0x2A, EXAMPLE[1:])
    assert isinstance(record, Record)
    assert (record.crc, record.event) == (b"e8ab4401", b'{"event":"tool"}')


def test_overhead_is_what_the_format_says() -> None:
    """Bounds on files are computed with it."""
    assert frame.OVERHEAD == len(encode(0, b"")) == 44
    # No writer exceeds it, whatever its program's bounds are, so no reader may lower it.
    assert frame.RECORD_BYTES_MAX == 16 * 1024 * 1024
    assert all(record.startswith(frame.MARK) for record in RECORDS)


@pytest.mark.parametrize("record", RECORDS)
def test_record_is_found_whole_and_with_what_follows(record: bytes) -> None:
    """Trailing bytes of whatever kind are not its own and cost it nothing."""
    [whole] = check(record)
    for tail in (b"", b"\n", b"\0", b"}\n", b"\x1e", b'\x1e{"crc":"', EXAMPLE[:-1]):
        found = scan(record + tail, at=0, answered=0)
        assert found.items == [whole]
        assert found.answered == len(record)


@pytest.mark.parametrize("record", RECORDS)
def test_records_grow_byte_by_byte(record: bytes) -> None:
    """A reader looks at a file while it is written: one look in five meets that."""
    content = record + SHORT
    assert growing(content, list(range(len(content)))).items == check(content)


def test_every_split_gives_the_same_items() -> None:
    """Wherever a reader happened to stop, the next look goes on from there."""
    content = b"torn" + EXAMPLE[:20] + EXAMPLE + b"\n\n" + SHORT + RECORDS[3] + b"\x1e"
    items = check(content)
    for first in range(len(content) + 1):
        for second in range(first, len(content) + 1, 7):
            assert growing(content, [first, second]).items == items


def test_every_chunk_size_gives_the_same_items() -> None:
    """How much is read at once is a matter of speed, not of what is read."""
    content = b"garbage" + b"".join(RECORDS) + EXAMPLE[:30] + b"".join(RECORDS)
    items = check(content)
    for size in range(1, len(content) + 2):
        assert in_chunks(content, size) == items


@pytest.mark.parametrize("record", RECORDS)
def test_every_cut_of_a_record_is_no_record(record: bytes) -> None:
    """What a kill leaves is not an event, and what comes behind it is."""
    for length in range(1, len(record)):
        torn = record[:length]
        found = scan(torn, at=0, answered=0)
        assert (found.items, found.answered) == ([], 0)
        damage, *rest = check(torn + EXAMPLE)
        assert damage == Damage(0, length)
        assert [item.event for item in rest] == [b'{"event":"tool"}']


def test_every_value_of_every_byte_of_a_record() -> None:
    """A flipped byte costs the record it stands in, and is never taken for sound."""
    before, after = encode(0, b'{"a":1}'), encode(2, b'{"c":3}')
    for at in range(len(SHORT)):
        for value in range(256):
            flipped = SHORT[:at] + bytes([value]) + SHORT[at + 1 :]
            items = check(before + flipped + after)
            events = [item.event for item in items if isinstance(item, Record)]
            if value == SHORT[at]:
                assert events == [b'{"a":1}', b"{}", b'{"c":3}']
            else:
                assert events == [b'{"a":1}', b'{"c":3}']


@pytest.mark.parametrize("record", RECORDS)
def test_every_flipped_bit_costs_the_record_alone(record: bytes) -> None:
    """The neighbours of a damaged record are not touched."""
    for at in range(len(record)):
        for bit in range(8):
            flipped = bytearray(record)
            flipped[at] ^= 1 << bit
            items = check(EXAMPLE + flipped + EXAMPLE)
            events = [item.event for item in items if isinstance(item, Record)]
            assert events == [b'{"event":"tool"}'] * 2


@pytest.mark.parametrize("record", RECORDS)
def test_missing_or_added_byte_costs_the_record_alone(record: bytes) -> None:
    """A file that lost or won a byte is read on behind it."""
    for at in range(len(record)):
        lost = record[:at] + record[at + 1 :]
        won = [record[:at] + bytes([byte]) + record[at:] for byte in b"\x1e\n\0}a0\x80"]
        for changed in [lost, *won]:
            items = check(EXAMPLE + changed + EXAMPLE)
            events = [item.event for item in items if isinstance(item, Record)]
            others = [event for event in events if event != b'{"event":"tool"}']
            # A byte more before or behind a record is damage of its own.
            assert others == [] or record in changed
            assert len(events) >= 2


@pytest.mark.parametrize(
    "digits",
    [
        b"-000002a",
        b"+000002a",
        b" 000002a",
        b"000002a ",
        b"\t00002a\t",
        b"0x00002a",
        b"0_00002a",
        b"0000002A",
        b"0000002g",
        b"000000\xc2\xb2",
        b"00\xd9\xa0\xd9\xa1a",
        b"\0000002a",
        b"2a",
        b"00000002a",
        b"",
    ],
)
def test_number_is_spelt_in_one_way(digits: bytes) -> None:
    """A number that only Python's `int` takes for one was not written by us."""
    summed = b'"seq":"%b","rec":{}}' % digits
    foreign = b'\x1e{"crc":"%08x",%b\n' % (crc32(summed), summed)
    assert check(foreign + EXAMPLE)[0] == Damage(0, len(foreign))
    assert last_record(foreign, at=0) is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"crc":"%b","seq":"0000002a","rec":}',
        b'{"crc":"%b", "seq":"0000002a","rec":{}}',
        b'{"crc":"%b","seq":"0000002a","rec" :{}}',
        b'{"crc":"%b","seq":"0000002a"}',
        b'{"CRC":"%b","seq":"0000002a","rec":{}}',
        b'{"crc":"%b","rec":{},"seq":"0000002a"}',
        b'{"crc":"%b","seq":"0000002a","rec":{}}\r',
    ],
)
def test_template_holds_byte_for_byte(text: bytes) -> None:
    """JSON that means the same is not the format: the event is a slice by position."""
    summed = text[text.index(b'"%b"') + 5 :]
    for crc in (crc32(summed), crc32(summed[:-1]), crc32(text[17:])):
        foreign = b"\x1e" + text.replace(b"%b", b"%08x" % crc) + b"\n"
        assert check(foreign + EXAMPLE)[0] == Damage(0, len(foreign))


def test_checksum_is_equal_as_bytes() -> None:
    """One that reads as the same number in another spelling was not written by us."""
    upper = EXAMPLE.replace(b"e8ab4401", b"E8AB4401")
    assert check(upper + SHORT)[0] == Damage(0, len(upper))


def test_record_ends_at_its_first_line_feed() -> None:
    """A line feed inside the event, sound checksum or not, is the end of it."""
    planted = encode(0, b'{"a":\n1}')
    assert check(planted + SHORT)[0] == Damage(0, len(planted))


def test_record_ends_before_the_next_separator() -> None:
    """A separator inside the event is where the next record begins."""
    inner = encode(3, b"[]")
    planted = encode(0, b'{"a":"' + inner[:-1] + b'"}')
    assert [type(item) for item in check(planted + SHORT)] == [Damage, Record]
    nested = encode(0, b'{"a":"' + inner + b'"}')
    assert [item.event for item in check(nested) if isinstance(item, Record)] == [b"[]"]


def test_garbage_without_a_separator_is_passed_and_not_read_again() -> None:
    """A megabyte of rubbish must not be scanned from its start at each look."""
    garbage = random.Random(1).randbytes(1 << 20).replace(b"\x1e", b"\x1f")
    found = scan(garbage, at=0, answered=0)
    assert found == Scan([], 0, len(garbage))
    again = scan(SHORT, at=found.resume, answered=found.answered)
    assert again.items == [
        Damage(0, len(garbage)),
        Record(len(garbage), len(garbage) + len(SHORT), 7, SHORT[1:]),
    ]


def test_unfinished_record_is_kept_up_to_the_longest_there_is() -> None:
    """What may still grow is waited for; what is longer than any record is not."""
    growing_one = b"\x1e" + b"x" * (frame.RECORD_BYTES_MAX - 1)
    assert scan(SHORT + growing_one, at=0, answered=0).resume == len(SHORT)
    beyond = SHORT + growing_one + b"x"
    assert scan(beyond, at=0, answered=0).resume == len(beyond)


def test_longest_record_is_read() -> None:
    """The bound is inclusive: what a writer may write, a reader takes."""
    longest = encode(0, b"x" * (frame.RECORD_BYTES_MAX - frame.OVERHEAD))
    assert len(longest) == frame.RECORD_BYTES_MAX
    assert growing(longest, [len(longest) - 1]).answered == len(longest)


def test_last_record_is_the_one_that_ends_the_bytes() -> None:
    """Whoever appends behind anything else would hide an event."""
    content = b"".join(RECORDS)
    ends = {item.end: item for item in check(content)}
    for end in range(len(content) + 1):
        for at in (0, 3, max(end - 70, 0)):
            found = last_record(content[at:end], at=at)
            whole = ends.get(end)
            if whole is not None and whole.start < at:
                whole = None
            assert found == whole
    for tail in (b"\n", b"x", b"\0", b"\x1e", b"}\n", EXAMPLE[:-1]):
        assert last_record(content + tail, at=0) is None
    # Without a separator it is none, whatever the rest says.
    for text in (EXAMPLE[1:], b"x" + EXAMPLE[1:]):
        assert last_record(text, at=7) is None


pieces = st.one_of(
    st.sampled_from(RECORDS),
    st.builds(encode, st.integers(0, frame.SEQ_MAX), st.binary(max_size=40)),
    st.builds(lambda text, cut: text[:cut], st.sampled_from(RECORDS), st.integers(0)),
    st.binary(max_size=30),
    st.sampled_from([b"\x1e", b"\n", b"}\n", b"\x1e\n", frame.MARK, b"}\n\x1e"]),
)
contents = st.lists(pieces, max_size=12).map(b"".join)


@given(contents, st.lists(st.integers(0, 600), max_size=6), st.integers(1, 700))
@example(EXAMPLE + b"\x1e" + SHORT, [63, 64], 1)
@settings(max_examples=examples(400), deadline=None)
def test_any_bytes_any_looks_any_chunks(
    content: bytes, looks: list[int], size: int
) -> None:
    """No input raises, every byte is answered for, and reading style changes nothing."""
    items = check(content)
    ends = sorted(min(look, len(content)) for look in looks)
    assert growing(content, ends).items == items
    assert in_chunks(content, size) == items


@given(contents, st.integers(0, 1 << 40))
@settings(max_examples=examples(100), deadline=None)
def test_offsets_count_from_the_start_of_the_segment(content: bytes, at: int) -> None:
    """A segment is read from the middle on; its items know where they stand."""
    here = scan(content, at=0, answered=0)
    there = scan(content, at=at, answered=at)
    moved = [
        msgspec.structs.replace(item, start=item.start - at, end=item.end - at)
        for item in there.items
    ]
    assert moved == here.items
    assert (there.answered - at, there.resume - at) == (here.answered, here.resume)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "fuzz/corpus/frame").iterdir()), ids=lambda it: it.name
)
def test_corpus_of_the_fuzzer(path: Path) -> None:
    """What once was a crash, or is near to one, is looked at in every run."""
    content = path.read_bytes()
    items = check(content)
    assert growing(content, list(range(len(content)))).items == items
