"""Rows under headings, as wide as the terminal and no wider.

The first rows decide how wide the columns are; the others are drawn as they come,
so that a table of a million rows takes no more memory than one of a hundred. Off
a terminal nothing is cut.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from spool_tools.output import Screen, printable


# Rows that decide on the widths.
_FIRST = 100
_GAP = "  "
_CUT = "…"


def print_table(
    screen: Screen,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    styles: Sequence[str] | None = None,
) -> None:
    """A table of `rows`, each of as many cells as there are `headings`.

    `styles` are the columns', for rich. What does not fit is cut from the last
    column.
    """
    styles = styles or [""] * len(headings)
    cells = ([printable(cell) for cell in row] for row in rows)
    first = list(itertools.islice(cells, _FIRST))
    widths = _widths(headings, first, screen.width)
    screen.say((_line(headings, widths), "bold"))
    for row in itertools.chain(first, cells):
        screen.say(*_parts(row, widths, styles))


def fitted(text: str, width: int) -> str:
    """The text in exactly `width` columns of a terminal: padded, or cut."""
    if columns(text) > width:
        text = _cut(text, width)
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """How many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def _cut(text: str, width: int) -> str:
    kept, used = [], 1
    for char in text:
        used += _columns(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + _CUT if width else ""


def _widths(
    headings: Sequence[str], rows: list[list[str]], width: int
) -> Sequence[int]:
    widths = [max(map(columns, column)) for column in zip(headings, *rows, strict=True)]
    before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    return [*widths[:-1], max(width - before, len(headings[-1]))]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(text for text, _ in _parts(row, widths, [""] * len(row))).rstrip()


def _parts(
    row: Sequence[str], widths: Sequence[int], styles: Sequence[str]
) -> Iterator[tuple[str, str]]:
    last = len(row) - 1
    for number, cell in enumerate(row):
        if number == last:
            text = cell if columns(cell) <= widths[last] else _cut(cell, widths[last])
            yield text, styles[number]
        else:
            yield fitted(cell, widths[number]) + _GAP, styles[number]
