"""Invariant tested: whatever a server answers, reading and judging it raises nothing; a
batch is accepted only by a 2xx that is whole, was sent whole, is no page, is listed and
came without a redirect; no wait is longer than a day, or less than nothing; what is told of an answer
is printable, short, and without the key; and it does not matter in which pieces the
body came.

An input is one line, header lines `Name: value`, an empty line and a body. The line is
a status and words that say what else is so: `broken` (the connection ends in the body),
`redirected`, `moved`, `coded` (urllib3 removes a coding), `unsent`, `small` (a bound of 64 bytes),
`listed` (202 alone counts), `epoch` and `future` (what time it is).

Headers and bodies as urllib3 hands them over; what it makes of raw bytes is the affair
of `fuzz_wire.py`.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from typing import Any

import urllib3

from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.delivery.backoff import conclude
from telemetry.privacy import OwnKey
from telemetry.wire.endpoint import parse_endpoint
from telemetry.wire.formats import FORMATS
from telemetry.wire.reply import read_reply
from telemetry.wire.verdict import (
    KINDS,
    Action,
    Failure,
    Outcome,
    Reply,
    Verdict,
    judge,
    retry_after_s,
)


KEY = "a-key-that-nobody-tells"
ENDPOINT = parse_endpoint("https://collect.example/v1/events?x=1")
ELSEWHERE = "https://login.example/"
DAY_S = 24 * 3600.0
NOW_S = 1_800_000_000.0
TIMES_S = {b"epoch": 0.0, b"future": 32_503_680_000.0}
BYTES_MAX = {True: 64, False: 16 * 1024}
# What is told: an excerpt of 200 characters and `HTTP 503: `, or a place of 200.
TOLD_MAX = 260
_PAUSES = {*range(300, 400), 401, 402, 403, 404, 405, 407, 410, 451}
_REFUSALS = {400, 413, 422}
_PAGE = re.compile(rb"\s*<[a-z!?]", re.IGNORECASE)


class Answer:
    """A response with a body that is read, streamed, or there at once."""

    def __init__(self, status: int, headers: dict[str, str], words: set[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.history = (object(),) if b"redirected" in words else ()
        self._place = ELSEWHERE if b"moved" in words else None
        self.finished: list[str] = []

    def geturl(self) -> str | None:
        return self._place

    def release_conn(self) -> None:
        self.finished.append("release")

    def close(self) -> None:
        self.finished.append("close")


class Pieces(Answer):
    """A body that comes in pieces of `step` bytes, and may end with an error."""

    def of(self, body: bytes, *, step: int, breaks: bool) -> Any:
        left = body

        def read(amount: int) -> bytes:
            nonlocal left
            piece, left = left[: min(step, amount)], left[min(step, amount) :]
            if not piece and breaks:
                raise ConnectionResetError
            return piece

        self.read = read
        return self


class Coded(Answer):
    """A response of urllib3, which removes the coding."""

    def __init__(
        self, status: int, headers: dict[str, str], words: set[bytes], body: bytes
    ) -> None:
        super().__init__(status, headers, words)
        self._response = urllib3.HTTPResponse(
            body=io.BytesIO(body), headers=headers, status=status, preload_content=False
        )
        self.read = self._response.read
        self.tell = self._response.tell


def answers(
    status: int, headers: dict[str, str], words: set[bytes], body: bytes
) -> list[Any]:
    """The same answer in every form that a client may give it."""
    breaks = b"broken" in words
    if b"coded" in words:
        return [Coded(status, headers, words, body)]
    found: list[Any] = [
        Pieces(status, headers, words).of(body, step=step, breaks=breaks)
        for step in (1 << 20, 7, max(len(body) // 3, 1))
    ]
    if not breaks:
        whole = Answer(status, headers, words)
        whole.data = body  # type: ignore[attr-defined]
        streamed = Answer(status, headers, words)
        streamed.stream = lambda _amount: iter([body])  # type: ignore[attr-defined]
        found += [whole, streamed]
    return found


def parsed(data: bytes) -> tuple[int, set[bytes], dict[str, str], bytes]:
    """Status, words, headers and body of an input."""
    head, _, body = data.partition(b"\n\n")
    line, *lines = head.split(b"\n")
    first, *words = line.split() or [b""]
    digits = re.match(rb"\d{1,4}", first)
    headers = {}
    for each in lines:
        name, _, value = each.partition(b":")
        headers[name.decode("latin-1")] = value.decode("latin-1").strip(" \t\r")
    return int(digits[0]) if digits else 0, set(words), headers, body


def is_page(body: bytes) -> bool:
    """Whether it is plainly markup."""
    return _PAGE.match(body) is not None


def is_whole(status: int, headers: dict[str, str], body: bytes) -> bool:
    """Whether as many bytes came as were announced."""
    if status in {204, 205} or "content-length" not in headers:
        return True
    announced = {each.strip() for each in headers["content-length"].split(",")}
    return len(announced) == 1 and len(body) >= int(announced.pop())


def decoded(raw: bytes, bytes_max: int) -> bytes:
    """What a body in gzip or deflate begins with."""
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(raw, bytes_max)
    except zlib.error:
        return raw


def check_accepted(
    outcome: Outcome, words: set[bytes], headers: dict[str, str], body: bytes
) -> None:
    """Everything that has to be so where a batch is settled."""
    assert isinstance(outcome, Reply)
    status = outcome.status
    assert 200 <= status <= 299
    assert not words & {b"redirected", b"moved", b"unsent"}
    assert b"listed" not in words or status == 202
    assert not {"transfer-encoding", "content-length"} <= headers.keys()
    if status in {204, 205}:
        return
    bytes_max = BYTES_MAX[b"small" in words]
    seen = body[:bytes_max]
    is_coded = headers.get("content-encoding", "").lower() in {"gzip", "deflate"}
    if b"coded" in words and is_coded:
        seen = decoded(seen, bytes_max)
    assert not is_page(seen), seen
    assert len(body) <= bytes_max or is_coded
    assert b"broken" not in words or b"coded" in words
    if "content-encoding" not in headers and b"coded" not in words:
        assert is_whole(status, headers, body)


def check_told(verdict: Verdict) -> None:
    """What reaches a ledger, a letter or a terminal."""
    texts = [verdict.reason, verdict.detail]
    texts += [each.reason for each in verdict.rejected]
    for text in texts:
        assert text.isprintable(), text
        assert KEY not in text, text
        text.encode()
    assert len(verdict.detail) <= TOLD_MAX, len(verdict.detail)
    assert all(len(each.reason) <= 500 for each in verdict.rejected)
    assert all(len(each.event_id) <= 200 for each in verdict.rejected)
    assert all(each.event_id or each.count > 0 for each in verdict.rejected)
    named = [each.event_id for each in verdict.rejected]
    assert len(named) == len(set(named))
    assert not verdict.rejected or verdict.action is Action.ACCEPTED


def check_wait(verdict: Verdict, now_s: float) -> None:
    """No server holds anything back for more than a day, nor makes a busy loop."""
    asked_s = verdict.retry_after_s
    assert asked_s is None or 0 <= asked_s <= DAY_S
    stopped = {Action.PAUSE: "paused", Action.ACCEPTED: "drained"}
    for draw in (float, lambda: 0.999):
        state = conclude(
            DeliveryState(),
            stopped=stopped.get(verdict.action, "waiting"),
            verdict=verdict,
            delivered=0,
            requests=1,
            identity="0" * 8,
            failures=0,
            now=now_s,
            config=Config(
                app="frobnicate",
                flush_interval_s=60,
                retry_first_s=60,
                retry_max_s=6 * 3600,
            ),
            random=draw,
        )
        wait_s = state.next_attempt_ms / 1000 - now_s
        assert -0.001 <= wait_s <= DAY_S + 0.001, wait_s
        # A pause is six hours, whatever is asked for besides.
        if verdict.action is Action.WAIT:
            assert wait_s >= (asked_s or 0.0) - 0.001
        assert len(state.last_error) <= TOLD_MAX + 20


def check_action(outcome: Outcome, verdict: Verdict) -> None:
    """The action that the status stands for, whatever else is in the reply."""
    if isinstance(outcome, Failure):
        assert outcome.kind in KINDS
        assert verdict.action is Action.WAIT
    elif outcome.redirected or outcome.status in _PAUSES:
        assert verdict.action is Action.PAUSE
    elif outcome.status in _REFUSALS:
        assert verdict.action is Action.SPLIT
    elif not 200 <= outcome.status <= 299:
        assert verdict.action is Action.WAIT
    else:
        assert verdict.action in {Action.ACCEPTED, Action.WAIT}


def tells_key(text: str) -> bool:
    """Whether a text repeats the key."""
    return OwnKey(KEY).without(text) != text


def one(data: bytes) -> None:
    """One answer, in every form that a client may give it."""
    status, words, headers, body = parsed(data)
    now_s = next((TIMES_S[word] for word in words if word in TIMES_S), NOW_S)
    outcomes = []
    for answer in answers(status, headers, words, body):
        outcome = read_reply(
            answer,
            url=ENDPOINT,
            bytes_max=BYTES_MAX[b"small" in words],
            tells_key=tells_key,
            is_ours=b"coded" in words,
            is_sent=b"unsent" not in words,
        )
        assert len(answer.finished) == 1, answer.finished
        outcomes.append(outcome)
    outcome = outcomes[0]
    assert all(each == outcome for each in outcomes), outcomes
    listed = (202,) if b"listed" in words else ()
    lower = {name.lower(): value for name, value in headers.items()}
    for form in FORMATS.values():
        verdict = judge(outcome, now=now_s, accept_statuses=listed, form=form)
        check_action(outcome, verdict)
        check_told(verdict)
        check_wait(verdict, now_s)
        if verdict.action is Action.ACCEPTED:
            check_accepted(outcome, words, lower, body)
    # Any text may stand there, whatever the status is.
    text = body[:200].decode("latin-1")
    for asked in ({"retry-after": text}, {"retry-after": text, "date": text}):
        asked_s = retry_after_s(asked, now=now_s)
        assert asked_s is None or (0 <= asked_s <= DAY_S and not math.isnan(asked_s))
