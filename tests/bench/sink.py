"""A loopback server that takes every POST and answers 200, as fast as Python can.

It runs in a process of its own (`Sink`), so that its work is on nobody's bill,
and reads raw sockets: headers up to the empty line, then Content-Length bytes
into one buffer that is never looked at. `GET` answers what was taken since the
last `GET`: requests, bytes of bodies, and the seconds from the first request's
first byte to the last one's answer. `delay_s` makes it as slow as a far server: it
is how long each connection and each answer takes.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.bench import REPOSITORY


if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


_BUFFER_BYTES = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EXPECTS = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)
_OK = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Received(NamedTuple):
    """What a sink took."""

    requests: int
    body_bytes: int
    seconds: float

    def events(self, event_bytes: int) -> float:
        """How many events of one size the bodies held; whole if none is torn."""
        # {"records":[a,b,…]}: 14 bytes around them, a comma less than events.
        return (self.body_bytes - 13 * self.requests) / (event_bytes + 1)


class Sink:
    """A sink in a process of its own. Port 0 takes any."""

    def __init__(self, port: int = 0, *, delay_s: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.sink", str(port), str(delay_s)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def endpoint(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.port}/"

    def received(self) -> Received:
        """What was taken since this was last asked."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n")
            answer = connection.makefile("rb").read()
        return Received(**json.loads(answer.partition(b"\r\n\r\n")[2]))


class _Taken:
    """What all connections together took."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = self.body_bytes = 0
        self.first_s = self.last_s = 0.0

    def add(self, began_s: float, body_bytes: int) -> None:
        with self.lock:
            if self.requests == 0:
                self.first_s = began_s
            self.requests += 1
            self.body_bytes += body_bytes
            self.last_s = time.monotonic()

    def told(self) -> bytes:
        with self.lock:
            content = Received(
                self.requests, self.body_bytes, self.last_s - self.first_s
            )
            self.requests = self.body_bytes = 0
        return json.dumps(content._asdict()).encode()


def _serve(connection: socket.socket, taken: _Taken, delay_s: float) -> None:
    """One connection to its end."""
    time.sleep(delay_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with connection:
        while True:
            got = connection.recv_into(buffer)
            began_s = time.monotonic()
            while got and b"\r\n\r\n" not in (head := bytes(buffer[:got])):
                more = connection.recv_into(buffer[got:])
                got = got + more if more else 0
            if not got:
                return
            head, _, body = head.partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + taken.told())
                return
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if _EXPECTS.search(head):
                connection.sendall(_CONTINUE)
            left = length - len(body)
            while left > 0:
                got = connection.recv_into(buffer, min(left, _BUFFER_BYTES))
                if not got:
                    return
                left -= got
            time.sleep(delay_s)
            connection.sendall(_OK)
            taken.add(began_s, length)


def main() -> None:
    """Print the port and serve until killed, or until the parent is gone."""
    taken, delay_s = _Taken(), float(sys.argv[2])
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        print(server.getsockname()[1], flush=True)
        threading.Thread(
            target=_accept, args=(server, taken, delay_s), daemon=True
        ).start()
        sys.stdin.read()


def _accept(server: socket.socket, taken: _Taken, delay_s: float) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(
            target=_serve, args=(connection, taken, delay_s), daemon=True
        ).start()


if __name__ == "__main__":
    main()
