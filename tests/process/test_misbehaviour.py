"""Each fault on request is the fault it says, for the requests it says."""

from __future__ import annotations

import json
import socket
import threading
import time

import msgspec
import pytest
import urllib3

from spool_tools.collector import Collector
from spool_tools.collector.misbehaviour import Faults, Misbehaviour
from tests.support.patience import PATIENCE_S


def body(*ids: str, name: str = "tool") -> bytes:
    records = [
        {
            "event": name,
            "event_timestamp": 1,
            "source": "s",
            "properties": {"event_id": event_id},
        }
        for event_id in ids
    ]
    return json.dumps({"records": records}).encode()


@pytest.fixture
def pool():
    with urllib3.PoolManager(retries=False) as manager:
        yield manager


def post(pool, collector, content=None, *, timeout=60.0):
    return pool.request(
        "POST",
        collector.url,
        body=body("a") if content is None else content,
        timeout=timeout,
        redirect=False,
    )


@pytest.mark.parametrize("status", [200, 202, 204, 205, 299])
def test_another_2xx_still_tells_the_truth(pool, status):
    """A 2xx settles a batch: it is never said of one that was not stored or is none."""
    with Collector(faults=Faults(status=status)) as collector:
        assert post(pool, collector).status == status
        assert collector.count() == 1
        assert post(pool, collector, b"[]").status == 400
        assert [row.status for row in collector.requests()] == [status, 400]


@pytest.mark.parametrize("status", [300, 301, 304, 400, 401, 413, 429, 500, 503, 599])
def test_any_other_status_stores_nothing(pool, status):
    """A server that refuses has nothing; the batch must come again."""
    with Collector(faults=Faults(status=status)) as collector:
        reply = post(pool, collector)
        assert reply.status == status
        assert "location" not in reply.headers
        assert collector.count() == 0
        (row,) = collector.requests()
        assert (row.status, row.fault) == (status, str(status))


def test_times_bounds_the_fault(pool):
    """Twice refused, then accepted: what a retry has to live through."""
    with Collector(faults=Faults(status=503, times=2)) as collector:
        statuses = [post(pool, collector).status for _ in range(4)]
        assert statuses == [503, 503, 200, 200]
        assert collector.copies() == {"a": 2}


def test_faults_change_while_it_runs(pool):
    """A test tells its story in one go: off, on, off; each setting counts anew."""
    with Collector() as collector:
        statuses = []
        for faults in (Faults(status=500, times=1), Faults(), Faults(status=429)):
            collector.faults = faults
            assert collector.faults == faults
            statuses += [post(pool, collector).status for _ in range(2)]
        assert statuses == [500, 200, 200, 200, 429, 429]


def test_a_seed_repeats_what_chance_chose(pool):
    """A failure that chance found must be there again at the next run."""

    def run(seed: int) -> list[int]:
        with Collector(faults=Faults(fail_rate=0.3, seed=seed)) as collector:
            return [post(pool, collector).status for _ in range(100)]

    first = run(1)
    assert first == run(1)
    assert first != run(2)
    assert 15 <= first.count(503) <= 45
    assert first.count(200) == 100 - first.count(503)


def test_a_share_may_be_of_any_fault():
    """`fail_rate` says how many, the other options say what happens to them."""
    plans = Misbehaviour(Faults(fail_rate=0.5, seed=7, reset=True, times=3))
    faults = [plans.plan().fault for _ in range(100)]
    assert faults.count("reset") == 3
    assert faults.count("") == 97
    for rate, met in ((0.0, 0), (1.0, 10)):
        plans = Misbehaviour(Faults(fail_rate=rate))
        assert [plans.plan().status for _ in range(10)].count(503) == met


@pytest.mark.parametrize("value", ["7", "Wed, 21 Oct 2037 07:28:00 GMT", "-1", "soon"])
def test_retry_after_is_sent_as_it_stands(pool, value):
    """The flusher obeys it across launches, and survives nonsense in it."""
    with Collector(faults=Faults(retry_after=value, times=1)) as collector:
        reply = post(pool, collector)
        assert (reply.status, reply.headers["retry-after"]) == (503, value)
        assert "retry-after" not in post(pool, collector).headers


def test_hanging_comes_after_the_commit(pool):
    """The client gives up, the event is there: the retry makes a duplicate."""
    with Collector(faults=Faults(hang=True, times=1)) as collector:
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            post(pool, collector, timeout=0.2)
        assert collector.wait(events=1)
        assert post(pool, collector).json()["duplicates"] == 1
        assert [row.status for row in collector.requests()] == [None, 200]
        assert collector.requests()[0].fault == "hang"


def test_a_hanging_request_does_not_keep_it_from_closing(pool):
    """Nobody waits for a client that waits for ever; it is cut off at once."""
    collector = Collector(faults=Faults(hang=True), on_request=lambda _row: close())
    closing = []

    def close() -> None:
        closing.append(threading.Thread(target=collector.close))
        closing[0].start()

    began_s = time.monotonic()
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(pool, collector, timeout=4 * PATIENCE_S)
    closing[0].join()
    assert time.monotonic() - began_s < PATIENCE_S


def test_reset_is_a_reset(pool):
    """RST, not FIN: the client's system says so."""
    with Collector(faults=Faults(reset=True, times=1)) as collector:
        with pytest.raises(urllib3.exceptions.ProtocolError, match="reset by peer"):
            post(pool, collector)
        assert collector.count() == 1
        assert collector.requests()[0].status is None
        assert post(pool, collector).json()["duplicates"] == 1


@pytest.mark.parametrize("status", [None, 202, 503])
def test_a_cut_answer_is_seen_as_cut(pool, status):
    """A 2xx that is not complete proves nothing, even if all of its head is there."""
    with Collector(faults=Faults(truncate=True, status=status)) as collector:
        with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
            post(pool, collector)
        assert collector.count() == (0 if status == 503 else 1)
        (row,) = collector.requests()
        assert row.fault == f"truncate {status or ''}".strip()


def test_a_cut_answer_without_a_body_lacks_the_end_of_its_head():
    """A 204 has nothing else that could be cut."""
    with (
        Collector(faults=Faults(truncate=True, status=204)) as collector,
        socket.create_connection(collector.address, timeout=60.0) as client,
    ):
        content = body("a")
        length = f"Content-Length: {len(content)}".encode()
        client.sendall(b"POST / HTTP/1.1\r\n" + length + b"\r\n\r\n" + content)
        said = b"".join(iter(lambda: client.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 204 ")
        assert not said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_sends_none(status):
    """RFC 9110 §6.4.1; the next answer on the connection would begin in its midst."""
    content = body("a")
    length = f"Content-Length: {len(content)}".encode()
    sent = b"POST / HTTP/1.1\r\n" + length + b"\r\n\r\n" + content
    with (
        Collector(faults=Faults(status=status)) as collector,
        socket.create_connection(collector.address, timeout=60.0) as client,
    ):
        client.sendall(sent + sent)
        client.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: client.recv(65536), b""))
    answers = said.split(b"\r\n\r\n")
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 %d" % status] * 2 + [b""]


def test_html_is_a_page_and_stores_nothing(pool):
    """A captive portal says 200 and has nothing."""
    with Collector(faults=Faults(html=True)) as collector:
        reply = post(pool, collector)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html")
        assert reply.data.startswith(b"<!DOCTYPE html>")
        assert collector.count() == 0
        assert post(pool, collector, b"[]").status == 200, "it reads nothing either"
        collector.faults = Faults(html=True, status=511)
        assert post(pool, collector).status == 511


FAULTS = [
    Faults(hang=True),
    Faults(reset=True),
    Faults(truncate=True),
    Faults(html=True),
    Faults(status=503),
    Faults(status=200),
    Faults(fail_rate=1.0),
]


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("faults", FAULTS, ids=str)
def test_the_commit_can_be_put_before_or_after_any_fault(pool, faults, stores):
    """Both orders exist in the world: one makes duplicates, the other makes none."""
    turned = msgspec.structs.replace(faults, stores=stores)
    with Collector(faults=turned) as collector:
        timeout = 0.2 if faults.hang else 10.0
        try:
            post(pool, collector, timeout=timeout)
        except urllib3.exceptions.HTTPError:
            assert faults.hang or faults.reset or faults.truncate
        assert collector.wait(requests=1)
        assert collector.count() == (1 if stores else 0)


def test_rejected_events_are_named_and_not_stored(pool):
    """Only an event that a 2xx names as rejected is dead at once; others live."""
    with Collector(faults=Faults(reject=("bad", "worse"))) as collector:
        content = body("a", "b", name="bad")[:-2] + b"," + body("c").split(b"[", 1)[1]
        told = post(pool, collector, content).json()
        assert told["accepted"] == 1
        assert [one["event_id"] for one in told["rejected"]] == ["a", "b"]
        assert collector.copies() == {"c": 1}


def test_a_slow_answer_takes_its_time(pool):
    """A reply that trickles must not outlast the flusher's deadline."""
    with Collector(faults=Faults(bytes_per_s=1000.0)) as collector:
        began_s = time.monotonic()
        reply = post(pool, collector)
        took_s = time.monotonic() - began_s
        assert reply.json()["accepted"] == 1
        assert took_s > 0.1


def test_a_slow_answer_does_not_hold_up_the_end(pool):
    """At a byte in ten seconds, closing cuts the answer off."""
    collector = Collector(faults=Faults(bytes_per_s=0.1))
    try:
        with pytest.raises(urllib3.exceptions.HTTPError):
            post(pool, collector, timeout=0.2)
        began_s = time.monotonic()
    finally:
        collector.close()
    assert time.monotonic() - began_s < PATIENCE_S
    with pytest.raises(urllib3.exceptions.HTTPError):
        post(pool, collector)


IMPOSSIBLE = [
    {"status": 199},
    {"status": 600},
    {"hang": True, "reset": True},
    {"reset": True, "truncate": True},
    {"fail_rate": 1.1},
    {"fail_rate": float("nan")},
    {"times": -1},
    {"bytes_per_s": 0},
    {"bytes_per_s": float("inf")},
    {"retry_after": "1\r\nX: y"},
    {"retry_after": "é"},
]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_faults_that_make_no_sense_are_refused(options):
    """A fault that silently is none would prove nothing."""
    with pytest.raises(ValueError, match=r"(?s)."):
        Faults(**options)
