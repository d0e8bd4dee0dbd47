"""One POST and what came of it; the only user of urllib3's connections.

- A post lasts no longer than its deadline. Reads and writes are bounded at the socket
  (`connection.py`); what cannot be bounded there runs on a thread that is abandoned
  (`deadline.py`).
- Nothing that the network does raises: it becomes a Reply or a Failure. Once status
  line and headers are there it is a Reply, complete or not: a `503` and its Retry-After
  count although the body never ends.
- After a send that failed the reply is read all the same. It says `is_sent=False`, so
  it may refuse or split a batch and never accepts one.
- A body that ends with the connection is complete (RFC 9112 §6.3), over TLS only if the
  peer ended it in order (§9.8). In the clear, which only this machine speaks, a cut
  cannot be told from an end.
- No redirect is followed and no retry made here. The key goes to the endpoint's origin
  alone.
- Certificates are those of SSL_CERT_FILE and SSL_CERT_DIR if either is set, and then no
  others; else the system's. No TLS keys are logged: SSLKEYLOGFILE is not read.
"""

from __future__ import annotations

import errno
import math
import selectors
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, ClassVar
from urllib.request import getproxies_environment

from telemetry.wire.connection import (
    WRITE_BYTES,
    BoundedResponse,
    Dialler,
    ready,
)
from telemetry.wire.deadline import Bounds, Runner, StillHangingError
from telemetry.wire.endpoint import URL, HTTPClient, Proxy, parse_endpoint, proxy_for
from telemetry.wire.failure import TrustError, failure
from telemetry.wire.formats import RECORDS, Format
from telemetry.wire.library import urllib3
from telemetry.wire.reply import read_reply
from telemetry.wire.request import RequestForm
from telemetry.wire.unnoticed import hush, unnoticed
from telemetry.wire.verdict import Failure, Outcome, Reply


# A request that meets its deadline says so itself within this, and its thread and
# connection pool stay in use. Timers and threads on an idle machine take 5 to 18 ms of it.
_GRACE_S = 0.05
# Connections, and so requests under way. Browsers keep to six; four drain 64 MiB in 4 s
# where each answer takes 50 ms.
CONNECTIONS_MAX = 4
hush(urllib3.__name__)


class Transport:
    """Posts bodies to one endpoint, over kept connections: one for each at a time."""

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
        form: Format = RECORDS,
        ends: Callable[[], float] = lambda: math.inf,
        turn: int = 0,
    ) -> None:
        """Opens nothing yet. The times are seconds, the bound is bytes of a body.

        connect_timeout_s: for all addresses of the host, and for a TLS handshake
        read_timeout_s: the longest silence
        environment: where certificates are looked up
        http: a client of the program's own. It brings its own proxies and
            certificates; the deadline holds, its thread is abandoned
        ends: when all requests end at the latest, of `time.monotonic()`; asked again
            while one is waited for
        turn: which address of a name that has several is tried first

        Raises EndpointError for an endpoint that nothing may be sent to, ConfigError
        for a header, key or user agent that would break a request.
        """
        self._url = parse_endpoint(endpoint)
        self._form = RequestForm(
            url=self._url,
            header=header,
            api_key=api_key,
            user_agent=user_agent,
            form=form,
            gzip=gzip,
        )
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._request_timeout_s = request_timeout_s
        self._reply_bytes_max = reply_bytes_max
        self._environment = environment
        self._http = http
        self._ends = ends
        self._place = self._url.origin.partition("://")[2]
        self._runners: list[Runner[HTTPClient]] = []
        self._idle: list[Runner[HTTPClient]] = []
        # A client of the program's own may not be made for several threads.
        self.at_once = CONNECTIONS_MAX if http is None else 1
        self._closed = False
        self._dialler = Dialler(turn)

    def post(
        self, body: bytes, *, key: str, timeout_s: float, spool_range: str = ""
    ) -> Outcome:
        """What came of posting `body` under the idempotency key `key`.

        `spool_range` says which records it holds.

        Returns after `timeout_s` or the request timeout at the latest, whichever is
        shorter. After a Failure the server may still have taken the body.
        """
        return self.start(body, key=key, timeout_s=timeout_s, spool_range=spool_range)()

    def start(
        self, body: bytes, *, key: str, timeout_s: float, spool_range: str = ""
    ) -> Callable[[], Outcome]:
        """Begin a post; a call of what is returned waits for its outcome, as `post`.

        `at_once` posts may be under way, each on a connection of its own. One thread
        at a time starts them and asks for outcomes, for each once.
        """
        timeout_s = min(timeout_s, self._request_timeout_s)
        deadline = time.monotonic() + timeout_s
        if self._closed:
            return lambda: Failure("other", "the transport is closed")
        if timeout_s <= 0:
            return lambda: Failure("timeout", "no time is left for a request")
        url = self._form.url(key)
        headers = self._form.headers(key, spool_range)
        # The one that was used last: its connection is the warmest.
        runner = self._idle.pop() if self._idle else self._new_runner()
        try:
            task = runner.start(
                lambda client: self._exchange(client, url, body, headers, deadline)
            )
        except StillHangingError:
            self._idle.append(runner)
            hanging = f"{self._place}: earlier requests still hang"
            return lambda: Failure("timeout", hanging)

        def outcome() -> Outcome:
            found = runner.result(
                task, until=lambda: min(deadline, self._ends()) + _GRACE_S
            )
            self._idle.append(runner)
            return found or Failure("timeout", f"{self._place}: still no answer")

        return outcome

    def close(self) -> None:
        """Give up connections and threads; a post after it is a Failure.

        What hangs is not waited for.
        """
        self._closed = True
        for runner in self._runners:
            runner.end()

    def _new_runner(self) -> Runner[HTTPClient]:
        runner = Runner(make=self._new_client, close=_close)
        self._runners.append(runner)
        return runner

    def _new_client(self) -> HTTPClient:
        if self._http is not None:
            return self._http
        return _Wire(
            url=self._url,
            bounds=Bounds(
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
            ),
            dialler=self._dialler,
            environment=self._environment,
        )

    def _exchange(
        self,
        client: HTTPClient,
        url: URL,
        body: bytes,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Outcome:
        """One request and its answer, on the thread that `client` belongs to."""
        with unnoticed():
            outcome = self._posted(client, url, body, headers, deadline)
        if isinstance(client, _Wire) and client.bounds.address is not None:
            # Another address of the same name may be one that serves.
            has_served = isinstance(outcome, Reply) and outcome.status // 100 == 2
            self._dialler.note(client.bounds.address, has_served=has_served)
        return outcome

    def _posted(
        self,
        client: HTTPClient,
        url: URL,
        body: bytes,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Outcome:
        wire = client if isinstance(client, _Wire) else None
        proxy = wire.proxy if wire is not None else None
        if proxy is not None and proxy.problem:
            return Failure("proxy", proxy.problem)
        try:
            if wire is not None:
                wire.bounds.begin(
                    deadline=deadline, reply_bytes_max=self._reply_bytes_max
                )
            left_s = max(deadline - time.monotonic(), 0.001)
            response = client.request(
                method="POST",
                url=url.origin + url.target,
                body=self._form.coded(body),
                headers=headers,
                timeout=urllib3.Timeout(
                    total=None,
                    connect=min(self._connect_timeout_s, left_s),
                    read=min(self._read_timeout_s, left_s),
                ),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            # Reading it to its end gives the connection back.
            connection = response.connection if wire is not None else None
            reply = read_reply(
                response,
                url=url,
                bytes_max=self._reply_bytes_max,
                tells_key=self._form.is_told_by,
                is_ours=wire is not None,
                is_sent=wire is None or wire.bounds.is_sent,
            )
            if connection is not None and response.status // 100 != 2:
                # Behind a balancer, another connection may lead to another server.
                connection.close()
            if time.monotonic() >= deadline and _is_cut(reply):
                # By our own time, and not by the server.
                return Failure("timeout", f"{self._place}: the answer took too long")
            return reply
        except Exception as exc:  # noqa: BLE001  nothing the network does may raise
            # What urllib3 itself objects to is in the answer.
            is_answer = isinstance(exc, urllib3.exceptions.HTTPError)
            return failure(
                exc,
                place=self._place,
                otherwise="protocol" if is_answer else "other",
                proxy=proxy.url if proxy is not None else "",
                at_proxy=isinstance(exc, urllib3.exceptions.ProxyError),
            )


def _is_cut(outcome: Outcome) -> bool:
    """Whether it would be an acceptance if all of it had come."""
    if isinstance(outcome, Failure):
        return False
    return outcome.status // 100 == 2 and not outcome.complete


class _Wire:
    """An HTTPClient: one pool of one connection to one origin, under Bounds."""

    def __init__(
        self,
        *,
        url: URL,
        bounds: Bounds,
        dialler: Dialler,
        environment: Mapping[str, str],
    ) -> None:
        self.proxy = proxy_for(url.scheme, url.host, url.port, getproxies_environment())
        self.bounds = bounds
        self._url = url
        self._dialler = dialler
        self._environment = environment
        self._pool: urllib3.HTTPConnectionPool | None = None

    def request(
        self, method: str, url: str, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        # The pool is given the host and the target that were checked: it reads no
        # URL of its own, and changes nothing in the path.
        if self._pool is None:
            self._pool = self._new_pool()
        return self._pool.urlopen(
            method=method,
            url=url.removeprefix(self._url.origin),
            assert_same_host=False,
            decode_content=False,
            enforce_content_length=True,
            **options,
        )

    def close(self) -> None:
        # Else it is left to the pool's finalizer, which does nothing any more once the
        # program is ending, and Python would warn on the host's standard error.
        if self._pool is not None:
            self._pool.close()

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        manager = _manager(self._url, self.proxy, self._environment)
        host = f"[{self._url.host}]" if ":" in self._url.host else self._url.host
        pool = manager.connection_from_host(
            host=host, port=self._url.port, scheme=self._url.scheme, pool_kwargs=None
        )
        pool.ConnectionCls = _connection_class(
            self._url.scheme, self.bounds, self._dialler
        )
        return pool


def _manager(
    url: URL, proxy: Proxy | None, environment: Mapping[str, str]
) -> urllib3.PoolManager:
    """Connections to one origin: one at a time, kept, no retries."""
    options: dict[str, Any] = {"num_pools": 1, "maxsize": 1, "retries": False}
    if url.scheme == "http":  # this machine: no proxy, no TLS
        return urllib3.PoolManager(**options)
    context = _tls(environment)
    # Where the clock is years behind urllib3 would warn on the host's standard error,
    # or raise where the host makes errors of warnings. The server's answer tells as much.
    recent = getattr(urllib3.connection, "RECENT_DATE", date.min)
    if date.today() < recent:  # noqa: DTZ011 - the local date, as urllib3 compares
        urllib3.disable_warnings(urllib3.exceptions.SystemTimeWarning)
    options |= {"cert_reqs": "CERT_REQUIRED", "ssl_context": context}
    if proxy is None:
        return urllib3.PoolManager(**options)
    password = proxy.authorization
    return urllib3.ProxyManager(
        proxy_url=proxy.url,
        proxy_headers={"Proxy-Authorization": password} if password else None,
        proxy_ssl_context=context,
        use_forwarding_for_https=False,
        **options,
    )


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Certificates as the environment names them, else the system's.

    Not `ssl.create_default_context`: it opens SSLKEYLOGFILE, and fails if it cannot.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Debian's Python 3.11 sets this: a body that is cut would end like a whole one.
    # OpenSSL 1.1.1 does not have it.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    files = environment.get("SSL_CERT_FILE"), environment.get("SSL_CERT_DIR")
    try:
        if any(files):
            context.load_verify_locations(files[0] or None, files[1] or None)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except OSError as exc:
        raise TrustError(
            "SSL_CERT_FILE or SSL_CERT_DIR cannot be read, or has no certificate"
        ) from exc
    return context


class _Connection(urllib3.connection.HTTPConnection):
    bounds: ClassVar[Bounds]
    dialler: ClassVar[Dialler]
    # In the clear there is only this machine, where no peer is slow: 512 KiB, which is
    # a batch at its usual bound.
    write_bytes = 32 * WRITE_BYTES
    # A program that debugs its own http.client would print our headers.
    debuglevel = 0

    def _new_conn(self) -> Any:
        try:
            # A proxy's address of IPv6 comes as a URL has it.
            host = self._dns_host.strip("[]")
            return self.dialler.dial(host, self.port, self.bounds)
        except (OSError, UnicodeError) as exc:
            raise urllib3.exceptions.NewConnectionError(self, "no connection") from exc

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except TimeoutError:
            raise  # the time may be ours
        except Exception as exc:
            # urllib3 takes the proxy for connected to by now, and the server for silent.
            raise urllib3.exceptions.ProxyError("no tunnel", exc) from exc

    def send(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), self.write_bytes):
            if self.sock is not None:
                self.bounds.waiting(self.sock)
            try:
                super().send(view[start : start + self.write_bytes])
            except OSError as exc:
                self.bounds.is_sent = False
                read = selectors.EVENT_READ
                if isinstance(exc, TimeoutError) and not ready([self.sock], read, 0):
                    raise
                # urllib3 goes on to read the reply after this error alone.
                raise BrokenPipeError(errno.EPIPE, "the send failed") from exc


class _TLSConnection(_Connection, urllib3.connection.HTTPSConnection):
    write_bytes = WRITE_BYTES


def _connection_class(
    scheme: str, under: Bounds, dialler: Dialler
) -> type[_Connection]:
    class Response(BoundedResponse):
        bounds = under

    base = _TLSConnection if scheme == "https" else _Connection
    return type(
        base.__name__,
        (base,),
        {"bounds": under, "dialler": dialler, "response_class": Response},
    )


def _close(client: HTTPClient) -> None:
    if isinstance(client, _Wire):
        client.close()
