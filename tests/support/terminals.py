"""Running the tools at a real terminal, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from spool_tools.cli import main
from tests.support.tooling import PATIENCE_S, environment, with_home


# What hides a library from a Python that is started with it.
_WITHOUT_RICH = "import sys; sys.modules['rich'] = None\n"
_MAIN = "import sys\nfrom spool_tools.cli import main\nsys.exit(main())"
# What a terminal obeys, or what makes a line look like another one: control
# characters, the signs of writing direction, invisible ones.
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ufeff]"
)
# What rich itself draws with: colours, the cursor, and lines that are drawn anew.
_DRAWN = re.compile(r"\x1b\[[0-9;]*[mABCDGJK]|\x1b\[\?25[lh]|\r")


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

    def safe(self) -> str:
        """The same; AssertionError where a terminal would obey something of it."""
        assert b"Traceback" not in self.raw, self.raw
        shown = _DRAWN.sub("", self.raw.decode())
        assert OBEYED.search(shown) is None, self.raw
        return self.text


def at_terminal(
    *arguments: str,
    home: Path | None = None,
    columns: int = 80,
    rich: bool = True,
    prelude: str = "",
    interrupt_at: bytes | None = None,
    typed: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> Terminal:
    """A tool at a terminal, with rich or without, in a fork of this process.

    `prelude` is Python that runs first, in a process that is started anew. `interrupt_at` is what the tool says before
    Ctrl-C is pressed; `typed` is what is typed at once.
    """
    if not prelude:
        return _forked_at_terminal(
            with_home(arguments, home), columns, rich, interrupt_at, typed, variables
        )
    source = ("" if rich else _WITHOUT_RICH) + prelude + _MAIN
    given = environment(TERM="xterm-256color", **(variables or {}))
    command = [sys.executable, "-c", source, *with_home(arguments, home)]
    return _watched(
        lambda: os.execve(sys.executable, command, given), columns, interrupt_at, typed
    )


def _forked_at_terminal(  # noqa: PLR0917 - the arguments of `at_terminal`
    arguments: list[str],
    columns: int,
    rich: bool,
    interrupt_at: bytes | None,
    typed: bytes,
    variables: Mapping[str, str] | None,
) -> Terminal:
    """In a fork: ten times as quick as an interpreter that starts."""

    def work() -> NoReturn:
        os.environ.clear()
        os.environ.update(environment(TERM="xterm-256color", **(variables or {})))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not rich:
            for loaded in [each for each in sys.modules if each.startswith("rich")]:
                del sys.modules[loaded]
            sys.modules["rich"] = None  # type: ignore[assignment]
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            mode = "w" if number else "r"
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        code = 1
        try:
            code = main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    return _watched(work, columns, interrupt_at, typed)


def _watched(
    work: Callable[[], NoReturn],
    columns: int,
    interrupt_at: bytes | None,
    typed: bytes,
) -> Terminal:
    """What comes of `work` in a child whose terminal is `columns` wide."""
    terminal, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with warnings.catch_warnings():
        # A test forks beside the threads of its server on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            fcntl.ioctl(its, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(its, number)
            os.closerange(3, max(terminal, its) + 1)
            work()
        finally:
            os._exit(99)
    os.close(its)
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
