"""Text for a terminal: what is escaped, how wide it is, where it is folded. Pure."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator


# A text and its style.
Piece = tuple[str, str]


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def folded(texts: list[Piece], width: int, indent: int) -> list[list[Piece]]:
    """The lines of a text that may be wider than `width`: broken at blanks only."""
    if sum(columns(text) for text, _ in texts) <= width:
        return [texts]
    lines: list[list[Piece]] = [[]]
    used = 0
    for blanks, word in _words(texts):
        gap = sum(columns(text) for text, _ in blanks)
        wide = sum(columns(text) for text, _ in word)
        if used and blanks and used + gap + wide > width:
            lines.append([(" " * indent, "")])
            blanks, gap, used = [], 0, indent  # noqa: PLW2901 - the break is the blank
        lines[-1] += blanks + word
        used += gap + wide
    return [
        [
            ("".join(text for text, _ in pieces), style)
            for style, pieces in itertools.groupby(line, key=lambda piece: piece[1])
        ]
        for line in lines
    ]


def _words(
    texts: list[Piece],
) -> Iterator[tuple[list[Piece], list[Piece]]]:
    """The blanks before each word, and the word, which may be of several styles."""
    blanks: list[Piece] = []
    word: list[Piece] = []
    for text, style in texts:
        for part in re.findall(" +|[^ ]+", text):
            if part[0] != " ":
                word.append((part, style))
            elif word:
                yield blanks, word
                blanks, word = [(part, style)], []
            else:
                blanks.append((part, style))
    yield blanks, word


def problem_of(error: BaseException) -> str:
    """What an error says, without its number; of what is forbidden, what to do."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = "" if error.filename is None else f"{error.filename}: "
    advice = " (`ls -ld` shows who may)" if isinstance(error, PermissionError) else ""
    return f"{name}{error.strerror}{advice}"


def columns(text: str) -> int:
    """How many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(column_count, text))


def column_count(char: str) -> int:
    """How many columns of a terminal a character takes: none, one or two."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def many(count: int, noun: str) -> str:
    """A count and its noun: `1 segment`, `1,200 segments`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
