"""Children whose system calls are recorded, failed, or the last they make.

`strace` attaches to a child that is about to begin, so its numbering of calls begins
there. It follows the child's first thread alone, which is the one that touches the
home: a request's own thread opens no file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple


if TYPE_CHECKING:
    from typing_extensions import Self

_NURSERY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nursery.py")


class Ran(NamedTuple):
    """How one run of a program went.

    said: the lines it told; output: its standard output, then its standard error
    log: the tracer's lines
    """

    status: int
    hung: bool
    said: list[str]
    output: tuple[str, str]
    log: list[str]


class Nursery:
    """Runs programs, one at a time, traced or not. A context."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, _NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def run(
        self, told: dict[str, object], directory: str, options: list[str] | None
    ) -> Ran:
        """One run to its end. `options` are the tracer's; None: no tracer.

        The tracer's log is written into `directory`.
        """
        child = self._ask({**told, "user_home": directory})
        log = f"{directory}/log"
        tracer = None
        if options is not None:
            tracer = subprocess.Popen(
                ["strace", "-y", "-s0", "-o", log, *options, "-p", str(child["pid"])],
                stderr=subprocess.PIPE,
                text=True,
            )
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            assert "attached" in said, said
        ended = self._ask("go")
        lines: list[str] = []
        if tracer is not None:
            with tracer:
                assert tracer.stderr is not None
                tracer.stderr.read()
            with open(log, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        return Ran(
            status=ended["status"],
            hung=ended["hung"],
            said=ended["said"].splitlines(),
            output=(ended["out"], ended["err"]),
            log=lines,
        )

    def _ask(self, message: object) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer


def can_trace() -> bool:
    """Whether there is a tracer here that may attach to a child of ours."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "10"]) as process:
        command = ["strace", "-o", os.devnull, "-p", str(process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            process.kill()
            tracer.stderr.read()
    return "attached" in said
