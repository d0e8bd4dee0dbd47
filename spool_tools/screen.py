"""Text for a terminal: what is escaped, how wide it is, where it is folded. Pure.

Printing for people and for programs, and never a byte that a terminal obeys.

Off a terminal a line is exactly the bytes it was given. On one, whatever is not
printable is escaped the way JSON escapes it, so the text stays valid JSON; colours
are drawn by rich, where it is installed.

Rows under headings, as wide as the terminal and no wider.

The first rows decide how wide the columns are; the others are drawn as they come,
so that a table of a million rows takes no more memory than one of a hundred. Off
a terminal nothing is cut.

A progress bar with rate and time left, for whoever looks at a terminal.

Drawn by rich where it is installed, on the terminal that is there: on standard
output, or on standard error where the output goes into a file. Nothing is drawn
before it has taken a moment, and nothing is left of it afterwards.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec


if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self


def size(count: int) -> str:
    """Bytes in a unit that leaves few digits."""
    if count < 1024:
        return f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024 / 1024:.1f} MiB"


def age(seconds: float) -> str:
    """A time span in a unit that leaves few digits."""
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        # What is about two of them is told in them.
        if seconds > 1.95 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(milliseconds: int | None, now: float) -> str:
    """How long ago a time was, in milliseconds since 1970."""
    if milliseconds is None:
        return "never"
    # A letter that was edited by hand may say any number.
    if milliseconds > now * 1000:
        return f"at {moment(milliseconds)}"
    past_s = now - max(milliseconds, 0) / 1000
    return f"{age(past_s)} ago"


def moment(milliseconds: int) -> str:
    """A time as a person reads it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(milliseconds // 1000))
    except (OverflowError, ValueError, OSError):
        return "a time beyond the calendar"


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


# What is over by then needs no bar, and need not load one.
_SHOWN_AFTER_S = 0.4


class Bar:
    """`with Bar(screen, "dump", total=count, unit="events") as bar: bar.at(20)`.

    `total` is asked once, when the bar is drawn.
    """

    def __init__(
        self, screen: Screen, title: str, *, total: Callable[[], int], unit: str
    ) -> None:
        self._screen = screen
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._progress: Any = None
        self._task: Any = None
        # Infinitely late where there is nobody to look at it.
        self._due = time.monotonic() + _SHOWN_AFTER_S
        if screen.console is None and not (sys.stderr.isatty() and is_kept()):
            self._due = float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.at(self._done + count)

    def at(self, done: int) -> None:
        """So many are done altogether."""
        self._done = done
        if self._progress is not None:
            self._progress.update(self._task, completed=done)
        elif time.monotonic() > self._due:
            self._due = float("inf")
            self._draw()

    def _draw(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                ProgressColumn,
                Task,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.text import Text
        except ImportError:
            return
        unit = self._unit

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                rate = task.finished_speed or task.speed
                return Text(f"{rate:,.0f} {unit}/s" if rate else "")

        self._progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=self._screen.console or Console(stderr=True),
            transient=True,
            # What goes elsewhere must not be drawn here.
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(self._title, total=max(self._total(), 1))
        self._progress.update(self._task, completed=self._done)
        self._progress.start()
