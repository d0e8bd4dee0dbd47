"""One POST, and what came of it; the only user of urllib3.

- A post lasts no longer than its deadline, whatever the other side does. Reads
  and writes are bounded at the socket (`bounds.py`); what cannot be, runs on a
  thread that is left behind (`worker.py`).
- Nothing the network does raises: it is a Reply or a Failure. Once status line and
  headers are there it is a Reply, complete or not: a `503` and its Retry-After
  count although the body never ends.
- A body that ends with the connection is complete (RFC 9112 §6.3), over TLS only
  if the peer ended it in order (§9.8). In the clear, which only this machine
  speaks, a cut cannot be told from an end.
- No redirect is followed and no retry made here. The key goes to the endpoint's
  origin alone; where a reply repeats it, it is masked.
- Certificates are those of SSL_CERT_FILE and SSL_CERT_DIR if either is set, and
  then no others; else the system's. They are the only files read.

A program that turns on urllib3's DEBUG log finds paths and queries there, never
headers.

What is sent with a body: its headers, and its coding. Pure.

Sent are Content-Type, User-Agent, Idempotency-Key, the key under its header,
`Accept-Encoding: identity` (a reply is short; one that is coded all the same is
decoded), Content-Encoding where the body is coded, Authorization where the
endpoint has user info. The HTTP library adds Host and Content-Length, no more.

- Where the key's header is one of these, the key takes its place. Where it frames or
  routes the message the request goes without a key: it would be no sound one.
- Spaces around a key are no part of it. Text beyond ASCII goes out as UTF-8.
- The same body gives the same bytes, coded or not.

An exception of the network -> a Failure of one kind and one line. Pure.

The library that made the request wraps what happened, sometimes twice, so the
whole chain is looked at: arguments, causes and contexts. Only what the system, the
resolver or the TLS library says is repeated, never what a wrapper says: it
repeats the URL, and a query may hold secrets.

The time and the bytes one request may take, held at the socket.

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

import errno
import http.client
import io
import os
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from email.errors import MissingHeaderBodySeparatorDefect
from typing import Any, ClassVar

import urllib3
import urllib3.connection
import urllib3.exceptions

from telemetry.wire.deadline import Runner, StillHangingError
from telemetry.wire.endpoint import (
    URL,
    HTTPClient,
    Proxy,
    basic,
    check_header,
    header_value,
    parse_endpoint,
    proxy_for,
    unquoted,
)
from telemetry.wire.reply import read_reply
from telemetry.wire.verdict import Failure, Outcome, printable


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


_REFUSED = {errno.ECONNREFUSED}
_RESET = {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN}
_UNREACHABLE = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
    # What a firewall or a sandbox answers.
    errno.EACCES,
    errno.EPERM,
}
# The order counts: each is a kind of what comes below it, or of OSError.
_FIXED = (
    (DeadlineError, "timeout", "the request took longer than it may"),
    (UnconnectedError, "timeout", "no connection in time"),
    (TimeoutError, "timeout", "no answer in time"),
    (ssl.SSLEOFError, "reset", "the TLS connection ended early"),
    (ssl.SSLZeroReturnError, "reset", "the TLS connection ended early"),
    (
        http.client.RemoteDisconnected,
        "reset",
        "the connection was closed without an answer",
    ),
)
# http.client says this, in an OSError without a number, of a proxy's refusal.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
# Deep enough for any wrapping; a chain may be a ring.
_CHAIN_MAX = 20
_DETAIL_MAX = 200


class TrustError(Exception):
    """There are no certificates to trust. Nothing was sent."""


def failure(
    exc: BaseException,
    *,
    place: str,
    otherwise: str = "other",
    proxy: str = "",
    at_proxy: bool = False,
) -> Failure:
    """What `exc` means. `place` is `host:port`; `proxy` is the URL of the one used.

    otherwise: the kind where nothing in the chain tells one
    at_proxy: it was the proxy that could not be reached
    """
    chain = list(_chain(exc))
    kind, text = _sort(chain) or (otherwise, type(exc).__name__)
    refusal = next((m for e in chain if (m := _TUNNEL.search(str(e)))), None)
    if refusal:
        kind, text = "proxy", f"{proxy} answers {refusal[1]} to CONNECT"
    elif at_proxy:
        kind, text = "proxy", f"{proxy} cannot be used: {text}"
    return Failure(kind, printable(f"{place}: {text}", _DETAIL_MAX))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and all it stems from, outermost first."""
    waiting: list[object] = [exc]
    seen: set[int] = set()
    while waiting and len(seen) < _CHAIN_MAX:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            hidden = None if link.__suppress_context__ else link.__context__
            waiting += [*link.args, link.__cause__, hidden]


def _sort(chain: list[BaseException]) -> tuple[str, str] | None:
    """The kind and text of the innermost exception that has a meaning."""
    for link in chain:
        if isinstance(link, TrustError):
            return "tls", str(link)
    known = [found for link in chain if (found := _meaning(link))]
    return known[-1] if known else None


def _meaning(exc: BaseException) -> tuple[str, str] | None:
    for types, kind, text in _FIXED:
        if isinstance(exc, types):
            return kind, text
    if isinstance(exc, (socket.gaierror, UnicodeError)):
        return "name", f"the name does not resolve ({_system_text(exc)})"
    if isinstance(exc, ssl.SSLError):
        return "tls", _tls_text(exc)
    if isinstance(exc, http.client.HTTPException):
        return "protocol", f"the answer is no sound HTTP ({type(exc).__name__})"
    if isinstance(exc, OSError) and exc.errno is not None:
        return _system_kind(exc.errno), os.strerror(exc.errno)
    return None


def _system_kind(number: int) -> str:
    if number in _REFUSED:
        return "refused"
    if number in _RESET:
        return "reset"
    if number in _UNREACHABLE:
        return "unreachable"
    return "timeout" if number == errno.ETIMEDOUT else "other"


def _system_text(exc: BaseException) -> str:
    text = getattr(exc, "strerror", None)
    return text if isinstance(text, str) else type(exc).__name__


def _tls_text(exc: ssl.SSLError) -> str:
    """`certificate verify failed: self-signed certificate`, as OpenSSL puts it."""
    reason = (exc.reason or type(exc).__name__).lower().replace("_", " ")
    because = getattr(exc, "verify_message", "")
    return f"{reason}: {because}" if because else reason


# A key under one of these names would break the message, or go to a proxy.
_NOT_FOR_KEYS = frozenset(
    {"host", "content-length", "content-encoding", "accept-encoding", "connection"}
    | {"transfer-encoding", "te", "trailer", "upgrade", "expect", "keep-alive"}
    | {"proxy-authorization", "proxy-connection"}
)
# What gzip itself uses: half a megabyte of events in about 10 ms.
_GZIP_LEVEL = 6


class RequestForm:
    """What all requests to one endpoint have in common. It has no telling `repr`."""

    def __init__(
        self, *, url: URL, header: str, api_key: str, user_agent: str, gzip: bool
    ) -> None:
        """Raises ConfigError for a header, key or user agent that cannot be sent."""
        check_header(header)
        key = header_value("api_key", api_key)
        has_key = header and key and header.lower() not in _NOT_FOR_KEYS
        self._key = {header: key} if has_key else {}
        self._gzip = gzip
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": header_value("version", user_agent),
            "Accept-Encoding": "identity",
        }
        if gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._password = ""
        if url.credentials is not None:
            self._headers["Authorization"] = basic(url.credentials)
            self._password = unquoted(url.credentials.partition(":")[2]).decode(
                "latin-1"
            )

    def headers(self, idempotency_key: str) -> dict[str, str]:
        """The headers of one request, each name once whatever its case."""
        headers = {**self._headers, "Idempotency-Key": idempotency_key}
        taken = {name.lower() for name in self._key}
        kept = {name: v for name, v in headers.items() if name.lower() not in taken}
        return kept | self._key

    def coded(self, body: bytes) -> bytes:
        """The body as it is sent. gzip is given no time, which would vary."""
        if not self._gzip:
            return body
        gzip = zlib.compressobj(level=_GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
        return gzip.compress(body) + gzip.flush()

    def secrets(self) -> list[str]:
        """What no reply may carry any further, in the characters of a header."""
        return [secret for secret in (*self._key.values(), self._password) if secret]


# A request that meets its deadline says so itself within this, and its thread and
# connection pool stay in use.
_GRACE_S = 0.01


class Transport:
    """Posts bodies to one endpoint, one at a time, over one kept connection."""

    def __init__(
        self,
        *,
        endpoint: str,
        header: str,
        api_key: str,
        user_agent: str,
        connect_timeout_s: float,
        read_timeout_s: float,
        request_timeout_s: float,
        reply_bytes_max: int,
        gzip: bool,
        environment: Mapping[str, str],
        http: HTTPClient | None = None,
    ) -> None:
        """Opens nothing yet. The times are seconds, the bound is bytes of a body.

        connect_timeout_s: for each address of the host, and for a TLS handshake
        read_timeout_s: the longest silence
        environment: where proxies and certificates are looked up
        http: a client of the program's own. It brings its own proxies and
            certificates; the deadline holds, by leaving its thread behind

        Raises EndpointError for an endpoint that nothing may be sent to, ConfigError
        for a header, key or user agent that would break a request.
        """
        self._url = parse_endpoint(endpoint)
        self._form = RequestForm(
            url=self._url,
            header=header,
            api_key=api_key,
            user_agent=user_agent,
            gzip=gzip,
        )
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._request_timeout_s = request_timeout_s
        self._reply_bytes_max = reply_bytes_max
        self._environment = environment
        self._http = http
        self._place = self._url.origin.partition("://")[2]
        self._runner = Runner(make=self._new_client, close=_close)
        self._closed = False

    def post(self, body: bytes, *, key: str, timeout_s: float) -> Outcome:
        """What came of posting `body` under the idempotency key `key`.

        Returns after `timeout_s` or the request timeout at the latest, whichever is
        shorter. After a Failure the server may still have taken the body.
        """
        timeout_s = min(timeout_s, self._request_timeout_s)
        deadline = time.monotonic() + timeout_s
        if self._closed:
            return Failure("other", "the transport is closed")
        if timeout_s <= 0:
            return Failure("timeout", "no time is left for a request")
        try:
            outcome = self._runner.run(
                lambda client: self._exchange(client, body, key, deadline),
                wait_s=timeout_s + _GRACE_S,
            )
        except StillHangingError:
            return Failure("timeout", f"{self._place}: earlier requests still hang")
        return outcome or Failure("timeout", f"{self._place}: still no answer")

    def close(self) -> None:
        """Lets connection and thread go. Never blocks; a post then is a Failure."""
        self._closed = True
        self._runner.leave()

    def _new_client(self) -> HTTPClient:
        if self._http is not None:
            return self._http
        return _Wire(
            url=self._url,
            bounds=Bounds(
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
            ),
            reply_bytes_max=self._reply_bytes_max,
            environment=self._environment,
        )

    def _exchange(
        self, client: HTTPClient, body: bytes, key: str, deadline: float
    ) -> Outcome:
        """One request and its answer, on the thread that `client` belongs to."""
        wire = client if isinstance(client, _Wire) else None
        proxy = wire.proxy if wire is not None else None
        if proxy is not None and proxy.problem:
            return Failure("proxy", proxy.problem)
        try:
            if wire is not None:
                wire.begin(deadline)
            left_s = max(deadline - time.monotonic(), 0.001)
            response = client.request(
                method="POST",
                url=self._url.origin + self._url.target,
                body=self._form.coded(body),
                headers=self._form.headers(key),
                timeout=urllib3.Timeout(
                    total=None,
                    connect=min(self._connect_timeout_s, left_s),
                    read=min(self._read_timeout_s, left_s),
                ),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            return read_reply(
                response,
                url=self._url,
                bytes_max=self._reply_bytes_max,
                secrets=self._form.secrets(),
                decode=wire is not None,
            )
        except Exception as exc:  # noqa: BLE001  nothing the network does may raise
            # What urllib3 objects to by itself is in the answer: all else is ours.
            objects = isinstance(exc, urllib3.exceptions.HTTPError)
            return failure(
                exc,
                place=self._place,
                otherwise="protocol" if objects else "other",
                proxy=proxy.url if proxy is not None else "",
                at_proxy=isinstance(exc, urllib3.exceptions.ProxyError),
            )


class _Wire:
    """An HTTPClient: one pool of one connection to one origin, under Bounds."""

    def __init__(
        self,
        *,
        url: URL,
        bounds: Bounds,
        reply_bytes_max: int,
        environment: Mapping[str, str],
    ) -> None:
        self.proxy = proxy_for(url.scheme, url.host, url.port, environment)
        self._url = url
        self._bounds = bounds
        self._reply_bytes_max = reply_bytes_max
        self._environment = environment
        self._manager: urllib3.PoolManager | None = None
        self._pool: urllib3.HTTPConnectionPool | None = None

    def begin(self, deadline: float) -> None:
        self._bounds.begin(deadline=deadline, reply_bytes_max=self._reply_bytes_max)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        timeout: Any,
        redirect: bool,
        retries: bool,
        preload_content: bool,
    ) -> urllib3.BaseHTTPResponse:
        # The pool is given the host and the target that were checked: it reads no
        # URL of its own, and changes nothing in the path.
        if self._pool is None:
            self._pool = self._new_pool()
        return self._pool.urlopen(
            method=method,
            url=self._url.target,
            body=body,
            headers=urllib3.HTTPHeaderDict(headers),
            retries=retries,
            redirect=redirect,
            assert_same_host=False,
            timeout=timeout,
            pool_timeout=None,
            release_conn=False,
            chunked=False,
            body_pos=None,
            preload_content=preload_content,
            decode_content=False,
            enforce_content_length=True,
        )

    def close(self) -> None:
        if self._manager is not None:
            self._manager.clear()

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        self._manager = _manager(self._url, self.proxy, self._environment)
        host = f"[{self._url.host}]" if ":" in self._url.host else self._url.host
        pool = self._manager.connection_from_host(
            host=host, port=self._url.port, scheme=self._url.scheme, pool_kwargs=None
        )
        pool.ConnectionCls = _connection_class(self._url.scheme, self._bounds)
        return pool


def _manager(
    url: URL, proxy: Proxy | None, environment: Mapping[str, str]
) -> urllib3.PoolManager:
    """Connections to one origin: one at a time, kept, no retries."""
    options: dict[str, Any] = {
        "num_pools": 1,
        "headers": None,
        "maxsize": 1,
        "block": False,
        "retries": False,
        "timeout": None,
    }
    if url.scheme == "http":  # this machine: no proxy, no TLS
        return urllib3.PoolManager(**options)
    context = _tls(environment)
    options |= {
        "cert_reqs": "CERT_REQUIRED",
        "ssl_context": context,
        "assert_hostname": None,
        "assert_fingerprint": None,
    }
    if proxy is None:
        return urllib3.PoolManager(**options)
    return urllib3.ProxyManager(
        proxy_url=proxy.url,
        proxy_headers=(
            {"Proxy-Authorization": proxy.authorization}
            if proxy.authorization
            else None
        ),
        proxy_ssl_context=context,
        use_forwarding_for_https=False,
        proxy_assert_hostname=None,
        proxy_assert_fingerprint=None,
        **options,
    )


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Certificates as the environment names them, else the system's."""
    try:
        return ssl.create_default_context(
            purpose=ssl.Purpose.SERVER_AUTH,
            cafile=environment.get("SSL_CERT_FILE") or None,
            capath=environment.get("SSL_CERT_DIR") or None,
            cadata=None,
        )
    except OSError as exc:
        raise TrustError("SSL_CERT_FILE or SSL_CERT_DIR cannot be read") from exc


class _Connection(urllib3.connection.HTTPConnection):
    bounds: ClassVar[Bounds]
    # In the clear there is only this machine, where no peer is slow: 512 KiB, which is
    # a batch at its usual bound.
    write_bytes = 32 * WRITE_BYTES
    # A program that debugs its own http.client would print our headers.
    debuglevel = 0

    def _new_conn(self) -> Any:
        try:
            return dial(self._dns_host, self.port, self.bounds)
        except (OSError, UnicodeError) as exc:
            raise urllib3.exceptions.NewConnectionError(self, "no connection") from exc

    def send(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), self.write_bytes):
            if self.sock is not None:
                self.bounds.waiting(self.sock)
            super().send(view[start : start + self.write_bytes])


class _TLSConnection(_Connection, urllib3.connection.HTTPSConnection):
    write_bytes = WRITE_BYTES


def _connection_class(scheme: str, under: Bounds) -> type[_Connection]:
    class Response(BoundedResponse):
        bounds = under

    base = _TLSConnection if scheme == "https" else _Connection
    return type(base.__name__, (base,), {"bounds": under, "response_class": Response})


def _close(client: HTTPClient) -> None:
    if isinstance(client, _Wire):
        client.close()
