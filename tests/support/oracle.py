"""What must be true of events, in plain sets: the other opinion in `test_use.py`.

It reads segments and letters by itself, with `re`, `json` and `zlib`, and shares
no line with the library. An event is known by its `tool_name`, which is unique.

An event that was acknowledged is, at every moment, at least one of these:

    on disk     whole in a segment, or in a letter
    accepted    a server has taken it
    damaged     a byte of its record was changed, by the one who tests
    purged      it was removed on request
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter
from typing import NamedTuple


_RECORD = re.compile(
    rb'\x1e\{"crc":"([0-9a-f]{8})",("seq":"[0-9a-f]{8}","rec":([^\x1e\n]*)\})\n'
)


class Whole(NamedTuple):
    """One whole record: bytes `start` to `end` of its segment, and whose it is."""

    start: int
    end: int
    tool: str


class Request(NamedTuple):
    """One request as the server saw it, and what it made of each event.

    tools: the tool's name and event id of each event
    taken: tools that it keeps, whatever it answered
    blamed: tools that it refused alone, or named as rejected
    """

    key: str
    body: bytes
    tools: list[tuple[str, str]]
    taken: set[str]
    blamed: set[str]


def whole_records(path: str) -> list[Whole]:
    """The whole records of a segment, oldest first; none where there is no file."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return []
    return [
        Whole(found.start(), found.end(), tool_of(json.loads(found[3])))
        for found in _RECORD.finditer(content)
        if zlib.crc32(found[2]) == int(found[1], 16)
    ]


def tool_of(event: dict[str, dict[str, str]]) -> str:
    """Whose event it is."""
    return event["properties"]["tool_name"]


def segments(home: str) -> list[str]:
    """The paths of the segments, oldest first."""
    spool = f"{home}/spool"
    names = sorted(os.listdir(spool)) if os.path.isdir(spool) else []
    return [f"{spool}/{name}" for name in names]


def letters(home: str) -> dict[str, str]:
    """The tool of each dead letter, by the letter's name."""
    found = {}
    dead = f"{home}/dead"
    for name in os.listdir(dead) if os.path.isdir(dead) else ():
        with open(f"{dead}/{name}", "rb") as file:
            for record in _RECORD.finditer(file.read()):
                letter = json.loads(record[3])
                where = f"{letter['segment']}-{letter['offset']}"
                found[where] = tool_of(letter["event"])
    return found


class Oracle:
    """Everything that was done to one home, and what follows from it."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.tried: set[str] = set()
        self.recorded: set[str] = set()
        self.damaged: set[str] = set()
        self.purged: set[str] = set()
        self.blamed: set[str] = set()
        self.requests: list[Request] = []
        self.seen: Counter[str] = Counter()
        self._accepted: dict[str, Counter[str]] = {}
        self._bodies: dict[str, bytes] = {}
        self._refused: list[set[str]] = []
        self._digested = 0

    def on_disk(self) -> set[str]:
        """The tools of all events that stand in a segment or a letter."""
        found = set(letters(self.home).values())
        for path in segments(self.home):
            found.update(each.tool for each in whole_records(path))
        return found

    def purge(self) -> None:
        """All that is on disk now is about to be removed on request."""
        self.purged |= self.on_disk()

    def accepted(self) -> set[str]:
        """The tools of all events that a server has taken."""
        self._digest()
        return set(self._accepted)

    def check(self) -> None:
        """What is true at every moment, while nobody is at work."""
        accepted = self.accepted()
        assert accepted <= self.tried, "delivered, and never recorded"
        on_disk = self.on_disk()
        assert on_disk <= self.tried, "on disk, and never recorded"
        lost = self.recorded - on_disk - accepted - self.damaged - self.purged
        assert not lost, f"acknowledged, and gone: {sorted(lost)}"
        dead = set(letters(self.home).values())
        assert dead <= self.blamed, "dead, and no server refused it alone"
        for tool, ids in self._accepted.items():
            assert len(ids) == 1, f"{tool} has several ids: {sorted(ids)}"

    def check_drained(self) -> None:
        """What is true once nothing waits any more."""
        self.check()
        dead = set(letters(self.home).values())
        assert not [p for p in segments(self.home) if os.path.getsize(p)]
        left = self.recorded - self.accepted() - dead - self.damaged - self.purged
        assert not left, f"neither delivered nor accounted for: {sorted(left)}"

    def _digest(self) -> None:
        """Take in the requests that came since; a retry must be what it repeats."""
        new = self.requests[self._digested :]
        self._digested += len(new)
        for request in new:
            known = self._bodies.setdefault(request.key, request.body)
            if known is not request.body:
                self.seen["retry"] += 1
            assert known == request.body, "one key, two bodies"
            self.blamed |= request.blamed
            tools = {tool for tool, _ in request.tools}
            assert len(tools) == len(request.tools), "one event twice in a request"
            self.seen["split"] += any(tools < refused for refused in self._refused)
            if not request.taken:
                self._refused.append(tools)
            for tool, event_id in request.tools:
                if tool in request.taken:
                    ids = self._accepted.setdefault(tool, Counter())
                    self.seen["duplicate"] += bool(ids)
                    ids[event_id] += 1
