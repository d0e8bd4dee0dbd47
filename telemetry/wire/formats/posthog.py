"""The format `posthog`: `/batch/` of PostHog's capture API. Pure.

    {"api_key":…,"batch":[{"event","distinct_id","uuid","timestamp","properties"}, …]}

`uuid` is the `event_id`, by which PostHog deduplicates, `distinct_id` the `user_uuid`. No
profile of a person is made, and no place is looked up from the address. The key is put in
as the body is sent. There is no `sent_at`: a retry is byte-identical, as long as the key is
the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import answer
from telemetry.wire.formats.event import read


VERSION = 1

# PostHog asks for one. Nothing is gathered under it.
_NOBODY = "anonymous"


def body_of(events: Sequence[bytes]) -> bytes:
    """The body that carries these events."""
    return b'{"batch":%b,"historical_migration":false}' % msgspec.json.encode(
        list(map(_captured, events))
    )


def _captured(content: bytes) -> dict[str, Any]:
    event = read(content)
    seconds, ms = divmod(event.event_timestamp, 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    captured = {
        "event": event.event,
        "distinct_id": event.text("user_uuid") or _NOBODY,
        "timestamp": f"{moment}.{ms:03}Z",
        "properties": event.properties
        | {
            "$app_name": event.source,
            "$geoip_disable": True,
            "$lib": "spooled-telemetry",
            "$process_person_profile": False,
        },
    }
    if event.text("event_id"):
        captured["uuid"] = event.text("event_id")
    return captured


def refusals(body: bytes, headers: Mapping[str, str]) -> tuple[Rejection, ...] | None:
    """The events that a complete 2xx refused; None if it acknowledges nothing.

    Over its quota PostHog says 200 and `"quota_limited":["events"]`, and drops them. It
    says `"status":"Ok"`, or 1, to what it took, and has a `detail` for what is wrong.
    """
    fields = answer.read(body)
    if fields is None:
        return None
    statuses = {str(each).lower() for each in fields.get("status", ())}
    problems = (*fields.get("quota_limited", ()), *fields.get("detail", ()))
    if statuses - {"ok", "1"} or any(problems):
        return None
    return answer.rejections(fields.get("rejected", ()))
