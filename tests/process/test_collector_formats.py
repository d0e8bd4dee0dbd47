"""The collector reads every format into one table, and answers as its receiver would."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import urllib3

from spool_tools.collector import Collector, Faults
from spool_tools.collector.formats import OTLP_PROTOBUF
from spool_tools.server import Answer, Refusal, Request, Server
from telemetry.wire.formats import FORMATS
from tests.support.delivering import client_of


PROPERTIES = {
    "event_id": "01a21faa-ef0f-72f6-bb1f-2f460a443d95",
    "user_uuid": "559144a8-29ee-4d7a-a0b1-b9b4a3035a9f",
    "duration_ms": -12,
    "cost": 0.5,
    "is_success": False,
    "note": "é 日",
    "list": [1, "two", [True]],
    "tree": {"a": {"b": 1.5}},
}
EVENT = {
    "event": "tool",
    "event_timestamp": 1_795_827_625_743,
    "source": "frobnicate",
    "properties": PROPERTIES,
}


def any_value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": key_values(value)}}
    return {"stringValue": str(value)}


def key_values(values: dict[str, object]) -> list[dict[str, object]]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def logs(*events: dict[str, object]) -> dict[str, object]:
    records = [
        {
            "timeUnixNano": str(int(event["event_timestamp"]) * 1_000_000),
            "severityNumber": 9,
            "eventName": f"frobnicate.{event['event']}",
            "attributes": key_values(event["properties"]),
        }
        for event in events
    ]
    resource = {"attributes": key_values({"service.name": "frobnicate"})}
    scope = {"scope": {"name": "test"}, "logRecords": records}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}


def capture(*events: dict[str, object], key: str = "") -> dict[str, object]:
    batch = [
        {
            "event": event["event"],
            "uuid": event["properties"]["event_id"],
            "distinct_id": PROPERTIES["user_uuid"],
            "timestamp": "2026-11-28T01:00:25.743Z",
            "properties": {
                **event["properties"],
                "$app_name": "frobnicate",
                "$lib": "l",
            },
        }
        for event in events
    ]
    return {"api_key": key, "batch": batch}


def in_protobuf(tree: dict[str, object]) -> bytes:
    """The same logs, as the maker of the format encodes them."""
    module = "opentelemetry.proto.collector.logs.v1.logs_service_pb2"
    service = pytest.importorskip(module)
    json_format = pytest.importorskip("google.protobuf.json_format")
    request = service.ExportLogsServiceRequest()
    return bytes(json_format.ParseDict(tree, request).SerializeToString())


def request(name: str, *events: dict[str, object]) -> tuple[str, str, bytes]:
    """Path, content type and body that post these events in a format."""
    insert = (
        "/?query=INSERT+INTO+telemetry.events+FORMAT+JSONEachRow&wait_end_of_query=1"
    )
    lines = "".join(f"{json.dumps(each)}\n" for each in events).encode()
    kind = "application/json"
    if name == "records":
        return "/in", kind, json.dumps({"records": events}).encode()
    if name == "ndjson":
        return "/in", "application/x-ndjson", lines
    if name == "otlp-json":
        return "/v1/logs", kind, json.dumps(logs(*events)).encode()
    if name == "otlp-protobuf":
        return "/v1/logs", "application/x-protobuf", in_protobuf(logs(*events))
    if name == "posthog":
        return "/batch/", kind, json.dumps(capture(*events)).encode()
    return insert, "application/x-ndjson", lines


NAMES = ("records", "ndjson", "otlp-json", "otlp-protobuf", "posthog", "clickhouse")


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as manager:
        yield manager


def post(
    pool: urllib3.PoolManager,
    collector: Collector,
    sent: tuple[str, str, bytes],
    **more: str,
) -> urllib3.BaseHTTPResponse:
    path, kind, body = sent
    host, port = collector.address
    headers = {"content-type": kind, **more}
    return pool.request(
        "POST", f"http://{host}:{port}{path}", body=body, headers=headers, timeout=60.0
    )


def other(event_id: str, name: str = "tool") -> dict[str, object]:
    return EVENT | {"event": name, "properties": PROPERTIES | {"event_id": event_id}}


@pytest.mark.parametrize("name", NAMES)
def test_each_format_arrives_as_the_same_events(
    pool: urllib3.PoolManager, name: str
) -> None:
    """One table serves them all: what was recorded is there, whatever way it took."""
    with Collector() as collector:
        first = request(name, EVENT, other("b"))
        for _ in range(2):
            assert post(pool, collector, first).status == 200
        stored = collector.events()
        assert stored == [EVENT, other("b")]
        assert set(collector.copies().values()) == {2}, (
            "stored once, however often it came"
        )
        assert {row.format for row in collector.requests()} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_client_writes_is_read_back_whole(
    pool: urllib3.PoolManager, name: str
) -> None:
    """Both sides are ours, so a misunderstanding between them would be nobody's."""
    form = FORMATS[name]
    recorded = [EVENT, other("b"), other("c", "another")]
    body = form.body_of([json.dumps(each).encode() for each in recorded])
    with Collector() as collector:
        sent = (request(name)[0], form.content_type, body)
        assert post(pool, collector, sent).status == 200
        assert collector.events() == recorded


ACCEPTED = {
    "records": b'{"accepted":1,"duplicates":0,"rejected":[]}',
    "ndjson": b'{"accepted":1,"duplicates":0,"rejected":[]}',
    "otlp-json": b'{"partialSuccess":{}}',
    "otlp-protobuf": b"\n\x00",
    "posthog": b'{"status":"Ok"}',
    "clickhouse": b"",
}


@pytest.mark.parametrize("name", NAMES)
def test_each_format_is_answered_as_its_receiver_does(
    pool: urllib3.PoolManager, name: str
) -> None:
    """A client that works with this collector has to work with the real one."""
    sent = request(name, EVENT)
    with Collector(key="right") as collector:
        denied = post(pool, collector, sent)
        header = {"x-clickhouse-key" if name == "clickhouse" else "x-api-key": "right"}
        if name == "posthog":
            sent = (*sent[:2], json.dumps(capture(EVENT, key="right")).encode())
        assert (denied.status, collector.count()) == (401, 0)
        taken = post(pool, collector, sent, **header)
        assert (taken.status, taken.data) == (200, ACCEPTED[name])
        collector.faults = Faults(retry_after="7")
        later = post(pool, collector, sent, **header)
        assert (later.status, later.headers["retry-after"]) == (503, "7")
        collector.faults = Faults()
        wrong = post(pool, collector, (*sent[:2], b'"\xff'), **header)
        assert (wrong.status, collector.count()) == (400, 1)
    if name == "clickhouse":
        with Collector(key="right", header="x-mine") as collector:
            mine = post(pool, collector, sent, **{"x-mine": "right"})
            assert mine.status == 200, "a program may name a header of its own"
        assert wrong.headers["x-clickhouse-exception-code"] == "27"
        assert wrong.data.startswith(b"Code: 27. DB::Exception: ")
    elif name == "otlp-json":
        assert (wrong.json()["code"], denied.json()["code"]) == (3, 16)
    elif name == "otlp-protobuf":
        assert wrong.data.startswith(b"\x08\x03\x12")
    elif name == "posthog":
        assert wrong.json()["type"] == "validation_error"
        assert denied.json()["type"] == "authentication_error"


@pytest.mark.parametrize("name", NAMES)
def test_one_event_that_is_refused_costs_what_it_costs_there(
    pool: urllib3.PoolManager, name: str
) -> None:
    """OTLP counts it, PostHog and ClickHouse refuse the batch, our own names it."""
    with Collector(faults=Faults(reject=("bad",))) as collector:
        reply = post(pool, collector, request(name, EVENT, other("b", "bad")))
        kept = collector.count()
    if name in {"posthog", "clickhouse"}:
        assert (reply.status, kept) == (400, 0)
        return
    assert (reply.status, kept) == (200, 1)
    if name == "otlp-protobuf":
        service = pytest.importorskip(
            "opentelemetry.proto.collector.logs.v1.logs_service_pb2"
        )
        partial = service.ExportLogsServiceResponse.FromString(
            reply.data
        ).partial_success
        count, message = partial.rejected_log_records, partial.error_message
    elif name == "otlp-json":
        partial = reply.json()["partialSuccess"]
        count, message = int(partial["rejectedLogRecords"]), partial["errorMessage"]
    else:
        count, message = 1, reply.data
    assert count == 1
    (rejected,) = json.loads(message)["rejected"]
    assert rejected["event_id"] == "b"


def test_a_table_can_take_whole_bodies(pool: urllib3.PoolManager) -> None:
    """ClickHouse stores our own format as well, a body as one String."""
    whole = "/?query=INSERT+INTO+telemetry.inbox+FORMAT+JSONAsString"
    with Collector() as collector:
        sent = (whole, "application/json", request("records", EVENT)[2])
        assert post(pool, collector, sent).status == 200
        assert collector.events() == [EVENT]
        no_insert = ("/?query=SELECT+1", "application/json", sent[2])
        assert post(pool, collector, no_insert).status == 400


def test_protobuf_that_is_damaged_is_refused() -> None:
    """Any cut and any flipped byte ends in events or in a refusal, in nothing else."""
    whole = in_protobuf(logs(EVENT, other("b")))
    assert len(OTLP_PROTOBUF.events_of(whole)) == 2
    assert OTLP_PROTOBUF.events_of(b"") == []
    refused = 0
    for at, byte in enumerate(whole):
        flipped = (
            whole[:at] + bytes([byte ^ flip]) + whole[at + 1 :]
            for flip in (1, 0x80, 0xFF)
        )
        for sent in (whole[:at], *flipped):
            with contextlib.suppress(Refusal):
                OTLP_PROTOBUF.events_of(sent)
                continue
            refused += 1
    assert refused > len(whole)
    for sent in (b"\x0b", b"\x0a" * 50_000, b"\xff" * 100, b"\x0a\x80"):
        with pytest.raises(Refusal):
            OTLP_PROTOBUF.events_of(sent)


def test_what_was_never_seen_is_told_until_it_arrives(
    pool: urllib3.PoolManager,
) -> None:
    """A server can tell from the numbers which events of a machine never came."""
    with Collector() as collector:

        def sent(first: int, last: int, *, held: int | None = None) -> int:
            numbers = range(first, last + 1)[:held]
            body = request("records", *(other(f"e{n}") for n in numbers))
            told = f"1-a.v1.jseq; first={first}; last={last}"
            return post(pool, collector, body, **{"x-spool-range": told}).status

        def gaps() -> object:
            url = collector.url.replace("/events/v1/track", "/gaps")
            return pool.request("GET", url, timeout=60.0).json()["segments"]

        assert gaps() == []
        assert sent(0, 9) == 200
        collector.faults = Faults(status=503, times=1)
        assert sent(10, 19) == 503
        assert sent(20, 29) == 200
        missing = {"segment": "1-a.v1.jseq", "last": 29, "gaps": [[10, 19]], "short": 0}
        assert gaps() == [missing], "a request that was refused was not seen"
        collector.faults = Faults(reset=True, times=1)
        with pytest.raises(urllib3.exceptions.ProtocolError):
            sent(10, 14)
        assert gaps()[0]["gaps"] == [[15, 19]], "stored, though the answer was lost"
        assert sent(10, 19) == 200
        assert gaps() == [missing | {"gaps": []}]
        assert sent(30, 39, held=8) == 200
        assert gaps() == [missing | {"last": 39, "gaps": [], "short": 2}]


def test_a_batch_of_several_segments_says_so_of_each(pool: urllib3.PoolManager) -> None:
    """What is malformed says nothing; what is short is short at the end."""
    with Collector() as collector:
        body = request("records", *(other(f"e{n}") for n in range(4)))
        told = (
            "2-b; first=3; last=4, nothing,, 3-c; first=9; last=1, 1-a; first=0; last=2"
        )
        assert post(pool, collector, body, **{"x-spool-range": told}).status == 200
        gaps = [
            (each.segment, each.gaps, each.last, each.short)
            for each in collector.gaps()
        ]
    assert gaps == [("1-a", [], 2, 1), ("2-b", [(0, 2)], 4, 0)]


def test_small_segments_leave_no_gaps(tmp_path: Path) -> None:
    """End to end: each process has a segment of its own, and all go in one request."""
    with Collector() as collector:
        clients = [client_of(tmp_path, collector.url, events=2) for _ in range(3)]
        with clients[0] as first, clients[1], clients[2]:
            assert first.flush(timeout_s=60).requests == 1
        known = collector.gaps()
        assert [(each.gaps, each.last, each.short) for each in known] == [
            ([], 1, 0)
        ] * 3
        assert collector.count() == 6


def test_who_may_not_send_may_not_ask_for_gaps(pool: urllib3.PoolManager) -> None:
    """What is missing tells how much a machine records."""
    with Collector(key="k", path="/in") as collector:
        url = collector.url.replace("/in", "/gaps")
        for headers, status in (
            ({}, 401),
            ({"x-api-key": "k"}, 200),
            ({"x-api-key": "k", "origin": "http://x.example"}, 403),
        ):
            reply = pool.request("GET", url, headers=headers, timeout=60.0)
            assert reply.status == status
        assert pool.request("POST", url, timeout=60.0).status == 404


def test_a_request_that_is_lost_is_a_gap_until_its_retry(tmp_path: Path) -> None:
    """End to end: the client says which records it sends, the server which it never saw."""
    lost = [b'"tool-14"']

    def take(request: Request) -> Answer:
        if any(mark in request.body for mark in lost):
            return Answer(delivery="reset")
        return collector._take(request)

    with (
        Collector() as collector,
        closing(Server("127.0.0.1", 0, take=take)) as server,
    ):
        url = f"http://127.0.0.1:{server.address[1]}/in"
        with client_of(tmp_path, url, events=40, batch_events_max=10) as client:
            assert any(
                client.flush(timeout_s=1.0) and collector.count() >= 30
                for _ in range(60)
            )
            (known,) = collector.gaps()
            assert known.last == 39
            assert [low <= 14 <= high for low, high in known.gaps] == [True]
            lost.clear()
            assert any(client.flush().pending == 0 for _ in range(60))
        (known,) = collector.gaps()
        assert (known.gaps, known.last, known.short) == ([], 39, 0)
        assert collector.count() == 40
