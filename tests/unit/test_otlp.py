"""What the two OTLP formats make of events, held against protobuf's own library."""

from __future__ import annotations

import importlib
import json
import random
from typing import Any

import pytest

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import format_of, otlp, otlp_protobuf
from telemetry.wire.verdict import Reply, judge
from tests.support.any_event import events_at_random


EVENT = (
    b'{"event":"tool","event_timestamp":1795827625731,"source":"app","properties":'
    b'{"cost":0.5,"count":3,"error":null,"event_id":"x","is_success":false,'
    b'"list":[1,null,{"a":"b"}],"version":"1.2"}}'
)


def logs_of(events: list[bytes]) -> list[dict[str, Any]]:
    """The log records of a body, whatever resource they stand under."""
    return [
        log
        for resource in json.loads(otlp.body_of(events))["resourceLogs"]
        for scope in resource["scopeLogs"]
        for log in scope["logRecords"]
    ]


def test_an_event_is_a_log_record_in_the_strict_form() -> None:
    """64-bit numbers are text; what has no value is no attribute."""
    body = json.loads(otlp.body_of([EVENT]))
    (resource,) = body["resourceLogs"]
    assert resource["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "app"}},
        {"key": "service.version", "value": {"stringValue": "1.2"}},
    ]
    (log,) = logs_of([EVENT])
    pairs = [{"key": "a", "value": {"stringValue": "b"}}]
    assert log == {
        "timeUnixNano": "1795827625731000000",
        "observedTimeUnixNano": "1795827625731000000",
        "severityNumber": 9,
        "eventName": "app.tool",
        "attributes": [
            {"key": "cost", "value": {"doubleValue": 0.5}},
            {"key": "count", "value": {"intValue": "3"}},
            {"key": "event_id", "value": {"stringValue": "x"}},
            {"key": "is_success", "value": {"boolValue": False}},
            {
                "key": "list",
                "value": {
                    "arrayValue": {
                        "values": [
                            {"intValue": "1"},
                            {"stringValue": "null"},
                            {"kvlistValue": {"values": pairs}},
                        ]
                    }
                },
            },
            {"key": "version", "value": {"stringValue": "1.2"}},
        ],
    }


def test_the_order_of_events_stays_and_runs_share_a_resource() -> None:
    """The body's order is that of the spool, so a retry is the same bytes."""
    other = EVENT.replace(b'"1.2"', b'"1.3"')
    body = json.loads(otlp.body_of([EVENT, EVENT, other, EVENT]))
    counts = [len(each["scopeLogs"][0]["logRecords"]) for each in body["resourceLogs"]]
    assert counts == [2, 1, 1]


def test_bounds_of_receivers_are_kept() -> None:
    """Beyond int64, or nested deeper than parsers read, a value is its text."""
    deep = b"[" * 60 + b"]" * 60
    event = EVENT.replace(
        b'"count":3',
        b'"":9223372036854775808,"deep":%b,"low":-9223372036854775809' % deep,
    )
    values = {each["key"]: each["value"] for each in logs_of([event])[0]["attributes"]}
    assert values["_"] == {"stringValue": "9223372036854775808"}
    assert values["low"] == {"stringValue": "-9223372036854775809"}
    level = values["deep"]
    for _ in range(16):
        (level,) = level["arrayValue"]["values"]
    assert level == {"stringValue": "[" * 44 + "]" * 44}
    # No bound of ours on texts: the scrubber has cut them.
    long = EVENT.replace(b'"count":3', b'"long":"%b","texts":["a"]' % (b"x" * 300))
    values = {each["key"]: each["value"] for each in logs_of([long])[0]["attributes"]}
    assert values["long"] == {"stringValue": "x" * 300}
    assert values["texts"] == {"arrayValue": {"values": [{"stringValue": "a"}]}}
    late = EVENT.replace(b"1795827625731", b"9" * 18)
    assert 0 < int(logs_of([late])[0]["timeUnixNano"]) < 2**63


def test_a_key_that_is_empty_takes_the_place_of_no_other() -> None:
    """Two attributes of one key are one at a receiver, and what the other held is gone."""
    event = EVENT.replace(b'"count":3', b'"":1,"_":{"":2,"__":3,"_":4}')
    values = {each["key"]: each["value"] for each in logs_of([event])[0]["attributes"]}
    assert values["__"] == {"intValue": "1"}
    inner = values["_"]["kvlistValue"]["values"]
    assert [each["key"] for each in inner] == ["___", "__", "_"]


def test_bytes_written_by_hand_equal_those_of_the_library() -> None:
    """Two ways to the same message; the judge is the one that receivers use."""
    pytest.importorskip("google.protobuf")
    name = "opentelemetry.proto.collector.logs.v1.logs_service_pb2"
    module = pytest.importorskip(name)
    json_format = importlib.import_module("google.protobuf.json_format")
    events = events_at_random(random.Random(5), 500)
    for batch in (events, *([each] for each in events), []):
        message = json_format.Parse(
            otlp.body_of(batch), module.ExportLogsServiceRequest()
        )
        assert otlp_protobuf.body_of(batch) == message.SerializeToString(), batch
        assert otlp_protobuf.body_of(batch) == otlp_protobuf.body_of(batch)


ID = "01900000-0000-7000-8000-00000000000a"
NAMED = json.dumps({"rejected": [{"event_id": ID, "reason": "no"}]})
# What stands in an answer, and which events it refuses.
PARTIAL: list[tuple[object, object]] = [
    ({}, ()),
    ({"partialSuccess": None}, ()),
    ({"partialSuccess": {}}, ()),
    ({"partialSuccess": {"rejectedLogRecords": 0, "errorMessage": "slow"}}, ()),
    ({"partialSuccess": {"rejectedLogRecords": "0"}}, ()),
    ({"partialSuccess": {"rejectedLogRecords": None}}, ()),
    ({"partialSuccess": {"rejectedLogRecords": "3", "errorMessage": "too\nold"}},
        (Rejection("", "too old", 3),)),
    ({"partial_success": {"rejected_log_records": 2, "error_message": "x"}},
        (Rejection("", "x", 2),)),
    ({"partialSuccess": {"rejectedLogRecords": 2}, "rejected": [{"event_id": ID}]},
        (Rejection(ID, ""), Rejection("", "", 1))),
    ({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": NAMED}},
        (Rejection(ID, "no"),)),
    ({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": NAMED},
        "rejected": [{"event_id": "other"}]}, (Rejection("other", ""),)),
    ({"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "{oops"}},
        (Rejection("", "{oops", 2),)),
    ({"partialSuccess": {"rejectedLogRecords": 3.0}}, (Rejection("", "", 3),)),
    ({"partialSuccess": {"rejectedLogRecords": "2e1"}}, (Rejection("", "", 20),)),
    ({"partialSuccess": {"rejectedLogRecords": "-0"}}, ()),
    ({"code": 0, "message": "fine"}, ()),
    ({"code": 200, "message": "fine"}, ()),
    ({"rejected": [{"event_id": ID, "code": 3}]}, (Rejection(ID, ""),)),
    # An error that calls itself a success.
    ({"code": 13, "message": "no space left"}, None),
    ({"partialSuccess": {"rejectedLogRecords": -1}}, None),
    ({"partialSuccess": {"rejectedLogRecords": "-1"}}, None),
    ({"partialSuccess": {"rejectedLogRecords": 2**63}}, None),
    ({"partialSuccess": {"rejectedLogRecords": "inf"}}, None),
    ({"partialSuccess": {"rejectedLogRecords": [2]}}, None),
    ({"partialSuccess": {"rejectedLogRecords": 1.5}}, None),
    ({"partialSuccess": {"rejectedLogRecords": True}}, None),
    ({"partialSuccess": {"rejectedLogRecords": "all"}}, None),
    ({"partialSuccess": {"rejectedLogRecords": {"a": 1}}}, None),
    ({"partialSuccess": "none"}, None),
    ({"partialSuccess": {"rejectedLogRecords": 1}, "rejected": 1}, None),
]  # fmt: skip


def test_a_partial_success_counts_what_it_does_not_name() -> None:
    """Refused without a name is refused all the same, and never delivered."""
    for value, expected in PARTIAL:
        body = json.dumps(value).encode()
        assert otlp.refusals(body, {}) == expected, value
        # A receiver of protobuf may answer in JSON, and says so.
        kind = {"content-type": "application/json"}
        assert otlp_protobuf.refusals(body, kind) == expected, value
    assert otlp.refusals(b"", {}) == ()
    # Codes of google.rpc.Status are 1 to 16; any other number under that name is none.
    for code, expected in ((0, ()), (1, None), (16, None), (17, ())):
        assert otlp.refusals(b'{"code":%d}' % code, {}) == expected, code
    assert otlp.refusals(b"<html>", {}) is None


def test_an_answer_in_protobuf_is_read_whole_or_not_at_all() -> None:
    """A cut answer may have lost the number of refused events."""
    kind = {"content-type": "application/x-protobuf"}
    whole = b"\x0a\x09\x08\xac\x02\x12\x04" + b"oops"
    for body, expected in (
        (b"", ()),
        (b"\x0a\x00", ()),
        (b"\x0a\x02\x08\x00", ()),
        (whole, (Rejection("", "oops", 300),)),
        (whole.replace(b"oops", b"\xffops"), (Rejection("", "\ufffdops", 300),)),
        # A length of two bytes, the first of which says nothing but that.
        (
            b"\x0a\x80\x01\x08\x01\x12\x7c" + b"x" * 124,
            (Rejection("", "x" * 124, 1),),
        ),
        # Fields that a later version may have.
        (b"\x10\x05\x19" + b"8bytes!!" + b"\x25four" + b"\x0a\x00\x1a\x01x", ()),
        # Minus one, and the error of a google.rpc.Status.
        (b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x01", None),
        (b"\x08\x0d\x12\x04" + b"oops", None),
        (b"\x0a\x02\x0b\x00", None),
        (b"\x0a\x02\x0a\x00", None),
        (b"\x0a\x02\x10\x00", None),
        (b"<html>", None),
        (b"{}", None),
        (b"\xff" * 2_000_000, None),
    ):
        assert otlp_protobuf.refusals(body, kind) == expected, body
    for end in range(1, len(whole)):
        assert otlp_protobuf.refusals(whole[:end], kind) is None, whole[:end]


def test_an_error_in_protobuf_is_told_in_its_words() -> None:
    """It is the reason in a dead letter and in `status`, for a person."""
    status = b"\x08\x03\x12\x0dno such event"
    kind = {"content-type": "application/x-protobuf"}
    for body, headers, expected in (
        (status, kind, "HTTP 400: no such event"),
        (b"\x08\x03", kind, "HTTP 400"),
        (b"upstream is down", kind, "HTTP 400: upstream is down"),
        (b'{"code":3}', {}, 'HTTP 400: {"code":3}'),
        # A text that could be protobuf (field 7, 32 bytes), and does not say so.
        (b": " + b"x" * 32, {}, "HTTP 400: : " + "x" * 32),
    ):
        reply = Reply(400, headers, body, complete=True)
        verdict = judge(reply, now=0.0, form=format_of("otlp-protobuf"))
        assert verdict.detail == expected, body
