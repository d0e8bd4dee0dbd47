"""What is sent with a body: its headers, and its coding. Pure.

Sent are Content-Type, User-Agent, Idempotency-Key, the key under its header,
`Accept-Encoding: identity` (a reply is short; one that is coded all the same is
decoded), Content-Encoding where the body is coded, Authorization where the
endpoint has user info. The HTTP library adds Host and Content-Length, no more.

- Where the key's header is one of these, the key takes its place. Where it frames or
  routes the message the request goes without a key: it would be no sound one.
- Spaces around a key are no part of it. Text beyond ASCII goes out as UTF-8.
- The same body gives the same bytes, coded or not.
"""

from __future__ import annotations

import zlib

from telemetry.delivery.http import URL, basic, check_header, header_value, unquoted


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
