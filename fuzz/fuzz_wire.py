"""Invariant tested: whatever bytes come over the connection, a post ends with a Reply or
a Failure and leaves no thread behind; a reply that said where it ends is not accepted
with fewer bytes, and one whose header block breaks off is not accepted at all.

An input is one byte and what the server sends before it closes; the byte says where the
connection breaks off the second time, as a part of the whole.
"""

from __future__ import annotations

import io
import re
import threading
from typing import Any
from unittest import mock

from telemetry.wire.connection import Dialler
from telemetry.wire.transport import Transport
from telemetry.wire.verdict import Action, Failure, Outcome, Reply, judge


KEY = "a-key-that-nobody-tells"
REPLY_BYTES_MAX = 1024
# Memory answers at once, on a busy machine a little later.
TIMEOUT_S = 20.0


class Line:
    """A connection from which `content` comes, and then its end."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, _mode: str, *_args: Any, **_named: Any) -> io.BytesIO:
        # http.client makes one that is closed unread; ours comes second.
        return io.BytesIO(self._content)

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds <= TIMEOUT_S

    def sendall(self, _content: Any) -> None:
        pass

    def close(self) -> None:
        pass


def posted(content: bytes) -> Outcome:
    """What comes of a post that is answered with `content`."""
    to = Transport(
        endpoint="http://127.0.0.1:9/v1",
        header="x-api-key",
        api_key=KEY,
        user_agent="fuzz/1",
        connect_timeout_s=TIMEOUT_S,
        read_timeout_s=TIMEOUT_S,
        request_timeout_s=TIMEOUT_S,
        reply_bytes_max=REPLY_BYTES_MAX,
        gzip=False,
        environment={},
    )
    with mock.patch.object(Dialler, "dial", return_value=Line(content)):
        try:
            return to.post(b"{}", key="batch", timeout_s=TIMEOUT_S)
        finally:
            to.close()
            for thread in threading.enumerate():
                if thread.name == "telemetry-post":
                    thread.join(TIMEOUT_S)
                    assert not thread.is_alive()


def accepted(content: bytes) -> Reply | None:
    """The reply, where it settles a batch."""
    outcome = posted(content)
    if isinstance(outcome, Failure):
        assert outcome.detail.isprintable()
        assert KEY not in outcome.detail
    verdict = judge(outcome, now=0.0)
    if verdict.action is not Action.ACCEPTED:
        return None
    assert isinstance(outcome, Reply)
    # These have no body: what follows all the same is not looked at.
    assert outcome.complete or outcome.status in {204, 205}
    assert 200 <= outcome.status <= 299
    assert len(outcome.body) <= REPLY_BYTES_MAX
    assert KEY not in repr(outcome.headers.values())
    assert outcome.tells_key or KEY.encode() not in outcome.body
    # Some line says so, and an empty line ends what stands before the body.
    assert b"HTTP/" in content
    end = re.search(rb"\n\r?\n", content)
    assert end is not None, "a header block broke off"
    # A length that anybody can see was seen here.
    head = content[: end.start()]
    announced = re.findall(rb"(?im)^content-length:[ \t]*([0-9]{1,9})[ \t\r]*$", head)
    is_interim = re.match(rb"HTTP/1\.[01] 1", content)
    if announced and not is_interim and outcome.status not in {204, 205}:
        assert len(content) - end.end() >= int(announced[0]), "a length was lost"
    return outcome


def one(data: bytes) -> None:
    """One reply, whole and broken off."""
    where, content = data[:1], data[1:]
    whole = accepted(content)
    if whole is None or not where:
        return
    cut = accepted(content[: len(content) * where[0] // 256])
    if cut is None:
        return
    # What follows the reply's end may be missing, and nothing else that has an end.
    is_framed = whole.headers.keys() & {"content-length", "transfer-encoding"}
    if is_framed and whole.status not in {204, 205}:
        assert cut.body == whole.body, (cut, whole)
    assert cut.headers == whole.headers
