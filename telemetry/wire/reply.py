"""What a client answered becomes a Reply, read no further than the bound.

The answer is one of urllib3, or looks like one: `status` and `headers`, and of
`read(amt)`, `stream(amt)`, `data`, `geturl()`, `retries.history`, `history`,
`release_conn()` and `close()` what there is.

- A body is complete when its own framing says so: Content-Length, the last
  chunk, or the end of the connection where it has neither (RFC 9112 §6.3).
- Framing that two readers could understand in two ways is a malformed answer.
- gzip and deflate are removed by urllib3, never beyond the bound. A body under another
  coding cannot be read, and says so (`is_decoded`).
- A connection is used again only after an answer that was read to its end.

It decides nothing about the batch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from telemetry.wire.endpoint import URL, is_same_place
from telemetry.wire.library import urllib3
from telemetry.wire.verdict import Failure, Outcome, Reply


_READ_BYTES = 16 * 1024
# Of an answer that accepts nothing a person reads the beginning. To look for the key in
# a megabyte of it takes a second, in which a flush with little time notes nothing.
_REFUSAL_BYTES = 16 * 1024
# What every urllib3 removes. It could read others where their libraries are installed.
_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def read_reply(
    response: Any,
    *,
    url: URL,
    bytes_max: int,
    tells_key: Callable[[str], bool],
    is_ours: bool,
    is_sent: bool = True,
) -> Outcome:
    """The Reply that `response` holds; gives its connection back, or closes it.

    `bytes_max` bounds the body of a 2xx, decoded. `is_ours` says that urllib3 made the
    response and has not removed a coding; a client of the program's own does that itself.
    Of an answer that repeats the key no text is kept, unless it may name refused events.
    A body that breaks off makes an incomplete Reply; this raises only what the client's
    own attributes raise.
    """
    status = getattr(response, "status", getattr(response, "status_code", None))
    if not isinstance(status, int):
        return Failure("protocol", "the client's answer has no status")
    headers = _headers(getattr(response, "headers", None) or {})
    problem = _framing_problem(headers)
    if problem:
        _finish(response, reusable=False)
        return Failure("protocol", problem)
    coding = headers.get("content-encoding", "").strip().lower()
    is_accepting = 200 <= status <= 299
    bytes_max = bytes_max if is_accepting else min(bytes_max, _REFUSAL_BYTES)
    body, complete, truncated = b"", True, False
    # A final 1xx hands the connection over to another protocol; nothing is read.
    if status >= 200:
        raw = {"decode_content": False} if is_ours else {}
        pieces = _pieces(response, bytes_max + 1, **raw)
        body, complete, truncated = _body(pieces, bytes_max)
        if not (is_ours or coding or truncated or status in (204, 304)):
            complete = complete and len(body) >= int(headers.get("content-length", 0))
    reusable = complete and is_sent and not truncated and status >= 200
    _finish(response, reusable=reusable)
    is_decoded = not is_ours or coding in ("", "identity")
    if not is_decoded and coding in _CODINGS:
        coded, pieces = body, _decoded(body, coding, bytes_max + 1)
        body, is_sound, is_longer = _body(pieces, bytes_max)
        complete, truncated = complete and is_sound, truncated or is_longer
        # One without content may have been cut before its first byte came out.
        is_decoded = bool(body) or _is_whole_and_empty(coded)
    elif not is_decoded:
        is_decoded = not body
    if truncated or not complete:
        body = body[:_REFUSAL_BYTES]
    is_told = tells_key(body.decode("utf-8", "replace"))
    return Reply(
        status=status,
        headers={name: each for name, each in headers.items() if not tells_key(each)},
        body=b"" if is_told and not is_accepting else body,
        complete=complete,
        truncated=truncated,
        redirected=_is_redirected(response, url),
        is_sent=is_sent,
        is_decoded=is_decoded,
        tells_key=is_told,
    )


def _headers(found: Any) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in found.items():
        key = str(name).lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else str(value)
    return joined


def _framing_problem(headers: dict[str, str]) -> str:
    """Why the end of the body is not known (RFC 9112 §6.3); empty if it is."""
    coding = headers.get("transfer-encoding")
    lengths = headers.get("content-length")
    if coding is not None and lengths is not None:
        return "the answer has both Content-Length and Transfer-Encoding"
    # Exactly what http.client takes for it: with a blank behind, it reads no chunks.
    if coding is not None and coding.lower() != "chunked":
        return "the answer has an unknown Transfer-Encoding"
    if lengths is not None:
        values = {value.strip() for value in lengths.split(",")}
        # http.client ignores a length that it cannot read, such as one of 5,000 digits.
        if len(values) != 1 or not re.fullmatch("[0-9]{1,18}", values.pop()):
            return "the answer has a malformed Content-Length"
        headers["content-length"] = lengths.split(",")[0].strip()
    return ""


def _body(pieces: Iterator[bytes], bytes_max: int) -> tuple[bytes, bool, bool]:
    """What was read of the body, whether it came to an end or the bound, and which."""
    body = bytearray()
    try:
        for piece in pieces:
            body += piece
            if len(body) > bytes_max:
                return bytes(body[:bytes_max]), True, True
    except Exception:  # noqa: BLE001  a client of the program's own may raise anything
        return bytes(body), False, False
    return bytes(body), True, False


def _decoded(body: bytes, coding: str, enough: int) -> Iterator[bytes]:
    """The content in pieces, as urllib3 decodes it, and not much beyond `enough`."""
    headers = {"content-encoding": coding}
    return _pieces(
        urllib3.HTTPResponse(BytesIO(body), headers, preload_content=False),
        enough,
        decode_content=True,
    )


def _is_whole_and_empty(body: bytes) -> bool:
    """Whether a compressed body comes to its end, with nothing in it."""
    for window in (_GZIP_OR_ZLIB, -zlib.MAX_WBITS):
        decoder = zlib.decompressobj(window)
        try:
            content = decoder.decompress(body, 1)
            if decoder.eof and not (content or decoder.unused_data):
                return True
        except zlib.error:
            pass  # it is none of these; or raw deflate, which has no header
    return not body


def _pieces(response: Any, enough: int, **options: bool) -> Iterator[bytes]:
    """The body in pieces. What is beyond `enough` bytes stays unread if it can."""
    if hasattr(response, "read"):
        while piece := response.read(min(_READ_BYTES, max(enough, 1)), **options):
            enough -= len(piece)
            yield bytes(piece)
    elif hasattr(response, "stream"):
        yield from response.stream(_READ_BYTES)
    else:
        yield bytes(getattr(response, "data", b"") or b"")


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
    # Clients spell a path in other ways without having been sent elsewhere.
    return not is_same_place(url, came_from)
