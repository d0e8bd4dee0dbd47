"""What a server can do to its clients, for `Server` to do on request.

    with Server(reply(503, headers={"Retry-After": "7"}), reply(200)) as server:
        ...  # the first request draws the 503, all others the 200
        assert server.requests[0].headers["x-api-key"] == "secret"

Every behaviour ends when its client goes away or the server closes.
"""

from __future__ import annotations

import contextlib
import gzip
import select
import socket
import zlib
from collections.abc import Iterator, Mapping

from tests.support.loopback import PATIENCE_S, Behaviour, Exchange
from tests.support.loopback import Received as Received  # noqa: PLC0414  for who imports it here
from tests.support.loopback import Server as Server  # noqa: PLC0414


def head(status: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Status"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reply(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Behaviour:
    """A sound answer with a Content-Length; the connection stays open."""
    length = {} if status == 204 else {"Content-Length": str(len(body))}
    return raw(head(status, {**length, **(headers or {})}) + body, keep=True)


def raw(*pieces: bytes, keep: bool = False, every_s: float = 0.0) -> Behaviour:
    """Exactly these bytes, piece by piece."""

    def behave(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.send(piece)
            if every_s and not exchange.pause(every_s):
                return
        exchange.keep = keep

    return behave


def html(status: int = 200) -> Behaviour:
    """What a captive portal says."""
    page = b"<!DOCTYPE html><html><title>Log in</title></html>"
    return reply(status, page, {"Content-Type": "text/html; charset=utf-8"})


def redirect(status: int, location: str) -> Behaviour:
    return reply(status, b"moved", {"Location": location})


def retry_after(value: str, status: int = 503) -> Behaviour:
    return reply(status, b"busy", {"Retry-After": value})


def cut_short(status: int = 200) -> Behaviour:
    """Announces 100 bytes, sends 17, and closes."""
    return raw(head(status, {"Content-Length": "100"}) + b'{"success": true}')


def cut_chunked(status: int = 200) -> Behaviour:
    """A whole chunk and half of the next."""
    return raw(head(status, {"Transfer-Encoding": "chunked"}) + b"2\r\n{}\r\n10\r\nhal")


def silent_after(data: bytes) -> Behaviour:
    """Sends this much, then nothing, and does not close."""

    def behave(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.wait_for_end()

    return behave


def reset_after(data: bytes = b"") -> Behaviour:
    """Reads the request, sends this much, then resets the connection."""

    def behave(exchange: Exchange) -> None:
        if data:
            exchange.send(data)
            exchange.pause(0.05)  # what was sent is read before the RST drops it
        exchange.reset()

    return behave


def reset_at_once(exchange: Exchange) -> None:
    """For `at_accept`: resets before anything is read."""
    exchange.reset()


def close_at_once(exchange: Exchange) -> None:
    """Closes without an answer."""


def never_read(exchange: Exchange) -> None:
    """For `at_accept`: holds the connection, and reads nothing from it."""
    while exchange.pause(1):
        pass


def read_slowly(exchange: Exchange) -> None:
    """For `at_accept`: takes a little now and then, and never answers."""
    exchange.wait_for_end()


def drip(data: bytes, *, start: bytes = b"", every_s: float = 0.02) -> Behaviour:
    """Sends `start` at once, then one byte at a time."""

    def behave(exchange: Exchange) -> None:
        exchange.send(start)
        for byte in data:
            exchange.send(bytes([byte]))
            if not exchange.pause(every_s):
                return

    return behave


def stream(
    piece: bytes, *, start: bytes = b"", bytes_max: int = 100 << 20
) -> Behaviour:
    """Sends `piece` again and again, as fast as the client takes it."""

    def behave(exchange: Exchange) -> None:
        exchange.send(start)
        for _ in range(bytes_max // len(piece)):
            exchange.send(piece)

    return behave


def endless_headers() -> Behaviour:
    return stream(b"X-More: " + b"x" * 1000 + b"\r\n", start=b"HTTP/1.1 200 OK\r\n")


def endless_body(status: int = 200) -> Behaviour:
    return stream(b"x" * 65536, start=head(status, {"Connection": "close"}))


def endless_interim() -> Behaviour:
    """`100 Continue` for ever."""
    return stream(b"HTTP/1.1 100 Continue\r\n\r\n" * 40)


def gzip_reply(body: bytes, status: int = 200) -> Behaviour:
    return reply(status, gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"})


def gzip_bomb(plain_bytes: int = 64 << 20) -> Behaviour:
    """A short body that would be a thousand times as long."""

    def behave(exchange: Exchange) -> None:
        packer = zlib.compressobj(level=9, wbits=31)
        block = bytes(1 << 20)
        packed = b"".join(packer.compress(block) for _ in range(plain_bytes >> 20))
        packed += packer.flush()
        reply(200, packed, {"Content-Encoding": "gzip"})(exchange)

    return behave


def tunnel_to(port: int) -> Behaviour:
    """What a proxy does with CONNECT, whatever host it names."""

    def behave(exchange: Exchange) -> None:
        near = exchange.socket
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as far:
            exchange.send(head(200))
            while exchange.pause(0):
                ready, _, _ = select.select([near, far], [], [], 0.02)
                for source, sink in ((near, far), (far, near)):
                    if source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        sink.sendall(data)

    return behave


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port that takes no connection and refuses none: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(64):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
            _, connected, _ = select.select([], [waiting], [], 0.1)
            if not connected:
                break
        yield listener.getsockname()[1]


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port that is taken, and refuses whoever connects."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
