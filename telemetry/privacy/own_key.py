"""The program's own secrets, known letter by letter, and how texts may hold them.

`OwnKey` stands at the last step before a text is kept: an event before it is encoded,
what an answer said before it goes to the ledger or a dead letter, a line before it is
logged. Whatever the host, a server or another module did to the text before, it is
looked at there.

Rules:
- A fragment of eight characters is as much a leak as the whole key. A key that is
  shorter is removed where it stands as a word of its own.
- Found are the key as it is, in any case, in hexadecimal, in base64, and whatever
  escapes `escapes` undoes.
- A text without a piece of four characters of any of these costs one look, one that
  was seen before a lookup.

Not found, as only a program that attacks itself would write it: the key encoded twice or
in any other way, reversed, or with something between its characters.

It keeps the key in memory and writes it nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from telemetry.privacy.plain import SECRET, remember
from telemetry.switches import trimmed


Places = Iterator[tuple[int, int]]

# A fragment of the key is so long, in characters. Shorter ones stand anywhere.
FRAGMENT_MIN = 8
# A key below this many characters is a word of a test, not a key.
_KEY_MIN = 4
# No header is longer.
_KEY_MAX = 4096
# Every fragment holds a piece that stands at a multiple of the step in the key.
_PIECE, _STEP = 4, 5
_NUMBERS = (int, bool, float, type(None))


class OwnKey:
    """Secrets of a program, as they are searched for; none for fewer than 4 characters.

    Args:
        keys: the secrets.
        public: texts that stay as they are: names that the program or this library
            chose, which may be part of a key (`acme-cli-4f0c…`).
    """

    def __init__(self, *keys: str, public: Iterable[str] = ()) -> None:
        keys = tuple(key[:_KEY_MAX] for key in keys if len(key) >= _KEY_MIN)
        self._words = [key.lower() for key in keys if len(key) < FRAGMENT_MIN]
        long = [key for key in keys if len(key) >= FRAGMENT_MIN]
        self._forms = {form.lower() for key in long for form in _forms(key)}
        self._pieces = _parts(self._forms, _PIECE, _STEP)
        # Made by the first text that has a piece.
        self._fragments: set[str] = set()
        # Only then can it hide in a number.
        self.has_number = any(
            len(number) >= FRAGMENT_MIN
            for key in long
            for number in "".join([c if c.isdigit() else " " for c in key]).split()
        )
        # Texts that were found clean: a caller in a hurry looks here first.
        self._public = (*(t for t in public if not any(key in t for key in keys)),)
        self.clean = dict.fromkeys(self._public, True)

    def __bool__(self) -> bool:
        return bool(self._words or self._forms)

    def without(self, text: str) -> str:
        """The text without the key and fragments of it; the same object if clean."""
        if text in self.clean:
            return text
        if self._may_be_in(text):
            out = self._cut(text)
            if out != text:
                return out
        remember(self.clean, text, always=self._public)
        return text

    def value(self, v: Any) -> Any:
        """The value without it, in names of dicts and in numbers too.

        Args:
            v: any value of JSON's types. What is no such value stays as it is.

        Returns:
            A new value, or `v` itself where nothing changed. Of two names that become
            one, the last wins.
        """
        if isinstance(v, str):
            return self.without(v)
        if isinstance(v, dict):
            clean, others = self.clean, () if self.has_number else _NUMBERS
            for name, item in v.items():
                # Most were seen before.
                if name not in clean or not (
                    item in clean if type(item) is str else type(item) in others
                ):
                    break
            else:
                return v
            new = {self.value(name): self.value(item) for name, item in v.items()}
            return v if new == v else new
        if isinstance(v, (list, tuple)):
            items = [self.value(item) for item in v]
            return v if items == [*v] else items
        if self.has_number and type(v) in _NUMBERS:
            return v if self.without(repr(v)) == repr(v) else SECRET
        return v

    def _may_be_in(self, text: str) -> bool:
        """Whether the text has to be searched: it has a piece of the key, or escapes."""
        low = text.lower()
        if "\\" in low or "%" in low:
            return bool(self)
        pieces = [low[i : i + _PIECE] for i in range(len(low) - _PIECE + 1)]
        return not self._pieces.isdisjoint(pieces) or any(
            word in low for word in self._words
        )

    def _cut(self, text: str) -> str:
        low = text.lower()
        is_plain = len(low) == len(text) and "%" not in low and "\\" not in low
        if is_plain and next(self._places(low), None) is None:
            return text  # a random id may well have a piece, and loads nothing for it
        from telemetry.privacy.escapes import cut, views

        spans = []
        for view in views(text):
            low = view.text.lower()
            if len(low) != len(view.text):  # some capitals are two small letters
                low = "".join(
                    c.lower() if len(c.lower()) == 1 else c for c in view.text
                )
            spans += [(*view.span(*span), SECRET) for span in self._places(low)]
        return cut(text, spans)

    def _places(self, low: str) -> Places:
        """Where it stands in a text in lower case, escapes apart."""
        for word in self._words:
            yield from _whole_words(low, word)
        if not self._fragments:
            self._fragments = _parts(self._forms, FRAGMENT_MIN)
        place, last = 0, len(low) - FRAGMENT_MIN
        while place <= last:
            start = place
            while low[place : place + FRAGMENT_MIN] in self._fragments:
                place += 1
            if place > start:
                place += FRAGMENT_MIN - 1
                yield start, place
            else:
                place += 1


def own_key_of(
    config: Any, environment: Mapping[str, str], public: Iterable[str] = ()
) -> OwnKey:
    """The secrets that a program sends with: its key, and the endpoint's password.

    `config` is a Config, which may hold values that cannot be used, or None. A key in
    the environment is one also where the program named another.
    """
    said = trimmed(environment.get("TELEMETRY_API_KEY", ""))
    if config is None:
        return OwnKey(said, public=public)
    user, _, password = (
        str(config.endpoint).partition("://")[2].rpartition("@")[0].partition(":")
    )
    password = password or user
    if "%" in password:
        from urllib.parse import unquote

        password = unquote(password)
    names = (str(config.app), *public)
    return OwnKey(str(config.api_key), password, said, public=names)


def _forms(key: str) -> Iterator[str]:
    content = key.encode("utf-8", "surrogatepass")
    # The second is how bytes read that are taken for letters.
    yield from (key, content.decode("latin-1"), content.hex())
    # By where among the three bytes that base64 takes together the key begins.
    for skipped in range(3):
        # Its last digit may be shared with what follows the key.
        digits = (len(content) - skipped) * 8 // 6
        coded = msgspec.to_builtins(content[skipped:])[:digits]
        yield from (coded, coded.replace("+", "-").replace("/", "_"))


def _parts(forms: Iterable[str], size: int, step: int = 1) -> set[str]:
    return {
        form[i : i + size]
        for form in forms
        for i in range(0, len(form) - size + 1, step)
    }


def _whole_words(low: str, word: str) -> Places:
    start = low.find(word)
    while start >= 0:
        end = start + len(word)
        if not (low[start - 1 : start].isalnum() or low[end : end + 1].isalnum()):
            yield start, end
        start = low.find(word, end)
