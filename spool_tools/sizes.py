"""Names and sizes of the files of a home. Opens none of them."""

from __future__ import annotations

import os

from telemetry.files import TEMPORARY, names_in
from telemetry.paths import Home


def quarantined(home: Home) -> list[tuple[str, int]]:
    """Name and size in bytes of every quarantined stretch."""
    return [
        (name, size)
        for name, size in sizes(home.quarantine).items()
        if TEMPORARY not in name
    ]


def sizes(directory: str) -> dict[str, int]:
    """The files of a directory of ours by name, with their sizes in bytes."""
    found = {
        name: size_of(f"{directory}/{name}") for name in sorted(names_in(directory))
    }
    return {name: size for name, size in found.items() if size is not None}


def size_of(path: str) -> int | None:
    """The size of a file in bytes; None where it is gone by now."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return None
