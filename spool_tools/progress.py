"""A progress bar with rate and time left, for whoever looks at a terminal.

Drawn by rich where it is installed, on the terminal that is there: on standard
output, or on standard error where the output goes into a file. Nothing is drawn
before it has taken a moment, and nothing is left of it afterwards.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spool_tools.output import Screen, is_kept


if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

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
