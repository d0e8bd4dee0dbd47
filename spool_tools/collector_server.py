"""Who is connected: one listening socket, one thread for each client, an end to both.

Rules:
- At most `connections_max` clients at once; one more is answered 503 and closed.
- Where no connection can be accepted or no thread started (no descriptor or memory
  left), it tries again a moment later; those that are served go on.
- `close` lets the answers under way leave, within `CLOSE_GRACE_S`, then hangs up on
  everybody and waits for every thread.

It reads no request and writes no answer but that 503.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import TYPE_CHECKING

from spool_tools.collector_http import Answer, Connection
from spool_tools.collector_request import Limits, Request


if TYPE_CHECKING:
    from collections.abc import Callable

# Long enough for a commit on a slow disk; a client that reads slowly gets no more.
CLOSE_GRACE_S = 5.0
_ACCEPT_RETRY_S = 0.1
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
)


class Server:
    """Listens from its construction on, and serves from threads of its own.

    `take` makes the answer to a request, from any thread. Raises OSError where the
    address cannot be resolved or is taken, UnicodeError where it is no name at all.
    """

    def __init__(
        self, host: str, port: int, *, take: Callable[[Request], Answer], limits: Limits
    ) -> None:
        self._take = take
        self._limits = limits
        self._closing = threading.Event()
        # Guards the table and the number; told whenever an answer has left.
        self._idle = threading.Condition()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._answering = 0
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._listener = socket.socket(family, kind, protocol)
        try:
            # A collector that was killed may be started again at once.
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen(128)
            self._listener.setblocking(False)
            self.address: tuple[str, int] = self._listener.getsockname()[:2]
            self._waker, self._wakened = socket.socketpair()
        except OSError:
            self._listener.close()
            raise
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Ends it all, within twice `CLOSE_GRACE_S`. Twice is fine."""
        self._closing.set()
        self._waker.close()
        self._acceptor.join()
        with self._idle:
            self._idle.wait_for(lambda: self._answering == 0, timeout=CLOSE_GRACE_S)
            threads = list(self._clients.values())
            for client in self._clients:
                # A thread takes its socket out of the table before it closes it, so
                # this is never somebody else's descriptor.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=CLOSE_GRACE_S)

    def _accept(self) -> None:
        with (
            self._listener,
            self._wakened,
            selectors.DefaultSelector() as selector,
        ):
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wakened, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                if self._closing.is_set():
                    return
                try:
                    client, _address = self._listener.accept()
                except BlockingIOError:
                    continue
                except OSError:
                    self._closing.wait(timeout=_ACCEPT_RETRY_S)
                    continue
                self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
        with self._idle:
            room = len(self._clients) < self._limits.connections_max
            if room:
                self._clients[client] = thread
        try:
            if room:
                thread.start()
                return
            client.settimeout(0)
            with contextlib.suppress(OSError):
                client.send(_FULL)
        except RuntimeError:  # no thread can be started
            with self._idle:
                self._clients.pop(client, None)
        client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(
                client,
                limits=self._limits,
                take=self._take,
                busy=self._busy,
                closing=self._closing,
            ).serve()
        finally:
            with self._idle:
                self._clients.pop(client, None)
            client.close()

    def _busy(self, change: int) -> None:
        with self._idle:
            self._answering += change
            if self._answering == 0:
                self._idle.notify_all()
