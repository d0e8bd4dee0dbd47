"""Programs of Debian's, unpacked beside the test and never installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


# A mirror that is slower than this is as good as none.
_PATIENCE_S = 60.0


def program_of(package: str, program: str, directory: Path) -> str:
    """The path of a program: an installed one, else out of a package of Debian's.

    Skips the test, by its name, where neither can be had.
    """
    installed = shutil.which(program)
    if installed is not None:
        return installed
    with _skipping(program, package):
        unpack([package], directory)
        (found,) = (
            each for each in directory.rglob(program) if each.parent.name == "sbin"
        )
        subprocess.run([found, "-v"], check=True, capture_output=True)
    return str(found)


def with_libraries(package: str, directory: Path) -> dict[str, str]:
    """Unpacks a package with all that it needs and this machine lacks.

    Returns the environment that its programs run in. Skips the test, by the package's
    name, where it cannot be had.
    """
    with _skipping(package, package):
        # What an installation would add is what is missing here.
        planned = _run(
            "apt-get", "-q", "-s", "--no-install-recommends", "install", package
        )
        unpack(re.findall(r"^Inst (\S+)", planned, re.MULTILINE), directory)
    places = {str(each.parent) for each in directory.rglob("*.so*")}
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(places))}


def unpack(packages: list[str], directory: Path) -> None:
    """Raises OSError or SubprocessError where a package cannot be had or unpacked."""
    directory.mkdir()
    quickly = ("-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10")
    _run("apt-get", "-q", *quickly, "download", *packages, cwd=directory)
    for archive in directory.glob("*.deb"):
        _run("dpkg", "-x", str(archive), str(directory))


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    return done.stdout


@contextlib.contextmanager
def _skipping(program: str, package: str) -> Iterator[None]:
    """Skips the test where there is no Debian, no mirror or another processor."""
    try:
        yield
    except (subprocess.SubprocessError, OSError, ValueError):
        pytest.skip(f"{program} of Debian's {package} cannot be had or run here")
