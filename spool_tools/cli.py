"""How every command ends: a closed pipe (`| head`) quietly, Ctrl-C with 130, an output
that takes no more with a message.

What takes time to load is loaded where Ctrl-C is expected.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

FAILED = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: `sys.argv[1:]`) names; its exit code.

    Raises SystemExit where argparse has said what is wrong, or helped.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        _load_msgspec()
        from spool_tools import commands

        return commands.run(arguments)

    return ended(run, arguments[0] if arguments else "help")


def ended(run: Callable[[], int], name: str) -> int:
    """The exit code of the command `name`, which `run` is; all its output is written."""
    _prepare_output()
    try:
        try:
            code = run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        code = 0  # the reader has seen enough
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        # The disk that our output goes to is full, for example.
        from spool_tools.screen import complain, problem_of

        complain(name, problem_of(error))
        code = FAILED
    except ImportError as error:
        print(
            f"spool-tools {name}: cannot load what it needs: {error}", file=sys.stderr
        )
        code = FAILED
    finally:
        for stream in (sys.stdout, sys.stderr):
            flush_or_drop(stream)
    return code


def _load_msgspec() -> None:
    """Load the extension module that crashes where Ctrl-C interrupts its loading."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        importlib.import_module("msgspec")
    finally:
        # A Ctrl-C that came meanwhile is raised here.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_output() -> None:
    """Both streams take any text afterwards; what they cannot encode is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before we were started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_or_drop(stream: TextIO) -> None:
    """Write what is buffered, or drop it: Python would complain when it ends."""
    try:
        stream.flush()
        return
    except OSError:
        pass
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # it is no file
