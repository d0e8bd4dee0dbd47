"""What is sent with a body: its headers and its coding. Pure.

Sent are Content-Type, User-Agent, Idempotency-Key, the key under its header,
`Accept-Encoding: identity`, Content-Encoding where the body is coded, Authorization where
the endpoint has user info. The HTTP library adds Host and Content-Length, no more.

- If the key's header is one of these, the key takes its place. If it frames or routes
  the message, the request goes without a key.
- Spaces around a key are not part of it. Text beyond ASCII is sent as UTF-8.
- The same body gives the same bytes, coded or not.
"""

from __future__ import annotations

import zlib
from urllib.parse import unquote

from telemetry.privacy.own_key import OwnKey, without
from telemetry.wire.endpoint import URL, basic, check_header, header_value


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
        self,
        *,
        url: URL,
        header: str,
        api_key: str,
        user_agent: str,
        content_type: str,
        gzip: bool,
    ) -> None:
        """Raises ConfigError for a header, key or user agent that cannot be sent."""
        check_header(header)
        key = header_value("api_key", api_key)
        has_key = header and key and header.lower() not in _NOT_FOR_KEYS
        self._key = {header: key} if has_key else {}
        self._gzip = gzip
        self._headers = {
            "Content-Type": content_type,
            "User-Agent": header_value("version", user_agent),
            "Accept-Encoding": "identity",
        }
        if gzip:
            self._headers["Content-Encoding"] = "gzip"
        password = ""
        if url.credentials is not None:
            self._headers["Authorization"] = basic(url.credentials)
            password = unquote(url.credentials.partition(":")[2])
        self._secrets = [OwnKey(api_key.strip()), OwnKey(password)]

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

    def is_told_by(self, text: str) -> bool:
        """Whether a text repeats the key or a part of it, in whatever escaping."""
        return any(without(text, secret) != text for secret in self._secrets)
