"""A server on loopback that hands each request to a behaviour, and keeps it.

A behaviour is a function of an Exchange: the connection, the request, and ways to
answer; `misbehaving.py` has many. `Server(a, b)` uses one behaviour a request and
repeats the last, `choose=` picks one by the request, `at_accept=` acts before
anything is read. The connection stays open for the next request only if the
behaviour says `keep`.

Leaving the context closes every socket and ends every thread; a behaviour that
waits does so with `Exchange.pause`, which the end of the server cuts short.
"""

from __future__ import annotations

import contextlib
import gzip
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING:
    from io import BufferedReader

    from typing_extensions import Self


# No test waits longer than this for a thread or socket of its own server.
PATIENCE_S = 10.0


class Received(NamedTuple):
    """One request as it came: names of headers in lower case, `time` monotonic."""

    number: int
    connection: int
    time: float
    raw: bytes
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def plain_body(self) -> bytes:
        """The body without its coding."""
        coded = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.body) if coded else self.body


class Exchange:
    """One connection in the hands of a behaviour."""

    def __init__(
        self, sock: socket.socket, stopping: threading.Event, request: Received | None
    ) -> None:
        self.socket = sock
        self.request = request
        self.keep = False
        self._stopping = stopping

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def pause(self, seconds: float) -> bool:
        """Waits; False once the server is closing."""
        return not self._stopping.wait(seconds)

    def wait_for_end(self) -> None:
        """Waits until the client or the server closes; drops what comes, slowly."""
        while self.pause(0.02):
            ready, _, _ = select.select([self.socket], [], [], 0)
            if ready and not self.socket.recv(1 << 16):
                return

    def reset(self) -> None:
        """Ends the connection with RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()


Behaviour = Callable[[Exchange], None]


def _accept(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    exchange.keep = True


class Server:
    """Answers on 127.0.0.1 as it is told to, and keeps what it was sent."""

    def __init__(
        self,
        *behaviours: Behaviour,
        choose: Callable[[Received], Behaviour] | None = None,
        at_accept: Behaviour | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.tls_failures: list[str] = []
        self._behaviours = behaviours or (_accept,)
        self._choose = choose
        self._at_accept = at_accept
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/events"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and thread; raises if one does not end."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._threads[0].join(PATIENCE_S)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self._open

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stopping.is_set():
                sock.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(sock, self.connections), daemon=True
            )
            self.connections += 1
            with self._lock:
                self._open.add(sock)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket, connection: int) -> None:
        sock: socket.socket = raw
        try:
            if self._at_accept is not None:
                self._at_accept(Exchange(sock, self._stopping, None))
                return
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._open.remove(raw)
                    self._open.add(sock)
            self._converse(sock, connection)
        except ssl.SSLError as exc:
            self.tls_failures.append(str(exc))
        except (OSError, ValueError):
            pass  # the client went away, or the server is closing
        finally:
            with self._lock:
                self._open -= {raw, sock}
            raw.close()
            sock.close()

    def _converse(self, sock: socket.socket, connection: int) -> None:
        reader = sock.makefile("rb")
        with reader:
            while (request := self._receive(reader, connection)) is not None:
                exchange = Exchange(sock, self._stopping, request)
                self._behaviour_for(request)(exchange)
                if not exchange.keep:
                    return

    def _receive(self, reader: BufferedReader, connection: int) -> Received | None:
        lines = []
        while (line := reader.readline()) != b"\r\n":
            if not line:
                return None  # the client is gone, perhaps within a request
            lines.append(line)
        method, target, _ = lines[0].decode("latin-1").split(" ", 2)
        pairs = (line.decode("latin-1").partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        size = int(headers.get("content-length", 0))
        body = reader.read(size)
        if len(body) < size:
            return None
        raw = b"".join([*lines, b"\r\n", body])
        with self._lock:
            number = len(self.requests)
            request = Received(
                number, connection, time.monotonic(), raw, method, target, headers, body
            )
            self.requests.append(request)
        return request

    def _behaviour_for(self, request: Received) -> Behaviour:
        if self._choose is not None:
            return self._choose(request)
        return self._behaviours[min(request.number, len(self._behaviours) - 1)]
