"""The program's own key, known letter by letter, and every way it may be written.

Rules:
- A fragment of eight characters is as much a leak as the whole key. A key that is
  shorter is removed where it stands as a word of its own.
- Found are the key as it is, in any case, reversed, with reversed slashes; in
  hexadecimal, base64 and quoted-printable; and whatever escapes `escapes` undoes.
- A text without a piece of four characters of any of these costs one look.

It keeps the key in memory and writes it nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from telemetry.privacy.rules import SECRET


# A fragment of the key is so long, in characters. Shorter ones stand anywhere.
FRAGMENT_MIN = 8
# A key below this many characters is a word of a test, not a key.
_KEY_MIN = 4
# No header is longer.
_KEY_MAX = 4096
# Every fragment holds such a piece at a multiple of the step.
_PIECE, _STEP = 4, 5

_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class OwnKey:
    """One key, as it is searched for. Nothing is found for a key of three characters."""

    def __init__(self, key: str) -> None:
        key = key[:_KEY_MAX]
        self._whole = key.lower() if _KEY_MIN <= len(key) < FRAGMENT_MIN else ""
        self._forms = _forms(key) if len(key) >= FRAGMENT_MIN else frozenset()
        self._pieces = _parts(self._forms, _PIECE)
        self._fragments: set[str] = set()

    def may_be_in(self, text: str) -> bool:
        """Whether the text has to be searched: it has a piece of the key, or escapes."""
        if not self._pieces and not self._whole:
            return False
        if "\\" in text or "%" in text or ("&" in text and ";" in text):
            return True
        low = text.lower()
        if self._whole:
            return self._whole in low
        return self._has_piece(low)

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Where the key or a fragment of it stands in the text, escapes apart."""
        low = text.lower()
        if len(low) != len(text):  # some capitals are two small letters
            low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
        if self._whole:
            yield from self._words(low)
            return
        if not self._has_piece(low):
            return
        if not self._fragments:
            self._fragments = _parts(self._forms, FRAGMENT_MIN)
        place, last = 0, len(low) - FRAGMENT_MIN
        while place <= last:
            if low[place : place + FRAGMENT_MIN] not in self._fragments:
                place += 1
                continue
            start, place = place, place + 1
            while low[place : place + FRAGMENT_MIN] in self._fragments:
                place += 1
            place += FRAGMENT_MIN - 1
            yield start, place, SECRET

    def _has_piece(self, low: str) -> bool:
        return not self._pieces.isdisjoint(
            [low[i : i + _PIECE] for i in range(0, len(low) - _PIECE + 1, _STEP)]
        )

    def _words(self, low: str) -> Iterator[tuple[int, int, str]]:
        start = low.find(self._whole)
        while start >= 0:
            end = start + len(self._whole)
            if not (low[start - 1 : start].isalnum() or low[end : end + 1].isalnum()):
                yield start, end, SECRET
            start = low.find(self._whole, end)


def _parts(forms: Iterable[str], size: int) -> set[str]:
    return {form[i : i + size] for form in forms for i in range(len(form) - size + 1)}


def _forms(key: str) -> frozenset[str]:
    """The key as it may be written, in lower case."""
    content = key.encode("utf-8", "surrogatepass")
    # Three, by where among three characters the key begins.
    in_base64 = [_base64(content[skipped:]) for skipped in range(3)]
    forms = (
        key,
        key[::-1],
        key.replace("/", "\\"),
        key.replace("\\", "/"),
        content.hex(),
        "".join(c if c.isalnum() else f"={ord(c):02x}" for c in key),  # MIME's
        *in_base64,
        *(form.replace("+", "-").replace("/", "_") for form in in_base64),
    )
    return frozenset(form.lower() for form in forms)


def _base64(content: bytes) -> str:
    """Base64, as far as the content alone decides; `base64` costs a start's import."""
    coded = []
    for i in range(0, len(content), 3):
        number = int.from_bytes(content[i : i + 3].ljust(3, b"\0"), "big")
        coded += [_BASE64[number >> shift & 63] for shift in (18, 12, 6, 0)]
    return "".join(coded[: len(content) * 8 // 6])


def without_secret(text: str, secret: str) -> str:
    """The text without a key, in whatever escaping, and without fragments of it.

    Args:
        text: anything, such as what a server answered.
        secret: the key; where it is empty, the text comes back as it is.

    Returns:
        The text with `<secret>` in place of each stretch of eight characters or more.
    """
    return without(text, OwnKey(secret))


def without(text: str, key: OwnKey) -> str:
    """The text without this key; the same object if it has none of it."""
    if not key.may_be_in(text):
        return text
    from telemetry.privacy.escapes import cut, views

    spans = [
        (*view.span(start, end), label)
        for view in views(text)
        for start, end, label in key.spans(view.text)
    ]
    return cut(text, spans)
