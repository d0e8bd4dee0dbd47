"""What a request needs to know of URLs and headers before any library is loaded.

An endpoint is read here once, strictly, and whoever connects is given the host,
the port and the request target that came out. So no second parser can see
another host in the same text (`http://127.0.0.1\\@elsewhere/`), and the key goes
where the check looked.

- Only https, and http to this machine: 127.0.0.0/8, ::1, `localhost`.
- User info becomes Basic credentials (RFC 7617). It is in no text made here.
- A path stays as it was written, dots and double slashes included; bytes that a
  URL cannot hold are percent-encoded. A fragment is never sent.
- Header names and values that would break a message are refused by name, and
  the value is not repeated.

It opens no socket and resolves no name.

Which proxy a request goes through, from the environment. Pure.

Rules, and who else has them:

- This machine is never reached through a proxy (as in Go): a plain http endpoint
  is always this machine, and a proxy would get its key and events in the clear.
  So only https goes through one, as a tunnel, and HTTP_PROXY is never asked,
  which a CGI server lets its callers set.
- `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY`: the first that is set
  decides, also when it is empty, which means none (lower case first as in curl).
- `no_proxy`, then `NO_PROXY`: names, addresses and networks parted by commas or
  spaces. A name stands for itself and everything below it, with or without a
  leading dot; `host:port` for that port alone; `*` for everything. Names are
  compared as text, addresses as addresses; nothing is resolved.
- A value that cannot be used is an error, never a direct connection: who names
  a proxy may have no other way out, or want none.

It opens no socket. Credentials are in `authorization` and nowhere else.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from telemetry.errors import ConfigError, EndpointError


PORTS = {"http": 80, "https": 443}

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Labels of 1 to 63 characters (RFC 1035 §2.3.4), `_` besides, as resolvers take it.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<credentials>[^@/?#\\ ]*)@)?"
    rf"(?P<host>\[[0-9a-f:.]*:[0-9a-f:.]*\]|{_LABEL}(?:\.{_LABEL})*\.?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:\#.*)?",
    re.IGNORECASE | re.ASCII,
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# Resolvers read `0127.0.0.1` as octal and `127.1` as short for something: neither
# is taken for this machine, only the form that means one thing everywhere.
_LOOPBACK = re.compile(rf"127(?:\.{_OCTET}){{3}}|::1|localhost")
# What RFC 3986 §3.3 and §3.4 allow, and the sign of what is encoded already.
_UNSENDABLE = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]")
# RFC 9110 §5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# A host's name has 253 characters at most (RFC 1035 §2.3.4).
_HOST_MAX = 253
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
        port = "" if PORTS.get(self.scheme) == self.port else f":{self.port}"
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
    found = None if _CONTROL.search(url) else _URL.fullmatch(url)
    if found is None:
        return None
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else PORTS.get(scheme, 0)
    if port > 0xFFFF or (found["port"] and port == 0):
        return None
    host = found["host"].strip("[]").lower()
    if len(host) > _HOST_MAX:
        return None
    return URL(
        scheme=scheme,
        host=host,
        port=port,
        path=_sendable(found["path"] or "/"),
        query=_sendable(found["query"] or ""),
        credentials=found["credentials"],
    )


def parse_endpoint(endpoint: str) -> URL:
    """The parts of an endpoint that events may be sent to; raises EndpointError."""
    if _CONTROL.search(endpoint):
        raise EndpointError("endpoint", "it holds a control character")
    url = split(endpoint)
    if url is None:
        raise EndpointError(
            "endpoint",
            f"{redact(endpoint)!r} is no URL with a host; write https://host/path "
            "(a host with other than ASCII letters in its xn-- form)",
        )
    if url.scheme not in PORTS:
        raise EndpointError("endpoint", f"{url.shown!r} is neither https nor http")
    if url.scheme == "http" and not is_loopback(url.host):
        raise EndpointError(
            "endpoint",
            f"{url.shown!r} would carry the key and the events in the clear; "
            "use https (http is for 127.0.0.1, [::1] and localhost)",
        )
    return url


def check_endpoint(endpoint: str) -> None:
    """Raises EndpointError unless events may be sent to this endpoint."""
    parse_endpoint(endpoint)


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


def origin(url: str) -> str:
    """`https://host:port` of an absolute URL, in one spelling; empty if it has none."""
    parts = split(url)
    return parts.origin if parts is not None else ""


def basic(credentials: str) -> str:
    """User info of a URL as Basic credentials, encoded bytes as they were meant."""
    user, _, password = credentials.partition(":")
    plain = unquoted(user) + b":" + unquoted(password)
    return "Basic " + binascii.b2a_base64(plain, newline=False).decode("ascii")


def unquoted(part: str) -> bytes:
    """The bytes that a percent-encoded part of a URL stands for."""
    return re.sub(
        rb"%([0-9A-Fa-f]{2})",
        lambda found: binascii.unhexlify(found[1]),
        part.encode("utf-8"),
    )


def check_header(name: str) -> None:
    """Raises ConfigError unless the name can name a header, or is empty (no key)."""
    if name and not _TOKEN.fullmatch(name):
        raise ConfigError(
            "header", "it is no header name: letters, digits and - only (RFC 9110 §5.1)"
        )


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


_NAMES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Proxy(msgspec.Struct, frozen=True):
    """A proxy, or the reason why the one that was named cannot be used."""

    url: str = ""  # scheme, host and port
    authorization: str = ""  # the value of Proxy-Authorization
    problem: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.url or self.problem!r})"


def proxy_for(
    scheme: str, host: str, port: int, environment: Mapping[str, str]
) -> Proxy | None:
    """The proxy for this origin, None for a direct connection. Never raises."""
    if scheme != "https" or is_loopback(host):
        return None
    name = next((name for name in _NAMES if name in environment), "")
    value = environment.get(name, "").strip()
    if not value or _is_exempt(host, port, environment):
        return None
    url = split(value if "://" in value else f"http://{value}")
    if url is None:
        return Proxy(problem=f"{name} is no URL of a proxy")
    if url.scheme not in PORTS:
        return Proxy(problem=f"{name} names a {url.scheme} proxy; use http or https")
    authorization = "" if url.credentials is None else basic(url.credentials)
    return Proxy(url=url.origin, authorization=authorization)


def _is_exempt(host: str, port: int, environment: Mapping[str, str]) -> bool:
    name = "no_proxy" if "no_proxy" in environment else "NO_PROXY"
    entries = environment.get(name, "").replace(",", " ").lower().split()
    return any(_covers(entry, host, port) for entry in entries)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    pattern, only_port = _split_port(entry)
    if only_port not in ("", str(port)):
        return False
    if address is not None:
        return address == _address(pattern)
    pattern = pattern.removeprefix("*").strip(".")
    name = host.rstrip(".")
    return bool(pattern) and (name == pattern or name.endswith(f".{pattern}"))


def _split_port(entry: str) -> tuple[str, str]:
    """`host`, `host:port`, `[address]:port` or a bare IPv6 address, in two."""
    if entry.startswith("["):
        pattern, _, rest = entry[1:].partition("]")
        return pattern, rest.removeprefix(":")
    if entry.count(":") == 1:
        pattern, _, only_port = entry.partition(":")
        return pattern, only_port
    return entry, ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
