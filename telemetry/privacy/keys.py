"""Where in a text the keys, tokens, passwords and other secrets are.

Rules:
- A key is known by its maker's prefix, by its exact shape, or by the name in front
  of it. What has a name may have any shape.
- What is cut short is found too: a PEM block without its end, a key without its rest.

It does not know what a person might call a secret in other words than those listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.privacy import patterns as shapes
from telemetry.privacy.marks import (
    KEY_WORD_MIN,
    SCHEME_WORDS,
    has_word,
    may_hold_key,
    may_name_secret,
)
from telemetry.privacy.randomness import is_number, is_random


if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

    Span = tuple[int, int, str]  # text[start:end] is to read as this


SECRET = "<secret>"  # noqa: S105  # what stands in its place

# A password of one character is a typing error.
_VALUE_MIN = 2

# No name of a secret is longer with what stands between it and the value.
_NAME_MAX = 96

# What closes a sentence, a list or a quotation, and seldom a URL or a password.
TRAILING = ".,;:!?)]}'\"`"

# A text that gives a secret by its name has one of these: a sign between the two, or
# the end of the name and the blank behind it.
_NAMING_SIGNS = (":", "=", ">", " is ", " is\t", "password ", "password\t")

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_IDENTIFIER = _LETTERS + "_-"
_BASE64 = _LETTERS + "+/= \t\r\n\\"


def tokens(text: str, low: str) -> Iterator[Span]:
    if not may_hold_key(text, low):
        return
    done = 0
    # A prefix is found ten times faster than a key is refused.
    for head in shapes.TOKEN_HEAD.regex.finditer(text):
        m = (
            shapes.TOKEN.regex.match(text, head.start())
            if head.start() >= done
            else None
        )
        if m is not None:
            done = m.end()
            yield *m.span(), SECRET


def unmarked_keys(text: str, _low: str) -> Iterator[Span]:
    if "-us" in text or "8Q~" in text or has_word(text, KEY_WORD_MIN):
        for m in shapes.HEADLESS.regex.finditer(text):
            yield *m.span(), SECRET
    if has_word(text, KEY_WORD_MIN):
        for m in shapes.FORTY.regex.finditer(text):
            if not is_number(m[0]) and is_random(m[0]):
                yield *m.span(), SECRET


def pem_blocks(text: str, _low: str) -> Iterator[Span]:
    """A block, or what is left of one: to the text's end, or back from its END."""
    if "-----" not in text:
        return
    begin, done = -1, 0
    for m in shapes.PEM_EDGE.regex.finditer(text):
        if m["edge"] == "BEGIN":
            begin = m.start() if begin < 0 else begin
            continue
        if begin < 0:
            begin = done + len(text[done : m.start()].rstrip(_BASE64))
        yield begin, m.end(), SECRET
        begin, done = -1, m.end()
    if begin >= 0:
        yield begin, len(text), SECRET


def named_secrets(text: str, low: str) -> Iterator[Span]:
    if not may_name_secret(low):
        return
    if any(sign in low for sign in _NAMING_SIGNS):
        for m in _naming(shapes.NAMED.regex, text):
            yield from _value(m)
    if " " in text or "\t" in text or "," in text:
        for m in _naming(shapes.OPTION.regex, text):
            # 'password', 'token' are two names; '--password', 'x' is one and a value.
            is_list = "," in text[m.start() : m.start(m.lastgroup or 0)]
            if _is_option(text, m.start()) or not (
                is_list or m["bare"] or m[0].lower().startswith("token")
            ):
                yield from _value(m)


def headers(text: str, low: str) -> Iterator[Span]:
    if "authorization" in low or "cookie" in low:
        for m in shapes.HEADER.regex.finditer(text):
            yield *m.span("value"), SECRET
    if SCHEME_WORDS[0] in low or SCHEME_WORDS[1] in low:
        for m in shapes.SCHEME.regex.finditer(text):
            yield *m.span("value"), SECRET


def accounts(text: str, low: str) -> Iterator[Span]:
    """A name with its password, and passwords that a program takes without a name."""
    if "sshpass" in low or "login" in low:
        for m in shapes.ACCOUNT.regex.finditer(text):
            yield *m.span("value"), SECRET
    if "@" in text and ":" in text:
        for m in shapes.BARE_ACCOUNT.regex.finditer(text):
            yield *m.span("value"), SECRET
    if "-u" in text and ":" in text:
        for m in shapes.USER_OPTION.regex.finditer(text):
            yield *m.span("value"), SECRET


def _naming(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches, and those that start in the value of another one.

    `password= token: x` gives one value away, and it is not `token:`. A name that
    ends within a value is cut with it unless it stands at the value's end.
    """
    m = pattern.search(text)
    while m is not None:
        yield m
        m = pattern.search(text, max(m.start(m.lastgroup or 0), m.end() - _NAME_MAX))


def _is_option(text: str, place: int) -> bool:
    """Whether the word around this place starts with a dash."""
    before = text[max(0, place - 64) : place]
    return before[len(before.rstrip(_IDENTIFIER)) :].startswith("-")


def _value(m: re.Match[str]) -> Iterator[Span]:
    group = m.lastgroup or 0
    start, end = m.span(group)
    if group == "bare":
        end = start + len(m["bare"].rstrip(TRAILING))
    if end - start >= _VALUE_MIN:
        yield start, end, SECRET
