"""Print what can be collected, event by event, field by field. Nothing else leaves the
machine but what a program defines itself, and TELEMETRY_TAGS.

examples:
  spool-tools events
  spool-tools events --of frobnicate.events --markdown > TELEMETRY.md
exit codes: 0 fine; 2 wrong usage
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import msgspec

from spool_tools.screen import Screen
from telemetry import events, light_events
from telemetry.delivery.unfinished import SessionUnfinishedPayload
from telemetry.errors import TelemetryError


class Field(msgspec.Struct, kw_only=True):
    name: str
    type: str
    meaning: str


class Entry(msgspec.Struct, kw_only=True):
    """One event, or the part that all events share."""

    event: str
    action: str
    meaning: str
    fields: list[Field]

    def title(self) -> str:
        """Its name, with the action where that is always the same."""
        return f"{self.event} ({self.action})" if self.action else self.event


# The name of each event, the action that is always its own, and its payload.
PAYLOADS: list[tuple[str, str, type[msgspec.Struct]]] = [
    ("command", "", light_events.CommandPayload),
    ("session", "start", events.SessionStartPayload),
    ("session", "end", events.SessionEndPayload),
    ("session", "unfinished", SessionUnfinishedPayload),
    ("token", "", events.TokenPayload),
    ("tool", "", events.ToolPayload),
    ("every event", "", events.SystemProperties),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "add the events of a program's own that are defined there"
    add("--of", metavar="MODULE", action="append", default=[], help=text)
    text = "the page that a program publishes"
    add("--markdown", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    entries = [*catalogue(), *catalogue_of(args.of)]
    if args.markdown:
        print(markdown(entries))
        return 0
    screen = Screen()
    for number, entry in enumerate(entries):
        if not screen.is_terminal:
            screen.object(entry)
            continue
        if number:
            screen.say()
        screen.say((entry.title(), "bold cyan"))
        screen.say(entry.meaning)
        rows = [(f"  {each.name}", each.type, each.meaning) for each in entry.fields]
        headings = ("  field", "type", "meaning")
        screen.table(headings, rows, styles=["cyan", "dim", ""], folds=True)
    return 0


def catalogue() -> list[Entry]:
    """Every event with every field, from the payloads' classes and their docstrings.

    Raises TelemetryError for a field without a line.
    """
    entries = []
    for event, action, payload in PAYLOADS:
        if payload.__doc__ is None:
            raise TelemetryError(
                "Python was told to drop descriptions; run it without -OO"
            )
        text = inspect.cleandoc(payload.__doc__)
        types = {
            field.encode_name: field.type for field in msgspec.structs.fields(payload)
        }
        entry = _entry(event, action, text, types, text)
        for field in entry.fields:
            if not field.meaning:
                place = f"{payload.__name__}.{field.name}"
                raise TelemetryError(f"{place} has no description")
        entries.append(entry)
    return entries


def catalogue_of(modules: str | Iterable[str]) -> list[Entry]:
    """The events that a program defines in a module, or several: classes with the two
    methods of an event.

    Raises TelemetryError where a module cannot be imported.
    """
    entries = []
    for module in [modules] if isinstance(modules, str) else modules:
        # A console script does not look where it was started.
        sys.path.insert(0, os.getcwd())
        try:
            names = vars(importlib.import_module(module))
        except Exception as error:
            raise TelemetryError(f"{module} cannot be imported: {error!r}") from error
        finally:
            sys.path.pop(0)
        entries += [
            _own_entry(each)
            for each in names.values()
            if isinstance(each, type)
            and each.__module__ == module
            and hasattr(each, "get_event_type")
            and hasattr(each, "to_structured_properties")
        ]
    return entries


def _own_entry(kind: type[Any]) -> Entry:
    """An event of a program's own; its fields are those of its payload's class."""
    payload = get_type_hints(kind.to_structured_properties).get("return", kind)
    text, more = (inspect.cleandoc(each.__doc__ or "") for each in (kind, payload))
    try:
        name = kind.get_event_type(None)
    except Exception:  # noqa: BLE001 - it needs an instance
        name = kind.__name__
    event = str(getattr(name, "value", name))
    return _entry(event, "", text, get_type_hints(payload), f"{text}\n{more}")


def _entry(
    event: str, action: str, text: str, types: Mapping[str, Any], described: str
) -> Entry:
    """The entry of an event that a `text` is about.

    A field is `described` as `name: meaning`, in one line or more.
    """
    found = re.findall(r"^(\w+): ((?:.+)(?:\n    .+)*)", described, re.MULTILINE)
    meanings = {name: re.sub(r"\s+", " ", meaning) for name, meaning in found}
    return Entry(
        event=event,
        action=action,
        meaning=text.partition("\n")[0],
        fields=[
            Field(name=name, type=_type_name(of), meaning=meanings.get(name, ""))
            for name, of in types.items()
        ],
    )


def markdown(entries: list[Entry]) -> str:
    lines = ["# What is collected"]
    for entry in entries:
        lines += ["", f"## {entry.title()}", "", entry.meaning, ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        lines += [f"| `{f.name}` | {f.type} | {f.meaning} |" for f in entry.fields]
    return "\n".join(lines)


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = "list of str" if "list[str]" in text else text
    text = text.removesuffix(" | None").replace("typing.Optional[int]", "int")
    return text.replace(" | ", " or ")
