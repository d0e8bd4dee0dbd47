"""What this process has open, on every system."""

from __future__ import annotations

import contextlib
import os


# Far more than any test opens.
_DESCRIPTORS = 128


def open_files() -> set[int]:
    """Its descriptors; on Windows those of the C library, which all of ours are."""
    found = set()
    for descriptor in range(_DESCRIPTORS):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found
