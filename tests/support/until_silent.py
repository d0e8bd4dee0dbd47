"""Run a command and hand on what it prints; end it once it is silent for too long.

    python3 tests/support/until_silent.py SECONDS COMMAND...

A slow machine makes a run long and not silent, so silence alone is taken for a hang
(exit code 124). What the command leaves running may hold its output open, and is not
waited for.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time


def run(silent_s: float, command: list[str]) -> int:
    """The command's exit code."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = process.stdout.fileno()
    heard = time.monotonic()
    while True:
        # Asked for first: all that it printed can then be read.
        code = process.poll()
        if select.select([output], [], [], 0.0 if code is not None else 1.0)[0]:
            printed = os.read(output, 65536)
            if not printed:
                return process.wait(silent_s)
            sys.stdout.buffer.write(printed)
            sys.stdout.buffer.flush()
            heard = time.monotonic()
        elif code is not None:
            return code
        elif time.monotonic() - heard > silent_s:
            process.kill()
            print(f"ended: nothing was printed for {silent_s:.0f} s", flush=True)
            return 124


if __name__ == "__main__":
    code = run(float(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
