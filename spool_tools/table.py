"""Rows under headings, as wide as the terminal and no wider.

The first rows decide how wide the columns are; the others are drawn as they come,
so that a table of a million rows takes no more memory than one of a hundred. Off
a terminal nothing is cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from spool_tools.output import Screen
from spool_tools.text import column_count, columns, printable


# Rows that decide on the widths.
_FIRST = 100
_GAP = "  "
_CUT = "…"


def print_table(
    screen: Screen,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    styles: Sequence[str],
    folds: bool = False,
    at_once: bool = False,
) -> None:
    """A table of `rows`, each of as many cells as there are `headings`.

    `styles` are the columns', for rich. What does not fit is cut; with `folds` the
    last column goes on below instead. `at_once` shows each row as it comes, before
    others that could tell how wide a column has to be.
    """
    cells = ([printable(cell) for cell in row] for row in rows)
    first = [] if at_once else list(itertools.islice(cells, _FIRST))
    widths = _widths(headings, first, screen.width)
    screen.say((_line(headings, widths), "bold"))
    indent = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    for row in itertools.chain(first, cells):
        screen.say(*_parts(row, widths, styles, folds=folds), indent=indent)


def fitted(text: str, width: int) -> str:
    """The text in exactly `width` columns of a terminal: padded, or cut."""
    if columns(text) > width:
        text = _cut(text, width)
    return text + " " * (width - columns(text))


def _cut(text: str, width: int) -> str:
    kept, used = [], 1
    for char in text:
        used += column_count(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + _CUT if width else ""


def _widths(
    headings: Sequence[str], rows: list[list[str]], width: int
) -> Sequence[int]:
    # No column takes the room of the last one, which has the most to say.
    widths = [
        min(max(map(columns, column)), max(width // 3, len(column[0])))
        for column in zip(headings, *rows, strict=True)
    ]
    before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    return [*widths[:-1], max(width - before, len(headings[-1]))]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(text for text, _ in _parts(row, widths, [""] * len(row))).rstrip()


def _parts(
    row: Sequence[str],
    widths: Sequence[int],
    styles: Sequence[str],
    *,
    folds: bool = False,
) -> Iterator[tuple[str, str]]:
    for cell, width, style in zip(row[:-1], widths, styles, strict=False):
        yield fitted(cell, width) + _GAP, style
    last, width = row[-1], widths[-1]
    yield last if folds or columns(last) <= width else _cut(last, width), styles[-1]
