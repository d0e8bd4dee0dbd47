"""What the collector answers with a 2xx is stored, once, exactly, safe to look at."""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
import urllib.parse
import zlib
from pathlib import Path

import msgspec
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from spool_tools.collector import Collector
from spool_tools.collector.formats import RECORDS, checked, inflate
from spool_tools.collector.store import RequestRow, Store, StoreError
from spool_tools.server import Refusal
from tests.support.examples import examples


ROOT = str(Path(__file__).parent.parent.parent)


def event(event_id: str, *, name: str = "tool", **more: object) -> dict[str, object]:
    properties = {"event_id": event_id, "tool_name": "shell"}
    return {
        "event": name,
        "event_timestamp": 1_760_000_000_000,
        "source": "demo",
        "properties": properties,
        **more,
    }


def events(prefix: str, number: int) -> list[dict[str, object]]:
    return [event(f"{prefix}-{index}") for index in range(number)]


def body(records: list[object] | list[dict[str, object]]) -> bytes:
    return json.dumps({"records": records}).encode()


@pytest.fixture
def pool():
    with urllib3.PoolManager(num_pools=1, maxsize=8, retries=False) as manager:
        yield manager


def post(pool, url, content, **headers):
    return pool.request("POST", url, body=content, headers=headers, timeout=60.0)


def test_what_is_answered_200_is_in_the_file(tmp_path, pool):
    """An answer that runs ahead of the commit would hide every loss it is to show."""
    path = str(tmp_path / "c.db")
    with Collector(path) as collector:
        reply = post(pool, collector.url, body(events("a", 3)))
        assert reply.status == 200
        assert reply.json() == {"accepted": 3, "duplicates": 0, "rejected": []}
        with sqlite3.connect(path) as looking:
            rows = looking.execute(
                "SELECT event, event_timestamp, source, event_id, copies FROM events"
            ).fetchall()
        looking.close()
        assert rows == [("tool", 1_760_000_000_000, "demo", f"a-{i}", 1) for i in "012"]
        assert collector.events() == events("a", 3)


def test_the_file_is_for_its_owner_alone(tmp_path, pool):
    """Telemetry tells about people; other users of the machine have no part in it."""
    path = tmp_path / "c.db"
    with Collector(str(path)) as collector:
        post(pool, collector.url, body(events("a", 1)))
        modes = {
            found.name: found.stat().st_mode & 0o777 for found in tmp_path.iterdir()
        }
    assert modes["c.db"] == 0o600
    assert set(modes.values()) == {0o600}


TEXTS = [
    '{"event":"a","event_timestamp":1,"source":"s","properties":{"event_id":"1"}}',
    (
        '{ "source" : "s",\t"properties":{"event_id":"2","n":1.50},\r\n "event":"a",'
        '"event_timestamp":1}'
    ),
    (
        '{"event":"\\u00e9 \u00e9 \u65e5","event_timestamp":1,"source":"s",'
        '"properties":{"event_id":"3"}}'
    ),
    (
        '{"event":"a","event_timestamp":1,"source":"s","properties":{"event_id":"4",'
        '"p":"\x7f \x9b31m \u202e \ufeff \\u001b[2J \\\\"}}'
    ),
    (
        '{"event":"\\u0000\\u001b]0;x\\u0007","event_timestamp":1,"source":"\u2066s",'
        '"properties":{"event_id":"5","big":123456789012345678901234567890}}'
    ),
]


def test_an_event_keeps_its_exact_text(pool):
    """The proof that an event left as it was spooled needs its bytes, not its value."""
    with Collector() as collector:
        content = ('{"records": [' + " , ".join(TEXTS) + " ]}").encode()
        assert post(pool, collector.url, content).json()["accepted"] == len(TEXTS)
        assert collector.texts() == [text.encode() for text in TEXTS]
        assert collector.events() == [json.loads(text) for text in TEXTS]


def test_every_value_of_a_request_can_be_printed(tmp_path, pool):
    """Whoever looks with `sqlite3` must not run what a stranger sent to the terminal."""
    path = str(tmp_path / "c.db")
    with Collector(path) as collector:
        content = ('{"records": [' + ",".join(TEXTS) + "]}").encode()
        headers = {
            "idempotency-key": "k\x9b31m",
            "user-agent": "u\x85\u200f".encode().decode("latin-1"),
        }
        post(pool, collector.url + "?\x9bx", content, **headers)
        post(pool, collector.url, body([event("x", **{"\x1b[2J": 1})]))
        assert collector.requests()[1].rejected == 1
    with sqlite3.connect(path) as looking:
        tables = ("requests",)
        rows = [
            looking.execute(f"SELECT * FROM {table}").fetchall() for table in tables
        ]
    looking.close()
    values = [value for table in rows for row in table for value in row]
    assert {type(value) for value in values} <= {int, str, type(None)}
    unsafe = re.compile("[\x00-\x1f\x7f-\x9f\u200f\u202e\u2066\ufeff]")
    assert [value for value in values if unsafe.search(str(value))] == []


def test_duplicates_are_stored_once_and_counted(pool):
    """Exactly once after deduplication can only be shown by who deduplicates."""
    with Collector() as collector:
        post(pool, collector.url, body([event("a"), event("b"), event("a")]))
        reply = post(pool, collector.url, body([event("b"), event("c")]))
        assert reply.json() == {"accepted": 1, "duplicates": 1, "rejected": []}
        assert collector.copies() == {"a": 2, "b": 2, "c": 1}
        assert collector.count() == 3


def test_a_changed_duplicate_is_told_from_a_true_one(tmp_path, pool):
    """One id on two events is a fault of the sender that counting would hide."""
    path = str(tmp_path / "c.db")
    with Collector(path) as collector:
        for name in ("first", "first", "second", "thi\x7frd"):
            text = json.dumps(event("a", name=name), ensure_ascii=False)
            post(pool, collector.url, f'{{"records":[{text}]}}'.encode())
        assert collector.events() == [event("a", name="first")]
    with sqlite3.connect(path) as looking:
        found = looking.execute("SELECT copies, changed FROM events").fetchall()
    looking.close()
    assert found == [(4, 2)]


def test_duplicates_are_known_across_runs(tmp_path, pool):
    """A collector that is killed and started again meets the same batch again."""
    path = str(tmp_path / "c.db")
    with Collector(path) as collector:
        post(pool, collector.url, body(events("a", 2)))
    with Collector(path) as collector:
        reply = post(pool, collector.url, body(events("a", 3)))
        assert reply.json() == {"accepted": 1, "duplicates": 2, "rejected": []}
        assert collector.wait(events=3, timeout_s=0)


def test_a_retry_can_be_seen_to_be_identical(pool):
    """Whether a retry is byte-identical shows in the hash before content coding."""
    content = body(events("a", 2))
    with Collector() as collector:
        key = {"idempotency-key": "k1", "user-agent": "demo/1"}
        post(pool, collector.url, content, **key)
        squeezed = gzip.compress(content)
        post(pool, collector.url, squeezed, **key, **{"content-encoding": "gzip"})
        first, second = collector.requests()
    assert first.sha256 == second.sha256 == hashlib.sha256(content).hexdigest()
    assert (first.idempotency_key, first.user_agent) == ("k1", "demo/1")
    assert (first.wire_bytes, second.wire_bytes) == (len(content), len(squeezed))
    assert second.body_bytes == len(content)
    assert (first.accepted, second.duplicates, second.status) == (2, 2, 200)


REFUSED = [
    (None, "got `null`"),
    ("text", "got `str`"),
    ({}, "missing required field"),
    (event("x", event_timestamp="1"), "got `str` - at `$.event_timestamp`"),
    (event("x", event_timestamp=-1), ">= 0"),
    (event("x", event_timestamp=2**63), "<= 9223372036854775807"),
    (event("x", name=None), "at `$.event`"),
    (event("x", more=1), "unknown field `more`"),
    (event("x", properties=[]), "at `$.properties`"),
    (event("x", properties={}), "1 to 128 visible"),
    (event("x", properties={"event_id": 7}), "1 to 128 visible"),
    (event(""), "1 to 128 visible"),
    (event("a b"), "1 to 128 visible"),
    (event("é"), "1 to 128 visible"),
    (event("x" * 129), "1 to 128 visible"),
]


@pytest.mark.parametrize(("bad", "reason"), REFUSED)
def test_what_is_no_event_is_refused_alone(pool, bad, reason):
    """A batch must not be lost for one event, nor one event accepted that is none."""
    with Collector() as collector:
        reply = post(pool, collector.url, body([event("a"), bad, event("b")]))
        assert reply.status == 200
        told = reply.json()
        assert told["accepted"] == 2
        (refused,) = told["rejected"]
        assert reason in refused["reason"]
        assert refused["index"] == 1
        named = (
            isinstance(bad, dict) and bad.get("properties") == event("x")["properties"]
        )
        assert refused["event_id"] == ("x" if named else "")
        assert collector.copies() == {"a": 1, "b": 1}
        assert collector.requests()[0].rejected == 1


def test_a_number_beyond_any_float_is_refused_alone(pool):
    """Whatever is stored can be read again; such a number could not."""
    text = json.dumps(event("a")).replace('"shell"', "1e999")
    with Collector() as collector:
        reply = post(pool, collector.url, f'{{"records":[{text}]}}'.encode())
        assert reply.json()["rejected"][0]["reason"].startswith("Number out of range")
        assert collector.events() == []


NO_BATCH = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"records":{}}',
    b'{"records":[',
    b'{"records":[]}{"records":[]}',
    b'\xef\xbb\xbf{"records":[]}',
    b'{"records":[],"\xff":1}',
    b'{"records":["\x1b"]}',
    b'{"records":[NaN]}',
    b'{"records":[{"event":"\\ud800"}]}',
    b'{"records":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}",
]


@pytest.mark.parametrize("content", NO_BATCH, ids=range(len(NO_BATCH)))
def test_what_is_no_batch_is_400(pool, content):
    """The flusher bisects on 400; a 200 would settle what nobody has read."""
    with Collector() as collector:
        reply = post(pool, collector.url, content)
        assert reply.status == 400
        assert reply.json()["error"]
        assert collector.count() == 0
        assert collector.requests()[0].status == 400
        assert post(pool, collector.url, body(events("a", 1))).status == 200


def test_an_empty_batch_is_accepted():
    """Nothing to refuse is no reason to refuse."""
    assert RECORDS.events_of(b'{"records":[]}') == []


BOMB = gzip.compress(b"\0" * (1 << 20), mtime=0)
SMALL = gzip.compress(b'{"records":[]}', mtime=0)
CODINGS = [
    ("gzip", BOMB, 413),
    ("gzip", SMALL[: len(SMALL) // 2], 400),
    ("gzip", SMALL[:-1], 400),
    ("gzip", SMALL[:-2] + b"xx", 400),
    ("gzip", gzip.compress(b"{}", mtime=0) + b"rest", 400),
    ("gzip", gzip.compress(b"") * 50, 400),
    ("gzip", zlib.compress(b"{}"), 400),
    ("gzip", b"", 400),
    ("br", b"{}", 415),
    ("gzip, gzip", b"{}", 415),
]


@pytest.mark.parametrize(("coding", "content", "status"), CODINGS)
def test_a_content_coding_cannot_hurt(pool, coding, content, status):
    """A kilobyte that becomes a gigabyte must cost neither memory nor an exception."""
    with Collector(body_bytes_max=100_000) as collector:
        reply = post(pool, collector.url, content, **{"content-encoding": coding})
        assert reply.status == status
        assert collector.count() == 0


def test_inflating_stops_at_the_bound():
    """The bound is on what is ever in memory, not on what is kept of it."""
    bomb = gzip.compress(b"\0" * (32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="above 1000 bytes"):
            inflate(bomb, "gzip", bytes_max=1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_gzip_in_members_is_one_body():
    """RFC 1952 allows it, and a sender that streams makes it."""
    parts = gzip.compress(b'{"rec') + gzip.compress(b'ords":[]}')
    assert inflate(parts, "GZIP", bytes_max=14) == b'{"records":[]}'
    with pytest.raises(Refusal, match="above 13 bytes"):
        inflate(parts, "gzip", bytes_max=13)


def test_who_is_not_let_in_stores_nothing(tmp_path, pool):
    """Path, method, key and web pages: each is answered with its own status."""
    path = tmp_path / "c.db"
    content = body(events("a", 1))
    with Collector(
        str(path), path="/in", key="s3cret-k3y", header="X-Key"
    ) as collector:
        right = {"x-key": "s3cret-k3y"}
        elsewhere = collector.url.replace("/in", "/out")
        assert collector.url.endswith("/in")
        assert post(pool, elsewhere, content, **right).status == 404
        wrong = pool.request("PUT", collector.url, body=content, headers=right)
        assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
        assert pool.request("HEAD", collector.url).status == 405
        assert post(pool, collector.url, content).status == 401
        assert post(pool, collector.url, content, **{"x-key": "s3cret"}).status == 401
        page = post(pool, collector.url, content, **right, origin="http://x.example")
        assert page.status == 403
        assert collector.count() == 0
        assert post(pool, collector.url + "?a=b", content, **right).status == 200
        statuses = [request.status for request in collector.requests()]
        assert statuses == [404, 405, 405, 401, 401, 403, 200]
        stored = b"".join(found.read_bytes() for found in tmp_path.iterdir())
    assert b"s3cret" not in stored + path.read_bytes(), "the key is kept nowhere"


def test_eight_threads_lose_nothing_and_double_nothing(tmp_path, pool):
    """Every batch is sent by two of them: the counts must still be exact."""
    batches = [body(events(f"b{number}", 20)) for number in range(40)]
    with Collector(str(tmp_path / "c.db")) as collector:

        def send(start: int) -> tuple[int, int]:
            told = [
                post(pool, collector.url, content).json()
                for content in batches[start % 4 :: 4]
            ]
            return sum(t["accepted"] for t in told), sum(t["duplicates"] for t in told)

        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
            told = list(threads.map(send, range(8)))
        assert sum(accepted for accepted, _ in told) == 800
        assert sum(duplicates for _, duplicates in told) == 800
        assert set(collector.copies().values()) == {2}
        assert collector.count() == 800
        assert len(collector.requests()) == 80


SERVE = """
import sys
sys.path.insert(0, sys.argv[2])
from spool_tools.collector import Collector
with Collector(sys.argv[1]) as collector:
    print(collector.url, flush=True)
    sys.stdin.read()
"""


def test_a_killed_collector_has_all_that_it_answered(tmp_path, pool):
    """SIGKILL at any moment: every event behind a 200 is there, every batch is whole."""
    path = str(tmp_path / "c.db")
    answered: list[int] = []
    for run in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", SERVE, path, ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            url = process.stdout.readline().decode().strip()
            with concurrent.futures.ThreadPoolExecutor(max_workers=4) as threads:

                def send(number: int, url: str = url) -> int | None:
                    try:
                        reply = post(pool, url, body(events(f"{number}", 30)))
                    except urllib3.exceptions.HTTPError:
                        return None
                    return number if reply.status == 200 else None

                numbers = range(run * 1000, run * 1000 + 200)
                sent = [threads.submit(send, number) for number in numbers]
                while sum(done.done() for done in sent) < 20 + run * 7:
                    concurrent.futures.wait(
                        [done for done in sent if not done.done()],
                        return_when=concurrent.futures.FIRST_COMPLETED,
                    )
                os.kill(process.pid, signal.SIGKILL)
                answered += [n for done in sent if (n := done.result()) is not None]
    assert 60 <= len(answered) < 600
    store = Store(path)
    stored = store.copies()
    store.close()
    batches = {event_id.split("-")[0] for event_id in stored}
    assert set(stored) >= {f"{number}-{i}" for number in answered for i in range(30)}
    assert set(stored) == {f"{number}-{i}" for number in batches for i in range(30)}


def test_what_cannot_be_stored_is_503(tmp_path, pool):
    """A full disk: nothing of the batch is kept, and the sender is told to keep it."""
    seen = []
    with Collector(str(tmp_path / "c.db"), on_request=seen.append) as collector:
        pages = collector._store._db.execute("PRAGMA page_count").fetchone()[0]
        collector._store._db.execute(f"PRAGMA max_page_count={pages + 2}")
        reply = post(pool, collector.url, body(events("a", 500)))
        assert reply.status == 503
        assert "full" in reply.json()["error"]
        assert (seen[0].id, seen[0].status) == (0, 503)
        assert collector.count() == 0
        assert collector.requests() == []
        collector._store._db.execute(f"PRAGMA max_page_count={pages + 2000}")
        assert post(pool, collector.url, body(events("a", 500))).status == 200
        assert collector.count() == 500


def test_a_transaction_that_fails_midway_leaves_no_trace():
    """Left open, it would swallow the next request, whose 200 would then be untrue."""
    store = Store(":memory:")
    request = RequestRow(received_ms=1, method="POST", path="/")
    (row,) = checked(RECORDS.events_of(body([event("a")]))).rows
    other = msgspec.structs.replace(row, event_id="b", event_timestamp=2**70)
    with pytest.raises(OverflowError):
        store.record(request, (row, other))
    assert store.record(request, (row,)).accepted == 1
    assert (store.copies(), len(store.requests())) == ({"a": 1}, 1)
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "text", "directory"])
def test_a_file_of_somebody_else_is_not_touched(tmp_path, kind):
    """A wrong `--database` must not cost anybody a file."""
    path = tmp_path / "other"
    if kind == "sqlite":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE events(id)")
        other.close()
    elif kind == "text":
        path.write_text("something else entirely\n" * 100)
    else:
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        Collector(str(path))
    assert caught.value.path == str(path)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [found.name for found in tmp_path.iterdir()] == ["other"]


def test_closing_lets_the_answer_leave():
    """Whoever ends the collector at the last event must not make a duplicate of it."""
    told: list[Collector] = []
    with (
        concurrent.futures.ThreadPoolExecutor(max_workers=1) as threads,
        urllib3.PoolManager(retries=False) as manager,
    ):
        closed = []

        def close(_row: object) -> None:
            closed.append(threads.submit(told[0].close))

        with Collector(on_request=close) as collector:
            told.append(collector)
            assert post(manager, collector.url, body(events("a", 1))).status == 200
        closed[0].result()
    with pytest.raises(StoreError):
        collector.count()


def test_a_second_address_can_be_named(pool):
    """The endpoint that is printed must be one that a client can use."""
    with Collector(host="localhost", path="/x") as collector:
        parts = urllib.parse.urlsplit(collector.url)
        assert parts.hostname in ("127.0.0.1", "::1")
        assert post(pool, collector.url, body(events("a", 1))).status == 200
    with Collector(host="0.0.0.0") as collector:
        assert collector.url.startswith("http://127.0.0.1:")
        with pytest.raises(OSError, match="in use"):
            Collector(host="0.0.0.0", port=collector.address[1])


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200) | st.sampled_from(NO_BATCH[:-1]), st.integers(0, 300))
def test_no_body_raises_anything_but_a_refusal(content, cut):
    """What a stranger sends ends in an answer, never in a traceback."""
    whole = body(events("a", 2))
    statuses = set()
    for sent in (content, whole[:cut] + content, whole[:cut] + content + whole[cut:]):
        try:
            batch = checked(RECORDS.events_of(sent))
        except Refusal as refusal:
            statuses.add(refusal.status)
        else:
            assert all(json.loads(row.json) is not None for row in batch.rows)
        try:
            inflate(sent, "gzip", bytes_max=1000)
        except Refusal as refusal:
            statuses.add(refusal.status)
    assert statuses <= {400, 413}
