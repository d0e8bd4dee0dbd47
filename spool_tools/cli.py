"""The command line: whatever a command does, it ends as a tool should.

A closed pipe (`| head`) ends it quietly, Ctrl-C with 130, an output that takes no
more with a message. What takes time to load is loaded where Ctrl-C is expected.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

FAILED = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: `sys.argv[1:]`) names; its exit code.

    Raises SystemExit where argparse has said what is wrong, or helped.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_output()
    try:
        try:
            _load_in_peace()
            from spool_tools.commands import run

            code = run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has seen enough.
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        # The disk that our output goes to is full, for one.
        from spool_tools.output import complain
        from spool_tools.text import problem_of

        complain(arguments[0] if arguments else "help", problem_of(error))
        code = FAILED
    finally:
        _let_go_of_output()
    return code


def _load_in_peace() -> None:
    """Load the extension module that crashes where Ctrl-C cuts its loading short."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        importlib.import_module("msgspec")
    finally:
        # What came meanwhile is raised here.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_output() -> None:
    """Both streams take any text afterwards; what they cannot show, they escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # It was closed by whoever started us: nobody listens.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """What cannot be written goes nowhere, or Python would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        _flush_or_drop(stream)


def _flush_or_drop(stream: TextIO) -> None:
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
