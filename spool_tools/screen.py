"""Standard output, for a person at a terminal or for a program.

Off a terminal a line is exactly the bytes it was given. On one it is printable text,
folded at words; colours and bars are drawn by rich, where it is installed. A bar is on
standard error where the output goes into a file; it leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from spool_tools.wording import columns, cut, fitted, folded, printable


if TYPE_CHECKING:
    from rich.console import Console


# A text, or a text and the style in which rich draws it.
Part = str | tuple[str, str]
Line = tuple[Part, ...]
# What is over by then needs no bar, and need not load one.
_SHOWN_AFTER_S = 0.4
T = TypeVar("T")
# Where there is no terminal there is no width: tables are as wide as they are.
_NO_WIDTH = 1 << 16
# Rows that decide how wide the columns of a table are.
_FIRST = 100
_GAP = "  "


class Screen:
    """Standard output for one run of a command.

    `console` is rich's, on a terminal where rich is installed; else None.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.console = _console() if self.is_terminal else None

    @property
    def width(self) -> int:
        return shutil.get_terminal_size().columns if self.is_terminal else _NO_WIDTH

    def say(self, *parts: Part, indent: int = 0) -> None:
        """One line for a person, made of parts in their styles.

        What is wider than the terminal goes on below, `indent` columns in. A word that
        is too long stays whole, so that it can be copied.
        """
        pairs = [(part, "") if isinstance(part, str) else part for part in parts]
        pairs = [(printable(text), style) for text, style in pairs]
        line = "".join(text for text, _ in pairs)
        text: Any = line
        if self.console is not None:
            from rich.text import Text

            text = Text.assemble(*pairs)
        for number, (start, end) in enumerate(folded(line, self.width, indent)):
            self._print(" " * indent if number else "", text[start:end])

    def json(self, line: bytes) -> None:
        """One JSON text as a line, byte for byte off a terminal."""
        if self.is_terminal:
            self._print(printable(line.decode("utf-8", "replace")))
        else:
            # A letter that was edited by hand may hold line ends between its members.
            sys.stdout.buffer.write(line.replace(b"\n", b" ") + b"\n")

    def body(self, body: bytes, *, is_text: bool) -> None:
        """A request's body, byte for byte off a terminal; a text ends a line."""
        if self.is_terminal:
            for line in body.splitlines():
                self.json(line)
        else:
            end = b"\n" if is_text and not body.endswith(b"\n") else b""
            sys.stdout.buffer.write(body + end)

    def _print(self, *parts: Any) -> None:
        if self.console is None:
            print(*parts, sep="")
        else:
            self.console.print(*parts, sep="", soft_wrap=True)

    def object(self, value: Any) -> None:
        self.json(as_json(value))

    def tell(self, done: Any, sentence: str) -> None:
        """What came of it: a sentence for a person, one JSON object for a program."""
        if self.is_terminal or _voices:
            self.say(sentence)
        else:
            self.object(done)

    def table(
        self,
        headings: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        styles: Sequence[str],
        folds: bool = False,
        at_once: bool = False,
    ) -> None:
        """Rows of as many cells as there are `headings`, no wider than the terminal.

        The first rows decide the widths, so a table of a million rows takes no more
        memory than one of a hundred. What does not fit is cut; with `folds` the last
        column goes on below instead. `at_once` shows each row as it comes.
        """
        cells = ([printable(cell) for cell in row] for row in rows)
        first = [] if at_once else list(itertools.islice(cells, _FIRST))
        # No column takes the room of the last one, which has the most to say.
        widths = [
            min(max(map(columns, column)), max(self.width // 3, len(column[0])))
            for column in list(zip(headings, *first, strict=True))[:-1]
        ]
        indent = sum(widths) + len(_GAP) * len(widths)
        room = max(self.width - indent, len(headings[-1]))

        def line(row: Sequence[str]) -> list[str]:
            before = [fitted(*each) + _GAP for each in zip(row, widths, strict=False)]
            return [*before, row[-1] if folds else cut(row[-1], room)]

        self.say(("".join(line(headings)).rstrip(), "bold"))
        for row in itertools.chain(first, cells):
            self.say(*zip(line(row), styles, strict=True), indent=indent)


def as_json(value: Any) -> bytes:
    """The JSON of a value, whatever bytes the names of files in it are made of.

    What no JSON text can hold is spelt out, `\\udcff` for a byte that is no UTF-8.
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_spelt_out(msgspec.to_builtins(value)))


def _spelt_out(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_spelt_out(each) for each in value]
    if isinstance(value, dict):
        return {name: _spelt_out(each) for name, each in value.items()}
    return value


# The programs whose command speaks, and what each calls ours; none: `spool-tools`.
_voices: list[tuple[str, Mapping[str, str]]] = []


@contextlib.contextmanager
def speaking_as(program: str, names: Mapping[str, str]) -> Iterator[None]:
    """Within, `program` speaks, which calls our commands by other `names`."""
    _voices.append((program, names))
    try:
        yield
    finally:
        _voices.pop()


def complain(command: str, message: object) -> None:
    """One line on standard error: what happened, and what to do."""
    program, names = _voices[-1] if _voices else ("spool-tools", {})
    said = f"{program} {names.get(command, command)}: {printable(str(message))}"
    with contextlib.suppress(OSError):  # it is closed; the exit code says it, too
        print(said, file=sys.stderr, flush=True)


def problem_of(error: BaseException) -> str:
    """What an error says, without its number; of what is forbidden, what to do."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = "" if error.filename is None else f"{error.filename}: "
    advice = " (`ls -ld` shows who may)" if isinstance(error, PermissionError) else ""
    return f"{name}{error.strerror}{advice}"


def _console() -> Console | None:
    try:
        from rich.console import Console
    except ImportError:
        return None
    # Nothing is read into what is printed: no markup, no emoji, no guessed colours.
    return Console(markup=False, emoji=False, highlight=False)


class Bar(contextlib.AbstractContextManager["Bar"]):
    """A progress bar with the time left: `with Bar(screen, "dump", total=count) as bar`.

    It appears after a moment; `total` is asked once, when it is drawn.
    """

    def __init__(self, screen: Screen, title: str, *, total: Callable[[], int]) -> None:
        self._screen, self._title, self._total = screen, title, total
        self._progress: Any = None
        self._task: Any = None
        is_watched = screen.console or (sys.stderr.isatty() and _is_output_a_file())
        self._due = time.monotonic() + _SHOWN_AFTER_S if is_watched else float("inf")

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def at(self, done: int) -> None:
        """So many events are done altogether."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done)
        elif time.monotonic() > self._due:
            self._due = float("inf")
            self._draw(done)

    def over(self, found: Iterable[T]) -> Iterator[T]:
        """The same; each that was taken is done."""
        for done, each in enumerate(found, 1):
            yield each
            self.at(done)

    def _draw(self, done: int) -> None:
        try:
            from rich import progress
            from rich.console import Console
        except ImportError:
            return

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", style="bold"),
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=self._screen.console or Console(stderr=True),
            transient=True,
            # What goes elsewhere must not be drawn here.
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(
            self._title, total=max(self._total(), 1), completed=done
        )
        self._progress.start()


def _is_output_a_file() -> bool:
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False
