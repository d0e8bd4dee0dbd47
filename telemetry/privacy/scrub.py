"""A text without its private parts.

Rules:
- Every view of the text is searched, and the text as it came is cut.
- What overlaps is cut once, under the name of what starts first.
- The result is searched again until nothing changes. So to scrub twice is to scrub
  once, by construction. A text that does not come to rest, that would more than
  double, or that has private parts by the thousand, is replaced whole.

It remembers nothing between two texts.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from telemetry.privacy.finders import EVERYWHERE, FREE_ONLY
from telemetry.privacy.keys import tokens, unmarked_keys
from telemetry.privacy.names import last_component
from telemetry.privacy.paths import PATH, path_end
from telemetry.privacy.patterns import Pattern
from telemetry.privacy.place_patterns import UNSPACED, WINDOWS_REST
from telemetry.privacy.views import joined, past_accents, views


if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemetry.privacy.finders import Span


USER, WHOLE = "<user>", "<scrubbed>"

# The first round cuts; the second sees what cutting brought together. A text that
# still changes in the fifth was made to.
_ROUNDS_MAX = 5

# More private parts than this and the rest says nothing, but to cut them all takes
# seconds. In the largest event it would be one in every 26 characters.
_PARTS_MAX = 10_000

# `/ab` becomes `<path>`, twice as long; nothing grows more but a single short word.
_GROWTH_MAX = 2
_GROWTH_FREE = 32

# The rest of a wrapped key is cut with it if it looks like one, else it is the next
# line's first word.
_KEY_LIKE = Pattern(r"[0-9]|[a-z][A-Z]|[A-Za-z]{16}")
_LINE_END = Pattern(r"\r?\n|\\r?\\n|\\n|%0[aA]")


class Identity:
    """One person's homes and names, and the patterns that find them.

    Both must be fit to be searched for: no `/`, no names that are words.
    """

    def __init__(self, homes: tuple[str, ...], users: tuple[str, ...]) -> None:
        # What a text must hold, in lower case, to be worth searching.
        self._home_marks = tuple(map(last_component, homes))
        self._user_marks = tuple(max(user.split(), key=len) for user in users)
        self._home = Pattern(
            "(?:" + "|".join(map(_home_source, homes)) + rf")(?![\w\-]){WINDOWS_REST}",
            re.IGNORECASE.value,
        )
        # `Alice Smith` before `alice`, or half of it would stay.
        longest_first = sorted(users, key=len, reverse=True)
        self._user = Pattern(
            "|".join(map(_user_source, longest_first)), re.IGNORECASE.value
        )

    def find(self, text: str, low: str) -> Iterator[Span]:
        if any(mark in low for mark in self._home_marks):
            for m in self._home.regex.finditer(text):
                yield m.start(), path_end(text, *m.span(), personal=True), PATH
        if any(mark in low for mark in self._user_marks):
            for m in self._user.regex.finditer(text):
                start, end = m.span()
                if not _joins(text[start - 1 : start], text[start]) and not _joins(
                    text[end - 1], text[end : end + 1]
                ):
                    yield start, end, USER


def scrub(text: str, identity: Identity, *, free: bool) -> str:
    """The text with each private part replaced; `text` itself if it has none."""
    out = text
    for _ in range(_ROUNDS_MAX):
        spans = [*islice(_spans(out, identity, free=free), _PARTS_MAX + 1)]
        if len(spans) > _PARTS_MAX:
            return WHOLE
        again = _cut(out, spans)
        if again == out:
            grown = len(out) > _GROWTH_MAX * len(text) + _GROWTH_FREE
            return WHOLE if grown else out
        out = again
    return WHOLE


def _spans(text: str, identity: Identity, *, free: bool) -> Iterator[Span]:
    finders = (*EVERYWHERE, *FREE_ONLY) if free else EVERYWHERE
    for view in views(text):
        low = view.text.lower()
        for find in (*finders, identity.find):
            for start, end, label in find(view.text, low):
                if start < end:
                    first, last = view.span(start, end)
                    yield first, past_accents(text, last), label
        for lines in joined(view, low):
            for find in (tokens, unmarked_keys):
                for start, end, label in find(lines.text, lines.text.lower()):
                    first, last = lines.span(start, end)
                    yield first, _key_end(text, first, last), label


def _key_end(text: str, start: int, end: int) -> int:
    """The end of a key found in joined lines, less what is the next line's word."""
    for m in reversed([*_LINE_END.regex.finditer(text, start, end)]):
        if _KEY_LIKE.regex.search(text, m.end(), end):
            break
        end = m.start()
    return end


def _cut(text: str, spans: list[Span]) -> str:
    out: list[str] = []
    done = 0
    for start, end, label in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            out += (text[done:start], label)
        done = max(done, end)
    return "".join((*out, text[done:])) if out else text


def _home_source(home: str) -> str:
    return r"[\\/]{1,8}".join(map(re.escape, re.split(r"[\\/]+", home)))


def _user_source(user: str) -> str:
    return r"[\s._\-]{1,3}".join(map(re.escape, user.split()))


def _joins(before: str, after: str) -> bool:
    """Whether two neighbours belong to one word.

    Where words are not spaced, any place is the end of one.
    """
    return all(c.isalnum() and c < UNSPACED for c in (before, after))
