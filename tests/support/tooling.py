"""Running the tools: in this process, and in one of their own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from spool_tools.cli import main
from tests.support.surroundings import REPOSITORY, bare_environment, only_environment


PATIENCE_S = 60.0


class Ran(NamedTuple):
    """What a run of a tool came to."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON objects, one a line, and nothing else."""
        assert self.out == b"" or self.out.endswith(b"\n")
        found = [msgspec.json.decode(line) for line in self.out.splitlines()]
        assert all(isinstance(each, dict) for each in found)
        return found

    @property
    def line(self) -> dict[str, Any]:
        """The only line."""
        (only,) = self.lines
        return only


def tool(*arguments: str, home: Path | None = None, **variables: str) -> Ran:
    """A tool in this process, as if its output went into a pipe."""
    said, complained = io.BytesIO(), io.BytesIO()
    out = io.TextIOWrapper(said, encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(complained, encoding="utf-8", write_through=True)
    with (
        only_environment(bare_environment(Path("/nonexistent"), **variables)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(with_home(arguments, home))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Ran(code, said.getvalue(), complained.getvalue().decode())


def with_home(arguments: tuple[str, ...], home: Path | None) -> list[str]:
    """The arguments, with the home that they are about."""
    return [*arguments, *(["--home", str(home)] if home else [])]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a tool in a process of its own."""
    return bare_environment(
        Path("/nonexistent"), PYTHONPATH=str(REPOSITORY), LANG="C.UTF-8", **variables
    )


def process(
    *arguments: str, home: Path | None = None, **variables: str
) -> subprocess.Popen[bytes]:
    """A tool in a process of its own, started and not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "spool_tools", *with_home(arguments, home)],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ran(*arguments: str, home: Path | None = None, **variables: str) -> Ran:
    """A tool in a process of its own, run to its end."""
    with process(*arguments, home=home, **variables) as running:
        out, err = running.communicate(timeout=PATIENCE_S)
    return Ran(running.returncode, out, err.decode())


def fingerprint(directory: Path) -> dict[str, tuple[object, ...]]:
    """Every file below, with all that a change would show in."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        digest = hashlib.sha256(content).hexdigest()
        found[str(path)] = (
            digest,
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_mode,
            stat.st_ino,
            stat.st_nlink,
        )
    return found


@contextlib.contextmanager
def killed_at_the_end(running: subprocess.Popen[bytes]) -> Iterator[None]:
    """The process is gone when the block ends."""
    try:
        yield
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
        running.communicate()
