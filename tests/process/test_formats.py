"""Where events go: a format from the program's config to the server's door."""

from __future__ import annotations

import json
import time
from pathlib import Path

from telemetry.delivery import schedule
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of, letters_of, record
from tests.support.loopback import Received, Server
from tests.support.tooling import tool


def test_a_change_of_format_voids_the_batch_in_flight(tmp_path: Path) -> None:
    """A retry is byte-identical under its key; other bytes are another batch.

    Each request says which records of which segment it holds.
    """
    busy = bad.retry_after("3600")
    with Server(busy, busy, bad.reply(200)) as server:
        for format_name, events in (("records", 3), ("records", 0), ("ndjson", 1)):
            with client_of(tmp_path, server.url, format=format_name, events=events):
                pass
            with client_of(tmp_path, server.url, format=format_name) as client:
                client.flush(timeout_s=60)
        first, again, *others = server.requests
    # Which of them goes first is for the flusher to choose.
    others.sort(key=lambda request: request.headers["x-spool-range"])
    assert (first.body, first.headers) == (again.body, again.headers)
    assert first.headers["content-type"] == "application/json"
    segment = next(iter(first.headers["x-spool-range"].split("; ")))
    assert first.headers["x-spool-range"] == f"{segment}; first=0; last=2"
    lines = [line for each in others for line in each.body.splitlines()]
    assert b'{"records":[%b]}' % b",".join(lines[:3]) == first.body
    assert len(lines) == 4
    assert {each.headers["content-type"] for each in others} == {"application/x-ndjson"}
    assert others[0].headers["idempotency-key"] != first.headers["idempotency-key"]
    ranges = [each.headers["x-spool-range"] for each in others]
    assert ranges == [f"{segment}; first=0; last=2", f"{segment}; first=3; last=3"]
    census = census_of(tmp_path)
    assert (census.recorded, census.delivered, census.pending) == (4, 4, 0)


def test_events_refused_without_a_name_are_dead_not_delivered(tmp_path: Path) -> None:
    """OTLP tells a number. Which they are is known if they are all, and not else."""
    for name, refused, kept in (
        ("some", 2, []),
        ("all", 9, ["tool-0", "tool-1", "tool-2"]),
    ):
        home = tmp_path / name
        partial = {"rejectedLogRecords": str(refused), "errorMessage": "too old"}
        answer = json.dumps({"partialSuccess": partial}).encode()
        with Server(bad.reply(200, answer)) as server:
            with client_of(home, server.url, format="otlp-json", events=3) as client:
                report = client.flush(timeout_s=60)
        assert (report.delivered, report.dead) == (3 - min(refused, 3), min(refused, 3))
        census = census_of(home)
        assert (census.recorded, census.dead) == (3, min(refused, 3)), name
        letters = letters_of(home)
        assert {each.reply for each in letters} == {
            f"{min(refused, 3)} of 3 without a name: too old"
        }
        tools = [
            json.loads(bytes(each.event))["properties"]["tool_name"]
            for each in letters
            if each.has_event
        ]
        assert tools == kept, name
        assert len({each.name for each in letters}) == len(letters)


def test_an_exception_behind_the_status_line_is_no_acceptance(tmp_path: Path) -> None:
    """ClickHouse has said 200 by then, and names the error in a header of its own."""
    late = bad.reply(200, headers={"X-ClickHouse-Exception-Code": "241"})
    with Server(late, bad.reply(200)) as server:
        endpoint = f"http://writer@127.0.0.1:{server.port}/"
        with client_of(tmp_path, endpoint, format="clickhouse", events=3) as client:
            report = client.flush(timeout_s=60)
    assert (report.stopped, report.delivered) == ("drained", 3)
    first, *others = server.requests
    again = [line for each in others for line in each.plain_body.splitlines()]
    assert set(first.plain_body.splitlines()) == set(again)
    for request in server.requests:
        assert request.headers["x-clickhouse-user"] == "writer"
        assert request.headers["x-clickhouse-key"] == KEY
        token = f"insert_deduplication_token={request.headers['idempotency-key']}"
        assert token in request.target


def test_a_server_that_takes_no_compression_is_named_and_gzip_lifts_the_pause(
    tmp_path: Path,
) -> None:
    """The format's receivers take gzip; one behind a proxy may answer 400 to it."""

    def choose(request: Received) -> bad.Behaviour:
        return bad.reply(400 if "content-encoding" in request.headers else 200)

    next_flush = str(tmp_path / "next-flush")
    with Server(choose=choose) as server:
        with client_of(tmp_path, server.url, format="otlp-json", events=2) as client:
            assert client.flush(timeout_s=60).stopped == "paused"
            with_gzip = schedule.destination_of(client.config)
        where = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        assert "(`gzip=False`)" in tool("status", home=tmp_path, **where).line["why"]
        settings = {"format": "otlp-json", "gzip": False}
        with client_of(tmp_path, server.url, **settings) as client:
            now = time.time()
            plan, without = schedule.load(next_flush), client.config
            assert plan.not_before(with_gzip, now) > now
            assert not plan.wait_ends(schedule.destination_of(without), now)
            assert client.flush(timeout_s=60).delivered == 2
            record(client, 1)
        # By hand it is sent as the program sends it.
        assert tool("flush", home=tmp_path, **where).line["delivered"] == 1
