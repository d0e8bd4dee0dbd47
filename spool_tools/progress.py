"""A progress bar with the time left, for a person at a terminal.

Drawn by rich where it is installed, on standard output, or on standard error where the
output goes into a file. It appears after a moment, and leaves nothing behind.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from spool_tools.screen import Screen


if TYPE_CHECKING:
    from typing_extensions import Self


# What is over by then needs no bar, and need not load one.
_SHOWN_AFTER_S = 0.4
T = TypeVar("T")


class Bar:
    """`with Bar(screen, "dump", total=count) as bar: bar.at(20)`, of events.

    `total` is asked once, when the bar is drawn.
    """

    def __init__(self, screen: Screen, title: str, *, total: Callable[[], int]) -> None:
        self._screen, self._title, self._total = screen, title, total
        self._progress: Any = None
        self._task: Any = None
        is_watched = screen.console or (sys.stderr.isatty() and _is_output_a_file())
        self._due = time.monotonic() + _SHOWN_AFTER_S if is_watched else float("inf")

    def __enter__(self) -> Self:
        return self

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
