"""Running the tools: in this process, in one of their own, and in a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from spool_tools.cli import main
from tests.surroundings import REPOSITORY, bare_environment, only_environment


PATIENCE_S = 60.0
# What hides a library from a Python that is started with it.
_WITHOUT_RICH = "import sys; sys.modules['rich'] = None\n"
_MAIN = "import sys\nfrom spool_tools.cli import main\nsys.exit(main())"


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
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with (
        only_environment(bare_environment(Path("/nonexistent"), **variables)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(with_home(arguments, home))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    told = [each.buffer.getvalue() for each in (out, err)]  # type: ignore[attr-defined]
    return Ran(code, told[0], told[1].decode())


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


class Terminal(NamedTuple):
    """What a person at a terminal saw: as it came, and without its colours."""

    code: int
    raw: bytes

    @property
    def text(self) -> str:
        """What came, less the sequences that rich draws with."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode()).replace(
            "\r\n", "\n"
        )


def at_terminal(
    *arguments: str,
    home: Path | None = None,
    columns: int = 80,
    rich: bool = True,
    interrupt_at: bytes | None = None,
    typed: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> Terminal:
    """A tool that is run at a terminal of its own, with rich or without.

    `interrupt_at` is what it says before Ctrl-C is pressed; `typed` is what is typed
    at once.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        source = ("" if rich else _WITHOUT_RICH) + _MAIN
        given = environment(TERM="xterm-256color", **(variables or {}))
        command = [sys.executable, "-c", source, *with_home(arguments, home)]
        os.execve(sys.executable, command, given)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        if typed:
            os.write(terminal, typed)
        raw = _heard(terminal, interrupt_at)
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return Terminal(os.waitstatus_to_exitcode(status), raw)


def _heard(terminal: int, interrupt_at: bytes | None) -> bytes:
    """All that is said until the other end hangs up."""
    raw = b""
    deadline = time.monotonic() + PATIENCE_S
    while select.select([terminal], [], [], max(deadline - time.monotonic(), 0))[0]:
        try:
            more = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that nobody is at the other end
            return raw
        if not more:
            return raw
        raw += more
        if interrupt_at is not None and interrupt_at in raw:
            os.write(terminal, b"\x03")
            interrupt_at = None
    raise AssertionError(f"it still runs, and has said {raw[-500:]!r}")


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
