"""Which proxy a request goes through, from the environment. Pure.

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

import ipaddress
from collections.abc import Mapping

import msgspec

from telemetry.delivery.http import PORTS, basic, is_loopback, split


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
