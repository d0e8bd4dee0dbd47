"""Printing for people and for programs, and never a byte that a terminal obeys.

Off a terminal a line is exactly the bytes it was given. On one, whatever is not
printable is escaped the way JSON escapes it, so the text stays valid JSON; colours
are drawn by rich, where it is installed.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING

import msgspec


if TYPE_CHECKING:
    from rich.console import Console

# A text, or a text and the style in which rich draws it.
Part = str | tuple[str, str] if TYPE_CHECKING else object
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

    def say(self, *parts: Part) -> None:
        """One line for a person, made of parts in their styles."""
        texts = [(part, "") if isinstance(part, str) else part for part in parts]
        texts = [(printable(text), style) for text, style in texts]
        if self.console is None:
            print("".join(text for text, _ in texts))
            return
        from rich.text import Text

        line = Text.assemble(*texts)
        # Where a line ends is the terminal's affair: what is copied stays whole.
        self.console.print(line, soft_wrap=True)

    def json(self, line: bytes) -> None:
        """One JSON text as a line, byte for byte if nobody is looking."""
        if self.is_terminal:
            self.say(line.decode("utf-8", "replace"))
        else:
            sys.stdout.buffer.write(line + b"\n")

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
