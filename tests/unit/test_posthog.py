"""What PostHog's capture API is sent, and what its answer means."""

from __future__ import annotations

import json

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import format_of


POSTHOG = format_of("posthog")
ID = "01900000-0000-7000-8000-00000000000a"
USER = "559144a8-29ee-4d7a-a0b1-b9b4a3035a9f"


def test_an_event_is_captured_without_a_person() -> None:
    """`uuid` is what PostHog deduplicates by; the body says nothing of when it is sent."""
    event = {
        "event": "tool",
        "event_timestamp": 1795827625007,
        "source": "app",
        "properties": {"$lib": "theirs", "event_id": ID, "n": 1, "user_uuid": USER},
    }
    body = POSTHOG.body_of([json.dumps(event).encode()])
    assert json.loads(body) == {
        "batch": [
            {
                "event": "tool",
                "distinct_id": USER,
                "uuid": ID,
                "timestamp": "2026-11-28T01:00:25.007Z",
                "properties": {
                    "event_id": ID,
                    "n": 1,
                    "user_uuid": USER,
                    "$app_name": "app",
                    "$geoip_disable": True,
                    "$lib": "spooled-telemetry",
                    "$process_person_profile": False,
                },
            }
        ],
        "historical_migration": False,
    }


def test_an_event_without_ids_is_sent_for_the_server_to_judge() -> None:
    """PostHog demands a distinct id; a `uuid` it makes itself."""
    (event,) = json.loads(POSTHOG.body_of([b"{}"]))["batch"]
    assert event["distinct_id"] == "anonymous"
    assert "uuid" not in event


def test_a_used_quota_or_an_error_with_200_acknowledges_nothing() -> None:
    """Over its quota PostHog says 200 and drops the events; so may what is before it."""
    for body, expected in (
        (b'{"status":1}', ()),
        (b'{"status":"Ok","quota_limited":[]}', ()),
        (b'{"status":"Ok","quota_limited":["events"]}', None),
        (b'{"status":1,"rejected":[{"event_id":"a"}]}', (Rejection("a", ""),)),
        (b'{"status":"ok"}', ()),
        (b'{"status":0}', None),
        (b'{"status":"error"}', None),
        (b'{"type":"validation_error","detail":"no distinct_id","attr":null}', None),
        (b"<html>", None),
        (b"", ()),
    ):
        assert POSTHOG.refusals(body, {}) == expected, body
