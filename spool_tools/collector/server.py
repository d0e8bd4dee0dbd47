"""One connection's HTTP/1.1, read: requests out of a socket.

Rules (RFC 9112):
- A message whose end cannot be told for certain ends the connection (`Refusal.closes`):
  a length that is no plain number, a length beside a transfer coding, a header line
  that is none, a lone CR, a NUL. Nothing that follows it is read as a request.
- Everything is bounded: a line, a head, a body, its chunks and trailers; and in time:
  a clock runs for a whole request, so a byte a second gains nothing.
- What was read beyond a request (pipelining) is kept for the next.

It knows no path, key or event, and answers nothing but `100 Continue`.

One connection's HTTP/1.1, answered: a request in, an answer out, again and again.

Rules (RFC 9112):
- Requests are answered in their order, pipelined ones too.
- A whole request has `read_s` from its first byte, an answer `write_s`, a silent
  connection `idle_s`. Nobody holds a thread for longer, but a hang on request.
- Before closing on a client that may still be sending, what it sends is read for a
  moment: the kernel would otherwise reset the connection, and the answer with it.

It knows no path, key or event: `take` decides what to answer.

Who is connected: one listening socket, one thread for each client, an end to both.

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
import email.utils
import http
import io
import re
import selectors
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import msgspec


if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable


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


# Control characters (C0, DEL, C1), what turns the direction of text, line and
# paragraph separators, and the byte order mark. JSON texts and names without them
# can be printed as they are.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
# Long enough for any sentence of ours, short enough for a line on a terminal.
_REASON_CHARACTERS_MAX = 200


class Refusal(Exception):  # noqa: N818 - an answer, which need not be an error of ours
    """A request that cannot be taken: `status` to answer, `reason` for a person.

    Nothing of the request was stored. `closes`: what follows on the connection can
    no longer be told apart from it.
    """

    def __init__(self, status: int, reason: str, *, closes: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = shown(reason)[:_REASON_CHARACTERS_MAX]
        self.closes = closes


def shown(text: str) -> str:
    """The same text without a character that a terminal obeys."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
