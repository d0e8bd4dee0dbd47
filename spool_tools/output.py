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
from typing import TYPE_CHECKING, Any

import msgspec

from spool_tools.text import folded, printable


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

    def object(self, told: msgspec.Struct) -> None:
        """One JSON object as a line."""
        self.json(as_json(told))

    def tell(self, done: msgspec.Struct, sentence: str) -> None:
        """What came of it: a sentence for a person, one JSON object for a program."""
        if self.is_terminal:
            self.say(sentence)
        else:
            self.object(done)


def as_json(told: msgspec.Struct) -> bytes:
    """The JSON of something told, whatever bytes the names of files in it are made of.

    What no JSON text can hold is spelt out, `\\udcff` for a byte that is no UTF-8.
    """
    try:
        return msgspec.json.encode(told)
    except UnicodeEncodeError:
        return msgspec.json.encode(_spelt_out(told))


def _spelt_out(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_spelt_out(each) for each in value]
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        return {name: _spelt_out(getattr(value, name)) for name in names}
    return value


def complain(command: str, message: object) -> None:
    """One line on standard error: what happened, and what to do."""
    try:
        print(
            f"spool-tools {command}: {printable(str(message))}",
            file=sys.stderr,
            flush=True,
        )
    except OSError:
        pass  # nobody can be told; the exit code says it, too


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
