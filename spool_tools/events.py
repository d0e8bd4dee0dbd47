"""`events`: the catalogue of what can be collected, field by field.

Made from the payloads themselves: their fields, types and the line that each
has in its docstring. So it cannot tell of less than what is sent.
"""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any

import msgspec

from spool_tools.screen import Screen, print_table
from telemetry import events
from telemetry.errors import TelemetryError


class Field(msgspec.Struct, kw_only=True):
    """One field on the wire."""

    name: str
    type: str
    meaning: str
    optional: bool


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
    ("command", "", events.CommandPayload),
    ("session", "start", events.SessionStartPayload),
    ("session", "end", events.SessionEndPayload),
    ("token", "", events.TokenPayload),
    ("tool", "", events.ToolPayload),
    ("every event", "", events.SystemProperties),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `events`."""
    parser.description = (
        "Print what can be collected, event by event, field by field. Nothing else "
        "leaves the machine but what a program defines itself, and TELEMETRY_TAGS."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools events\n"
        "  spool-tools events --markdown > TELEMETRY.md\n"
        "exit codes: 0 fine; 2 wrong usage\n"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="the page that a program publishes"
    )


def run(args: argparse.Namespace) -> int:
    """Print; the exit code."""
    entries = catalogue()
    screen = Screen()
    if args.markdown:
        print(markdown(entries))
    elif screen.is_terminal:
        for number, entry in enumerate(entries):
            if number:
                screen.say()
            screen.say((entry.title(), "bold cyan"))
            screen.say(entry.meaning)
            rows = [(f.name, f.type, f.meaning) for f in entry.fields]
            headings = ("  field", "type", "meaning")
            rows = [(f"  {name}", kind, text) for name, kind, text in rows]
            print_table(screen, headings, rows, styles=["cyan", "dim", ""], folds=True)
    else:
        for entry in entries:
            screen.object(entry)
    return 0


def catalogue() -> list[Entry]:
    """Every event with every field. Raises TelemetryError for one without a line."""
    return [_entry(*each) for each in PAYLOADS]


def markdown(entries: list[Entry]) -> str:
    """The catalogue as a page."""
    lines = ["# What is collected", ""]
    for entry in entries:
        lines += [
            f"## {entry.title()}",
            "",
            entry.meaning,
            "",
            "| field | type | meaning |",
        ]
        lines.append("|---|---|---|")
        lines += [f"| `{f.name}` | {f.type} | {f.meaning} |" for f in entry.fields]
        lines.append("")
    return "\n".join(lines).rstrip()


def _entry(event: str, action: str, payload: type[msgspec.Struct]) -> Entry:
    if payload.__doc__ is None:
        raise TelemetryError("Python was told to drop descriptions; run it without -OO")
    text = inspect.cleandoc(payload.__doc__)
    meanings = dict(
        re.findall(r"^([a-z_]+): ((?:.+)(?:\n    .+)*)", text, re.MULTILINE)
    )
    fields = []
    for field in msgspec.structs.fields(payload):
        if field.name not in meanings:
            raise TelemetryError(f"{payload.__name__}.{field.name} has no description")
        meaning = re.sub(r"\s+", " ", meanings[field.name])
        fields.append(
            Field(
                name=field.encode_name,
                type=_type_name(field.type),
                meaning=meaning,
                optional=not field.required,
            )
        )
    return Entry(
        event=event, action=action, meaning=text.splitlines()[0], fields=fields
    )


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = "list of str" if "list[str]" in text else text
    return text.removesuffix(" | None").replace("typing.Optional[int]", "int")
