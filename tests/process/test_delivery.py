"""What a flush makes of each thing that a server or a network can do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import telemetry
from tests.support import misbehaving as bad
from tests.support.certificates import make_certificate
from tests.support.delivering import KEY, census_of, client_of, letters_of, record
from tests.support.loopback import Behaviour, Received, Server
from tests.support.patience import quickest_s


FINE = bad.reply(200)
# Each server does this once and answers 200 from then on. What is left after one
# flush: why it stopped, delivered, pending, dead, requests.
Left = tuple[str, int, int, int, int]
ACCEPTED: Left = ("drained", 3, 0, 0, 1)
TRIED_AGAIN: Left = ("drained", 3, 0, 0, 2)
# The whole batch; one event of it, which is accepted; the other two, each alone.
NARROWED: Left = ("drained", 3, 0, 0, 4)
# The server asks for more time than the flush has.
PUT_OFF: Left = ("waiting", 0, 3, 0, 1)

ONCE: dict[str, tuple[Behaviour, Left]] = {
    "200": (bad.reply(200), ACCEPTED),
    "200 with a body": (bad.reply(200, b'{"ok":true}'), ACCEPTED),
    "201": (bad.reply(201), ACCEPTED),
    "204": (bad.reply(204), ACCEPTED),
    "200 with HTML": (bad.html(), TRIED_AGAIN),
    "200 with a body cut short": (bad.cut_short(), TRIED_AGAIN),
    "200 with chunks cut short": (bad.cut_chunked(), TRIED_AGAIN),
    "200 then silence": (
        bad.silent_after(bad.head(200, {"Content-Length": "5"})),
        TRIED_AGAIN,
    ),
    "301": (bad.redirect(301, "http://127.0.0.1:9/"), NARROWED),
    "302": (bad.redirect(302, "http://127.0.0.1:9/"), NARROWED),
    "307": (bad.redirect(307, "http://127.0.0.1:9/"), NARROWED),
    "400": (bad.reply(400), NARROWED),
    "401": (bad.reply(401), NARROWED),
    "403": (bad.reply(403), NARROWED),
    "404": (bad.reply(404), NARROWED),
    "408": (bad.reply(408), TRIED_AGAIN),
    "413": (bad.reply(413), NARROWED),
    "422": (bad.reply(422), NARROWED),
    "425": (bad.reply(425), TRIED_AGAIN),
    "429": (bad.reply(429), TRIED_AGAIN),
    "429 with Retry-After 0": (bad.retry_after("0", 429), TRIED_AGAIN),
    "429 with Retry-After 3600": (bad.retry_after("3600", 429), PUT_OFF),
    "500": (bad.reply(500), TRIED_AGAIN),
    "502": (bad.reply(502), TRIED_AGAIN),
    "503": (bad.reply(503), TRIED_AGAIN),
    "503 with Retry-After 3600": (bad.retry_after("3600"), PUT_OFF),
    "599": (bad.reply(599), TRIED_AGAIN),
    "reset before the headers": (bad.reset_at_once, TRIED_AGAIN),
    "reset in the body": (
        bad.reset_after(bad.head(200, {"Content-Length": "50"}) + b"half"),
        TRIED_AGAIN,
    ),
    "closed without an answer": (bad.close_at_once, TRIED_AGAIN),
    "a byte at a time": (
        bad.drip(b"HTTP/1.1 200 OK\r\n" + b"x" * 900, every_s=0.1),
        TRIED_AGAIN,
    ),
    "garbage instead of HTTP": (bad.raw(b"\x00\xffSSH-2.0\r\n\r\n"), TRIED_AGAIN),
    "100 MB of headers": (bad.endless_headers(), TRIED_AGAIN),
    "endless interim answers": (bad.endless_interim(), TRIED_AGAIN),
}


@pytest.mark.parametrize("name", ONCE)
def test_each_misbehaviour_leaves_what_the_table_says(
    name: str, tmp_path: Path
) -> None:
    """A misread answer either loses events or sends them for ever."""
    behaviour, expected = ONCE[name]
    with (
        Server(behaviour, FINE) as server,
        client_of(tmp_path / "home", server.url, events=3, request_timeout_s=1.5) as it,
    ):
        report = it.flush(timeout_s=60)
        left = (report.stopped, report.delivered, report.pending, report.dead)
        assert (*left, report.requests) == expected
        assert len(server.requests) == report.requests
        if expected == TRIED_AGAIN:
            first, second = server.requests
            assert first.body == second.body
            assert len({r.headers["idempotency-key"] for r in server.requests}) == 1
    census = census_of(tmp_path / "home")
    assert census.holds()
    assert (census.recorded, census.delivered, census.pending) == (3, *left[1:3])


@contextlib.contextmanager
def _wrong_certificate(tmp_path: Path) -> Iterator[str]:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path, "127.0.0.1"))
    with Server(FINE, tls=context) as server:
        yield server.url
        assert not server.requests


@contextlib.contextmanager
def _refused(_: Path) -> Iterator[str]:
    with bad.refusing() as port:
        yield f"http://127.0.0.1:{port}/"


@contextlib.contextmanager
def _blackhole(_: Path) -> Iterator[str]:
    with bad.blackhole() as port:
        yield f"http://127.0.0.1:{port}/"


@contextlib.contextmanager
def _no_such_name(_: Path) -> Iterator[str]:
    yield "https://collector.invalid/"


@pytest.mark.parametrize(
    "place", [_wrong_certificate, _refused, _blackhole, _no_such_name]
)
def test_nothing_to_talk_to_keeps_everything(
    place: Callable[[Path], contextlib.AbstractContextManager[str]], tmp_path: Path
) -> None:
    """Offline is the normal state of a laptop."""
    with (
        place(tmp_path) as endpoint,
        client_of(tmp_path / "home", endpoint, events=3, request_timeout_s=0.3) as it,
    ):
        report = it.flush(timeout_s=0.8)
        assert report.stopped in {"waiting", "deadline"}
        assert (report.delivered, report.pending, report.dead) == (0, 3, 0)
        assert report.requests >= 1
    assert census_of(tmp_path / "home").holds()


@pytest.mark.parametrize("place", [_blackhole, _no_such_name])
def test_a_flush_is_back_when_its_time_is_up(
    place: Callable[[Path], contextlib.AbstractContextManager[str]], tmp_path: Path
) -> None:
    """A command that flushes before it exits must not hang with the network."""
    with (
        place(tmp_path) as endpoint,
        client_of(tmp_path / "home", endpoint, events=3) as it,
    ):
        it.flush(timeout_s=0.2)  # loads what a flush needs
        # The promise is 0.25 s; a busy machine is given what it may need besides.
        assert quickest_s(lambda: it.flush(timeout_s=0.2), below_s=0.7) < 0.7


def _refuses(bad_tools: set[str], status: int) -> Callable[[Received], Behaviour]:
    def choose(request: Received) -> Behaviour:
        records = json.loads(request.body)["records"]
        tools = {record["properties"]["tool_name"] for record in records}
        return bad.reply(status, b"no such tool") if tools & bad_tools else FINE

    return choose


@pytest.mark.parametrize(
    ("position", "status"),
    [(0, 413), (777, 400), (999, 422)],
)
def test_one_bad_event_among_a_thousand_costs_few_requests(
    status: int, position: int, tmp_path: Path
) -> None:
    """One event that a server cannot take must not cost the others."""
    with (
        Server(choose=_refuses({f"tool-{position}"}, status)) as server,
        client_of(
            tmp_path / "home",
            server.url,
            events=1000,
            batch_events_max=1000,
            batch_bytes_max=1 << 20,
        ) as it,
    ):
        report = it.flush(timeout_s=60)
        assert (report.stopped, report.delivered, report.dead) == ("waiting", 999, 0)
        # The batch, at most two probes, and two for each cut.
        assert report.requests == len(server.requests) <= 23
        requests = list(server.requests)
        for _ in range(4):
            report = it.flush(timeout_s=60)
        assert (report.stopped, report.pending, report.dead) == ("drained", 0, 1)
    accepted = [
        record["properties"]["tool_name"]
        for request in requests
        if f"tool-{position}" not in request.body.decode().split('"')
        for record in json.loads(request.body)["records"]
    ]
    assert len(accepted) == len(set(accepted)) == 999
    (letter,) = letters_of(tmp_path / "home")
    event = json.loads(bytes(letter.event))
    assert event["properties"]["tool_name"] == f"tool-{position}"
    assert (letter.status, letter.attempts > 0) == (status, True)
    assert "no such tool" in letter.reply
    assert census_of(tmp_path / "home").holds()


def test_a_reply_that_names_rejected_events_settles_the_rest(tmp_path: Path) -> None:
    """The server knows best which events it will never take."""

    def choose(request: Received) -> Behaviour:
        records = json.loads(request.body)["records"]
        named = {"event_id": records[1]["properties"]["event_id"], "reason": "odd"}
        return bad.reply(200, json.dumps({"rejected": [named]}).encode())

    with (
        Server(choose=choose) as server,
        client_of(tmp_path / "home", server.url, events=10) as it,
    ):
        report = it.flush(timeout_s=60)
        assert (report.delivered, report.dead, report.requests) == (9, 1, 1)
    (letter,) = letters_of(tmp_path / "home")
    assert (letter.reason, letter.reply) == ("rejected", "odd")
    assert census_of(tmp_path / "home").holds()


def test_a_server_that_refuses_everything_makes_no_dead_letters(tmp_path: Path) -> None:
    """A collector with a wrong schema must not empty a spool into `dead/`."""
    with (
        Server(bad.reply(400)) as server,
        client_of(tmp_path / "home", server.url, events=1000) as it,
    ):
        report = it.flush(timeout_s=60)
        assert (report.stopped, report.delivered, report.dead) == ("paused", 0, 0)
        assert (report.pending, report.requests) == (1000, 8)


def test_the_only_event_is_given_up_after_five_refusals(tmp_path: Path) -> None:
    """It has no other to be compared with, and must not be sent for ever."""
    with (
        Server(bad.reply(422)) as server,
        client_of(tmp_path / "home", server.url, events=1) as it,
    ):
        for _ in range(4):
            report = it.flush(timeout_s=60)
            assert (report.stopped, report.pending, report.dead) == ("waiting", 1, 0)
        report = it.flush(timeout_s=60)
        assert (report.pending, report.dead) == (0, 1)
    assert len(server.requests) == 5
    assert census_of(tmp_path / "home").holds()


@pytest.mark.parametrize("position", [0, 7, 19])
def test_an_event_that_breaks_the_server_does_not_hold_the_others(
    position: int, tmp_path: Path
) -> None:
    """A poisonous event draws 500 whatever it is sent with."""
    with (
        Server(choose=_refuses({f"tool-{position}"}, 500)) as server,
        client_of(tmp_path / "home", server.url, events=20) as it,
    ):
        # Each flush is one window; five are enough where the machine has time for them.
        for _ in range(50):
            report = it.flush(timeout_s=0.5)
            if report.pending == 1:
                break
        assert (report.pending, report.dead) == (1, 0)
        for number in range(50):
            record(it, 1, first=100 + number)
            report = it.flush(timeout_s=5)
            if report.dead:
                break
        assert (report.pending, report.dead) == (0, 1)
    assert census_of(tmp_path / "home").holds()


def test_an_outage_makes_no_dead_letters_however_long_it_lasts(tmp_path: Path) -> None:
    """A server that answers 503 to everything is ill; the events are not."""
    with (
        Server(bad.reply(503)) as server,
        client_of(tmp_path / "home", server.url, events=8) as it,
    ):
        for _ in range(12):
            report = it.flush(timeout_s=0.3)
            assert (report.pending, report.dead, report.delivered) == (8, 0, 0)
        assert len(server.requests) <= 12 * 4


def test_the_key_does_not_follow_a_redirect(tmp_path: Path) -> None:
    """Whoever answers 307 must not be told the key by us."""
    with (
        Server(FINE) as elsewhere,
        Server(bad.redirect(307, elsewhere.url)) as server,
        client_of(tmp_path / "home", server.url, events=2) as it,
    ):
        assert it.flush(timeout_s=60).stopped == "paused"
        assert server.requests[0].headers["x-api-key"] == KEY
        assert elsewhere.connections == 0


def test_consent_withdrawn_in_a_drain_stops_the_next_request(tmp_path: Path) -> None:
    """No is no, also in the middle."""
    home = tmp_path / "home"

    def withdraw(exchange: bad.Exchange) -> None:
        (home / "consent").write_text("off 2026-01-01 1\n")
        FINE(exchange)

    with (
        Server(withdraw) as server,
        client_of(home, server.url, events=10, batch_events_max=2) as it,
    ):
        report = it.flush(timeout_s=60)
        assert (report.stopped, report.delivered, report.requests) == ("off", 2, 1)
        assert len(server.requests) == 1


def test_two_flushes_at_once_are_one(tmp_path: Path) -> None:
    """Two flushers would send everything twice."""
    with (
        Server(bad.silent_after(b""), FINE) as server,
        client_of(tmp_path / "home", server.url, events=3, request_timeout_s=2) as it,
        client_of(tmp_path / "home", server.url) as other,
    ):
        import threading

        thread = threading.Thread(target=it.flush, kwargs={"timeout_s": 10})
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        assert other.flush(timeout_s=1).stopped == "busy"
        thread.join()
        assert len(server.requests) == 2


def test_events_recorded_while_a_flush_runs_are_delivered_by_it(tmp_path: Path) -> None:
    """A segment is read while it is being written."""
    with client_of(tmp_path / "home", "http://127.0.0.1:9/", events=5) as it:

        def more(exchange: bad.Exchange) -> None:
            if len(server.requests) < 4:
                record(it, 5, first=100 * len(server.requests))
            FINE(exchange)

        with Server(more) as server:
            config = telemetry.Config(
                app="app",
                home=str(tmp_path / "home"),
                endpoint=server.url,
                api_key=KEY,
                flush="manual",
            )
            report = telemetry.Client(config).flush(timeout_s=60)
            assert (report.delivered, report.pending) == (20, 0)
    assert census_of(tmp_path / "home").holds()
