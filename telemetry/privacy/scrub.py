"""A text without its private parts: every rule applied to every view of the text.

Rules:
- The result is searched again until nothing changes. So to scrub twice is to scrub
  once, by construction. A text that does not come to rest, that would more than
  double, or that has private parts by the thousand, is replaced whole.
- A pattern is compiled by the first text that may match it.

It remembers nothing of a text.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING
from unicodedata import normalize

from telemetry.privacy.escapes import Span, cut, views
from telemetry.privacy.finders import FINDERS, JUDGES, path_end
from telemetry.privacy.plain import last_component
from telemetry.privacy.rules import PATH, UNSPACED, USER, WINDOWS_REST


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from telemetry.privacy.rules import Rule

WHOLE = "<scrubbed>"

# The first round cuts; the second sees what cutting brought together. A text that
# still changes in the fifth was made to.
_ROUNDS_MAX = 5

# More private parts than this and the rest says nothing, but to cut them all takes
# seconds. In the largest event it would be one in every 26 characters.
_PARTS_MAX = 10_000

# `/ab` becomes `<path>`, twice as long; nothing grows more but a single short word.
_GROWTH_MAX = 2
_GROWTH_FREE = 32

# Names of rules and their patterns, compiled.
_compiled: dict[str, re.Pattern[str]] = {}


class Identity:
    """One person's homes and names, and the patterns that find them.

    Both must be fit to be searched for: see `plain.searchable_name`.
    """

    def __init__(self, homes: tuple[str, ...], users: tuple[str, ...]) -> None:
        # A file system may give back another normal form than it was given.
        homes, users = _spellings(homes), _spellings(users)
        # What a text must hold, in lower case, to be worth searching.
        self._home_marks = tuple(map(last_component, homes))
        self._user_marks = tuple(max(user.split(), key=len) for user in users)
        self._home = "|".join(
            r"[\\/]{1,8}".join(map(re.escape, re.split(r"[\\/]+", home)))
            for home in homes
        )
        # `Alice Smith` before `alice`, or half of it would stay.
        self._user = "|".join(
            r"[\s._\-]{1,3}".join(map(re.escape, user.split()))
            for user in sorted(users, key=len, reverse=True)
        )

    def find(self, text: str, low: str) -> Iterator[Span]:
        """The spans of the homes and names in a text; `low` is it in lower case."""
        if any(mark in low for mark in self._home_marks):
            pattern = rf"(?i)(?:{self._home})(?![\w\-]){WINDOWS_REST}"
            for m in re.finditer(pattern, text):
                yield m.start(), path_end(text, *m.span(), personal=True), PATH
        if any(mark in low for mark in self._user_marks):
            for m in re.finditer(f"(?i){self._user}", text):
                start, end = m.span()
                if not _joins(text[start - 1 : start], text[start]) and not _joins(
                    text[end - 1], text[end : end + 1]
                ):
                    yield start, end, USER


def scrub(text: str, rules: Iterable[Rule], identity: Identity) -> str:
    """The text with each private part replaced; `text` itself if it has none."""
    out = text
    for _ in range(_ROUNDS_MAX):
        spans = [*islice(_spans(out, rules, identity), _PARTS_MAX + 1)]
        if len(spans) > _PARTS_MAX:
            return WHOLE
        again = cut(out, spans)
        if again == out:
            grown = len(out) > _GROWTH_MAX * len(text) + _GROWTH_FREE
            return WHOLE if grown else out
        out = again
    return WHOLE


def _spans(text: str, rules: Iterable[Rule], identity: Identity) -> Iterator[Span]:
    for view in views(text):
        plain, low = as_searched(view.text)
        for rule in rules:
            if rule.may_match(plain, low):
                for start, end, label in _found(view.text, rule):
                    if start < end:
                        yield *view.span(start, end), label
        for start, end, label in identity.find(view.text, view.text.lower()):
            yield *view.span(start, end), label


def as_searched(text: str) -> tuple[str, str]:
    """The text for `Rule.may_match`, and the same in lower case.

    A line's end stands for its start; a blank for all that is neither printable ASCII
    nor part of a word.
    """
    if not (text.isascii() and text.isprintable()):
        text = text.replace("\uff1a", ":")
        text = "".join(c if " " <= c <= "~" or c.isalnum() else " " for c in text)
    text = f"\n{text}"
    return text, text.lower()


def _found(text: str, rule: Rule) -> Iterator[Span]:
    pattern = _compiled.get(rule.name)
    if pattern is None:
        # Two threads may both compile; they get the same thing.
        pattern = _compiled[rule.name] = re.compile(rule.pattern)
    finder = FINDERS.get(rule.name)
    if finder is not None:
        yield from finder(text, pattern)
        return
    judge = JUDGES.get(rule.name)
    for m in pattern.finditer(text):
        if judge is None or judge(m[m.lastindex or 0]):
            yield *m.span(m.lastindex or 0), rule.label


def _spellings(names: tuple[str, ...]) -> tuple[str, ...]:
    forms = (normalize(form, name) for name in names for form in ("NFC", "NFD"))
    return tuple(dict.fromkeys(forms))


def _joins(before: str, after: str) -> bool:
    """Whether two neighbours belong to one word.

    Where words are not spaced, any place is the end of one.
    """
    return all(c.isalnum() and c < UNSPACED for c in (before, after))
