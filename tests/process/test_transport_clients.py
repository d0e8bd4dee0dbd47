"""Clients that a program brings along: real ones, odd ones and broken ones."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from telemetry.wire.verdict import Failure, Reply
from tests.support.misbehaving import (
    Server,
    cut_short,
    endless_body,
    gzip_reply,
    redirect,
    reply,
    reset_after,
)
from tests.support.posting import BODY, KEY, LATE_S, post, sign, timed, transport


OK = b'{"success": true}'
URL = "http://127.0.0.1:9/a/b?x=1"


class Client:
    """Answers with what it was made with, and keeps what it was asked."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._answer = answer

    def request(self, *args: Any, **named: Any) -> Any:
        self.asked.append((args, named))
        return self._answer()


class Answer:
    """A response with just the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def body_of(*pieces: bytes) -> Callable[[int], bytes]:
    left = list(pieces)
    return lambda _amount: left.pop(0) if left else b""


def broken(*_: Any) -> Any:
    raise LookupError("secret of the client")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("secret of the client")


def unspeakable() -> Any:
    raise UnspeakableError


def refused(*, hidden: bool) -> Any:
    try:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    except OSError as exc:
        raise LookupError("no answer") from (None if hidden else exc)


def outcome_of(answer: Callable[[], Any]) -> object:
    with transport(URL, http=Client(answer), reply_bytes_max=100) as to:
        return post(to)


def test_a_client_is_asked_by_name_and_exactly_so() -> None:
    """What is left to a library's defaults changes with its versions."""
    client = Client(lambda: Answer(status=200))
    with transport(URL, http=client) as to:
        assert sign(post(to)) == (200, "whole")
    ((args, named),) = client.asked
    timeout = named.pop("timeout")
    assert (timeout.connect_timeout, timeout.read_timeout) == pytest.approx(
        (5, 5), abs=2
    )
    assert args == ()
    assert named == {
        "method": "POST",
        "url": URL,
        "body": BODY,
        "headers": {
            "Content-Type": "application/json",
            "User-Agent": "app/1.0",
            "Accept-Encoding": "identity",
            "Idempotency-Key": "batch-1",
            "x-api-key": KEY,
        },
        "redirect": False,
        "retries": False,
        "preload_content": False,
    }


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (reply(200, OK), (200, "whole")),
        (reply(204), (204, "whole")),
        (cut_short(), (200, "cut")),
        (gzip_reply(OK), (200, "whole")),
        (endless_body(), (200, "long")),
        (redirect(307, "http://127.0.0.1:9/"), (307, "whole")),
        (reset_after(), "reset"),
    ],
)
def test_a_pool_manager_serves_as_a_client(behaviour: Any, expected: object) -> None:
    """It is what the Protocol describes."""
    with Server(behaviour) as server, urllib3.PoolManager(maxsize=1) as pool:
        with transport(server.url, http=pool) as to:
            outcome = post(to)
        assert sign(outcome) == expected
        if (
            isinstance(outcome, Reply)
            and outcome.status == 200
            and expected[1] == "whole"
        ):
            assert outcome.body == OK
            assert not outcome.redirected


ANSWERS: list[tuple[str, Callable[[], Any], object]] = [
    ("only a status", lambda: Answer(status=200), (200, "whole")),
    ("a status of another name", lambda: Answer(status_code=202), (202, "whole")),
    ("no status", Answer, "protocol"),
    ("a status that is text", lambda: Answer(status="200"), "protocol"),
    ("nothing", lambda: None, "protocol"),
    ("no headers", lambda: Answer(status=200, headers=None, data=OK), (200, "whole")),
    ("read", lambda: Answer(status=200, read=body_of(OK)), (200, "whole")),
    ("stream", lambda: Answer(status=200, stream=lambda _: iter([OK])), (200, "whole")),
    ("data", lambda: Answer(status=200, data=OK), (200, "whole")),
    ("more than asked for", lambda: Answer(status=200, data=OK * 99), (200, "long")),
    ("a body that repeats", lambda: Answer(status=200, read=lambda _: OK), (200, "long")),
    ("short", lambda: Answer(status=200, headers={"Content-Length": "18"}, data=OK),
        (200, "cut")),
    ("a reader that raises", lambda: Answer(status=200, read=broken), (200, "cut")),
    ("a body that is text", lambda: Answer(status=200, read=body_of("text")), (200, "cut")),
    ("a place that raises", lambda: Answer(status=200, geturl=broken), "other"),
    ("a client that raises", broken, "other"),
    ("a client whose error has no text", unspeakable, "other"),
    ("a client that says why", lambda: refused(hidden=False), "refused"),
    ("a client that does not", lambda: refused(hidden=True), "other"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "expected"),
    [row[1:] for row in ANSWERS],
    ids=[row[0] for row in ANSWERS],
)
def test_an_odd_answer_is_taken_for_what_it_holds(
    answer: Callable[[], Any], expected: object
) -> None:
    """A client of the program's own may be a few lines long; it must not stop a flush."""
    outcome = outcome_of(answer)
    assert sign(outcome) == expected
    assert "secret of the client" not in repr(outcome)


@pytest.mark.parametrize(
    ("attributes", "redirected"),
    [
        ({"geturl": lambda: URL}, False),
        ({"geturl": lambda: "/a/b?x=1"}, False),
        ({"geturl": lambda: "http://127.0.0.1:9/a/%62?x=%31"}, False),
        ({"geturl": lambda: None}, False),
        ({"history": []}, False),
        ({"geturl": lambda: "http://127.0.0.1:9/moved"}, True),
        ({"geturl": lambda: "/moved?x=1"}, True),
        ({"geturl": lambda: "http://127.0.0.1:10/a/b?x=1"}, True),
        ({"geturl": lambda: "https://127.0.0.1:9/a/b?x=1"}, True),
        ({"geturl": lambda: "what is this"}, True),
        ({"history": [object()]}, True),
        ({"retries": Answer(history=(object(),))}, True),
    ],
)
def test_a_client_that_follows_redirects_is_found_out(
    attributes: dict[str, Any], redirected: bool
) -> None:
    """What somebody else accepted was not accepted."""
    outcome = outcome_of(lambda: Answer(status=200, **attributes))
    assert isinstance(outcome, Reply)
    assert outcome.redirected is redirected


def test_a_connection_is_given_back_or_closed() -> None:
    """A client's pool must not run dry, nor hand out half-read connections."""
    calls: list[str] = []

    def answer(body: bytes) -> Answer:
        return Answer(
            status=200,
            headers={"Content-Length": "17"},
            data=body,
            release_conn=lambda: calls.append("release"),
            close=lambda: calls.append("close"),
        )

    for body in (OK, OK[:-1], OK * 99):
        outcome_of(lambda body=body: answer(body))
    assert calls == ["release", "close", "close"]


def test_a_client_that_hangs_is_left_behind() -> None:
    """Its timeouts are its own; the deadline is ours."""
    resume = threading.Event()
    client = Client(lambda: resume.wait(30))
    with transport(URL, http=client, request_timeout_s=0.2) as to:
        outcome, took_s = timed(to)
        resume.set()
    assert outcome == Failure("timeout", "127.0.0.1:9: still no answer")
    assert took_s < 0.2 + LATE_S
