"""What a client answered becomes a Reply, read no further than the bound.

The answer is one of urllib3, or looks like one: `status` and `headers`, and of
`read(amt)`, `stream(amt)`, `data`, `geturl()`, `retries.history`, `history`,
`release_conn()` and `close()` what there is.

- A body is complete when its own framing says so: Content-Length, the last
  chunk, or the end of the connection where it has neither (RFC 9112 §6.3).
- Framing that two readers could understand in two ways is a malformed answer.
- gzip and deflate are removed, never beyond the bound. A body under another coding
  cannot be read, and says so (`is_decoded`).
- A connection is used again only after an answer that was read to its end.

It decides nothing about the batch.
"""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from telemetry.wire.endpoint import URL, split
from telemetry.wire.verdict import Failure, Outcome, Reply


_READ_BYTES = 16 * 1024
# gzip, or zlib; and deflate without zlib's frame, as some servers send it.
_WBITS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
# A shorter secret would turn up in ordinary words.
_SECRET_MIN = 8


def read_reply(
    response: Any,
    *,
    url: URL,
    bytes_max: int,
    secrets: Iterable[str],
    decode: bool,
    is_sent: bool = True,
) -> Outcome:
    """The Reply that `response` holds; gives its connection back, or closes it.

    `bytes_max` bounds the body both as it came and decoded; `decode` says that
    the client has not removed a coding. What of `secrets` the reply repeats is
    masked. A body that breaks off makes an incomplete Reply; this raises only
    what the client's own attributes raise.
    """
    status = getattr(response, "status", getattr(response, "status_code", None))
    if not isinstance(status, int):
        return Failure("protocol", "the client's answer has no status")
    headers = _headers(getattr(response, "headers", None) or {})
    problem = _framing_problem(headers)
    if problem:
        _finish(response, reusable=False)
        return Failure("protocol", problem)
    # A final 1xx hands the connection over to another protocol; nothing is read.
    raw, complete, truncated = (
        (b"", True, False) if status < 200 else _body(response, bytes_max)
    )
    if "content-encoding" not in headers and not truncated:
        complete = complete and len(raw) >= _length(status, headers)
    _finish(response, reusable=complete and not truncated and status >= 200)
    coding = headers.get("content-encoding", "").strip().lower() if decode else ""
    is_decoded = not raw or coding in {"", "identity", *_WBITS}
    if raw and coding in _WBITS:
        raw, whole, more = _decoded(raw, bytes_max, _WBITS[coding])
        complete, truncated = complete and (whole or truncated), truncated or more
    masked = [s for s in secrets if len(s) >= _SECRET_MIN]
    return Reply(
        status=status,
        headers={name: _mask(value, masked) for name, value in headers.items()},
        body=_mask(raw.decode("latin-1"), masked).encode("latin-1"),
        complete=complete,
        truncated=truncated,
        redirected=_is_redirected(response, url),
        is_sent=is_sent,
        is_decoded=is_decoded,
    )


def _headers(found: Any) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in found.items():
        key = str(name).lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else str(value)
    return joined


def _framing_problem(headers: dict[str, str]) -> str:
    """Why nobody can say where the body ends (RFC 9112 §6.3); empty if one can."""
    coding = headers.get("transfer-encoding")
    lengths = headers.get("content-length")
    if coding is not None and lengths is not None:
        return "the answer has both Content-Length and Transfer-Encoding"
    # Exactly what http.client takes for it: with a blank behind, it reads no chunks.
    if coding is not None and coding.lower() != "chunked":
        return "the answer has a Transfer-Encoding that nobody asked for"
    if lengths is not None:
        values = {value.strip() for value in lengths.split(",")}
        digits = all(value.isascii() and value.isdigit() for value in values)
        if len(values) != 1 or not digits:
            return "the answer has a Content-Length that is no number"
    return ""


def _length(status: int, headers: dict[str, str]) -> int:
    """How long the body has to be at least."""
    if status < 200 or status in (204, 304):
        return 0
    digits = headers.get("content-length", "0").split(",")[0].strip()
    # int() refuses thousands of digits; nineteen are more than any body has.
    return int(digits[-19:]) if len(digits.lstrip("0")) <= 19 else 1 << 63


def _body(response: Any, bytes_max: int) -> tuple[bytes, bool, bool]:
    """What was read of the body, whether it broke off not, whether it goes on."""
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(response, bytes_max + 1):
            pieces.append(piece)
            size += len(piece)
            if size > bytes_max:
                return b"".join(pieces)[:bytes_max], True, True
    except Exception:  # noqa: BLE001  a client of the program's own may raise anything
        return b"".join(pieces), False, False
    return b"".join(pieces), True, False


def _pieces(response: Any, enough: int) -> Iterator[bytes]:
    """The body in pieces. What is beyond `enough` bytes stays unread if it can."""
    if hasattr(response, "read"):
        while piece := response.read(min(_READ_BYTES, max(enough, 1))):
            enough -= len(piece)
            yield bytes(piece)
    elif hasattr(response, "stream"):
        yield from response.stream(_READ_BYTES)
    else:
        yield bytes(getattr(response, "data", b"") or b"")


def _decoded(
    raw: bytes, bytes_max: int, forms: tuple[int, ...]
) -> tuple[bytes, bool, bool]:
    """The bytes without their coding, whether they end as they should, or go on.

    `forms` are the values of zlib's `wbits` to try, the next one where the first bytes
    are none of the one before.
    """
    plain = b""
    while raw:
        member = zlib.decompressobj(wbits=forms[0])
        try:
            plain += member.decompress(raw, bytes_max + 1 - len(plain))
        except zlib.error:
            if len(forms) > 1 and not plain:
                return _decoded(raw, bytes_max, forms[1:])
            return plain, False, False
        if len(plain) > bytes_max:
            return plain[:bytes_max], True, True
        if not member.eof:
            return plain, False, False
        raw = member.unused_data
    return plain, True, False


def _mask(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return text


def _finish(response: Any, *, reusable: bool) -> None:
    finish = getattr(response, "release_conn" if reusable else "close", None)
    if finish is not None:
        finish()


def _is_redirected(response: Any, url: URL) -> bool:
    """True if a client followed a redirect although it was told not to."""
    for holder in (getattr(response, "retries", None), response):
        if getattr(holder, "history", None):
            return True
    came_from = response.geturl() if hasattr(response, "geturl") else None
    if not isinstance(came_from, str) or not came_from:
        return False
    if came_from.startswith("/"):
        came_from = url.origin + came_from
    parts = split(came_from)
    # Clients spell a path in other ways without having been sent elsewhere.
    return parts is None or _place(parts) != _place(url)


def _place(url: URL) -> tuple[str, str, str]:
    path = posixpath.normpath(unquote(url.path)).lstrip("/")
    return url.origin, path, unquote(url.query)
