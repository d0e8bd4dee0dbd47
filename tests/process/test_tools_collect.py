"""`collect` as a command: it ends when it is told to, and its lines are safe."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.terminals import at_terminal
from tests.support.tooling import environment, killed_at_the_end


# The main thread does not take the signal, so another one does, and nothing wakes the
# main thread up. One that comes just before a wait begins does not, either.
ELSEWHERE = """
import signal, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
from spool_tools.cli import main
sys.exit(main(["collect", "--database", ":memory:"]))
"""


def test_a_signal_that_wakes_nobody_up_still_ends_it() -> None:
    """A collector that cannot be stopped holds its port, and a build."""
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        running = subprocess.Popen(
            [sys.executable, "-c", ELSEWHERE],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with killed_at_the_end(running):
            assert running.stdout is not None
            assert running.stdout.readline().startswith(b"http://127.0.0.1:")
            running.send_signal(number)
            assert running.wait(timeout=60) == code


def test_what_is_asked_for_reaches_no_terminal_raw(tmp_path: Path) -> None:
    """Whoever reaches the port writes these lines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sending = (
        "import socket, threading\n"
        "def send():\n"
        "    while True:\n"
        "        try:\n"
        f"            with socket.create_connection(('127.0.0.1', {port})) as it:\n"
        "                it.sendall(b'POST /\\x9b31m HTTP/1.1\\r\\n'\n"
        "                    b'User-Agent: \\x9b32m\\xc2\\x9b\\r\\n'\n"
        "                    b'Content-Length: 2\\r\\n\\r\\n{}')\n"
        "                return it.recv(99)\n"
        "        except ConnectionRefusedError:\n"
        "            pass\n"
        "threading.Thread(target=send, daemon=True).start()\n"
    )
    seen = at_terminal(
        "collect",
        "--verbose",
        "--listen",
        f"127.0.0.1:{port}",
        "--database",
        str(tmp_path / "collected.db"),
        prelude=sending,
        interrupt_at=b'"status":',
    )
    assert seen.code == 130
    assert re.search(r'"path":"[^"]*', seen.safe())
