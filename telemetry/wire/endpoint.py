"""Which URL, header and proxy may be used. Pure, but for the proxies' environment.

URLs are read by `urllib3.util.parse_url` alone, and the pool that connects is given the
host and the port that came out. So no second parser can see another host in the same
text (`http://127.0.0.1\\@elsewhere/`), and the key goes where the check looked.

- Only https, and http to this machine: 127.0.0.0/8, ::1, `localhost`.
- User info becomes Basic credentials (RFC 7617). It is in no text made here.
- A path stays as it was written, dots and double slashes included; bytes that a URL
  cannot hold are percent-encoded. A fragment is never sent.
- Header names and values that would break a message are refused by name, and the value
  is not repeated.

Proxies are those of `urllib.request.getproxies_environment`:

- This machine is never reached through a proxy. Plain http is always this machine, so
  only https goes through one, as a tunnel, and HTTP_PROXY is never asked, which a CGI
  server lets its callers set. Without an HTTPS_PROXY it is ALL_PROXY.
- `no_proxy` holds names, addresses and networks, separated by commas or spaces. A name
  stands for itself and everything below it; `host:port` for that port; `*` for all.
- A value that cannot be used is an error, never a direct connection: a program behind a
  proxy may have no other way out, or want none.

It opens no socket and resolves no name.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from telemetry.errors import ConfigError, EndpointError
from telemetry.switches import trimmed


PORTS = {"http": 80, "https": 443}

# A backslash is a slash to some parsers, and part of a name to others.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\]")
# The scheme, what says who and where, and what is asked for there.
_ABSOLUTE = re.compile(
    r"[a-z][a-z0-9+.-]*://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\??[^#]*).*",
    re.IGNORECASE | re.DOTALL,
)
# Labels of 1 to 63 characters (RFC 1035 §2.3.4), `_` besides, as resolvers take it; or
# an IPv6 address that the parser has checked, without a zone.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"\[[0-9a-f:.]+\]|(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# Resolvers read `0127.0.0.1` as octal and `127.1` as short for something: neither
# is taken for this machine, only the form that means one thing everywhere.
_LOOPBACK = re.compile(rf"127(?:\.{_OCTET}){{3}}|::1|localhost")
# What RFC 3986 §3.3 and §3.4 allow, and the sign of what is encoded already.
_UNSENDABLE = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]")
# More of a URL than this tells a reader nothing more.
_SHOWN_MAX = 200


class HTTPClient(Protocol):
    """What is needed of a `urllib3.PoolManager`, which is one.

    `request` is called with all arguments by name, redirects and retries off. It
    may raise whatever it likes. What it answers should have `status`, `headers`
    and `read(amt)`, and may have `geturl()`, `release_conn()` and `close()`.
    """

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        timeout: object,
        redirect: bool,
        retries: bool,
        preload_content: bool,
    ) -> Any: ...


class URL(msgspec.Struct, frozen=True):
    """A URL in its parts. Its `repr` is what may be shown."""

    scheme: str
    host: str  # lower case, an IPv6 address without brackets
    port: int
    path: str  # from the first `/`, sendable as it stands
    query: str  # from the `?`, or empty; sendable as it stands
    credentials: str | None  # user info, percent-encoded as it was given

    @property
    def origin(self) -> str:
        """Scheme, host and port; the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port != PORTS.get(self.scheme, 0) else ""
        return f"{self.scheme}://{host}{port}"

    @property
    def target(self) -> str:
        """What stands in the request line (RFC 9112 §3.2.1)."""
        return self.path + self.query

    @property
    def shown(self) -> str:
        """The URL without user info and query, on one line of bounded length."""
        return (self.origin + self.path)[:_SHOWN_MAX]

    def __repr__(self) -> str:
        return f"URL({self.shown!r})"


def split(url: str) -> URL | None:
    """The parts of an absolute URL of any scheme; None if it cannot be one."""
    # Here, not above: a program that only prints its config loads no HTTP library.
    from telemetry.wire.library import urllib3

    found = None if _UNSAFE.search(url) else _ABSOLUTE.fullmatch(url)
    if found is None or " " in found["authority"]:
        return None
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        return None
    host, scheme = (parts.host or "").lower(), parts.scheme or ""
    # The parser takes a host in other letters where `idna` happens to be installed.
    in_ascii = found["authority"].rpartition("@")[2].isascii()
    port = PORTS.get(scheme, 0) if parts.port is None else parts.port
    if not in_ascii or not _HOST.fullmatch(host) or parts.port == 0:
        return None
    return URL(
        scheme=scheme,
        host=host.strip("[]"),
        port=port,
        # The parser would tidy up a path: a collector may route by it as it stands.
        path=_sendable(found["path"] or "/"),
        query=_sendable(found["query"]),
        credentials=parts.auth,
    )


def parse_endpoint(endpoint: str) -> URL:
    """The parts of an endpoint that events may be sent to; raises EndpointError."""
    url = split(endpoint)
    if url is None:
        bounds = (
            " (a port from 1 to 65535; a host's labels of at most 63 characters, in "
            "their xn-- form where they have other than ASCII letters)"
        )
        raise EndpointError(
            "endpoint",
            f"{redact(endpoint)!r} is not a URL with a host; write https://host/path"
            + (bounds if "://" in endpoint else ""),
        )
    if url.scheme not in PORTS:
        problem = f"{url.shown!r} is neither https nor http; write https://host/path"
        raise EndpointError("endpoint", problem)
    if url.scheme == "http" and not is_loopback(url.host):
        raise EndpointError(
            "endpoint",
            f"{url.shown!r} would carry the key and the events in the clear; "
            "use https (http is for 127.0.0.1, [::1] and localhost)",
        )
    return url


def is_loopback(host: str) -> bool:
    """True if the host, lower case and without brackets, is this machine."""
    return _LOOPBACK.fullmatch(host) is not None


def redact(url: str) -> str:
    """The URL without user info, query and fragment, for messages. Never raises.

    Where it cannot be read and could hold any of these, only the scheme is left:
    a password with a `/` in it makes a host of its user's name.
    """
    parts = split(url)
    if parts is not None:
        return parts.shown
    if re.search(r"[@?#\\]", url):
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
        return (scheme.group() if scheme else "") + "…"
    return "".join(c if c.isprintable() else "�" for c in url[:_SHOWN_MAX])


def is_same_place(url: URL, other: str) -> bool:
    """Whether another spelling of a URL, or its target alone, leads to the same place."""
    there = split(url.origin + other if other.startswith("/") else other)
    return there is not None and (
        (there.origin, unquote(there.target)) == (url.origin, unquote(url.target))
    )


def basic(credentials: str) -> str:
    """User info of a URL as Basic credentials, encoded bytes as they were meant."""
    user, _, password = credentials.partition(":")
    plain = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return "Basic " + binascii.b2a_base64(plain, newline=False).decode("ascii")


def header_value(field: str, value: str) -> str:
    """The value as it goes on the wire: trimmed, UTF-8 in the form that urllib3 takes.

    Raises ConfigError naming `field`, without the value, where a control character
    would end the line (RFC 9110 §5.5). Bytes of an environment that were no UTF-8
    go out as they came in.
    """
    trimmed = value.strip(" \t")
    if re.search("[\x00-\x08\x0a-\x1f\x7f]", trimmed):
        raise ConfigError(field, "it holds a control character and cannot be sent")
    try:
        return trimmed.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError as exc:
        raise ConfigError(field, "it holds half a character (a surrogate)") from exc


def _sendable(part: str) -> str:
    def encoded(found: re.Match[bytes]) -> bytes:
        return b"".join(b"%%%02X" % byte for byte in found.group())

    return _UNSENDABLE.sub(encoded, part.encode("utf-8")).decode("ascii")


class Proxy(msgspec.Struct, frozen=True):
    """A proxy, or the reason why the one that was named cannot be used."""

    url: str = ""  # scheme, host and port
    authorization: str = ""  # the value of Proxy-Authorization
    problem: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.url or self.problem!r})"


def proxy_for(
    scheme: str, host: str, port: int, proxies: Mapping[str, str]
) -> Proxy | None:
    """The proxy for this origin, None for a direct connection. Never raises.

    `proxies` is what `getproxies_environment` found.
    """
    if scheme != "https" or is_loopback(host) or _is_exempt(host, port, proxies):
        return None
    name = "https" if "https" in proxies else "all"
    value = trimmed(proxies.get(name, ""))
    if not value:
        return None
    url = split(value if "://" in value else f"http://{value}")
    name = f"{name.upper()}_PROXY"
    if url is None:
        return Proxy(problem=f"{name} is not the URL of a proxy")
    if url.scheme not in PORTS:
        return Proxy(problem=f"{name} names a {url.scheme} proxy; use http or https")
    authorization = "" if url.credentials is None else basic(url.credentials)
    return Proxy(url=url.origin, authorization=authorization)


def _is_exempt(host: str, port: int, proxies: Mapping[str, str]) -> bool:
    from urllib.request import (  # type: ignore[attr-defined]
        proxy_bypass_environment,
    )

    entries = trimmed(proxies.get("no", "")).replace(",", " ").lower().split()
    if "*" in entries:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Names below a name are what the standard library's rules are about.
        names = ",".join(each.removeprefix("*").rstrip(".") for each in entries)
        place = f"{host.rstrip('.')}:{port}"
        return bool(proxy_bypass_environment(place, {"no": names}))
    return any(_has(entry, address, port) for entry in entries)


def _has(
    entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> bool:
    """Whether an address or a network, or an address with this port, covers `address`."""
    text = entry.removesuffix(f":{port}") if entry.count(":") == 1 else entry
    if entry.startswith("["):
        text = entry.removesuffix(f":{port}").strip("[]")
    try:
        return address in ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
