"""One connection: addresses in turns, and replies that http.client alone would misread."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.wire import connection
from telemetry.wire.connection import Dialler, UnconnectedError
from telemetry.wire.deadline import Bounds
from telemetry.wire.verdict import Action, Reply, judge
from tests.support.loopback import Behaviour, Server
from tests.support.misbehaving import blackhole, raw, refusing, reply
from tests.support.posting import KEY, post, sign, transport


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\n{}"


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Each port stands for an address: only the resolver's answer is replaced."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
        for port in ports
    ]
    monkeypatch.setattr(connection, "addresses_of", lambda *_: found)


def bounds(*, request_s: float, connect_s: float = 60.0) -> Bounds:
    made = Bounds(connect_timeout_s=connect_s, read_timeout_s=60.0)
    made.begin(deadline=time.monotonic() + request_s, reply_bytes_max=1024)
    return made


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_is_this_machine_whatever_a_resolver_says(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """In the clear nothing goes to where a search domain or /etc/hosts leads it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        port = listener.getsockname()[1]

        def mislead(*asked: object, **_named: object) -> list[object]:
            raise AssertionError(f"a resolver was asked: {asked}")

        monkeypatch.setattr(socket, "getaddrinfo", mislead)
        with Dialler().dial("localhost", port, bounds(request_s=60.0)) as sock:
            assert sock.getpeername()[:2] == (host, port)


def test_dead_addresses_leave_time_for_a_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name often has several IPv6 addresses, on a network without a way to them."""
    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(blackhole()) for _ in range(3)]
        good = stack.enter_context(listening())
        resolve_to(monkeypatch, *dead, good)
        dialler = Dialler()
        # Connect timeouts that were waited for in turn would be three minutes.
        with dialler.dial("host", 443, bounds(request_s=120.0)) as sock:
            assert sock.getpeername()[1] == good
            # Headers and body are two writes: with Nagle's delay, 40 ms a post.
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        first = dialler._in_turns(connection.addresses_of("host", 443))[0]
        assert first[3] == ("127.0.0.1", good), "what worked last is tried first"


@pytest.mark.parametrize(
    "bad",
    [reply(503), reply(404), raw(b"no HTTP\r\n"), raw()],
    ids=["503", "404", "no HTTP", "closed"],
)
def test_an_address_that_does_not_serve_is_left_for_one_that_does(
    bad: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several servers behind a name fails, and the resolver names it first."""
    with (
        Server(bad) as failing,
        Server(reply(202)) as sound,
        monkeypatch.context() as resolver,
    ):
        resolve_to(resolver, failing.port, sound.port)
        with transport("http://localhost:1") as to:
            first, *others = [post(to) for _ in range(4)]
        assert not isinstance(first, Reply) or first.status != 202
        assert [isinstance(o, Reply) and o.status for o in others] == [202] * 3
        assert (len(failing.requests), sound.connections) == (1, 1)
        # The next flush is another process, which begins elsewhere.
        with transport("http://localhost:1", turn=1) as to:
            assert sign(post(to)) == (202, "whole")
        assert len(failing.requests) == 1


def test_addresses_that_all_fail_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is given up for good: any of them may be mended first."""
    with (
        Server(reply(503)) as one,
        Server(reply(503), reply(503), reply(202)) as two,
        monkeypatch.context() as resolver,
    ):
        resolve_to(resolver, one.port, two.port)
        with transport("http://localhost:1") as to:
            statuses = [sign(post(to))[0] for _ in range(7)]
        assert statuses == [503, 503, 503, 503, 503, 202, 202]
        assert len(one.requests) == 3


def test_a_short_flush_reaches_the_last_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four quarters of a second are more than a flush at exit has in all."""
    with blackhole() as dead, listening() as good:
        resolve_to(monkeypatch, *[dead] * 16, good)
        with Dialler().dial("host", 443, bounds(request_s=3.9)) as sock:
            assert sock.getpeername()[1] == good


def test_a_refusal_starts_the_next_address_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refused connection is an answer: there is nothing to wait for."""
    with refusing() as refused, listening() as good:
        resolve_to(monkeypatch, *[refused] * 100, good)
        with Dialler().dial("host", 443, bounds(request_s=20.0)) as sock:
            assert sock.getpeername()[1] == good


def test_the_first_problem_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are sorted by how well they can be reached, so the first says most."""
    with refusing() as refused, blackhole() as dead:
        resolve_to(monkeypatch, refused, dead)
        with pytest.raises(ConnectionRefusedError):
            Dialler().dial("host", 443, bounds(request_s=60.0, connect_s=0.2))
        resolve_to(monkeypatch, dead)
        with pytest.raises(UnconnectedError):
            Dialler().dial("host", 443, bounds(request_s=60.0, connect_s=0.2))


def test_many_headers_do_no_harm() -> None:
    """http.client gives up at 100, and a server behind cookies could accept nothing."""
    many = b"".join(b"Set-Cookie: a%d=%d\r\n" % (n, n) for n in range(500))
    folded = b"X-Long: a\r\n b\r\n\tc\r\n" * 60
    with (
        Server(raw(ANSWER % (many + folded + b"Retry-After: 7\r\n"))) as server,
        transport(server.url) as to,
    ):
        outcome = post(to)
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.body, outcome.complete) == (200, b"{}", True)
        assert outcome.headers["retry-after"] == "7"


def test_deflate_is_read_with_and_without_its_frame() -> None:
    """RFC 9110 §8.4.1.2 wants zlib's frame; some servers leave it out."""
    plain = b'{"rejected":[]}'
    bare = zlib.compressobj(wbits=-15)
    bodies = (zlib.compress(plain), bare.compress(plain) + bare.flush())
    for body in bodies:
        with (
            Server(reply(200, body, {"Content-Encoding": "deflate"})) as server,
            transport(server.url) as to,
        ):
            outcome = post(to)
            assert isinstance(outcome, Reply)
            assert (outcome.body, outcome.complete) == (plain, True)
            assert outcome.is_decoded


def test_nothing_may_be_compressed_too() -> None:
    """A middleware that compresses all it passes on makes this of an empty acceptance."""
    bare = zlib.compressobj(wbits=-15)
    for coding, body in (
        ("gzip", gzip.compress(b"")),
        ("deflate", zlib.compress(b"")),
        ("deflate", bare.compress(b"") + bare.flush()),
        ("gzip", gzip.compress(b"")[:-1]),
        ("gzip", gzip.compress(b"{}")[:11]),
        ("gzip", gzip.compress(b"") + b"<html>"),
    ):
        is_whole = not body.startswith(b"\x1f") or len(body) == 20
        with (
            Server(reply(200, body, {"Content-Encoding": coding})) as server,
            transport(server.url) as to,
        ):
            outcome = post(to)
            assert isinstance(outcome, Reply)
            assert outcome.body == b""
            assert (outcome.complete and outcome.is_decoded) == is_whole, body


def test_a_coding_that_is_not_known_is_told() -> None:
    """Such a body may be a login page: nobody here can read it."""
    for coding in ("br", "gzip, gzip", "zstd"):
        with (
            Server(
                reply(200, b"\x0b\x0e\x80{}", {"Content-Encoding": coding})
            ) as server,
            transport(server.url) as to,
        ):
            outcome = post(to)
            assert isinstance(outcome, Reply)
            assert not outcome.is_decoded, coding


def test_a_coded_body_that_is_cut_proves_nothing() -> None:
    """What names refused events may be in the part that is missing."""
    whole = gzip.compress(b'{"rejected":[{"event_id":"%b"}]}' % (b"x" * 100), mtime=0)
    for end in range(1, len(whole) - 12):
        with (
            Server(reply(200, whole[:end], {"Content-Encoding": "gzip"})) as server,
            transport(server.url) as to,
        ):
            assert judge(post(to), now=0.0).action is Action.WAIT, end


def test_an_answer_that_repeats_the_key_says_so_in_any_spelling() -> None:
    """What is kept of an answer ends up in dead letters, in the ledger and in logs."""
    for body in (
        KEY,
        KEY[:9] + "...",
        "".join(f"\\u{ord(c):04x}" for c in KEY),
        "".join(f"%{ord(c):02X}" for c in KEY),
        base64.b64encode(f"key={KEY}".encode()).decode(),
    ):
        with (
            Server(reply(500, body.encode())) as server,
            transport(server.url) as to,
        ):
            outcome = post(to)
            assert isinstance(outcome, Reply)
            assert (outcome.tells_key, outcome.body) == (True, b""), body


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_send_that_failed_has_its_reply_read(*, hangs_up: bool) -> None:
    """A server that refuses a large body says 413 before it has read it."""
    over = threading.Event()

    def refuse(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(10)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            if not hangs_up:
                over.wait(60)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        with transport(
            f"http://127.0.0.1:{port}/", read_timeout_s=1.0, request_timeout_s=60.0
        ) as to:
            outcome = post(to, b"x" * (32 << 20))
        over.set()
        thread.join(60)
    assert isinstance(outcome, Reply), outcome
    assert outcome.status == 413
    assert not outcome.is_sent


def test_a_key_log_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a debugging aid of the user's shell, and no matter of certificates."""
    from telemetry.wire import transport as module

    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "nowhere" / "keys"))
    context: Any = module._tls({})
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.keylog_filename is None
