"""One connection's HTTP/1.1, read: requests out of a socket.

Rules (RFC 9112):
- A message whose end cannot be told for certain ends the connection (`Refusal.closes`):
  a length that is no plain number, a length beside a transfer coding, a header line
  that is none, a lone CR, a NUL. Nothing that follows it is read as a request.
- Everything is bounded: a line, a head, a body, its chunks and trailers; and in time:
  a clock runs for a whole request, so a byte a second gains nothing.
- What was read beyond a request (pipelining) is kept for the next.

It knows no path, key or event, and answers nothing but `100 Continue`.
"""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING

import msgspec

from spool_tools.collector_wire import Refusal


if TYPE_CHECKING:
    import socket

# The longest URL or header anybody sends; most servers say 8 KiB.
_LINE_BYTES_MAX = 8192
# As many header lines as http.client takes in a reply.
_HEADERS_MAX = 100
# A chunk's line holds its size; extensions are allowed and ignored.
_CHUNK_LINE_BYTES_MAX = 256
_TRAILERS_MAX = 16

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) ([!-~\x80-\xff]+) HTTP/1\.([01])" % _TOKEN)
_HEADER_LINE = re.compile(rb"(%s):[ \t]*([^\x00\r\n]*)" % _TOKEN)
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00\r\n]*)?")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one connection, and of how many there are."""

    body_bytes_max: int = 8 * 1024 * 1024
    """Of a body, before and after its coding; 16 times the pipeline's batches."""
    read_s: float = 30.0
    """For a whole request, from its first byte."""
    write_s: float = 30.0
    """For a whole answer that leaves at once; one at a pace takes what it takes."""
    idle_s: float = 120.0
    """Between requests; a flusher pauses less than this within one flush."""
    connections_max: int = 256
    """Each costs a thread; a flusher uses one. One more is answered 503."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, read whole, or as far as `refusal` says."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name; a name that comes twice has its values joined by `, `."""
    keeps_alive: bool
    body: bytes = b""
    refusal: Refusal | None = None


class RequestReader:
    """Requests out of one socket, which whoever made it closes.

    Every read raises TimeoutError once the time of `within` is over, another OSError
    or EOFError where the client went.
    """

    def __init__(self, sock: socket.socket, *, body_bytes_max: int) -> None:
        self._sock = sock
        self._body_bytes_max = body_bytes_max
        self._raw = _Deadline(sock)
        self._stream = io.BufferedReader(self._raw, buffer_size=65536)

    def within(self, seconds: float) -> None:
        """From now on, reading may take so long in all."""
        self._raw.within(seconds)

    def waiting(self) -> bool:
        """True at the first byte of a request; False at the end of the connection."""
        return bool(self._stream.peek(1))

    def drain(self, bytes_max: int) -> None:
        """Reads what comes and forgets it, up to the end or about `bytes_max`."""
        while bytes_max > 0 and (part := self._stream.read1(65536)):
            bytes_max -= len(part)

    def read(self) -> Request:
        """The next request. Raises `Refusal` where not even its head can be read."""
        method, target, version = self._request_line()
        headers = self._headers()
        options = [word.strip() for word in headers.get("connection", "").split(",")]
        request = Request(
            method=method,
            target=target,
            headers=headers,
            keeps_alive=version == "1" and "close" not in map(str.lower, options),
        )
        try:
            body = self._body(request, version=version)
        except Refusal as refusal:
            return msgspec.structs.replace(request, refusal=refusal)
        return msgspec.structs.replace(request, body=body)

    def _request_line(self) -> tuple[str, str, str]:
        line = self._line(_LINE_BYTES_MAX, status=414)
        if not line:  # RFC 9112 §2.2: one empty line before a request is to be ignored
            line = self._line(_LINE_BYTES_MAX, status=414)
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:
            raise Refusal(400, "the first line is no HTTP/1.1 request", closes=True)
        method, target, version = (part.decode("latin-1") for part in found.groups())
        return method, target, version

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _line in range(_HEADERS_MAX + 1):
            line = self._line(_LINE_BYTES_MAX, status=431)
            if not line:
                return headers
            found = _HEADER_LINE.fullmatch(line)
            if found is None:
                raise Refusal(400, "a header line is malformed", closes=True)
            name = found[1].decode("latin-1").lower()
            # Names of programs may be UTF-8; the RFC leaves such bytes undefined.
            value = found[2].rstrip(b" \t").decode("utf-8", "replace")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        raise Refusal(431, f"more than {_HEADERS_MAX} header lines", closes=True)

    def _body(self, request: Request, *, version: str) -> bytes:
        coding = request.headers.get("transfer-encoding")
        length = request.headers.get("content-length")
        if coding is not None:
            if length is not None or version == "0":
                raise Refusal(400, "both or neither say where it ends", closes=True)
            if coding.lower() != "chunked":
                raise Refusal(501, "only chunked is understood", closes=True)
            self._continue(request)
            return self._chunks()
        if length is None:
            if request.method == "POST":
                raise Refusal(411, "a body needs its Content-Length", closes=True)
            return b""
        if _LENGTH.fullmatch(length) is None:
            raise Refusal(400, "Content-Length is no plain number", closes=True)
        if int(length) > self._body_bytes_max:
            raise self._too_big()
        self._continue(request)
        return self._exactly(int(length))

    def _chunks(self) -> bytes:
        """A chunked body (RFC 9112 §7.1), its trailers dropped."""
        parts: list[bytes] = []
        room_bytes = self._body_bytes_max
        while True:
            found = _CHUNK_SIZE.fullmatch(self._line(_CHUNK_LINE_BYTES_MAX, status=400))
            if found is None:
                raise Refusal(400, "a chunk without its size", closes=True)
            size_bytes = int(found[1], 16)
            if size_bytes == 0:
                break
            room_bytes -= size_bytes
            if room_bytes < 0:
                raise self._too_big()
            parts.append(self._exactly(size_bytes))
            if self._line(2, status=400):
                raise Refusal(400, "a chunk longer than its size", closes=True)
        for _trailer in range(_TRAILERS_MAX + 1):
            if not self._line(_LINE_BYTES_MAX, status=431):
                return b"".join(parts)
        raise Refusal(431, f"more than {_TRAILERS_MAX} trailers", closes=True)

    def _too_big(self) -> Refusal:
        bound_bytes = self._body_bytes_max
        return Refusal(413, f"the body is above {bound_bytes} bytes", closes=True)

    def _continue(self, request: Request) -> None:
        if request.headers.get("expect", "").lower() == "100-continue":
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _line(self, bytes_max: int, *, status: int) -> bytes:
        """A line without its end. EOFError where the client went in its midst."""
        line = self._stream.readline(bytes_max + 2)
        if not line.endswith(b"\n"):
            if len(line) < bytes_max + 2:
                raise EOFError
            raise Refusal(status, f"a line above {bytes_max} bytes", closes=True)
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def _exactly(self, size_bytes: int) -> bytes:
        body = self._stream.read(size_bytes)
        if len(body) < size_bytes:
            raise EOFError
        return body


class _Deadline(io.RawIOBase):
    """A socket to read from, until a moment; TimeoutError (an OSError) from then on."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._until_s = 0.0

    def within(self, seconds: float) -> None:
        self._until_s = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._sock.recv_into(buffer)
