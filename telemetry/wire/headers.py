"""Under which header a key may go. Light: a launch with a header of its own loads it."""

from __future__ import annotations

from telemetry.errors import ConfigError


# RFC 9110 §5.6.2.
_TOKEN = frozenset(
    "!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
# Each request has its own, or they frame or route it. With the key as Idempotency-Key a
# server that stores each batch once would drop all but the first.
_NOT_FOR_KEYS = frozenset(
    {"content-type", "user-agent", "idempotency-key", "x-spool-range"}
    | {"host", "content-length", "content-encoding", "accept-encoding", "connection"}
    | {"transfer-encoding", "te", "trailer", "upgrade", "expect", "keep-alive"}
    | {"proxy-authorization", "proxy-connection"}
)


def check_header(name: str) -> None:
    """Raises ConfigError unless a key can go under this name, or it is empty (no key)."""
    if not _TOKEN.issuperset(name):
        raise ConfigError(
            "header", "not a header name: letters, digits and - only (RFC 9110 §5.1)"
        )
    if name.lower() in _NOT_FOR_KEYS:
        problem = "a request has this header for itself; name the key's own header"
        raise ConfigError("header", problem)
