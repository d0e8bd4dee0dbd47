"""The program's own secrets, known letter by letter, and every way they may be written.

`OwnKey` stands at the last step before a text is kept: an event before it is encoded,
what an answer said before it goes to the ledger or a dead letter, a line before it is
logged. Whatever the host, a server or another module did to the text before, it is
looked at there.

Rules:
- A fragment of eight characters is as much a leak as the whole key. A key that is
  shorter is removed where it stands as a word of its own.
- Found are the key as it is, in any case, reversed, with reversed slashes; in
  hexadecimal, decimal, base64 and base32; whatever escapes `escapes` undoes; and with
  anything between its characters (`73:65:73`, `U+0073`, UTF-16, a line's end): then
  twelve letters and digits of it, as fewer stand in other texts as well.
- A text without a piece of four characters of any of these costs one look, one that
  was seen before a lookup.

Not found: the key encoded twice (base64 of base64, or of UTF-16), in base85 or by
uuencode, in binary or octal numbers, as calls (`chr(115)`), in letters that look alike;
with something between its characters, one that has fewer than twelve letters and digits.

It keeps the key in memory and writes it nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from telemetry.privacy.plain import SECRET, remember
from telemetry.switches import trimmed


Places = Iterator[tuple[int, int]]

# A fragment of the key is so long, in characters. Shorter ones stand anywhere.
FRAGMENT_MIN = 8
# The same where other characters may stand between its letters and digits; a key of
# words without a digit reads like a text then.
_SCATTERED_MIN, _SCATTERED_WORDS_MIN = 12, 16
# Half as many characters of the key: two of them are as common as zeros and threes.
_WIDE_MIN = 16
# A key below this many characters is a word of a test, not a key.
_KEY_MIN = 4
# No header is longer.
_KEY_MAX = 4096
# Every fragment holds a piece that stands at a multiple of the step in the key.
_PIECE, _STEP = 4, 5

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# A text without one of these reads as what it is.
_ESCAPED = ("%", "\\", "&", "\x1b")
# In lower case, by the bits that each digit stands for.
_BASE64 = {f"{n:06b}": c for n, c in enumerate(_LETTERS * 2 + "0123456789+/")}
_BASE32 = {f"{n:05b}": c for n, c in enumerate(_LETTERS + "234567")}
_NUMBERS = (int, bool, float, type(None))
# Remove all of ASCII that is no letter or digit, and all that is no digit of a number.
_SIGNS = {n: None for n in range(128) if not chr(n).isalnum()}
_DIGITS = "0123456789abcdef"
_NO_DIGITS = {n: None for n in range(128) if chr(n) not in _DIGITS}


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
        plain = {form.lower() for key in long for form in _plain_forms(key)}
        coded = {form for key in long for form in _coded_forms(key)}
        self._forms = plain | coded
        # UTF-16 in hexadecimal: four digits a character.
        self._wide = {form for key in long for form in _wide_forms(key)}
        self._scattered = {*map(_squeezed, plain), *coded}
        self._pieces = _parts(self._forms | self._scattered | self._wide, _PIECE, _STEP)
        self._fragments: set[str] = set()
        self._wide_fragments: set[str] = set()
        self._scattered_fragments: set[str] = set()
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
            # It may be spread over the items: its bytes, or in pieces that are too
            # short to be found alone.
            pieces = [str(x) for x in items if isinstance(x, (str, int))]
            joined = " ".join([x for x in pieces if len(x) < FRAGMENT_MIN])
            if self.without(joined) != joined and items == [*v]:
                return [SECRET]
            return v if items == [*v] else items
        if self.has_number and type(v) in _NUMBERS:
            return v if self.without(repr(v)) == repr(v) else SECRET
        return v

    def _may_be_in(self, text: str) -> bool:
        """Whether the text has to be searched: it has a piece of the key, or escapes."""
        low = text.lower()
        if "\\" in low or "%" in low or ("&" in low and ";" in low):
            return bool(self)
        if self._has_piece(low) or any(word in low for word in self._words):
            return True
        if len(low) < FRAGMENT_MIN or low.isalpha():
            return False
        return self._has_piece(_squeezed(low)) or self._has_piece(_digits(low))

    def _has_piece(self, low: str) -> bool:
        return not self._pieces.isdisjoint(
            [low[i : i + _PIECE] for i in range(len(low) - _PIECE + 1)]
        )

    def _cut(self, text: str) -> str:
        low = text.lower()
        is_plain = len(low) == len(text) and not any(map(text.__contains__, _ESCAPED))
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
        if not self._forms:
            return
        if not self._fragments:
            self._fragments = _parts(self._forms, FRAGMENT_MIN)
            self._wide_fragments = _parts(self._wide, _WIDE_MIN)
            self._scattered_fragments = self._wide_fragments | {
                part for form in self._scattered for part in _scattered_parts(form)
            }
        yield from _stretches(low, self._fragments, FRAGMENT_MIN)
        yield from _stretches(low, self._wide_fragments, _WIDE_MIN)
        for kept in (str.isalnum, _DIGITS.__contains__):
            at = [i for i, c in enumerate(low.replace("0x", "  ")) if kept(c)]
            squeezed = "".join([low[i] for i in at])
            for size in (_SCATTERED_MIN, _SCATTERED_WORDS_MIN):
                for start, end in _stretches(squeezed, self._scattered_fragments, size):
                    yield at[start], at[end - 1] + 1


def own_key_of(
    config: Any, environment: Mapping[str, str], public: Iterable[str] = ()
) -> OwnKey:
    """The secrets that a program sends with: its key, and the passwords in its URLs.

    A user without a password is one as well, as a token may stand there; but not
    ClickHouse's, whose password is the key.

    `config` is a Config, which may hold values that cannot be used, or None. A key in
    the environment is one also where the program named another.
    """
    said = trimmed(environment.get("TELEMETRY_API_KEY", ""))
    if config is None:
        return OwnKey(said, public=public)
    passwords = [
        _password(_text(config.endpoint), is_name=_text(config.format) == "clickhouse"),
        _password(_text(config.deletion_endpoint), is_name=False),
    ]
    names = (_text(config.app), *public)
    return OwnKey(_text(config.api_key), *passwords, said, public=names)


def _text(value: object) -> str:
    """A host's value as a text; empty where it has none, as a number of 5,000 digits."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever a class of the host's raises
        from telemetry.errors import raise_the_hosts

        raise_the_hosts(error)
        return ""


def _password(url: str, *, is_name: bool) -> str:
    """The password in a URL; else the user, unless that is a name."""
    user, _, password = url.partition("://")[2].rpartition("@")[0].partition(":")
    if not password and not is_name and "/" not in user:  # else an @ in the path
        password = user
    if "%" in password:
        from urllib.parse import unquote

        password = unquote(password)
    return password


def _squeezed(low: str) -> str:
    return low.translate(_SIGNS) if low.isascii() else "".join(filter(str.isalnum, low))


def _digits(low: str) -> str:
    low = low.replace("0x", "  ")
    if low.isascii():
        return low.translate(_NO_DIGITS)
    return "".join(filter(_DIGITS.__contains__, low))


def _parts(forms: Iterable[str], size: int, step: int = 1) -> set[str]:
    return {
        form[i : i + size]
        for form in forms
        for i in range(0, len(form) - size + 1, step)
    }


def _scattered_parts(form: str) -> Iterator[str]:
    for part in _parts([form], _SCATTERED_MIN):
        if not part.isalpha():
            yield part
    yield from _parts([form], _SCATTERED_WORDS_MIN)


def _stretches(text: str, parts: set[str], size: int) -> Places:
    """The stretches of the text in which each `size` characters are one of the parts."""
    place, last = 0, len(text) - size
    while place <= last:
        if text[place : place + size] not in parts:
            place += 1
            continue
        start, place = place, place + 1
        while text[place : place + size] in parts:
            place += 1
        place += size - 1
        yield start, place


def _whole_words(low: str, word: str) -> Places:
    start = low.find(word)
    while start >= 0:
        end = start + len(word)
        if not (low[start - 1 : start].isalnum() or low[end : end + 1].isalnum()):
            yield start, end
        start = low.find(word, end)


def _plain_forms(key: str) -> Iterator[str]:
    in_latin_1 = key.encode("utf-8", "surrogatepass").decode("latin-1")
    for form in (key, in_latin_1, key.replace("/", "\\"), key.replace("\\", "/")):
        yield form
        yield form[::-1]


def _wide_forms(key: str) -> Iterator[str]:
    content = key.encode("utf-8", "surrogatepass")
    # Of `U+0073`, and of a dump of what Windows calls Unicode. Python's codecs for it
    # would cost a start two imports.
    if key.isascii():
        yield "".join([f"00{byte:02x}" for byte in content])
        yield "".join([f"{byte:02x}00" for byte in content])
    else:
        yield key.encode("utf-16-be", "surrogatepass").hex()
        yield key.encode("utf-16-le", "surrogatepass").hex()


def _coded_forms(key: str) -> Iterator[str]:
    content = key.encode("utf-8", "surrogatepass")
    yield content.hex()
    yield "".join(f"{ord(c):x}" for c in key)
    yield "".join(map(str, content))
    # MIME's: a sign alone is coded.
    yield "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"={byte:02x}"
        for byte in content.lower()
    )
    # By where among the bytes that are coded together the key begins.
    for skipped in range(5):
        bits = f"{int.from_bytes(content, 'big'):0{len(content) * 8}b}"[8 * skipped :]
        # As far as the key alone decides. `base64` would cost a start its import.
        yield "".join([_BASE32[bits[i : i + 5]] for i in range(0, len(bits) - 4, 5)])
        if skipped < 3:
            digits = [_BASE64[bits[i : i + 6]] for i in range(0, len(bits) - 5, 6)]
            coded = "".join(digits)
            yield from (coded, coded.replace("+", "-").replace("/", "_"))
