"""Canaries as they are planted into events and command lines, and the search for them.

Rules:
- Every string is planted in another disguise and in other surroundings than the
  next one; which, is fixed by its number.
- A find is a trace of a canary as it is, reversed, in hexadecimal or in base64, in
  the bytes as they are or with every disguise undone.
- Traces that would also be words of ours (`letter`) are other words here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from tests.support.canaries import (
    CANARIES,
    DISGUISES,
    SURROUNDINGS,
    Canary,
    undisguised,
    windows,
)


# Words of ours, or parts of words of anybody.
_OTHERS = {
    "letter": "jumbrelo",
    "client": "xliborto",
    "tax": "vexnaqui",
    "bob": "zemblyqo",
}
# Shorter than this, a trace stands in any megabyte by chance.
_TRACE_MIN = 5
_BASE64_MIN = 7

# Where one event ends and another begins, in each format that there is.
_EVENT = re.compile(rb'(?=\{"event":")|\n')

# What a finder is tried on: it stays, wherever events are, as the name of one.
KEPT = "wyvernlark"

# A prompt is no key and no path: nothing but a rule of what is told keeps it in.
PROMPTS = tuple(
    form.format(f"flim{number:02d}wocket")
    for number, form in enumerate(
        (
            "please explain my {} to the judge",
            "{}",
            "-{}",
            "--{}=yes",
            "why did {} fire me?",
            "first line\nsecond {} line",
            'say "{}" three times',
            "was ist {} f\u00fcr ein Wort",
            "{} --password hunter",
            "it's {}'s turn",
            "@{}",
            "a=1,{}=2",
        )
    )
)


# By its first characters: a trace, and who has it.
_Needles = dict[str, dict[str, set[str]]]


def _renamed(text: str) -> str:
    for word, other in _OTHERS.items():
        text = text.replace(word, other).replace(word.title(), other.title())
    return text.replace("xliborto_", "client_")  # client_secret


def _planted(canary: Canary) -> Canary:
    text = _renamed(canary.text)
    if canary.free and not canary.name[0].isdigit():
        traces = windows(text.removeprefix("http://").strip("[]"), 9)
    else:
        traces = tuple(map(_renamed, canary.traces))
    return canary._replace(
        text=text, traces=tuple(t for t in traces if len(t) >= _TRACE_MIN)
    )


PLANTED = tuple(canary for canary in map(_planted, CANARIES) if canary.traces)


class Dresser:
    """Gives a canary one disguise and one surrounding after another."""

    def __init__(self) -> None:
        self._turn = 0

    def dress(self, canary: Canary) -> str:
        disguises = [*DISGUISES.values()]
        self._turn += 1
        disguise = disguises[self._turn * 7 % len(disguises)]
        return SURROUNDINGS[self._turn % len(SURROUNDINGS)].format(
            disguise(canary.text)
        )


class Search:
    """Looks for traces in bytes: which of the canaries gave some of them away."""

    def __init__(self, named: Iterable[tuple[str, Iterable[str]]]) -> None:
        # By their first characters, so that one pass over a text finds them all.
        self._words: _Needles = {}
        self._coded: _Needles = {}
        self._seen: dict[bytes, frozenset[str]] = {}
        for name, traces in named:
            for trace in traces:
                low = trace.lower()
                for needle in (low, low[::-1], low.encode().hex()):
                    _add(self._words, needle, name)
                for needle in _base64(trace):
                    _add(self._coded, needle, name)

    def __call__(self, content: bytes) -> frozenset[str]:
        """The names of those that were found."""
        # An event is in many places, and looked at once.
        parts = {part.rstrip(b"}],") for part in _EVENT.split(content)}
        return frozenset(chain.from_iterable(map(self._names_in, parts)))

    def _names_in(self, part: bytes) -> frozenset[str]:
        if part not in self._seen:
            text = part.decode("utf-8", "replace")
            self._seen[part] = frozenset(
                chain(
                    _found(text, self._coded),
                    _found(text.lower(), self._words),
                    _found(undisguised(text), self._words),
                )
            )
        return self._seen[part]


def _add(needles: _Needles, needle: str, name: str) -> None:
    needles.setdefault(needle[:_TRACE_MIN], {}).setdefault(needle, set()).add(name)


def _found(text: str, needles: _Needles) -> Iterator[str]:
    for place in range(len(text) - _TRACE_MIN + 1):
        start = text[place : place + _TRACE_MIN]
        if start in needles:
            for needle, names in needles[start].items():
                if text.startswith(needle, place):
                    yield from names


def _base64(trace: str) -> Iterator[str]:
    """How it reads inside of base64, wherever it begins."""
    if len(trace) < _BASE64_MIN:
        return
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + trace.encode()).decode().rstrip("=")
        # Less the characters that it shares with its neighbours.
        yield coded[(0, 2, 3)[before] : -1]


CANARY_SEARCH = Search(
    chain(
        [(KEPT, (KEPT,))],
        ((f"{c.name} {number}", c.traces) for number, c in enumerate(PLANTED)),
        ((prompt, (f"flim{n:02d}wocket",)) for n, prompt in enumerate(PROMPTS)),
    )
)
