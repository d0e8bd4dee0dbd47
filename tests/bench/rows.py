"""The table: what a row says, and how it is drawn. Pure.

A row is one claim: what was measured, how, the figure, the bar it is held
against, and whether it is met. A figure is a median of ratios within one run,
with the smallest and the largest behind it, since machines are noisy.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple


_WIDTHS = (34, 42, 24, 11, 4)
_TITLES = ("what", "how measured", "figure", "bar", "met")
_JUDGED = {True: "yes", False: "NO", None: "-"}


class Spread(NamedTuple):
    """The median of some figures, the smallest and the largest."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """One line of the table. `met` is None where nothing was held against a bar.

    `values` are the numbers behind the figure, for the JSON file.
    """

    what: str
    measured: str
    figure: str
    bar: str
    met: bool | None
    note: str = ""
    values: dict[str, object] | None = None


def spread(figures: Sequence[float]) -> Spread:
    """The median of at least one figure, and the outermost."""
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The spread of the ratios of what was measured side by side."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def in_blocks(figures: Sequence[float], blocks: int = 12) -> list[float]:
    """The medians of so many stretches of many short rounds.

    A round of a fraction of a millisecond may hold a whole slice of somebody
    else's; what was outermost among thousands would say no more than that.
    """
    size = max(len(figures) // blocks, 1)
    stretches = [figures[at : at + size] for at in range(0, size * blocks, size)]
    return [statistics.median(stretch) for stretch in stretches if stretch]


def at_most(
    what: str,
    measured: str,
    figure: Spread,
    bar: float,
    *,
    unit: str = "",
    note: str = "",
    values: dict[str, object] | None = None,
) -> Row:
    """A row whose median must not be above the bar."""
    told = f"≤ {bar:g}{unit}"
    return _judged(
        what, measured, figure, told, figure.median <= bar, unit, note, values
    )


def at_least(
    what: str,
    measured: str,
    figure: Spread,
    bar: float,
    *,
    unit: str = "",
    note: str = "",
    values: dict[str, object] | None = None,
) -> Row:
    """A row whose median must not be below the bar."""
    told = f"≥ {bar:g}{unit}"
    return _judged(
        what, measured, figure, told, figure.median >= bar, unit, note, values
    )


def ahead(
    what: str,
    measured: str,
    figure: Spread,
    *,
    note: str = "",
    values: dict[str, object] | None = None,
) -> Row:
    """A row of how many times theirs takes what ours does: ahead is more than once."""
    return _judged(what, measured, figure, "> 1", figure.median > 1, "", note, values)


def left_out(what: str, why: str) -> Row:
    """A row that was not measured here."""
    return Row(what, "-", "left out", "-", None, why)


def failed(what: str, error: BaseException) -> Row:
    """A row that could not be measured, and what stood in the way."""
    return Row(what, "-", "failed", "-", None, f"{type(error).__name__}: {error}")


def _judged(  # noqa: PLR0917 - only the three above call it
    what: str,
    measured: str,
    figure: Spread,
    bar: str,
    met: bool,
    unit: str,
    note: str,
    values: dict[str, object] | None,
) -> Row:
    digits = 2 if abs(figure.median) < 20 else 0
    median, low, high = (f"{each:,.{digits}f}" for each in figure)
    told = f"{median}{unit} ({low} to {high})"
    values = {"median": figure.median, "low": figure.low, "high": figure.high} | (
        values or {}
    )
    return Row(what, measured, told, bar, met, note, values)


def heading() -> str:
    """The table's first lines."""
    return f"{_line(_TITLES)}\n{_line(['-' * width for width in _WIDTHS])}"


def drawn(row: Row) -> str:
    """One row, in as many lines as its longest cell needs, its note below."""
    cells = (row.what, row.measured, row.figure, row.bar, _JUDGED[row.met])
    wrapped = [
        textwrap.wrap(cell, width) or [""]
        for cell, width in zip(cells, _WIDTHS, strict=True)
    ]
    height = max(map(len, wrapped))
    lines = [
        _line([cell[number] if number < len(cell) else "" for cell in wrapped])
        for number in range(height)
    ]
    lines += [f"    {line}" for line in textwrap.wrap(row.note, sum(_WIDTHS))]
    return "\n".join(lines)


def markdown(rows: Iterable[Row]) -> str:
    """The table in the form that README.md has: neighbours of one kind share a line."""
    lines = ["| what | measured as | figure | aim |", "|---|---|---|---|"]
    lines += [
        _markdown_line(list(alike))
        for _, alike in groupby(rows, key=lambda row: (row.measured, row.figure == "-"))
    ]
    return "\n".join(lines)


def _markdown_line(rows: list[Row]) -> str:
    medians = [row.figure.partition(" (")[0] for row in rows]
    figures = [
        f"**{median}**" if row.met is False else median
        for row, median in zip(rows, medians, strict=True)
    ]
    note = f" ({rows[0].note})" if len(rows) == 1 and rows[0].note else ""
    bars = [row.bar for row in rows]
    aim = bars[0] if len(set(bars)) == 1 else ", ".join(bars)
    what = _joined([row.what for row in rows])
    return f"| {what} | {rows[0].measured} | {', '.join(figures)}{note} | {aim} |"


def _joined(names: list[str]) -> str:
    """The names in one: what they begin with stands once."""
    words = [name.split() for name in names]
    columns = zip(*words, strict=False)
    alike = len([*takewhile(lambda column: len({*column}) == 1, columns)])
    rests = [" ".join(each[alike:]) for each in words]
    return " ".join([*words[0][:alike], ", ".join(rests)]).strip()


def summary(rows: Iterable[Row]) -> str:
    """How many bars are met, and the rows that miss theirs, by name."""
    rows = list(rows)
    missed = [row.what for row in rows if row.met is False]
    judged = sum(row.met is not None for row in rows)
    told = f"{judged - len(missed)} of {judged} bars met"
    return told + (f"; missed: {', '.join(missed)}" if missed else "")


def _line(cells: Sequence[str]) -> str:
    pairs = zip(cells, _WIDTHS, strict=True)
    return "  ".join(f"{cell:<{width}}" for cell, width in pairs).rstrip()
