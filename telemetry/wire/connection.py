"""One connection: how it is dialled, and what is read from it under Bounds.

Names with several addresses are tried in turns (RFC 8305 in spirit): the families
alternate, the next address starts a quarter of a second after the one before, which
goes on, and all of them share one connect timeout. The address that worked last is
tried first, and one that connects and does not serve (a certificate of another name, a
503, no answer) last: it may be the only one behind the name that fails.

Four things in http.client are put right on the way:

- Every 1xx but 101 is an interim answer (RFC 9110 §15.2). http.client skips 100 alone:
  after a 103 the real answer would be taken for the answer to the next request.
- A header block that cannot be read to its end is an error. http.client drops what
  follows a malformed line, and takes the end of the connection for the end of the
  block: a Content-Length is lost, and a reply that was cut short would seem whole.
- The end of a TLS connection counts as an end only if the peer said so (RFC 9112 §9.8).
- Header lines without a meaning here are passed over, so that an answer with more than
  100 of them (cookies) is still an answer.

This module reads no configuration.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import re
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from email.errors import MissingHeaderBodySeparatorDefect
from itertools import zip_longest
from typing import Any, ClassVar

from telemetry.wire.deadline import Bounds


# One TLS record: no more is ever in one write that a slow peer can hold up.
WRITE_BYTES = 16 * 1024
# Between the starts of two attempts (RFC 8305 §5).
ATTEMPT_DELAY_S = 0.25
_SO_NOSIGPIPE = 0x1022  # of macOS, <sys/socket.h>

# http.client reads the number with int(), which takes `2_00` for 200.
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9][ \t]+[0-9]{3}(?:[ \t].*)?\r?\n", re.DOTALL)
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[^\r\n]*\r?\n")
# Headers that decide anything, here or in http.client.
_MEANT = frozenset(
    {b"content-length", b"transfer-encoding", b"content-encoding", b"content-type"}
    | {b"connection", b"date", b"location", b"refresh", b"retry-after", b"trailer"}
    | {b"upgrade", b"x-clickhouse-exception-code"}
)


class UnconnectedError(TimeoutError):
    """No connection came about in its time. Nothing was sent."""


class MalformedError(http.client.HTTPException):
    """The header block cannot be read. The connection is of no more use."""


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

    def readinto(self, buffer: Any) -> int:
        self._bounds.waiting(self._sock)
        count: int | None = self._file.readinto(buffer)
        if count is None:
            # OpenSSL 1.1.1 reports an end out of order under the errno of the read
            # before it, EAGAIN where that one had to wait. None would pass for an end.
            raise BlockingIOError(errno.EAGAIN, "the connection broke off")
        self._bounds.read(count)
        # The next one may not be a read here, but a handshake within a tunnel.
        self._bounds.waiting(self._sock)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Lines(io.BufferedReader):
    """Lines of a header block. Remembers the last one: `b""` at the connection's end.

    In a body they are the sizes of chunks: one that is cut is no size, or the first zero
    of `00000049` would say that the body is whole.
    """

    last_line = b""
    is_in_headers = is_in_body = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        while self.is_in_headers and self._has_no_meaning(line):
            line = super().readline(size)
            while line[:1] in {b" ", b"\t"}:  # the rest of a folded line
                line = super().readline(size)
        self.last_line = line
        if self.is_in_body and line and not line.endswith(b"\n"):
            raise http.client.IncompleteRead(line)
        return line

    def _has_no_meaning(self, line: bytes) -> bool:
        found = _HEADER.fullmatch(line)
        return found is not None and found[1].lower() not in _MEANT


class BoundedResponse(http.client.HTTPResponse):
    """An HTTP/1 response read under Bounds; a subclass says which."""

    bounds: ClassVar[Bounds]

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        unbounded = self.fp
        # http.client drops its `fp` when a reply without a body has ended.
        self.fp = self.lines = _Lines(BoundedReader(sock, self.bounds))
        unbounded.close()

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            answer: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not _STATUS_LINE.fullmatch(self.lines.last_line):
                raise MalformedError("malformed status line")
            self.lines.is_in_headers = True
            if answer[1] == http.HTTPStatus.SWITCHING_PROTOCOLS or answer[1] >= 200:
                return answer
            http.client.parse_headers(self.fp)
            self.lines.is_in_headers = False

    def begin(self) -> None:
        super().begin()
        self.lines.is_in_headers = False
        if self.lines.last_line not in {b"\r\n", b"\n"}:
            raise MalformedError("the header block breaks off")
        self.lines.is_in_body = True
        # What is left over shows as a payload, or where the type says that a payload
        # has parts, as the defect alone.
        found = map(type, self.headers.defects)
        left_over = not self.headers.is_multipart() and self.headers.get_payload()
        if left_over or MissingHeaderBodySeparatorDefect in found:
            raise MalformedError("malformed header")


class Dialler:
    """Connects to a host, and remembers which of its addresses serve.

    Before anything is known of them, the address number `turn` comes first, counted
    through as often as needed.
    """

    def __init__(self, turn: int = 0) -> None:
        self._turn = turn
        self._last: object = None
        self._failures: Counter[object] = Counter()

    def note(self, address: object, *, has_served: bool) -> None:
        """What came of a request at an address of `Bounds.address`."""
        if has_served:
            self._failures.pop(address, None)
        else:
            self._failures[address] += 1

    def dial(self, host: str, port: int, bounds: Bounds) -> socket.socket:
        """A connected socket, within the connect timeout of `bounds`.

        Raises the problem of the first address: names are sorted by how well they can
        be reached (RFC 6724), so the first says most. UnconnectedError if none
        answered in time.
        """
        bounds.address = None
        waiting = self._in_turns(addresses_of(host, port))
        connect_s = bounds.connect_s()
        now = time.monotonic()
        until, next_start = now + connect_s, now
        # A short flush divides what it has, so that the last address has its turn.
        delay_s = min(ATTEMPT_DELAY_S, connect_s / (2 * max(len(waiting), 1)))
        problem: OSError | None = None
        attempts: dict[socket.socket, object] = {}
        try:
            while waiting or attempts:
                now = time.monotonic()
                if now >= until:
                    bounds.connect_s()  # it was the request's time that ran out
                    problem = problem or UnconnectedError()
                    break
                if waiting and (now >= next_start or not attempts):
                    next_start = now + delay_s
                    begun = waiting.pop(0)
                    try:
                        attempts[_begun(*begun)] = begun
                    except OSError as exc:
                        problem = problem or exc
                        continue
                wake = min(until, next_start) if waiting else until
                left_s = max(wake - time.monotonic(), 0)
                # Connected or refused.
                for sock in ready(attempts, selectors.EVENT_WRITE, left_s):
                    failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not failed:
                        # The time may be up just now: it is closed below then.
                        bounds.connecting(sock)
                        self._last = bounds.address = attempts.pop(sock)
                        return sock
                    del attempts[sock]
                    sock.close()
                    problem = problem or OSError(failed, os.strerror(failed))
                    next_start = time.monotonic()
        finally:
            for sock in attempts:
                sock.close()
        raise problem or OSError(f"{host} has no address")

    def _in_turns(self, found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The addresses, families alternating, the one that worked last in front.

        Those that failed come behind those that did not, or less often.
        """
        families: dict[Any, list[tuple[Any, ...]]] = {}
        for family, kind, protocol, _, address in found:
            families.setdefault(family, []).append((family, kind, protocol, address))
        turns = [
            each for row in zip_longest(*families.values()) for each in row if each
        ]
        first = self._turn % max(len(turns), 1)
        turns = turns[first:] + turns[:first]
        turns.sort(key=lambda each: (self._failures[each], each != self._last))
        return turns


def addresses_of(host: str, port: int) -> list[tuple[Any, ...]]:
    """The addresses of a name, as `getaddrinfo` gives them. Raises OSError, UnicodeError.

    No resolver is asked for localhost (RFC 6761, 6.3): one that leads elsewhere would be
    sent in the clear what is meant for this machine.
    """
    stream = socket.SOCK_STREAM
    if host != "localhost":
        return socket.getaddrinfo(host, port, family=0, type=stream)
    return [
        (socket.AF_INET, stream, 0, "", ("127.0.0.1", port)),
        (socket.AF_INET6, stream, 0, "", ("::1", port, 0, 0)),
    ]


def _begun(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    """A socket that is connecting. Raises OSError if that fails at once."""
    sock = socket.socket(family, kind, protocol)
    try:
        # Headers and body are two writes; the second would wait for an ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "darwin":
            sock.setsockopt(socket.SOL_SOCKET, _SO_NOSIGPIPE, 1)
        sock.setblocking(False)
        failed = sock.connect_ex(address)
    except BaseException:
        sock.close()
        raise
    if failed not in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
        sock.close()
        raise OSError(failed, os.strerror(failed))
    return sock


def ready(socks: Iterable[Any], event: int, timeout_s: float) -> list[socket.socket]:
    """The sockets on which `event` (of `selectors`) is so, after `timeout_s` at most."""
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, event, sock)
        return [key.data for key, _ in selector.select(timeout_s)]
