"""What a run left: what it said, and what stands in the home."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from telemetry.delivery.schedule import flush_lock
from telemetry.paths import Home
from tests.proofs.system_calls.tracing import Ran
from tests.support.delivering import letters_of


def answers_of(ran: Ran) -> dict[int, bool]:
    """What the host was answered, by the event's number."""
    words = [line.split() for line in ran.said if line.startswith("tracked")]
    return {int(number): answer == "True" for _, number, answer in words}


def is_free(home: Home) -> bool:
    """Whether nobody flushes, a program that was started in a flusher's place included."""
    if not os.path.isdir(home.root):
        return True
    lock = flush_lock(home)
    if lock is not None:
        os.close(lock)
    return lock is not None


def kept_in(home: Home) -> dict[str, bytes]:
    """Damaged stretches byte for byte, and letters by name."""
    kept = {letter.name: b"" for letter in letters_of(Path(home.root))}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(home.quarantine):
            kept[f"quarantine/{name}"] = Path(home.quarantine, name).read_bytes()
    return kept


def files_in(root: str) -> list[str]:
    """Every name below a home, directories too."""
    return sorted(
        os.path.relpath(os.path.join(where, name), root)
        for where, directories, names in os.walk(root)
        for name in [*directories, *names]
    )


def directory_of(home: Home) -> str:
    """The directory of the run."""
    return os.path.dirname(os.path.dirname(home.root))


@contextlib.contextmanager
def telling(what: str, found: list[str]) -> Iterator[None]:
    """Whatever is raised within is a finding."""
    try:
        yield
    except Exception as error:
        found.append(f"{what}: {type(error).__name__}: {error}")
