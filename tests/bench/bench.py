"""What a run stands on: a directory on a real disk, the code, an environment.

The packages are copied and compiled first, so that no figure depends on the
state of a checkout, and nothing of the machine's own settings reaches a child:
no TELEMETRY_*, no CI, no state directory of a real user.
"""

from __future__ import annotations

import compileall
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from telemetry.delivery import schedule
from telemetry.paths import Home
from telemetry.pipeline import prepare
from tests.bench.filling import copy_spool, fill
from tests.bench.measuring import PATIENCE_S, Taken, run


if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from tests.bench.pythons import Interpreter


REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "bench-key"
# Further than any run takes, nearer than the 24 hours beyond which it would be due.
_LATER_S = 12 * 3600.0
# What an interpreter needs to start at all.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


class Bench:
    """One run. `is_short` asks for a form that takes a minute in all.

    directory: where everything is written; removed at the end
    comparison: the interpreter that has the libraries we are compared with
    pythons: those whose launch is measured
    """

    def __init__(
        self,
        directory: str,
        *,
        is_short: bool,
        comparison: str,
        pythons: Sequence[Interpreter],
    ) -> None:
        self.directory = directory
        self.is_short = is_short
        self.comparison = comparison
        self.pythons = pythons
        self.code = f"{directory}/code"
        self._homes = 0
        # Homes that are copied, by how many events wait in them.
        self._filled: dict[int, Home] = {}
        # Bound and never listening: whoever connects is refused at once.
        self._closed = socket.socket()
        self._closed.bind(("127.0.0.1", 0))
        for package in ("telemetry", "spool_tools"):
            shutil.copytree(
                REPOSITORY / package,
                f"{self.code}/{package}",
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        compileall.compile_dir(self.code, quiet=2)

    def compile_for(self, python: Interpreter) -> None:
        """The packages are compiled for another Python, too, on return."""
        run(
            [python.path, "-m", "compileall", "-q", self.code],
            environment=self.environment(),
            directory=self.directory,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.close()

    @property
    def closed_endpoint(self) -> str:
        """An endpoint on this machine that refuses every connection."""
        return f"http://127.0.0.1:{self._closed.getsockname()[1]}/"

    def pick(self, full: int, short: int) -> int:
        """A number of rounds or events: the first, or the second in a short run."""
        return short if self.is_short else full

    def environment(self, **variables: str) -> dict[str, str]:
        """What a child sees: a user, a language, and where the code is."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            **kept,
            "HOME": f"{self.directory}/user",
            "USER": "frances",
            "LANG": "en_US.UTF-8",
            "PYTHONPATH": self.code,
            **variables,
        }

    def python(
        self,
        source: str,
        *arguments: str,
        patience_s: float = PATIENCE_S,
        variables: Mapping[str, str] = MappingProxyType({}),
        python: Interpreter | None = None,
    ) -> Taken:
        """A Python of its own that runs `source`."""
        return run(
            [python.path if python else sys.executable, "-c", source, *arguments],
            environment=self.environment(**variables),
            directory=self.directory,
            patience_s=patience_s,
        )

    def new_home(self) -> Home:
        """A home as a first launch makes it, empty."""
        self._homes += 1
        home = Home(f"{self.directory}/home-{self._homes}")
        prepare(home)
        return home

    def filled_home(self, events: int) -> Home:
        """A home in which so many events wait: made once, then copied."""
        template = self._filled.get(events)
        if template is None:
            template = self._filled[events] = self.new_home()
            fill(template, events)
        home = self.new_home()
        copy_spool(template, home)
        return home

    def not_due(self, home: Home, endpoint: str) -> None:
        """No launch that sends to `endpoint` starts a flusher for this home."""
        self._set_next_flush(home, endpoint, time.time() + _LATER_S)

    def due(self, home: Home, endpoint: str) -> None:
        """The next launch starts a flusher, if events wait."""
        self._set_next_flush(home, endpoint, 0.0)

    @staticmethod
    def _set_next_flush(home: Home, endpoint: str, until: float) -> None:
        destination = schedule.destination_crc(endpoint, "x-api-key", KEY)
        plan = schedule.load(home.next_flush)
        plan.end(destination, time.time(), failures=0, until=until)
        schedule.store(home.next_flush, plan)


def remove(home: Home) -> None:
    """The home is gone, and its space is free."""
    shutil.rmtree(home.root, ignore_errors=True)


def wait_until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Return once it holds. Raises TimeoutError."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not come about")
        time.sleep(0.005)
