"""What comes of a post when the other side does whatever it likes, and how soon."""

from __future__ import annotations

import gzip
import http.client
import os
import socket

import pytest

from telemetry.wire import connection
from telemetry.wire.verdict import Action, Failure, Reply, judge
from tests.support.misbehaving import (
    Behaviour,
    Exchange,
    Server,
    blackhole,
    close_at_once,
    cut_chunked,
    cut_short,
    drip,
    endless_body,
    endless_headers,
    endless_interim,
    gzip_bomb,
    gzip_reply,
    head,
    html,
    never_read,
    raw,
    read_slowly,
    redirect,
    refusing,
    reply,
    reset_after,
    reset_at_once,
    retry_after,
    silent_after,
)
from tests.support.posting import KEY, LATE_S, post, sign, timed, transport
from tests.support.posting import either_way as either_way  # noqa: PLC0414  a fixture


OK = b'{"success": true}'
HTTP_10 = b"HTTP/1.0 200 OK\r\n\r\n" + OK
# A reset may overtake what was sent before it.
CUT = [(200, "cut"), "reset"]

# What the server does, and the outcomes it may have, all before any deadline.
PROMPT = [
    ("200", reply(200, OK), [(200, "whole")]),
    ("201 empty", reply(201), [(201, "whole")]),
    ("204", reply(204), [(204, "whole")]),
    ("304", raw(head(304, {"Content-Length": "9"}), keep=True), [(304, "whole")]),
    ("404", reply(404, b"no"), [(404, "whole")]),
    ("413", reply(413), [(413, "whole")]),
    ("500", reply(500, b"oops"), [(500, "whole")]),
    ("999", reply(999), [(999, "whole")]),
    ("a page", html(), [(200, "whole")]),
    ("cut by Content-Length", cut_short(), [(200, "cut")]),
    ("cut in a chunk", cut_chunked(), [(200, "cut")]),
    ("cut before the last chunk", raw(head(200, {"Transfer-Encoding": "chunked"})
        + b"2\r\n{}\r\n"), [(200, "cut")]),
    ("chunked", raw(head(200, {"Transfer-Encoding": "chunked"})
        + b"2\r\n{}\r\n0\r\n\r\n", keep=True), [(200, "whole")]),
    *(("a chunk's size is cut", raw(head(200, {"Transfer-Encoding": "chunked"})
        + b"2\r\n{}\r\n" + size), [(200, "cut")]) for size in (b"0", b"000", b"0;", b"0\r")),
    ("a last chunk without the empty line", raw(head(200, {"Transfer-Encoding": "chunked"})
        + b"2\r\n{}\r\n0\r\n"), [(200, "whole")]),
    ("a chunk's size is no number", raw(head(200, {"Transfer-Encoding": "chunked"})
        + b"zz\r\n{}\r\n0\r\n\r\n"), [(200, "cut")]),
    ("a chunk's size is negative", raw(head(200, {"Transfer-Encoding": "chunked"})
        + b"-1\r\n" + b"x" * (2 << 20)), [(200, "cut")]),
    ("ends with the connection", raw(head(200) + OK), [(200, "whole")]),
    ("HTTP/1.0", raw(HTTP_10), [(200, "whole")]),
    ("a body without an end", endless_body(), [(200, "long")]),
    ("gzip", gzip_reply(OK), [(200, "whole")]),
    # A person reads its beginning, and to look for the key in all of it takes a second.
    ("an error page with a picture", reply(503, b"x" * 30_000), [(503, "long")]),
    ("a gzip bomb", gzip_bomb(), [(200, "long")]),
    ("gzip damaged", reply(200, gzip.compress(OK)[:-5] + b"x" * 5,
        {"Content-Encoding": "gzip"}), [(200, "cut")]),
    ("no gzip", reply(200, OK, {"Content-Encoding": "gzip"}), [(200, "cut")]),
    ("an unknown coding", reply(200, OK, {"Content-Encoding": "x-y"}), [(200, "whole")]),
    ("early hints", raw(head(103, {"Link": "</x>"}) + head(102) + head(200,
        {"Content-Length": "2"}) + b"{}", keep=True), [(200, "whole")]),
    ("another protocol", raw(head(101, {"Upgrade": "x"}) + b"\0" * 99), [(101, "whole")]),
    ("reset before the headers", reset_after(), ["reset"]),
    ("reset in the headers", reset_after(b"HTTP/1.1 200 OK\r\nX: "), ["reset"]),
    ("reset in the body", reset_after(head(200, {"Content-Length": "99"}) + OK), CUT),
    ("reset after the body", reset_after(head(200, {"Content-Length": "17"}) + OK),
        [(200, "whole"), *CUT]),
    ("closed without an answer", close_at_once, ["reset"]),
    ("closed in the headers", raw(b"HTTP/1.1 200 OK\r\nContent-Le"), ["protocol"]),
    ("a status with an underscore", raw(b"HTTP/1.1 2_00 OK\r\n\r\n"), ["protocol"]),
    ("a status with a sign", raw(b"HTTP/1.1 +200 OK\r\n\r\n"), ["protocol"]),
    ("a status without a reason", raw(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        [(200, "whole")]),
    ("no HTTP", raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), ["protocol"]),
    ("bytes", raw(bytes(range(256)) * 40), ["protocol"]),
    ("headers without an end", endless_headers(), ["protocol"]),
    ("a line without an end", raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20)),
        ["protocol"]),
    ("a malformed header", raw(b"HTTP/1.1 200 OK\r\nno header\r\n"
        b"Content-Length: 99\r\n\r\n" + OK), ["protocol"]),
    ("two lengths", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        b"Content-Length: 99\r\n\r\n{}"), ["protocol"]),
    ("the same length twice", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        b"Content-Length: 2\r\n\r\n{}", keep=True), [(200, "whole")]),
    ("a length that is no number", raw(head(200, {"Content-Length": "+2"}) + b"{}"),
        ["protocol"]),
    ("a length beyond all bounds", raw(head(200, {"Content-Length": "9" * 5000})
        + OK), ["protocol"]),
    ("length and chunks", raw(head(200, {"Content-Length": "2", "Transfer-Encoding":
        "chunked"}) + b"2\r\n{}\r\n0\r\n\r\n"), ["protocol"]),
    ("a coding of the transfer", raw(head(200, {"Transfer-Encoding": "gzip, chunked"})),
        ["protocol"]),
]  # fmt: skip

# What the server does, and the outcomes it may have, at the deadline.
SLOW = [
    ("never answers", silent_after(b""), ["timeout"]),
    ("silence in the headers", silent_after(b"HTTP/1.1 200 OK\r\nX"), ["timeout"]),
    ("silence after the headers", silent_after(head(200, {"Content-Length": "2"})),
        ["timeout"]),
    ("silence in the body", silent_after(head(503, {"Content-Length": "9"}) + b"x"),
        [(503, "cut")]),
    ("headers byte by byte", drip(head(200, {"X": "x" * 999})), ["timeout"]),
    ("a body byte by byte", drip(b"x" * 999, start=head(200, {"Content-Length": "999"})),
        ["timeout"]),
    ("chunks byte by byte", drip(b"1\r\nx\r\n" * 99,
        start=head(200, {"Transfer-Encoding": "chunked"})), ["timeout"]),
    ("100 Continue now and then", drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
        ["timeout"]),
]  # fmt: skip


def ids(table: list) -> list[str]:
    return [row[0] for row in table]


@pytest.mark.parametrize(
    ("behaviour", "expected"), [r[1:] for r in PROMPT], ids=ids(PROMPT)
)
def test_each_answer_is_what_it_is(behaviour: Behaviour, expected: list) -> None:
    """An outcome that says more than was proved would settle events nobody has."""
    with Server(behaviour) as server, transport(server.url) as to:
        outcome, took_s = timed(to)
        assert sign(outcome) in expected
        assert took_s < 4.0, "it waited for a timeout"
        assert len(server.requests) == 1


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("behaviour", "expected"), [r[1:] for r in SLOW], ids=ids(SLOW)
)
def test_a_post_ends_at_its_deadline(behaviour: Behaviour, expected: list) -> None:
    """A silence is bounded by any library; a byte now and then by nothing but this."""
    # A machine that is busy for half a second may come to the headers too late.
    for request_s in (0.6, 4.0):
        with (
            Server(behaviour) as server,
            transport(server.url, request_timeout_s=request_s) as to,
        ):
            outcome, took_s = timed(to)
        assert request_s - 0.01 < took_s < request_s + LATE_S
        if sign(outcome) in expected:
            break
    assert sign(outcome) in expected


@pytest.mark.usefixtures("either_way")
def test_interim_answers_without_an_end_meet_one_bound() -> None:
    """They come faster than any timeout: bytes or time, one of them has to end it."""
    with Server(endless_interim()) as server:
        with transport(server.url, request_timeout_s=0.3) as to:
            outcome, took_s = timed(to)
        assert sign(outcome) in ("timeout", "protocol")
        assert took_s < 0.3 + LATE_S


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("at_accept", [never_read, read_slowly])
def test_a_body_that_nobody_reads_ends_at_the_deadline(at_accept: Behaviour) -> None:
    """Sending blocks as well as reading once the buffers between are full."""
    with (
        Server(at_accept=at_accept) as server,
        transport(server.url, request_timeout_s=0.3) as to,
    ):
        outcome, took_s = timed(to, os.urandom(16 << 20))
    assert sign(outcome) == "timeout"
    assert 0.29 < took_s < 0.3 + LATE_S


@pytest.mark.usefixtures("either_way")
def test_a_port_that_takes_nobody_ends_at_the_deadline() -> None:
    """A firewall that drops packets looks like this."""
    with (
        blackhole() as port,
        transport(f"http://127.0.0.1:{port}/", request_timeout_s=0.3) as to,
    ):
        outcome, took_s = timed(to)
    # On a loaded machine the thread may not have said so itself.
    assert sign(outcome) == "timeout"
    assert took_s < 0.3 + LATE_S


def take_late_then_silent(exchange: Exchange) -> None:
    exchange.pause(0.5)
    while exchange.socket.recv(1 << 20):
        pass


@pytest.mark.usefixtures("either_way")
def test_time_spent_on_sending_is_not_given_again_for_the_answer() -> None:
    """Each step has what is left, not what there was when the request began."""
    with (
        Server(at_accept=take_late_then_silent) as server,
        transport(server.url, request_timeout_s=0.6) as to,
    ):
        outcome, took_s = timed(to, os.urandom(16 << 20))
    assert sign(outcome) == "timeout"
    assert 0.59 < took_s < 0.6 + LATE_S


FLOODS = [
    (head(200, {"Transfer-Encoding": "chunked"}) + b"-1\r\n", b"x" * 65536),
    (head(200, {"Transfer-Encoding": "chunked"}), b"1\r\nx\r\n" * 9999),
    (head(200), b"x" * 65536),
    (b"", head(100) * 999),
    (b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 9999 + b"\r\n"),
    (b"", b"x" * 65536),
]


@pytest.mark.parametrize(("start", "piece"), FLOODS)
def test_no_answer_fills_the_memory(start: bytes, piece: bytes) -> None:
    """Whoever can answer for a collector must not bring the host down by it."""
    sent = []

    def flood(exchange: Exchange) -> None:
        exchange.send(start)
        while sum(sent) < 64 << 20:
            exchange.send(piece)
            sent.append(len(piece))

    with Server(flood) as server, transport(server.url, request_timeout_s=2.0) as to:
        _, took_s = timed(to)
    assert took_s < 2.0 + LATE_S
    # What was read, and what the buffers of two sockets hold.
    assert sum(sent) < 32 << 20


def test_connecting_has_a_time_of_its_own() -> None:
    """A dead address must not use up the time that the next one needs."""
    with (
        blackhole() as port,
        transport(f"http://127.0.0.1:{port}/", connect_timeout_s=0.2) as to,
    ):
        outcome, took_s = timed(to)
    assert sign(outcome) == "unreachable"
    assert took_s < 0.2 + LATE_S


def test_silence_has_a_time_of_its_own() -> None:
    """A server that is gone is noticed before the whole request's time is over."""
    with (
        Server(silent_after(head(200, {"Content-Length": "9"}))) as server,
        transport(server.url, read_timeout_s=0.2) as to,
    ):
        outcome, took_s = timed(to)
    assert sign(outcome) == (200, "cut")
    assert took_s < 0.2 + LATE_S


def test_the_shorter_of_both_deadlines_holds() -> None:
    """The flush has less time left than a request may take, towards its end."""
    with Server(silent_after(b"")) as server, transport(server.url) as to:
        assert sign(post(to, timeout_s=0.1)) == "timeout"
        assert post(to, timeout_s=0.0) == Failure(
            "timeout", "no time is left for a request"
        )
        assert len(server.requests) == 1


def test_a_refused_connection_says_so() -> None:
    """A collector that is down is the commonest failure of all."""
    with refusing() as port, transport(f"http://127.0.0.1:{port}/x?key=1") as to:
        outcome, took_s = timed(to)
    assert outcome == Failure("refused", f"127.0.0.1:{port}: Connection refused")
    assert took_s < LATE_S


def test_a_reset_at_accept_is_a_reset() -> None:
    """Load balancers do this when nobody is behind them."""
    with Server(at_accept=reset_at_once) as server, transport(server.url) as to:
        assert sign(post(to, b"x" * 500_000)) == "reset"


def test_a_name_that_does_not_resolve_says_so() -> None:
    """It is what a laptop without a network sees. `.invalid` never does (RFC 6761)."""
    with transport("https://nowhere.invalid/", request_timeout_s=2.0) as to:
        outcome, took_s = timed(to)
    assert sign(outcome) in ("name", "timeout")
    assert took_s < 2.0 + LATE_S


@pytest.mark.parametrize(
    "value", ["120", "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "-5", "9" * 40]
)
def test_retry_after_comes_through_as_it_is(value: str) -> None:
    """What it means is the verdict's to say, a cut body notwithstanding."""
    answer = raw(head(503, {"Retry-After": value, "Content-Length": "9"}) + b"x")
    for behaviour in (retry_after(value), answer):
        with Server(behaviour) as server, transport(server.url) as to:
            outcome = post(to)
        assert isinstance(outcome, Reply)
        assert outcome.headers["retry-after"] == value
        assert judge(outcome, now=0.0).action is Action.WAIT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """Elsewhere is not where the key and the events were meant to go."""
    with Server() as elsewhere, Server(redirect(status, elsewhere.url)) as server:
        with transport(server.url) as to:
            outcome = post(to)
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.redirected) == (status, False)
        assert outcome.headers["location"] == elsewhere.url
        assert elsewhere.connections == 0


def test_one_connection_serves_many_posts() -> None:
    """A handshake a batch would double the time a backlog takes."""
    with Server(reply(200, OK)) as server, transport(server.url) as to:
        for _ in range(50):
            assert sign(post(to)) == (200, "whole")
        assert (server.connections, len(server.requests)) == (1, 50)


NOT_KEPT = [
    ("closed by the server", raw(head(200, {"Content-Length": "0"})), "whole"),
    ("asked to close", reply(200, OK, {"Connection": "close"}), "whole"),
    ("cut", cut_short(), "cut"),
    ("longer than the bound", reply(200, b"x" * 70_000), "long"),
    ("HTTP/1.0", raw(HTTP_10), "whole"),
]  # fmt: skip


def test_after_a_refusal_the_next_request_goes_over_a_new_connection() -> None:
    """Behind a balancer it may lead to another server; this one may be the only one
    that fails, and all that is sent to it would seem to be at fault."""
    answers = [reply(status, OK) for status in (200, 503, 503, 400, 202, 202)]
    with Server(*answers) as server, transport(server.url) as to:
        assert [sign(post(to))[0] for _ in answers] == [200, 503, 503, 400, 202, 202]
        assert [request.connection for request in server.requests] == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("behaviour", "ends"), [r[1:] for r in NOT_KEPT], ids=ids(NOT_KEPT)
)
def test_a_connection_in_doubt_is_not_used_again(
    behaviour: Behaviour, ends: str
) -> None:
    """The rest of one answer must never be read as the next one."""
    with Server(behaviour, reply(202)) as server, transport(server.url) as to:
        assert sign(post(to)) == (200, ends)
        assert sign(post(to)) == (202, "whole")
        assert [request.connection for request in server.requests] == [0, 1]


def test_what_follows_an_answer_is_not_taken_for_the_next_one() -> None:
    """A server that answers twice must not settle the next batch by it."""
    twice = raw(head(200, {"Content-Length": "0"}) * 2, keep=True)
    with Server(twice, reply(429)) as server, transport(server.url) as to:
        assert sign(post(to)) == (200, "whole")
        assert sign(post(to)) == (429, "whole")


def test_a_connection_that_speaks_another_protocol_is_left() -> None:
    """After a 101 whatever comes is no HTTP, even where it looks like it."""
    switched = raw(head(101, {"Upgrade": "x"}), keep=True)
    with Server(switched, reply(202)) as server, transport(server.url) as to:
        assert sign(post(to)) == (101, "whole")
        assert sign(post(to)) == (202, "whole")
        assert [request.connection for request in server.requests] == [0, 1]


def test_an_interim_answer_is_not_taken_for_the_next_one() -> None:
    """A 103 read as final would leave its 200 to settle a batch that it is not for."""
    early = raw(head(103) + head(202, {"Content-Length": "0"}), keep=True)
    with Server(early, reply(429)) as server, transport(server.url) as to:
        assert sign(post(to)) == (202, "whole")
        assert sign(post(to)) == (429, "whole")
        assert server.connections == 1


def test_a_body_at_the_bound_is_whole_and_one_beyond_is_cut_to_it() -> None:
    """The bound is on what is kept in memory, exactly."""
    exact, beyond = reply(200, b"x" * 1000), reply(200, b"x" * 1001)
    with (
        Server(exact, beyond, gzip_reply(b"x" * 1001)) as server,
        transport(server.url, reply_bytes_max=1000) as to,
    ):
        outcomes = [post(to) for _ in range(3)]
    assert [sign(outcome)[1] for outcome in outcomes] == ["whole", "long", "long"]
    assert {outcome.body for outcome in outcomes} == {b"x" * 1000}


def test_a_failed_post_does_not_spoil_the_next() -> None:
    """A flush goes on after one bad answer, on a sound connection."""
    rows = [row[1] for row in PROMPT if row[2][0] in ("reset", "protocol")]
    for row in rows:
        with Server(row, reply(200)) as server, transport(server.url) as to:
            assert isinstance(sign(post(to)), str)
            assert sign(post(to)) == (200, "whole")


def test_the_first_address_tells_why_none_could_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resolvers sort them; the last one is often a kind that this host has not."""
    with refusing() as first, blackhole() as last:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in (first, last)
        ]
        monkeypatch.setattr(connection, "addresses_of", lambda *_: found)
        with transport("http://localhost/", connect_timeout_s=0.1) as to:
            assert sign(post(to)) == "refused"


def test_a_host_that_debugs_http_prints_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The switch is one for the whole process, and prints every header."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    with Server(reply(200)) as server, transport(server.url) as to:
        assert sign(post(to)) == (200, "whole")
    assert capsys.readouterr().out == ""


def test_every_address_of_a_name_is_tried() -> None:
    """`localhost` is two addresses, and a collector listens on one of them."""
    with Server() as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with transport(url) as to:
            assert sign(post(to)) == (200, "whole")
        assert server.requests[0].headers["host"] == f"localhost:{server.port}"


def test_no_text_holds_a_secret() -> None:
    """Outcomes end up in logs, ledgers and dead letters."""
    secrets = [KEY, "pass-word-of-user", "query-secret"]
    echo = reply(401, f"bad key {KEY} or pass-word-of-user".encode(), {"X-Echo": KEY})
    rows = [row[1] for row in PROMPT + SLOW] + [echo]
    with Server(choose=lambda asked: rows[int(asked.headers["idempotency-key"])]) as at:
        endpoint = f"http://me:pass%2Dword-of-user@127.0.0.1:{at.port}/?k=query-secret"
        with transport(endpoint, request_timeout_s=0.2) as to:
            outcomes = [
                to.post(b"", key=str(row), timeout_s=9) for row in range(len(rows))
            ]
            told = repr(to._url)
    assert outcomes[-1].tells_key
    for text in [*map(repr, outcomes), told]:
        assert not any(secret in text for secret in secrets)
