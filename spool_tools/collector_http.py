"""One connection's HTTP/1.1, answered: a request in, an answer out, again and again.

Rules (RFC 9112):
- Requests are answered in their order, pipelined ones too.
- A whole request has `read_s` from its first byte, an answer `write_s`, a silent
  connection `idle_s`. Nobody holds a thread for longer, but a hang on request.
- Before closing on a client that may still be sending, what it sends is read for a
  moment: the kernel would otherwise reset the connection, and the answer with it.

It knows no path, key or event: `take` decides what to answer.
"""

from __future__ import annotations

import contextlib
import email.utils
import http
import socket
import struct
from typing import TYPE_CHECKING

import msgspec

from spool_tools.collector_request import Limits, Request, RequestReader
from spool_tools.collector_wire import Refusal


if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

# How long a client is read that is to be left, and how much of it: enough for a
# batch above the bound to be seen as refused rather than as a reset connection.
_LINGER_S = 2.0
_LINGER_BYTES_MAX = 64 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and how."""

    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delivery: str = "whole"
    """`whole`, `truncate`, `reset` or `hang`."""
    bytes_per_s: float | None = None


def refused(refusal: Refusal) -> Answer:
    """The answer to a request that cannot be taken."""
    return Answer(
        status=refusal.status, body=msgspec.json.encode({"error": refusal.reason})
    )


class Connection:
    """One client, until it or we go. Whoever made the socket closes it.

    `take` makes the answer to a request; `closing` cuts short what waits. `busy` is
    called with 1 and -1 around what should be finished before the collector ends.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        limits: Limits,
        take: Callable[[Request], Answer],
        busy: Callable[[int], None],
        closing: threading.Event,
    ) -> None:
        self._sock = sock
        self._limits = limits
        self._take = take
        self._busy = busy
        self._closing = closing
        self._reader = RequestReader(sock, body_bytes_max=limits.body_bytes_max)

    def serve(self) -> None:
        """Answers until the connection ends. Raises nothing the network can cause."""
        # OSError: the client went, or a deadline passed while answering it.
        with contextlib.suppress(OSError, EOFError):
            while self._serve_one():
                pass

    def _serve_one(self) -> bool:
        """One request and its answer; whether another may follow."""
        self._reader.within(self._limits.idle_s)
        if not self._reader.waiting():
            return False
        self._reader.within(self._limits.read_s)
        try:
            request = self._reader.read()
        except TimeoutError:
            return self._leave(Refusal(408, "the request did not arrive in time"))
        except Refusal as refusal:
            return self._leave(refusal)
        keeps_alive = request.keeps_alive and not (
            request.refusal and request.refusal.closes
        )
        self._busy(1)
        try:
            answer = self._take(request)
            if answer.delivery in ("whole", "truncate"):
                keeps_alive = keeps_alive and answer.delivery == "whole"
                has_body = request.method != "HEAD"
                self._send(answer, keeps_alive=keeps_alive, has_body=has_body)
        finally:
            self._busy(-1)
        if answer.delivery == "hang":
            self._hang()
        elif answer.delivery == "reset":
            # No lingering, zero seconds: the kernel sends RST in place of FIN.
            self._sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        elif not keeps_alive:
            self._linger()
        return keeps_alive and answer.delivery == "whole"

    def _send(self, answer: Answer, *, keeps_alive: bool, has_body: bool) -> None:
        # RFC 9110 §6.4.1: these have no body, whatever the request was.
        has_body = has_body and answer.status not in (204, 304)
        message = _head(answer, keeps_alive=keeps_alive)
        body = answer.body if has_body else b""
        message += body
        if answer.delivery == "truncate":
            message = message[: len(message) - max(2, len(body) // 2)]
        self._sock.settimeout(self._limits.write_s)
        if answer.bytes_per_s is None:
            self._sock.sendall(message)
            return
        # Twenty pieces a second look like a stream; slower than that, byte by byte.
        piece_bytes = max(1, int(answer.bytes_per_s / 20))
        for start in range(0, len(message), piece_bytes):
            self._sock.sendall(message[start : start + piece_bytes])
            if self._closing.wait(timeout=piece_bytes / answer.bytes_per_s):
                raise EOFError

    def _leave(self, refusal: Refusal) -> bool:
        """Answers what could not be read. False: no other request may follow."""
        self._send(refused(refusal), keeps_alive=False, has_body=True)
        self._linger()
        return False

    def _hang(self) -> None:
        """Until the client goes, or the collector ends and shuts the socket down."""
        self._sock.settimeout(None)
        while self._sock.recv(65536):
            pass

    def _linger(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)
        self._reader.within(_LINGER_S)
        self._reader.drain(_LINGER_BYTES_MAX)


def _head(answer: Answer, *, keeps_alive: bool) -> bytes:
    try:
        phrase = http.HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unlisted"
    lines = [
        f"HTTP/1.1 {answer.status} {phrase}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    if answer.status != 204:
        lines += [
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
        ]
    if not keeps_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
