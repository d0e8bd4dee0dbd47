"""What is sent with a body: its URL, its headers and its coding. Pure.

Sent are Content-Type, User-Agent, Idempotency-Key, X-Spool-Range (`<segment>; first=<seq>;
last=<seq>`: which numbers of which segment the body holds), the key under its header,
`Accept-Encoding: identity`, Content-Encoding where the body is coded, Authorization where
the endpoint has user info. The HTTP library adds Host and Content-Length, no more.

- A key may go under Authorization, in the place of the user info's. The others, and what
  frames or routes the message, are refused as the key's header.
- Spaces around a key are not part of it. Text beyond ASCII is sent as UTF-8.
- The same body gives the same bytes, coded or not.
"""

from __future__ import annotations

import zlib
from urllib.parse import parse_qs, unquote, urlencode

import msgspec

from telemetry.privacy.own_key import OwnKey
from telemetry.text import sound
from telemetry.wire.endpoint import URL, basic, header_value
from telemetry.wire.formats import Format
from telemetry.wire.headers import check_header


# 500 events become a tenth of their size, or less, in half a millisecond. Level 6 takes
# two and a half times as long for a fifth less.
_GZIP_LEVEL = 1
# The default of the config: a format may have a header of its own in its place.
_ANY_HEADER = "x-api-key"


class RequestForm:
    """What all requests to one endpoint have in common. It has no telling `repr`."""

    def __init__(
        self,
        *,
        url: URL,
        header: str,
        api_key: str,
        user_agent: str,
        form: Format,
        gzip: bool,
    ) -> None:
        """Raises ConfigError for a header, key or user agent that cannot be sent."""
        check_header(header)
        user, _, password = map(unquote, (url.credentials or "").partition(":"))
        self._own_key = OwnKey(api_key.strip(), password)
        if form.user_header and not api_key:
            api_key, header = password, header or _ANY_HEADER
        if form.key_header and header.lower() == _ANY_HEADER:
            header = form.key_header
        key = header_value("api_key", api_key)
        has_key = bool(header and key)
        self._key = {header: key} if has_key and not form.key_field else {}
        self._key_field = b""
        if has_key and form.key_field:
            field = {form.key_field: sound(api_key.strip())}
            self._key_field = msgspec.json.encode(field)[:-1] + b","
        self._url = url
        self._parameters = [
            each
            for each in form.parameters
            if each[0] not in parse_qs(url.query[1:], keep_blank_values=True)
        ]
        self._gzip = gzip
        self._headers = {
            "Content-Type": form.content_type,
            "User-Agent": header_value("version", user_agent),
            "Accept-Encoding": "identity",
        }
        if gzip:
            self._headers["Content-Encoding"] = "gzip"
        user = user or (form.user if form.key_header in self._key else "")
        if form.user_header and user:
            self._headers[form.user_header] = header_value("endpoint", user)
        elif url.credentials is not None:
            self._headers["Authorization"] = basic(url.credentials)

    def url(self, idempotency_key: str) -> URL:
        """Where one request goes: the endpoint with the format's parameters."""
        added = [
            (name, text.format(key=idempotency_key)) for name, text in self._parameters
        ]
        if not added:
            return self._url
        query = self._url.query
        query += "&" if len(query) > 1 else "?"[len(query) :]
        return msgspec.structs.replace(self._url, query=query + urlencode(added))

    def headers(self, idempotency_key: str, spool_range: str) -> dict[str, str]:
        """The headers of one request, each name once whatever its case."""
        headers = {**self._headers, "Idempotency-Key": idempotency_key}
        if spool_range:
            headers["X-Spool-Range"] = spool_range
        taken = {name.lower() for name in self._key}
        kept = {name: v for name, v in headers.items() if name.lower() not in taken}
        return kept | self._key

    def coded(self, body: bytes) -> bytes:
        """The body as it is sent. gzip is given no time, which would vary."""
        if self._key_field:
            body = self._key_field + body[1:]
        if not self._gzip:
            return body
        gzip = zlib.compressobj(level=_GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
        return gzip.compress(body) + gzip.flush()

    def is_told_by(self, text: str) -> bool:
        """Whether a text repeats the key or a part of it, in whatever escaping."""
        return self._own_key.without(text) != text
