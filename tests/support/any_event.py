"""Events with whatever JSON can hold, and some that nobody can read."""

from __future__ import annotations

import json
import random
from typing import Any


NUMBERS = (0, 1, -1, 127, 128, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 10**40)
FLOATS = (0.0, -0.0, 1.5, 3.0, 1e308, 5e-324, -1e-7, 1e22)
NAMES = ("", "a", 'b"c', "é", "$lib", "x y", "rejected", "event", "a\\", "\x00")


def events_at_random(chance: random.Random, count: int) -> list[bytes]:
    """Events in the form that is recorded, escaped in one way or the other."""
    return [_event(chance, number) for number in range(count)]


def _event(chance: random.Random, number: int) -> bytes:
    properties: dict[str, Any] = {
        f"{chance.choice(NAMES)}{n}": _value(chance, 0) for n in range(number % 12)
    }
    properties["event_id"] = f"01900000-0000-7000-8000-{number:012x}"
    properties["user_uuid"] = "559144a8-29ee-4d7a-a0b1-b9b4a3035a9f"
    properties["version"] = chance.choice(["1", "2"])
    if number % 17 == 0:
        deep: Any = 1
        for _ in range(60):
            deep = [deep] if chance.random() < 0.5 else {"k": deep}
        properties["deep"] = deep
    event = {
        "event": chance.choice(["tool", "", 'a "name"']),
        "event_timestamp": chance.choice([0, -5, 1795827625731, 10**17]),
        "source": chance.choice(["app", "ä"]),
        "properties": properties,
    }
    content = json.dumps(event, ensure_ascii=number % 2 == 0, separators=(",", ":"))
    return content.encode()


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8)
    if kind < 2:
        letters = (chance.choice((0x7F, 0xD7FF, 0xFFFF, 0x10FFFF)) for _ in range(9))
        text = "".join(chr(chance.randint(0, top)) for top in letters)
        return text.encode("utf-8", "replace").decode()
    if kind < 6:
        return (
            chance.choice((NUMBERS, FLOATS, (True, False), (None, "")))[
                chance.randrange(2)
            ]
            if kind < 4
            else chance.choice(NUMBERS + FLOATS)
        )
    if depth > chance.randrange(20):
        return "deep"
    if kind == 6:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {
        name: _value(chance, depth + 1)
        for name in chance.sample(NAMES, chance.randrange(4))
    }


ID = b"01900000-0000-7000-8000-00000000000a"
# What the library does not write, and a spool may hold all the same.
UNREADABLE = (
    b"{}",
    b"[1]",
    b"not JSON",
    b'{"event":7,"event_timestamp":"now","source":null,"properties":[]}',
    b'{"event":"tool","event_timestamp":1,"properties":{"n":1e400,"event_id":"%b"}}'
    % ID,
    b'{"event":"half \\ud83d","event_timestamp":1,"source":"app","properties":{}}',
    b'{"event":"\xff","event_timestamp":1,"source":"app","properties":{}}',
    b'{"event":"tool","event_timestamp":1,"source":"app","properties":{"a":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}}",
)
