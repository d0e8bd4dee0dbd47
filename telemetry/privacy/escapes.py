"""What a text reads as once its escapes are undone, and where each character stood.

Rules:
- Escapes are undone only to look. What is cut is cut from the text as it came.
- Known are the escapes of URLs (`%2F`), of JSON, C, Python and shells (`\\/`, `\\u002f`),
  and those of HTML (`&#47;`), four deep: JSON in JSON in a URL needs three.

Time is linear in the text. It decides nothing about what is private.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from html import unescape


# text[start:end] is private and reads as the label from now on.
Span = tuple[int, int, str]

# A character in UTF-8, percent-encoded, whole; then any other byte; then what JSON, C,
# Python and a shell write with a backslash; then what HTML writes.
_ESCAPE = re.compile(
    r"%[Ff][0-7](?:%[89ABab][0-9A-Fa-f]){3}"
    r"|%[Ee][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){2}"
    r"|%[CDcd][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]"
    r"|%[0-9A-Fa-f]{2}"
    r"|\\(?:u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|[0-3][0-7]{2}|U[0-9A-Fa-f]{8}"
    r"|x[0-9A-Fa-f]{2}|[nrtbfv0/\"'`\\])"
    r"|&(?:#(?:[0-9]{1,7}|[xX][0-9A-Fa-f]{1,6})|[A-Za-z]{2,24});"
)
# What a backslash and a letter stand for; all others stand for themselves.
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " ", "v": " ", "0": " "}
_DEPTH = 4
# The colour of a terminal may stand before a path, where it would be taken for a word.
_COLOUR = re.compile(r"\x1b\[[0-9;?]{0,24}[@-~]")


class View:
    """A text to look into; `at` is where each of its characters stood, and its end."""

    __slots__ = ("_at", "text")

    def __init__(self, text: str, at: Sequence[int]) -> None:
        self.text = text
        self._at = at

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where text[start:end] stands in the original."""
        return self._at[start], self._at[end]

    def without_colour(self) -> View:
        """The view with blanks in place of a terminal's colours."""
        return View(_COLOUR.sub(lambda m: " " * len(m[0]), self.text), self._at)

    def undone(self) -> View | None:
        """The view with one layer of escapes undone; None if it has none."""
        text, at, done = self.text, self._at, 0
        out: list[str] = []
        places: list[int] = []
        for m in _ESCAPE.finditer(text):
            start, end = m.span()
            out += (text[done:start], _meaning(m[0]))
            places += at[done : start + 1]
            done = end
        if not out:
            return None
        return View("".join((*out, text[done:])), [*places, *at[done:]])


def views(text: str) -> Iterator[View]:
    """The text as it came, then with one layer of escapes after the other undone."""
    view: View | None = View(text, range(len(text) + 1))
    for _ in range(_DEPTH + 1):
        if view is None:
            return
        yield view
        if "\x1b" in view.text:
            view = view.without_colour()
            yield view
        if "%" not in view.text and "\\" not in view.text and "&" not in view.text:
            return
        view = view.undone()


def cut(text: str, spans: Sequence[Span]) -> str:
    """The text with each span replaced by its label.

    Of spans that overlap, all is cut under the label of the one that starts first.
    """
    out: list[str] = []
    done = 0
    for start, end, label in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            out += (text[done:start], label)
        done = max(done, end)
    return "".join((*out, text[done:])) if out else text


def _meaning(escape: str) -> str:
    """The one character that an escape stands for."""
    if escape[0] == "%":
        return bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace")[:1]
    if escape[0] == "&":
        return unescape(escape)[:1] or " "
    if escape[1] in "uUx" and len(escape) > 2:
        code = int("0" + escape[2:].strip("{}"), 16)
        return chr(code) if code <= sys.maxunicode else "?"
    if len(escape) == 4:  # \057
        return chr(int(escape[1:], 8))
    return _LETTERS.get(escape[1], escape[1])
