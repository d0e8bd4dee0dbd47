"""The programs whose system calls fail: a host that records, a flusher, a purge.

Each runs in a child of `nursery.py` between two marks, and tells over `tell` what
the judge has to know. What it says goes out by `writev`, which no program under
test calls: so it can be told apart from the calls that are made to fail.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from telemetry.books.books import Books
from telemetry.client import Client
from telemetry.config import Config
from telemetry.consent import consent
from telemetry.delivery.flush import flush
from telemetry.delivery.opt_out import finish_opt_out, opt_out
from telemetry.delivery.purge import purge
from telemetry.delivery.schedule import flush_lock
from telemetry.errors import TelemetryError
from telemetry.paths import Home
from tests.support.writers import Numbered


KEY = "a-secret-key-of-some-length"
HOST_CODE = 7
HOST_SAYS = "the host has done its work\n"
# The mark behind which nothing of a recording counts any more.
END = "/mark-of-the-end"

Tell = Callable[[str], object]


def record(told: dict[str, object], tell: Tell) -> int:
    """A host that records events and goes on with its own work, whatever comes."""
    first, count = told["first"], told["count"]
    assert isinstance(first, int)
    assert isinstance(count, int)
    executable = told.get("executable")
    if executable is not None:
        sys.executable = str(executable)  # a Python that does nothing
    client = Client(
        Config(
            app="app",
            home=str(told["home"]),
            endpoint=str(told["endpoint"]),
            api_key=KEY,
            flush="launch",
            segment_bytes_max=2500,
            event_bytes_max=4000,
            durability=told.get("durability", "process"),  # type: ignore[arg-type]
            scrub=False,
        )
    )
    for number in range(first, first + count):
        # One in four of a program that is to be refused is too big.
        size = 9000 if told.get("refused") and number % 4 == 1 else 400
        answer = client.track(Numbered(number, "host", "x" * size))
        tell(f"tracked {number} {answer}")
    client.close()
    os.access(END, os.F_OK)
    _tell_leaks(str(told["home"]), tell)
    return HOST_CODE


def drain(told: dict[str, object], tell: Tell) -> int:
    """A flusher in the foreground; consent is asked for as a pipeline asks."""
    home = Home(str(told["home"]))
    config = Config(
        app="app",
        home=home.root,
        endpoint=str(told["endpoint"]),
        api_key=str(told.get("key", KEY)),
        batch_events_max=3,
        durability=told.get("durability", "process"),  # type: ignore[arg-type]
    )

    def is_allowed() -> bool:
        return consent(home, {}).on

    report = flush(config, home, timeout_s=10.0, environment={}, allowed=is_allowed)
    tell(f"stopped {report.stopped}")
    os.access(END, os.F_OK)
    _tell_leaks(home.root, tell)
    return HOST_CODE


def purging(told: dict[str, object], tell: Tell) -> int:
    """What `spool-tools purge` does, and `disable`."""
    home = Home(str(told["home"]))
    lock = None
    try:
        if told.get("forget"):
            opt_out(home)
            tell("stopped recording")
        lock = flush_lock(home)
        if lock is not None:
            if told.get("forget"):
                finish_opt_out(home, lock=lock)
            else:
                _purge(home)
            tell("stopped purged")
    except (TelemetryError, OSError) as error:
        tell(f"stopped {type(error).__name__}")
    finally:
        if lock is not None:
            try:
                os.close(lock)
            except OSError:
                tell("stopped OSError")
    os.access(END, os.F_OK)
    _tell_leaks(home.root, tell)
    return HOST_CODE


def _purge(home: Home) -> None:
    books = Books(home.ledger, relieve=lambda: None, is_full=lambda: False)
    try:
        purge(home, books)
    finally:
        books.close()


def _tell_leaks(root: str, tell: Tell) -> None:
    """Every descriptor of a file of the home that is still open."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return  # no descriptor is left to look with
    for name in names:
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if path.startswith(root):
            tell(f"leaked {path.removeprefix(root)}")


PROGRAMS: dict[str, Callable[[dict[str, object], Tell], int]] = {
    "record": record,
    "drain": drain,
    "purge": purging,
}
