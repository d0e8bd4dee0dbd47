"""HTTP/1.1 on the standard library's server, for `collect` and `view`.

Rules:
- A request needs a Content-Length. Where the end of its body is in doubt, or the body
  is above the bound, it is refused and the connection is closed: nothing that follows
  is read as a request.
- After a refusal, what the client still sends is read for a moment: the kernel would
  otherwise reset the connection, and the answer would be lost with it.
- `Server.close` lets the answers under way leave, then hangs up on every client.

It knows no path, key or event: `take` decides what is answered.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import http.server
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from spool_tools.wording import printable


# Of a body, before and after its coding: 16 times what the pipeline sends at most.
BODY_BYTES_MAX = 8 * 1024 * 1024
# Without a byte from a client for so long, its connection is closed.
SILENCE_S = 60.0
# Long enough for a commit on a slow disk; a client that reads slowly gets no more.
CLOSE_GRACE_S = 5.0
# How late the end may be noticed by the thread that accepts.
_POLL_S = 0.05
# Enough for a batch above the bound to be seen as refused, not as a reset connection.
_LINGER_S = 2.0
_LINGER_BYTES_MAX = 64 * 1024 * 1024
# Long enough for any sentence of ours, short enough for a line on a terminal.
REASON_CHARACTERS_MAX = 200


class Refusal(Exception):  # noqa: N818 - an answer, which need not be an error of ours
    """A request that cannot be taken: `status` to answer, `reason` for a person."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = printable(reason)[:REASON_CHARACTERS_MAX]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. With a `refusal`, its body was not read.

    headers: names in lower case; of several of one name, the first
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    refusal: Refusal | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and how: `delivery` is `whole`, `truncate`, `reset` or `hang`."""

    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delivery: str = "whole"
    bytes_per_s: float | None = None


class Server(socketserver.TCPServer):
    """Listens from its construction on, and serves each client in a thread.

    `take` makes the answer to a request, from any thread; a body above `body_bytes_max`
    is refused. Raises OSError where the
    address cannot be resolved or is taken, UnicodeError where it is no name at all.
    """

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        host: str,
        port: int,
        *,
        take: Callable[[Request], Answer],
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self.take = take
        self.body_bytes_max = body_bytes_max
        self.closing = threading.Event()
        self._clients: dict[threading.Thread, socket.socket] = {}
        self.address_family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": _POLL_S}, daemon=True
        ).start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it all, within twice `CLOSE_GRACE_S`. Twice is fine."""
        if not self.closing.is_set():
            self.closing.set()
            self.shutdown()
            self.server_close()
        # After the end of what is read, an answer under way still leaves.
        for way in (socket.SHUT_RD, socket.SHUT_RDWR):
            clients = list(self._clients.items())
            for _, client in clients:
                with contextlib.suppress(OSError):
                    client.shutdown(way)
            until = time.monotonic() + CLOSE_GRACE_S
            for thread, _ in clients:
                thread.join(timeout=max(0.0, until - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), daemon=True
        )
        self._clients[thread] = request
        thread.start()

    def _serve(self, client: socket.socket, address: Any) -> None:
        try:
            # A client that vanishes is no fault of ours.
            with contextlib.suppress(OSError):
                self.finish_request(client, address)
        finally:
            # At once: a FIN before it would spoil a reset on request.
            client.close()
            del self._clients[threading.current_thread()]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(SILENCE_S)

    def do_POST(self) -> None:
        """Any method: `take` knows which are served."""
        refusal, body = self._refusal(), b""
        if refusal is None:
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            if len(body) < length:  # the client is gone: half a body is no batch
                self.close_connection = True
                return
        self._answer(body, refusal)

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815 - the library looks for these names

    def handle_expect_100(self) -> bool:
        """Say "go on" only to a request whose body would be read."""
        refusal = self._refusal()
        if refusal is None:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return True
        self._answer(b"", refusal)
        return False

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Refuse what is no request of HTTP."""
        self.close_connection = True
        reason = Refusal(code, message or explain or "no such request").reason
        self._send(Answer(status=code, body=msgspec.json.encode({"error": reason})))
        self._linger()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Stay silent: `on_request` says what there is to say."""

    def _refusal(self) -> Refusal | None:
        """Why the body is not read; None: it can be."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers:
            return Refusal(411, "a Content-Length is needed, chunks are not read")
        if not lengths:
            needed = self.command == "POST"
            return Refusal(411, "a Content-Length is needed") if needed else None
        if len(lengths) > 1 or re.fullmatch("[0-9]{1,15}", lengths[0]) is None:
            return Refusal(400, "the Content-Length is no plain number")
        bound = self.server.body_bytes_max
        if int(lengths[0]) > bound:
            return Refusal(413, f"the body is above {bound} bytes")
        return None

    def _answer(self, body: bytes, refusal: Refusal | None) -> None:
        headers = {
            name.lower(): value for name, value in reversed(self.headers.items())
        }
        answer = self.server.take(
            Request(
                method=self.command,
                target=self.path,
                headers=headers,
                body=body,
                refusal=refusal,
            )
        )
        if refusal or answer.delivery != "whole" or self.server.closing.is_set():
            self.close_connection = True
        if answer.delivery == "hang":
            self.connection.settimeout(None)
            while self.connection.recv(65536):
                pass
        elif answer.delivery == "reset":
            # No lingering, zero seconds: the kernel sends RST in place of FIN.
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        else:
            self._send(answer)
            if self.close_connection:
                self._linger()

    def _send(self, answer: Answer) -> None:
        phrase = http.client.responses.get(answer.status, "Unlisted")
        headers = [("Date", email.utils.formatdate(usegmt=True)), *answer.headers]
        if answer.status != http.HTTPStatus.NO_CONTENT:
            headers.append(("Content-Type", answer.content_type))
            headers.append(("Content-Length", str(len(answer.body))))
        if self.close_connection:
            headers.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {answer.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in headers]
        # RFC 9110 §6.4.1: these have no body, whatever the request was.
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        body = answer.body if has_body else b""
        message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        if answer.delivery == "truncate":
            message = message[: len(message) - max(2, len(body) // 2)]
        if answer.bytes_per_s is None:
            self.wfile.write(message)
            return
        # Twenty pieces a second look like a stream; slower than that, byte by byte.
        piece_bytes = max(1, int(answer.bytes_per_s / 20))
        for start in range(0, len(message), piece_bytes):
            self.wfile.write(message[start : start + piece_bytes])
            if self.server.closing.wait(timeout=piece_bytes / answer.bytes_per_s):
                self.close_connection = True
                return

    def _linger(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_S)
            left = _LINGER_BYTES_MAX
            while left > 0 and (part := self.connection.recv(65536)):
                left -= len(part)
