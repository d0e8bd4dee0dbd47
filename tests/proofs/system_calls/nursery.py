"""A process that forks the children under test, with everything loaded already.

    <- {"program": "record", …}      start one, which waits before its first step
    -> {"pid": 4711}
    <- "go"                          let it run: a tracer is attached by now
    -> {"status": 7, "hung": false, "said": …, "out": …, "err": …}

It has one thread and opens no database, so that a fork of it is like new. A child
that is told so ends the way a program ends, with the interpreter's own end, which
takes longer than all the rest. What it says goes into pipes: a bound on the length
of its files does not bound that, and what it said before a kill is not lost.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import traceback

from tests.proofs.system_calls.programs import HOST_SAYS, PROGRAMS


if __name__ == "__main__":  # run as a file: the tests' parent is not on the path
    sys.path.insert(
        0,
        os.path.dirname(
            os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        ),
    )


# No child that works takes a tenth of it, however busy the machine is.
PATIENCE_S = 120.0


def main() -> int:
    """Serve until standard input ends; in a child, the exit code of its program."""
    _warm_up()
    while True:
        line = sys.stdin.readline()
        if not line:
            return 0
        told = json.loads(line)
        ours, its = socket.socketpair()
        pipes = {name: os.pipe() for name in ("said", "out", "err")}
        pid = os.fork()
        if pid == 0:
            ours.close()
            for reading, _ in pipes.values():
                os.close(reading)
            said, out, err = (writing for _, writing in pipes.values())
            return _child(told, its, said, out, err)
        its.close()
        for _, writing in pipes.values():
            os.close(writing)
        ours.recv(1)  # it is about to wait
        _say({"pid": pid})
        sys.stdin.readline()
        ours.send(b"g")
        hung = not _ends(pid)
        if hung:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        ours.close()
        told = {name: _drained(reading) for name, (reading, _) in pipes.items()}
        _say({"status": os.waitstatus_to_exitcode(status), "hung": hung, **told})


def _ends(pid: int) -> bool:
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_S)[0])
    finally:
        os.close(descriptor)


def _drained(reading: int) -> str:
    """What stands in a pipe whose writer is dead. What it started may hold it open."""
    os.set_blocking(reading, False)
    content = b""
    try:
        while more := os.read(reading, 1 << 16):
            content += more
    except BlockingIOError:
        pass
    finally:
        os.close(reading)
    return content.decode("utf-8", "replace")


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


def _child(
    told: dict[str, object], start: socket.socket, said: int, out: int, err: int
) -> int:
    null = os.open(os.devnull, os.O_RDONLY)
    for number, opened in ((0, null), (1, out), (2, err)):
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ["HOME"] = str(told["user_home"])

    def tell(line: str) -> None:
        os.writev(said, [line.encode() + b"\n"])

    program = PROGRAMS[str(told["program"])]
    file_bytes_max = told.get("file_bytes_max")
    if isinstance(file_bytes_max, int):
        # A write across this length is cut short; one behind it is refused.
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
    start.send(b"r")
    start.recv(1)
    try:
        code = program(told, tell)
    except Exception as error:
        tell(f"raised {type(error).__name__}: {error}")
        for line in traceback.format_exc().splitlines():
            tell(f"  {line}")
        code = 1
    os.writev(1, [HOST_SAYS.encode()])
    if not told["to_the_end"]:
        os._exit(code)
    return code


def _warm_up() -> None:
    """Load what the first event and the first flush load, without a thread."""

    with tempfile.TemporaryDirectory() as directory:
        told: dict[str, object] = {"home": f"{directory}/home", "endpoint": ""}
        PROGRAMS["record"]({**told, "first": 0, "count": 2}, str)
        PROGRAMS["drain"](told, str)
        PROGRAMS["purge"](told, str)


if __name__ == "__main__":
    sys.exit(main())
