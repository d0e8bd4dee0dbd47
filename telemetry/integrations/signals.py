"""A command that SIGTERM or SIGHUP ends is recorded, and ends as it would have.

Rules:

- Only where the host left the signal to the system: a handler of its own, or an ignored
  signal (`nohup`), stays. So does the process that init runs as, which no such signal
  ends.
- Having recorded, the process ends by the same signal, so its parent sees the same. No
  `finally` and no exit handler runs, as none would have run.
- Python runs a handler between two steps of its own: a program deep in foreign code (a
  long query, a window's event loop) ends when that returns. Such a program says
  `signals=False`.
- A forked child ends by the signal and records nothing.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import os
from collections.abc import Callable


_DEADLY = {
    getattr(signal, name): name
    for name in ("SIGTERM", "SIGHUP")
    if os.name == "posix" and hasattr(signal, name)
}


class Watch:
    """While it is open, `record` is called with the name and number of such a signal."""

    def __init__(self, record: Callable[[str, int], object]) -> None:
        self._record: Callable[[str, int], object] | None = record
        self._pid = os.getpid()
        self._watched: list[int] = []
        # One bound method: it is compared by identity.
        self._handler: Callable[[int, object], None] | None = self._end
        for number in _DEADLY if self._pid != 1 else ():
            if signal.getsignal(number) == signal.SIG_DFL:
                try:
                    signal.signal(number, self._handler)
                except ValueError:
                    return  # a thread other than the first: Python does not let it
                self._watched.append(number)

    def close(self) -> None:
        """The signals are the system's again, where they are still ours."""
        for number in self._watched:
            if signal.getsignal(number) is self._handler:
                signal.signal(number, signal.SIG_DFL)
        # Nothing of the program's lives on with us.
        self._watched, self._handler, self._record = [], None, None

    def _end(self, number: int, _frame: object) -> None:
        try:
            if os.getpid() == self._pid and self._record is not None:
                self._record(_DEADLY[number], number)
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
