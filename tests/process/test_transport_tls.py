"""TLS and proxies: who is trusted, who sees what, and that bad ones cost no time."""

from __future__ import annotations

import base64
import io
import shutil
import socket
import ssl
import time
import warnings
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import urllib3.connection

from telemetry.wire.connection import BoundedReader
from telemetry.wire.deadline import Bounds
from telemetry.wire.verdict import Failure, Outcome
from tests.support.certificates import make_certificate, server_side, subject_hash
from tests.support.misbehaving import (
    Behaviour,
    Exchange,
    Server,
    close_at_once,
    drip,
    endless_headers,
    endless_interim,
    head,
    raw,
    refusing,
    reply,
    silent_after,
    tunnel_to,
)
from tests.support.posting import KEY, LATE_S, post, sign, timed, transport
from tests.support.posting import either_way as either_way  # noqa: PLC0414  a fixture


OK = b'{"success": true}'
# A name that only a proxy is asked for; nothing resolves it here.
FAR = "collector.invalid"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of a server on loopback, which a proxy calls FAR."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1", FAR)


@pytest.fixture(scope="module")
def other_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of somebody else."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "elsewhere.invalid")


def trusting(pem: Path) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(pem)}


def test_a_trusted_server_is_posted_to_over_one_connection(pem: Path) -> None:
    """A TLS handshake costs more than a batch does."""
    with Server(reply(200, OK), tls=server_side(pem)) as server:
        with transport(server.url, environment=trusting(pem)) as to:
            assert [sign(post(to)) for _ in range(5)] == [(200, "whole")] * 5
        assert server.connections == 1
        assert server.requests[0].headers["x-api-key"] == KEY


def test_a_clock_that_is_years_behind_prints_and_raises_nothing(
    pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a battery starts in 1970: its programs would print a warning."""
    monkeypatch.setattr(urllib3.connection, "RECENT_DATE", date.max)
    # Warnings are errors here, so one that is given fails the post.
    with (
        warnings.catch_warnings(),
        Server(reply(200, OK), tls=server_side(pem)) as server,
        transport(server.url, environment=trusting(pem)) as to,
    ):
        assert sign(post(to)) == (200, "whole")


def test_a_directory_of_certificates_is_trusted(pem: Path, tmp_path: Path) -> None:
    """OpenSSL finds them there by a hash of their subject."""
    environment = {"SSL_CERT_DIR": str(tmp_path)}
    with Server(reply(200), tls=server_side(pem)) as server:
        with transport(server.url, environment=environment) as to:
            assert sign(post(to)) == "tls"
        shutil.copy(pem, tmp_path / f"{subject_hash(pem)}.0")
        with transport(server.url, environment=environment) as to:
            assert sign(post(to)) == (200, "whole")


def test_bad_certificates_cost_the_post_and_reveal_nothing(
    pem: Path, other_pem: Path, tmp_path: Path
) -> None:
    """The key must not reach whoever is between here and the collector."""
    (tmp_path / "empty.pem").write_bytes(b"")
    cases: list[tuple[Path, dict[str, str], str]] = [
        (pem, {}, "certificate verify failed"),
        (pem, trusting(other_pem), "certificate verify failed"),
        (other_pem, trusting(other_pem), "not valid for '127.0.0.1'"),
        (pem, trusting(tmp_path / "none"), "SSL_CERT_FILE"),
        (pem, trusting(tmp_path / "empty.pem"), "SSL_CERT_FILE"),
    ]
    for served, environment, said in cases:
        with Server(tls=server_side(served)) as server:
            with transport(server.url, environment=environment) as to:
                outcome, took_s = timed(to)
            assert isinstance(outcome, Failure)
            assert (outcome.kind, said in outcome.detail) == ("tls", True)
            assert took_s < 4.0
            assert server.requests == []


def https(server: Server) -> str:
    return server.url.replace("http://", "https://")


def test_a_plain_server_on_a_tls_port_gets_nothing(pem: Path) -> None:
    """A proxy that forgot its TLS must not be given the key in the clear."""
    banner = raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with Server(at_accept=banner) as server:
        with transport(https(server), environment=trusting(pem)) as to:
            assert sign(post(to)) in ("tls", "reset")
        assert server.requests == []


def test_a_tls_server_on_a_plain_port_answers_nothing_sound(pem: Path) -> None:
    """The other way round: an alert instead of HTTP."""
    with Server(tls=server_side(pem)) as server:
        with transport(server.url.replace("https://", "http://")) as to:
            assert sign(post(to)) in ("protocol", "reset")
        assert server.requests == []


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    "at_accept",
    [
        silent_after(b""),
        # A record that announces 16 KiB of handshake, and comes byte by byte.
        drip(b"\x16\x03\x03\x40\x00\x02" + b"\0" * 999),
    ],
)
def test_a_slow_handshake_ends_at_the_deadline(at_accept: Behaviour, pem: Path) -> None:
    """A handshake is many reads; together they have one time."""
    with (
        Server(at_accept=at_accept) as server,
        transport(
            https(server), environment=trusting(pem), request_timeout_s=1.0
        ) as to,
    ):
        outcome, took_s = timed(to)
    assert sign(outcome) == "timeout"
    assert took_s < 1.0 + LATE_S


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    "behaviour",
    [
        drip(head(200, {"X": "x" * 999})),
        drip(b"x" * 999, start=head(200, {"Content-Length": "999"})),
    ],
    ids=["headers", "a body"],
)
def test_slow_answers_within_tls_end_at_the_deadline(
    behaviour: Behaviour, pem: Path
) -> None:
    """Each byte is a record of its own, and none resets the clock."""
    with (
        Server(behaviour, tls=server_side(pem)) as server,
        transport(server.url, environment=trusting(pem), request_timeout_s=1.0) as to,
    ):
        outcome, took_s = timed(to)
    assert sign(outcome) == "timeout"
    assert took_s < 1.0 + LATE_S


def end_in_order(exchange: Exchange) -> None:
    exchange.send(head(200) + OK)
    exchange.socket.unwrap()


def end_the_socket(exchange: Exchange) -> None:
    exchange.send(head(200) + OK)
    exchange.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (end_in_order, (200, "whole")),
        (end_the_socket, (200, "cut")),
        (raw(head(200, {"Content-Length": "17"}) + OK), (200, "whole")),
    ],
)
def test_a_body_that_ends_with_the_connection_needs_an_end_in_order(
    behaviour: Behaviour, expected: object, pem: Path
) -> None:
    """Anyone on the way can end a connection; only the peer can say that it ended."""
    with (
        Server(behaviour, tls=server_side(pem)) as server,
        transport(server.url, environment=trusting(pem)) as to,
    ):
        assert sign(post(to)) == expected


@pytest.mark.skipif(
    not hasattr(ssl, "OP_IGNORE_UNEXPECTED_EOF"),
    reason="OpenSSL 1.1.1 has no such option",
)
def test_a_lenient_openssl_does_not_make_a_cut_body_whole(
    pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some systems' Python tells OpenSSL to take any end for an end in order."""

    def lenient(protocol: int) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return made

    changed = SimpleNamespace(**{**vars(ssl), "SSLContext": lenient})
    monkeypatch.setattr("telemetry.wire.transport.ssl", changed)
    with Server(end_the_socket, tls=server_side(pem)) as server:
        with transport(server.url, environment=trusting(pem)) as to:
            assert sign(post(to)) == (200, "cut")


class Interrupted:
    """A connection whose reads say that they would block."""

    def makefile(self, *_: object, **__: object) -> io.RawIOBase:
        class Blocking(io.RawIOBase):
            def readinto(self, _: object) -> None:
                return None

        return Blocking()

    def settimeout(self, _: float) -> None:
        pass


def test_a_read_that_would_block_is_not_the_end_of_a_body() -> None:
    """A buffered reader takes it for one, and http.client a cut body for whole."""
    bounds = Bounds(connect_timeout_s=1, read_timeout_s=1)
    bounds.begin(deadline=time.monotonic() + 60, reply_bytes_max=100)
    reader = io.BufferedReader(BoundedReader(Interrupted(), bounds))
    with pytest.raises(BlockingIOError):
        reader.read(10)


def through(proxy: Server, pem: Path, user_info: str = "") -> dict[str, str]:
    url = f"http://{user_info}127.0.0.1:{proxy.port}"
    return {"HTTPS_PROXY": url, **trusting(pem)}


def test_a_proxy_sees_a_tunnel_and_its_own_credentials(pem: Path) -> None:
    """The key is the collector's, the proxy's password the proxy's."""
    with (
        Server(reply(200), tls=server_side(pem)) as server,
        Server(tunnel_to(server.port)) as proxy,
        transport(
            f"https://{FAR}/v1", environment=through(proxy, pem, "me:p%40ss@")
        ) as to,
    ):
        assert [sign(post(to)) for _ in range(3)] == [(200, "whole")] * 3
        (asked,) = proxy.requests
        assert (asked.method, asked.target) == ("CONNECT", f"{FAR}:443")
        basic = "Basic " + base64.b64encode(b"me:p@ss").decode()
        assert asked.headers["proxy-authorization"] == basic
        assert KEY.encode() not in asked.raw
        assert len(server.requests) == 3
        for request in server.requests:
            assert request.headers["host"] == FAR
            assert request.headers["x-api-key"] == KEY
            assert "proxy-authorization" not in request.headers


def test_a_proxy_with_tls_is_checked_like_a_server(pem: Path, other_pem: Path) -> None:
    """Credentials for a proxy go to that proxy."""
    for served, expected in ((pem, (200, "whole")), (other_pem, "proxy")):
        with (
            Server(reply(200), tls=server_side(pem)) as server,
            Server(tunnel_to(server.port), tls=server_side(served)) as proxy,
        ):
            environment = {"HTTPS_PROXY": f"https://127.0.0.1:{proxy.port}"}
            with transport(
                f"https://{FAR}/", environment={**environment, **trusting(pem)}
            ) as to:
                assert sign(post(to)) == expected


BAD_PROXIES: list[tuple[str, Behaviour, object]] = [
    ("refuses", reply(407), "proxy"),
    ("forbids", reply(403, b"no"), "proxy"),
    ("no HTTP", raw(b"what?\r\n\r\n"), "proxy"),
    ("closes", close_at_once, "proxy"),
    ("silent", silent_after(b""), "timeout"),
    ("slow", drip(head(200, {"X": "x" * 999})), "timeout"),
    ("endless headers", endless_headers(), ("proxy", "timeout")),
    ("endless interim", endless_interim(), ("proxy", "timeout")),
    ("silent tunnel", silent_after(head(200)), "timeout"),
]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [row[1:] for row in BAD_PROXIES],
    ids=[row[0] for row in BAD_PROXIES],
)
def test_a_bad_proxy_costs_the_post_and_no_more(
    behaviour: Behaviour, expected: object, pem: Path
) -> None:
    """A way through somebody else's machine has all of its troubles."""
    with (
        Server(behaviour) as proxy,
        transport(
            f"https://{FAR}/",
            environment=through(proxy, pem, "me:pass-word@"),
            request_timeout_s=1.0,
        ) as to,
    ):
        outcome, took_s = timed(to)
    assert sign(outcome) == expected or sign(outcome) in expected
    assert took_s < 1.0 + LATE_S
    assert "pass-word" not in repr(outcome)


def open_late_then_silent(exchange: Exchange) -> None:
    exchange.pause(0.5)
    exchange.send(head(200))
    exchange.wait_for_end()


@pytest.mark.usefixtures("either_way")
def test_time_spent_on_a_tunnel_is_not_given_again_for_its_handshake(
    pem: Path,
) -> None:
    """Each step has what is left, not what there was when the request began."""
    with (
        Server(open_late_then_silent) as proxy,
        transport(
            f"https://{FAR}/", environment=through(proxy, pem), request_timeout_s=0.6
        ) as to,
    ):
        outcome, took_s = timed(to)
    assert sign(outcome) == "timeout"
    assert 0.59 < took_s < 0.6 + LATE_S


def test_a_proxy_that_refuses_says_with_what(pem: Path) -> None:
    """407 is about its password, 403 about the collector's name."""
    with Server(reply(407)) as proxy:
        outcome = outcome_of(through(proxy, pem))
    place = f"http://127.0.0.1:{proxy.port}"
    assert outcome == Failure("proxy", f"{FAR}: {place} answers 407 to CONNECT")


def outcome_of(environment: dict[str, str]) -> Outcome:
    with transport(f"https://{FAR}/", environment=environment) as to:
        return post(to)


def test_a_fault_behind_a_proxy_says_by_which_way(pem: Path) -> None:
    """The server is sound, and whoever looks for the fault has to look elsewhere."""
    with Server(close_at_once) as proxy:
        outcome = outcome_of(through(proxy, pem, "me:pass-word@"))
    place = f"http://127.0.0.1:{proxy.port}"
    closed = "the connection was closed without an answer"
    assert outcome == Failure("proxy", f"{FAR}: {place} cannot be used: {closed}")
    with Server(raw(head(200))) as proxy:  # a tunnel to nowhere
        outcome = outcome_of(through(proxy, pem, "me:pass-word@"))
    assert isinstance(outcome, Failure)
    place = f"http://127.0.0.1:{proxy.port}"
    assert outcome.detail.startswith(f"{FAR} by way of {place}: ")


def test_a_proxy_may_be_named_by_its_address_of_ipv6(pem: Path) -> None:
    """A URL has it in brackets, and a resolver does not take them."""
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        transport(
            f"https://{FAR}/",
            environment={
                "HTTPS_PROXY": f"http://[::1]:{listener.getsockname()[1]}",
                **trusting(pem),
            },
        ) as to,
    ):
        outcome = to.start(b"{}", key="k", timeout_s=5.0)
        asked, _ = listener.accept()
        with asked:
            assert asked.recv(1024).startswith(f"CONNECT {FAR}".encode())
        assert sign(outcome()) == "proxy"


def test_a_proxy_that_is_not_there_is_named() -> None:
    """The person who reads this looks for the fault at the collector first."""
    with refusing() as port:
        outcome = outcome_of({"HTTPS_PROXY": f"http://me:pass-word@127.0.0.1:{port}"})
    place = f"http://127.0.0.1:{port}"
    assert outcome == Failure(
        "proxy", f"{FAR}: {place} cannot be used: Connection refused"
    )


@pytest.mark.parametrize("proxy", ["socks5://me:pass-word@127.0.0.1:9", "http://a b"])
def test_a_proxy_that_cannot_be_used_is_never_gone_around(proxy: str) -> None:
    """It may be there so that nobody sees where the request comes from."""
    outcome = outcome_of({"ALL_PROXY": proxy})
    assert sign(outcome) == "proxy"
    assert "pass-word" not in repr(outcome)


def test_this_machine_is_reached_without_the_proxy(pem: Path) -> None:
    """A collector on loopback is nobody else's business."""
    with Server() as proxy, Server(tls=server_side(pem)) as server:
        with transport(server.url, environment=through(proxy, pem)) as to:
            assert sign(post(to)) == (200, "whole")
        assert proxy.connections == 0


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_is_obeyed(name: str, pem: Path) -> None:
    """What is exempt is looked for directly, and here not found."""
    with Server() as proxy:
        environment = {**through(proxy, pem), name: ".invalid"}
        with transport(
            f"https://{FAR}/", environment=environment, request_timeout_s=2.0
        ) as to:
            assert sign(post(to)) in ("name", "timeout")
        assert proxy.connections == 0
