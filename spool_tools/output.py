"""Printing for people and for programs, and never a byte that a terminal obeys.

Off a terminal a line is exactly the bytes it was given. On one, whatever is not
printable is escaped the way JSON escapes it, so the text stays valid JSON.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def print_json(line: bytes) -> None:
    """One JSON text as a line."""
    if is_terminal():
        print(printable(line.decode("utf-8", "replace")))
    else:
        sys.stdout.buffer.write(line + b"\n")


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def complain(command: str, message: object) -> None:
    """One line on standard error: what happened, and what to do."""
    print(f"spool-tools {command}: {printable(str(message))}", file=sys.stderr)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table, drawn by rich on a terminal where it is installed, else in columns."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if is_terminal() and _draw(headings, cells):
        return
    width = shutil.get_terminal_size().columns if is_terminal() else 1 << 16
    columns = zip(headings, *cells, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for row in (list(headings), *cells):
        line = "  ".join(
            cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)
        )
        print(line.rstrip()[:width])


def _draw(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        # Text, not str: what stands in square brackets is no markup of ours.
        table.add_row(*(Text(cell, overflow="ellipsis", no_wrap=True) for cell in row))
    Console().print(table)
    return True


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
