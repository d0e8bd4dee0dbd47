"""How a disguised text is undone, and how a find in it is cut from the original.

Rules:
- A disguise is undone only to look. What is cut is cut from the text as it came.
- A view is a text and, piece by piece, where each piece stood before. Views
  stand on views: `span` walks back to the original.
- A piece that was changed is cut whole: `%2F` never becomes half of itself.
- `views` gives the text itself first, then whatever undoing makes of it: colour
  codes and control characters dropped; accents, full width, letters of other
  scripts that look like Latin ones and invisible characters folded; `%2F`, `\\/`,
  `\\u002f`, `&#47;` decoded, several times over.

Time is linear in the text. It decides nothing about what is private.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from telemetry.privacy.marks import KEY_WORD_MIN, has_word, may_hold_key
from telemetry.privacy.patterns import Pattern
from telemetry.privacy.signs import ESCAPE, LOOK_ALIKES, meant


if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

    Change = tuple[int, int, str]  # text[start:end] reads as this


_COLOUR = Pattern(r"\x1b\[[0-9;?]{0,24}[@-~]")
_CONTROL = Pattern(rf"(?:{_COLOUR.source}|[\x00-\x08\x0e-\x1f\x7f-\x9f])+")
_WRAP = Pattern(r"(?<=[\w+/=.\-])\r?\n[ \t]{0,16}(?=[\w+/=.\-])")

# Decoding is repeated this often: JSON in JSON in a URL needs three, and KeyError
# quotes what it is given once more.
_ROUNDS = 4

# What a colour code of a terminal starts with.
_ESC = "\x1b"

# Hangul syllables carry no accents; taking them apart would triple the text.
_HANGUL_FIRST, _HANGUL_LAST = "\uac00", "\ud7a3"


class View:
    """A text to look into, and the way back to the text it was made from."""

    __slots__ = ("_at", "_below", "_src", "text")

    def __init__(
        self,
        text: str,
        below: View | None = None,
        at: list[int] | None = None,
        src: list[int] | None = None,
    ) -> None:
        self.text = text
        self._below = below
        # Piece i is text[at[i]:at[i+1]] and stood at [src[i], src[i+1]) below.
        # Where both are equally long, it stood there character by character.
        self._at = at or [0, len(text)]
        self._src = src or self._at

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where text[start:end] stands in the original; start < end."""
        if self._below is None:
            return start, end
        return self._below.span(self._back(start)[0], self._back(end - 1)[1])

    def _back(self, place: int) -> tuple[int, int]:
        at, src = self._at, self._src
        i = bisect_right(at, place) - 1
        if at[i + 1] - at[i] == src[i + 1] - src[i]:
            below = src[i] + place - at[i]
            return below, below + 1
        return src[i], src[i + 1]


def views(text: str) -> list[View]:
    """The text as it came, then each undoing of it that changed something."""
    found = [View(text)]
    for turn in range(_ROUNDS + 1):
        for undo in (_stripped, _folded):
            view = undo(found[-1])
            if view is not None:
                found.append(view)
        view = _decoded(found[-1]) if turn < _ROUNDS else None
        if view is None:
            break
        found.append(view)
    # Colour may stand inside a key, where it is dropped, or between a word and a
    # path, where it parts them.
    parted = (
        _rebuilt(found[0], _each(_COLOUR.regex, text, " ")) if _ESC in text else None
    )
    return found if parted is None else [*found, parted]


def joined(view: View, low: str) -> Iterator[View]:
    """The view with wrapped lines joined: all of them, every other, the others.

    Mails, terminals and YAML break a long key in two, at any place. To join it with
    the line before as well would hide where it starts.
    """
    # Half of the shortest key without a sign is this long.
    if "\n" not in view.text or not (
        may_hold_key(view.text, low) or has_word(view.text, KEY_WORD_MIN // 2)
    ):
        return
    breaks = [*_each(_WRAP.regex, view.text, "")]
    for some in (breaks, breaks[::2], breaks[1::2] if len(breaks) > 1 else []):
        lines = _rebuilt(view, some)
        if lines is not None:
            yield lines


def fold(text: str) -> str:
    """The text as it is compared: no accents, no full width, nothing invisible."""
    return text if text.isascii() else "".join(map(_folded_character, text))


def past_accents(text: str, place: int) -> int:
    """Where the accents end that stand at this place, on the letter before it."""
    while place < len(text) and text[place] > "\x7f" and not fold(text[place]):
        place += 1
    return place


def _folded_character(character: str) -> str:
    if character < "\x80" or _HANGUL_FIRST <= character <= _HANGUL_LAST:
        return character
    # Loaded here: a text in ASCII never pays for it.
    from unicodedata import category, normalize

    # Mn, Me: accents. Cf: zero-width characters, soft hyphens, directions.
    return "".join(
        part
        for part in normalize("NFKD", character)
        if category(part) not in {"Mn", "Me", "Cf"}
    ).translate(LOOK_ALIKES)


def _stripped(view: View) -> View | None:
    if view.text.isprintable():
        return None
    return _rebuilt(view, _each(_CONTROL.regex, view.text, ""))


def _folded(view: View) -> View | None:
    text = view.text
    if text.isascii():
        return None
    # One look at each different character, not at each character.
    table = {
        character: folded
        for character in set(text)
        if (folded := _folded_character(character)) != character
    }
    if not table:
        return None
    if all(len(folded) == 1 for folded in table.values()):
        return View(text.translate({ord(c): f for c, f in table.items()}), view)
    return _rebuilt(
        view,
        (
            (place, place + 1, table[character])
            for place, character in enumerate(text)
            if character in table
        ),
    )


def _decoded(view: View) -> View | None:
    text = view.text
    if "%" not in text and "\\" not in text and "&" not in text:
        return None
    meanings: dict[str, str] = {}
    changes = []
    for m in ESCAPE.regex.finditer(text):
        escape = m[0]
        meaning = meanings.get(escape)
        if meaning is None:
            meaning = meanings[escape] = meant(escape)
        changes.append((*m.span(), meaning))
    return _rebuilt(view, changes)


def _each(pattern: re.Pattern[str], text: str, reading: str) -> Iterable[Change]:
    return ((m.start(), m.end(), reading) for m in pattern.finditer(text))


def _rebuilt(view: View, changes: Iterable[Change]) -> View | None:
    """The view with these changes made, in the order of their places."""
    text = view.text
    out: list[str] = []
    at: list[int] = []
    src: list[int] = []
    size = done = 0
    for start, end, reading in changes:
        if start > done:
            at.append(size)
            src.append(done)
            out.append(text[done:start])
            size += start - done
        at.append(size)
        src.append(start)
        out.append(reading)
        size += len(reading)
        done = end
    if not out:
        return None
    out.append(text[done:])
    at += (size, size + len(text) - done)
    src += (done, len(text))
    return View("".join(out), view, at, src)
