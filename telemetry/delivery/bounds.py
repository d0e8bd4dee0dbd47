"""The time and the bytes one request may take, held at the socket.

A socket's timeout bounds one silence: a server that sends a byte a second, or
`100 Continue` for ever, never lets it pass. So every single read and write here
gets the time that is left of the request, and every byte read is counted. That
holds in whatever thread the request runs, and through TLS as well.

Three things in http.client are put right on the way:

- every 1xx but 101 is an interim answer (RFC 9110 §15.2). http.client skips 100
  alone: after a 103 the real answer would stay in the connection, and be taken
  for the answer to the next request;
- a header block that cannot be read to its end is an error, and so is one that
  the connection ends in. http.client drops what follows the bad line, and takes
  the end for that of the block: a Content-Length is lost with it, and a reply
  that was cut short would seem whole;
- the end of a TLS connection counts as an end only if the peer said so
  (RFC 9112 §9.8), else anyone on the way could cut a body that ends with it.

What cannot be bounded here is resolving a name, and a handshake inside the TLS
connection to a proxy. It reads no configuration.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Iterator
from email.errors import MissingHeaderBodySeparatorDefect
from typing import Any, ClassVar


# One TLS record: no more is ever in one write that a slow peer can hold up.
WRITE_BYTES = 16 * 1024

# What surrounds a body: status lines, headers, interim answers. Servers keep to
# 8 to 64 KiB.
_FRAME_BYTES = 512 * 1024
# A body in chunks of one byte takes six on the wire (`1\r\nx\r\n`).
_CHUNKED_FACTOR = 6


class DeadlineError(TimeoutError):
    """The time of the whole request is over. The connection is of no more use."""


class UnconnectedError(TimeoutError):
    """No connection came about in its time. Nothing was sent."""


class OversizeError(http.client.HTTPException):
    """More came than any sound reply has. The connection is of no more use."""


class MalformedError(http.client.HTTPException):
    """The header block cannot be read. The connection is of no more use."""


class Bounds:
    """What is left of one request's time and bytes. For one thread at a time."""

    def __init__(self, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._deadline = 0.0
        self._bytes_left = 0

    def begin(self, *, deadline: float, reply_bytes_max: int) -> None:
        """Starts a request that ends at `deadline` (seconds of time.monotonic)."""
        self._deadline = deadline
        self._bytes_left = _FRAME_BYTES + _CHUNKED_FACTOR * reply_bytes_max

    def connecting(self, sock: Any) -> None:
        """Gives `sock` the time that connecting may take now."""
        self._give(sock, self._connect_timeout_s)

    def waiting(self, sock: Any) -> None:
        """Gives `sock` the time that one read or write may take now."""
        self._give(sock, self._read_timeout_s)

    def read(self, count: int) -> None:
        """Counts bytes that arrived; raises OversizeError when they are too many."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise OversizeError("the reply does not end")

    def _give(self, sock: Any, most_s: float) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineError("the request took too long")
        sock.settimeout(min(most_s, left_s))


class BoundedReader(io.RawIOBase):
    """The reading end of a socket under Bounds."""

    def __init__(self, sock: Any, bounds: Bounds) -> None:
        super().__init__()
        # A file of the socket's own keeps it open while a reply is read whose
        # connection http.client has closed already.
        self._file = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._bounds = bounds
        if hasattr(sock, "suppress_ragged_eofs"):
            sock.suppress_ragged_eofs = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._bounds.waiting(self._sock)
        count: int | None = self._file.readinto(buffer)
        self._bounds.read(count or 0)
        # What comes next may be no read of ours, but a handshake within a tunnel.
        self._bounds.waiting(self._sock)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Lines(io.BufferedReader):
    """Remembers the last line that was read: `b""` where the connection had ended."""

    last_line = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last_line = super().readline(size)
        return self.last_line


class BoundedResponse(http.client.HTTPResponse):
    """An HTTP/1 response read under Bounds; a subclass says which."""

    bounds: ClassVar[Bounds]

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        unbounded = self.fp
        self.fp = _Lines(BoundedReader(sock, self.bounds))
        unbounded.close()

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            answer: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if answer[1] == http.HTTPStatus.SWITCHING_PROTOCOLS or answer[1] >= 200:
                return answer
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        super().begin()
        if isinstance(self.fp, _Lines) and self.fp.last_line not in {b"\r\n", b"\n"}:
            raise MalformedError("the header block breaks off")
        # What is left over shows as a payload, or where the type says that a payload
        # has parts, as the defect alone.
        found = map(type, self.headers.defects)
        left_over = not self.headers.is_multipart() and self.headers.get_payload()
        if left_over or MissingHeaderBodySeparatorDefect in found:
            raise MalformedError("a header line is none")


def dial(host: str, port: int, bounds: Bounds) -> socket.socket:
    """A connected socket; each address gets the connect timeout of `bounds`.

    Raises what the first address raised: names are sorted by how well they can be
    reached (RFC 6724), so the first says most.
    """
    problem: OSError | None = None
    for family, kind, protocol, address in _addresses(host, port):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            # Headers and body are two writes; the second would wait for an ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bounds.connecting(sock)
            sock.connect(address)
            bounds.connecting(sock)  # for a TLS handshake
            return sock
        except OSError as exc:
            if sock is not None:
                sock.close()
            late = isinstance(exc, TimeoutError)
            problem = problem or (UnconnectedError() if late else exc)
    raise problem or OSError(f"{host} has no address")


def _addresses(
    host: str, port: int
) -> Iterator[tuple[socket.AddressFamily, socket.SocketKind, int, Any]]:
    found = socket.getaddrinfo(host, port, family=0, type=socket.SOCK_STREAM)
    return ((family, kind, protocol, to) for family, kind, protocol, _, to in found)
