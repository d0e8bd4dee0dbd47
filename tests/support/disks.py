"""File systems of a test's own, of a size that it chooses."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """What `options` of `mount` name, at `place`; skips where that is not permitted."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("making a file system needs the superuser, on Linux")
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", *options, str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        # A flusher that has given up its lock may still be about to exit.
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def memory_disk(place: Path, *, size_kib: int, inodes: int = 0) -> Iterator[Path]:
    """A disk in memory with so many KiB and files (0: as many as fit)."""
    options = f"size={size_kib}k,nr_inodes={inodes},mode=700"
    with mounted(place, "-t", "tmpfs", "-o", options, "none"):
        yield place
