"""The collector's HTTP is sound against clients that are broken, slow or hostile."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse

import pytest

from spool_tools.collector import Collector


BATCH = (
    b'{"records":[{"event":"tool","event_timestamp":1,"source":"s",'
    b'"properties":{"event_id":"a"}}]}'
)
POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n%s" % (len(BATCH), BATCH)
LAST = WHOLE.replace(b"Host: h\r\n", b"Host: h\r\nConnection: close\r\n")


@pytest.fixture
def collector():
    with Collector(body_bytes_max=1000) as running:
        yield running


def connect(collector: Collector) -> socket.socket:
    return socket.create_connection(collector.address, timeout=60.0)


def talk(collector: Collector, sent: bytes, *, ends: bool = True) -> bytes:
    """All that is answered until the collector hangs up."""
    with connect(collector) as client:
        client.sendall(sent)
        if ends:
            client.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                parts.append(part)
    return b"".join(parts)


def statuses(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", said)]


def framed(lines: bytes, content: bytes = b"") -> bytes:
    return POST + lines + b"\r\n" + content


CHUNKED = b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "no length": (framed(b""), 411),
    "negative length": (framed(b"Content-Length: -1\r\n"), 400),
    "signed length": (framed(b"Content-Length: +2\r\n", b"{}"), 400),
    "underscored length": (framed(b"Content-Length: 1_0\r\n"), 400),
    "two lengths": (framed(b"Content-Length: 2\r\nContent-Length: 3\r\n"), 400),
    "huge length": (framed(b"Content-Length: 999999999999\r\n"), 413),
    "absurd length": (framed(b"Content-Length: " + b"9" * 5000 + b"\r\n"), 400),
    "both framings": (framed(b"Content-Length: 2\r\n" + CHUNKED, b"0\r\n\r\n"), 411),
    "chunks": (framed(CHUNKED, b"0\r\n\r\n"), 411),
    "space before colon": (framed(b"Content-Length : 2\r\n", b"{}"), 411),
    "huge header": (framed(b"A: " + b"b" * 9_000_000 + b"\r\n"), 431),
    "many headers": (framed(b"A: b\r\n" * 1000), 431),
    "huge target": (b"POST /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
    "no version": (b"POST /x\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n", 400),
}


def test_a_request_whose_end_is_in_doubt_ends_the_connection(collector):
    """What follows such a request may be its body: it is never read as a request."""
    for case, (sent, status) in REFUSED.items():
        told = statuses(talk(collector, sent + WHOLE, ends=False))
        assert told == [status], case
    assert collector.count() == 0
    assert statuses(talk(collector, LAST, ends=False)) == [200]


def test_pipelined_requests_are_answered_in_order(collector):
    """An answer that overtakes another would settle the wrong batch."""
    get = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
    bad = framed(b"Content-Length: 2\r\n", b"[]")
    said = talk(collector, WHOLE + get + bad + LAST + WHOLE, ends=False)
    assert statuses(said) == [200, 405, 400, 200], "nothing after `Connection: close`"
    assert collector.copies() == {"a": 2}


@pytest.mark.parametrize("size", [1, 7])
def test_requests_may_arrive_in_pieces(collector, size):
    """TCP keeps no boundaries: a byte at a time is as good as all at once."""
    with connect(collector) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(WHOLE + LAST), size):
            client.sendall((WHOLE + LAST)[start : start + size])
        said = b"".join(iter(lambda: client.recv(65536), b""))
    assert statuses(said) == [200, 200]


def test_a_client_is_told_to_go_on_only_within_the_bound(collector):
    """`Expect: 100-continue` (RFC 9110 §10.1.1) saves sending what is refused."""
    expects = b"Expect: 100-continue\r\n"
    told = talk(collector, LAST.replace(b"Host: h\r\n", b"Host: h\r\n" + expects))
    assert statuses(told) == [100, 200]
    refused = framed(expects + b"Content-Length: 2000\r\n")
    assert statuses(talk(collector, refused, ends=False)) == [413]


def test_a_batch_above_the_bound_is_seen_as_413(collector):
    """A reset in place of the answer would be retried for ever instead of split."""
    parts = urllib.parse.urlsplit(collector.url)
    client = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60.0)
    with contextlib.closing(client):
        client.request("POST", parts.path, b"x" * 8_000_000)
        reply = client.getresponse()
        assert reply.status == 413
        assert b"above 1000 bytes" in reply.read()
    (request,) = collector.requests()
    assert (request.status, request.sha256) == (413, "")


def test_a_silent_connection_is_closed(monkeypatch):
    """Idle clients cost threads; they are let go without a word."""
    monkeypatch.setattr("spool_tools.server.SILENCE_S", 0.5)
    with Collector() as collector:
        assert talk(collector, b"", ends=False) == b""
        assert statuses(talk(collector, WHOLE, ends=False)) == [200]


HALF = """
import os, signal, socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"POST / HTTP/1.1\\r\\nContent-Length: 100\\r\\n\\r\\n{" )
print("sent", flush=True)
signal.pause()
"""


def test_a_client_killed_in_its_midst_leaves_nothing(collector):
    """Half a body is no batch, and a client's death is nobody's traceback."""
    with subprocess.Popen(
        [sys.executable, "-c", HALF, str(collector.address[1])], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"sent\n"
        os.kill(process.pid, signal.SIGKILL)
    assert statuses(talk(collector, LAST)) == [200]
    assert collector.count() == 1
    assert len(collector.requests()) == 1


def test_clients_that_vanish_make_no_noise(collector, capfd):
    """Resets, half requests, answers nobody reads: silence, and it goes on."""

    def vanish(number: int) -> None:
        with connect(collector) as client:
            client.sendall((WHOLE * 3)[: number * 3])
            if number % 2:
                client.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )

    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        list(threads.map(vanish, range(len(WHOLE))))
    assert statuses(talk(collector, LAST)) == [200]
    collector.close()
    assert capfd.readouterr() == ("", "")


def test_an_answer_to_head_has_no_body(collector):
    """RFC 9110 §9.3.2; with a body, the next answer would begin in its midst."""
    head = b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"
    said = talk(collector, head + LAST)
    assert statuses(said) == [405, 200]
    assert b"\r\n\r\nHTTP/1.1 200" in said


def test_a_proxy_s_form_of_the_target_is_understood():
    """A client that goes through a proxy names the whole URL (RFC 9112 §3.2.2)."""
    with Collector(path="/x") as collector:
        for target in (b"http://h/x", b"HTTP://[h/x?y", b"/x", b"//x"):
            assert statuses(talk(collector, LAST.replace(b"/x", target))) == [200]
        for target in (b"http://x", b"*", b"/", b"http:/x"):
            assert statuses(talk(collector, LAST.replace(b"/x", target))) == [404]
