"""An exception of the network becomes a Failure of one kind and one line. Pure.

The library that made the request wraps what happened, sometimes twice, so the whole
chain is looked at: arguments, causes and contexts. Only what the system, the resolver
or the TLS library says is repeated, never what a wrapper says: it repeats the URL, and
a query may hold secrets.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import ssl
from collections.abc import Iterator

from telemetry.wire.batch import printable
from telemetry.wire.connection import UnconnectedError
from telemetry.wire.deadline import DeadlineError
from telemetry.wire.verdict import Failure


_RESET = ("ECONNRESET", "ECONNABORTED", "EPIPE", "ENOTCONN")
# The last two are what a firewall or a sandbox answers.
_UNREACHABLE = ("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN",
    "EADDRNOTAVAIL", "EAFNOSUPPORT", "EACCES", "EPERM")  # fmt: skip
_KIND_OF = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    **{getattr(errno, name): "reset" for name in _RESET},
    **{getattr(errno, name): "unreachable" for name in _UNREACHABLE},
}
# The order counts: each is a kind of what comes below it, or of OSError.
_FIXED = (
    (DeadlineError, "timeout", "the request took longer than it may"),
    (UnconnectedError, "unreachable", "no connection in time"),
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
    # The text of no other is asked for: a client of the host's may raise anything.
    said = [str(each) for each in chain if isinstance(each, OSError)]
    refusal = next((m for each in said if (m := _TUNNEL.search(each))), None)
    if refusal:
        kind, text = "proxy", f"{proxy} answers {refusal[1]} to CONNECT"
    elif at_proxy:
        kind, text = "proxy", f"{proxy} cannot be used: {text}"
    elif proxy:
        place = f"{place} by way of {proxy}"
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
        said = getattr(exc, "strerror", None) or type(exc).__name__
        return "name", f"the name does not resolve ({said})"
    if isinstance(exc, ssl.SSLError):
        return "tls", _tls_text(exc)
    if isinstance(exc, http.client.HTTPException):
        return "protocol", f"the answer is malformed HTTP ({type(exc).__name__})"
    if isinstance(exc, OSError) and exc.errno is not None:
        return _KIND_OF.get(exc.errno, "other"), os.strerror(exc.errno)
    return None


def _tls_text(exc: ssl.SSLError) -> str:
    """`certificate verify failed: self-signed certificate`, as OpenSSL puts it."""
    reason = (exc.reason or type(exc).__name__).lower().replace("_", " ")
    because = getattr(exc, "verify_message", "")
    return f"{reason}: {because}" if because else reason
