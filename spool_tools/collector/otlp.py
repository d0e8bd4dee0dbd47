"""OTLP's logs, as their JSON is: log records in, events in the form of `records` out. Pure.

The event name of a log record, less the `service.name` of its resource in front, is the
event; its attributes are the properties. Whatever else a log record holds is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


def events_of(tree: Mapping[str, Any]) -> list[bytes]:
    """The events of an ExportLogsServiceRequest.

    Raises ValueError, TypeError or AttributeError for a tree that is none.
    """
    return [
        msgspec.json.encode(_event(resource, record))
        for resource in tree.get("resourceLogs", ())
        for scope in resource.get("scopeLogs", ())
        for record in scope.get("logRecords", ())
    ]


def _event(resource: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    of_resource = _attributes(resource.get("resource", {}).get("attributes", ()))
    service = str(of_resource.get("service.name", ""))
    name = record.get("eventName", "").removeprefix(f"{service}.")
    return {
        "event": name,
        "event_timestamp": int(record.get("timeUnixNano", 0)) // 1_000_000,
        "source": service,
        "properties": _attributes(record.get("attributes", ())),
    }


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair.get("key", ""): _value(pair.get("value", {})) for pair in pairs}


def _value(value: Mapping[str, Any]) -> Any:
    """What an AnyValue holds; null where it is empty. int64 may come as text."""
    for kind, held in value.items():
        if kind == "intValue":
            return int(held)
        if kind == "arrayValue":
            return [_value(each) for each in held.get("values", ())]
        if kind == "kvlistValue":
            return _attributes(held.get("values", ()))
        return held
    return None
