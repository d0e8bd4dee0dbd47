"""A progress bar on a terminal, with rate and time left; nothing anywhere else.

Drawn by rich where it is installed, on standard error, so that it never mixes
with what a command prints.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Bar:
    """`with Bar("flush", total=500, unit="events") as bar: bar.advance(20)`."""

    def __init__(self, title: str, *, total: int, unit: str) -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and sys.stdout.isatty():
            self._draw()
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
        if self._progress is not None:
            self._progress.advance(self._task, count)

    def at(self, done: int) -> None:
        """So many are done altogether."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done)

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
                return Text(f"{task.finished_speed or task.speed or 0:,.0f} {unit}/s")

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(self._title, total=self._total)
        self._progress.start()
