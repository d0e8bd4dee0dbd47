"""A spool of 200 records over several segments, and what may be done to its bytes.

Each case says which records were not touched: those of which no byte is another and
none has gone from its place beside the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from telemetry.spool.frame import encode
from tests.support.writers import event


RECORDS = 200
_PER_SEGMENT = 29
SECTOR = 512
# Shorter than a sector mostly, some longer, and two that cross several.
_SIZES = (0, 40, 61, 33, 90, 47, 150, 35, 52, 200)
_LARGE = {57: 1500, 131: 2600}
_PIECES = (1, 7, 44, 200, SECTOR, 1000, 4096)
_CREATED_NS = 1_700_000_000_000_000_000


class Placed(NamedTuple):
    """A record: bytes `start` to `end` of the segment `name`."""

    name: str
    start: int
    end: int
    event: bytes


class Case(NamedTuple):
    """A damaged spool: its files by name, and the events that were not touched.

    exact: whether nothing else may arrive, and nothing twice
    """

    kind: str
    text: str
    files: dict[str, bytes]
    untouched: frozenset[bytes]
    exact: bool


# Cases are made one by one, since a short run wants few of them.
Makers = Iterator[Callable[[], Case]]


def sound() -> tuple[dict[str, bytes], list[Placed]]:
    """The files of the spool by name, and its records."""
    files: dict[str, bytes] = {}
    records = []
    for number in range(RECORDS):
        segment, seq = divmod(number, _PER_SEGMENT)
        name = f"{_CREATED_NS + segment:020d}-{segment:08x}.v1.jseq"
        size = _LARGE.get(number, _SIZES[number % len(_SIZES)])
        content = files.get(name, b"")
        made = event(number, size=size)
        files[name] = content + encode(seq, made)
        records.append(Placed(name, len(content), len(files[name]), made))
    return files, records


def cases(kind: str, *, first: int = 0, every: int = 1) -> Iterator[Case]:
    """One in `every` case of a kind of damage, from the `first` on."""
    for make in islice(_KINDS[kind](*sound()), first, None, every):
        yield make()


def _flips(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """One bit of each byte, the lower ones and the upper ones in turn."""

    def flip(name: str, at: int) -> Case:
        bit = at * 5 % 8
        changed = _with(files[name], at, bytes([files[name][at] ^ (1 << bit)]))
        return _case("flip", f"{name} {at} bit {bit}", files, records, name, changed)

    yield from (partial(flip, *place) for place in _bytes_of(files))


def _marks(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """Each byte becomes one of the two that mean something to a reader."""

    def mark(name: str, at: int) -> Case:
        sign = b"\x1e\n"[at % 2 :][:1]
        changed = _with(files[name], at, sign)
        return _case("mark", f"{name} {at} {sign!r}", files, records, name, changed)

    yield from (partial(mark, *place) for place in _bytes_of(files))


def _missing(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """Each byte is missing, and what follows moves up."""

    def miss(name: str, at: int) -> Case:
        changed = files[name][:at] + files[name][at + 1 :]
        untouched = frozenset(
            each.event
            for each in records
            if each.name != name or not each.start <= at < each.end
        )
        text = f"{name} without {at}"
        return Case("missing", text, {**files, name: changed}, untouched, exact=True)

    yield from (partial(miss, *place) for place in _bytes_of(files))


def _cuts(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """Every length of each segment."""

    def cut(name: str, length: int) -> Case:
        text, changed = f"{name} to {length}", files[name][:length]
        return _case("cut", text, files, records, name, changed)

    yield from (partial(cut, *place) for place in _bytes_of(files))


def _sectors(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """Each sector is zeros, and each pair of neighbours."""
    for name, content in files.items():
        for at in range(0, len(content), SECTOR):
            for length in (SECTOR, 2 * SECTOR):
                hole = bytes(min(length, len(content) - at))
                changed = content[:at] + hole + content[at + len(hole) :]
                text = f"{name} zeros {at} {len(hole)}"
                yield partial(_case, "sector", text, files, records, name, changed)


def _mixed(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """Segments swapped, doubled, and interleaved in pieces of many sizes."""
    names = list(files)
    all_events = frozenset(each.event for each in records)
    for one in names:
        twice = f"{_CREATED_NS + 999:020d}-{one[21:29]}.v1.jseq"
        text = f"{one} under two names"
        yield partial(
            Case, "doubled", text, {**files, twice: files[one]}, all_events, False
        )
        again = files[one] + files[one]
        text = f"{one} after itself"
        yield partial(Case, "doubled", text, {**files, one: again}, all_events, False)
        for other in names:
            if one < other:
                swapped = {**files, one: files[other], other: files[one]}
                text = f"{one} and {other}"
                yield partial(Case, "swapped", text, swapped, all_events, True)
                for size in _PIECES:
                    yield partial(_interleaved, files, records, one, other, size)


def _interleaved(
    files: dict[str, bytes], records: list[Placed], one: str, other: str, size: int
) -> Case:
    length = max(len(files[one]), len(files[other]))
    woven = b"".join(
        files[name][at : at + size]
        for at in range(0, length, size)
        for name in (one, other)
    )
    # What lies within one piece is whole, as is what the weaving does not touch.
    kept = {
        each.event
        for each in records
        if each.name not in {one, other} or each.start // size == (each.end - 1) // size
    }
    rest = {name: each for name, each in files.items() if name != other}
    text = f"{one} and {other} by {size}"
    return Case("interleaved", text, {**rest, one: woven}, frozenset(kept), exact=False)


def _any(files: dict[str, bytes], records: list[Placed]) -> Makers:
    """Several of all that at once, in several segments; a fixed seed."""
    chance = random.Random(20_262)
    for number in range(1000):
        changed = {name: bytearray(content) for name, content in files.items()}
        hit: set[bytes] = set()
        for _ in range(chance.randrange(1, 12)):
            name = chance.choice(list(files))
            at = chance.randrange(len(files[name]))
            length = chance.choice((1, 1, 2, 9, 60, SECTOR))
            end = min(at + length, len(files[name]))
            changed[name][at:end] = chance.randbytes(end - at)
            hit.update(
                each.event
                for each in records
                if each.name == name and each.start < end and at < each.end
            )
        kept = frozenset(each.event for each in records) - hit
        spoiled = {name: bytes(content) for name, content in changed.items()}
        yield partial(Case, "several", str(number), spoiled, kept, False)


def _case(  # noqa: PLR0917 - a spool, and what became of one of its segments
    kind: str,
    text: str,
    files: dict[str, bytes],
    records: list[Placed],
    name: str,
    changed: bytes,
) -> Case:
    """A segment of which some bytes are others, or not there."""
    content = files[name]
    untouched = frozenset(
        each.event
        for each in records
        if each.name != name
        or changed[each.start : each.end] == content[each.start : each.end]
    )
    return Case(kind, text, {**files, name: changed}, untouched, True)


def _with(content: bytes, at: int, byte: bytes) -> bytes:
    return content[:at] + byte + content[at + 1 :]


def _bytes_of(files: dict[str, bytes]) -> Iterator[tuple[str, int]]:
    """Every byte of the spool."""
    return ((name, at) for name, content in files.items() for at in range(len(content)))


_KINDS = {
    "flip": _flips,
    "mark": _marks,
    "missing": _missing,
    "cut": _cuts,
    "sector": _sectors,
    "mixed": _mixed,
    "several": _any,
}
KINDS = tuple(_KINDS)
