"""Printing for people and for programs, and never a byte that a terminal obeys.

Off a terminal a line is exactly the bytes it was given. On one, whatever is not
printable is escaped the way JSON escapes it, so the text stays valid JSON; colours
are drawn by rich, where it is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import unicodedata
from typing import TYPE_CHECKING

import msgspec


if TYPE_CHECKING:
    from rich.console import Console

# A text, or a text and the style in which rich draws it.
Part = str | tuple[str, str]
# Where there is no terminal there is no width: tables are as wide as they are.
_NO_WIDTH = 1 << 16


class Screen:
    """Standard output for one run of a command.

    `console` is rich's, on a terminal where rich is installed; else None.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.console = _console() if self.is_terminal else None

    @property
    def width(self) -> int:
        """Columns of a line."""
        return shutil.get_terminal_size().columns if self.is_terminal else _NO_WIDTH

    def say(self, *parts: Part, indent: int = 0) -> None:
        """One line for a person, made of parts in their styles.

        What is wider than the terminal goes on below, `indent` columns in.
        """
        texts = [(part, "") if isinstance(part, str) else part for part in parts]
        texts = [(printable(text), style) for text, style in texts]
        for line in folded(texts, self.width, indent):
            self._print(line)

    def _print(self, texts: list[tuple[str, str]]) -> None:
        if self.console is None:
            print("".join(text for text, _ in texts))
            return
        from rich.text import Text

        # A word that is too long is the terminal's affair: what is copied stays whole.
        self.console.print(Text.assemble(*texts), soft_wrap=True)

    def json(self, line: bytes) -> None:
        """One JSON text as a line, byte for byte if nobody is looking."""
        if self.is_terminal:
            self._print([(printable(line.decode("utf-8", "replace")), "")])
        else:
            # A letter that was edited by hand may hold line ends between its members.
            sys.stdout.buffer.write(line.replace(b"\n", b" ") + b"\n")

    def tell(self, done: msgspec.Struct, sentence: str) -> None:
        """What came of it: a sentence for a person, one JSON object for a program."""
        if self.is_terminal:
            self.say(sentence)
        else:
            self.json(msgspec.json.encode(done))


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def folded(
    texts: list[tuple[str, str]], width: int, indent: int
) -> list[list[tuple[str, str]]]:
    """The lines of a text that may be wider than `width`: broken at blanks only."""
    if sum(columns(text) for text, _ in texts) <= width:
        return [texts]
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0
    for text, style in texts:
        for word in re.findall(r" *[^ ]+| +$", text):
            wide = columns(word)
            if used and used + wide > width and word.startswith(" "):
                lines.append([(" " * indent, "")])
                word, used = word.lstrip(), indent  # noqa: PLW2901 - its blank is the break
                wide = columns(word)
            lines[-1].append((word, style))
            used += wide
    return lines


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


def complain(command: str, message: object) -> None:
    """One line on standard error: what happened, and what to do."""
    print(f"spool-tools {command}: {printable(str(message))}", file=sys.stderr)


def is_kept() -> bool:
    """Whether standard output goes into a file, and so leaves the terminal alone."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _console() -> Console | None:
    try:
        from rich.console import Console
    except ImportError:
        return None
    # Nothing is read into what is printed: no markup, no emoji, no guessed colours.
    return Console(markup=False, emoji=False, highlight=False)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
