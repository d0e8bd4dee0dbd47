"""What a pattern cannot say: how far a match reaches, and whether it is private.

A finder is given a text and a pattern, and yields spans: places in the text, and what
stands there from now on.

Random strings: hexadecimal, decimal and UUIDs of twenty characters or more, and what
changes between letters and digits all the time. What mixes capitals and small letters
is weighed pair by pair against names that people write. Measured on 20 characters it
misses 1 in 100 random strings of base64, 1 in 400 of base36, 1 in 30 of base32; on 40
characters 1 in 2000 of base64. Of 160,000 long names from library sources and manuals
it takes 1 in 140 for random, and half of those are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from telemetry.privacy.escapes import Span
from telemetry.privacy.plain import RUN_MIN, SECRET, searchable_name
from telemetry.privacy.rules import (
    ALNUM,
    AUTHORITY,
    EMAIL,
    ENDS,
    IP,
    PATH,
    QUERY,
    has_word,
)


Finder = Callable[[str, re.Pattern[str]], Iterator[Span]]

# What closes a sentence, a list or a quotation, and seldom a URL or a password.
_TRAILING = ".,;:!?)]}'\"`"

# -- Secrets ------------------------------------------------------------------

# A password of one character is a typing error.
_VALUE_MIN = 2

# No name of a secret is longer with what stands between it and the value.
_NAME_MAX = 96

_BASE64 = ALNUM + "+/= \t\r\n\\"


def _pem(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    """A block, or what is left of one: to the text's end, or back from its END."""
    begin, done = -1, 0
    for m in pattern.finditer(text):
        if m["edge"] == "BEGIN":
            begin = m.start() if begin < 0 else begin
            continue
        if begin < 0:
            begin = done + len(text[done : m.start()].rstrip(_BASE64))
        yield begin, m.end(), SECRET
        begin, done = -1, m.end()
    if begin >= 0:
        yield begin, len(text), SECRET


def _named(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in _overlapping(text, pattern):
        yield from _value(m)


def _options(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in _overlapping(text, pattern):
        # 'password', 'token' are two names; '--password', 'x' is one and a value.
        is_list = "," in text[m.start() : m.start(m.lastgroup or 0)]
        before = text[max(0, m.start() - 64) : m.start()]
        is_option = before[len(before.rstrip(ALNUM + "_-")) :].startswith("-")
        if is_option or not (is_list or m["bare"] or m[0].lower().startswith("token")):
            yield from _value(m)


def _overlapping(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """The matches, and those that start in the value of another one.

    In `password= token: x` the secret is `x`, not `token:`. A name that ends within a
    value is cut with it unless it stands at the value's end.
    """
    m = pattern.search(text)
    while m is not None:
        yield m
        m = pattern.search(text, max(m.start(m.lastgroup or 0), m.end() - _NAME_MAX))


def _value(m: re.Match[str]) -> Iterator[Span]:
    group = m.lastgroup or 0
    start, end = m.span(group)
    if group == "bare":
        end = start + len(m["bare"].rstrip(_TRAILING))
    if end - start >= _VALUE_MIN:
        yield start, end, SECRET


# -- Paths --------------------------------------------------------------------

# "/s" and "/h" are units of measure, and one letter tells nothing.
_PATH_MIN = 3

# A quoted path with blanks is followed so many characters to its closing quote.
_QUOTED_MAX = 512
# GNU tools, compilers and people write the last ones.
_CLOSING = dict(zip("\"'`\u2018\u201c\u00ab", "\"'`\u2019\u201d\u00bb", strict=True))
_INSIDE_QUOTES = frozenset(" ()[]{}&,;|<>\t\"'`")

# Below these people name directories, and volumes.
_MAY_HAVE_BLANKS = ("/home/", "/Users/", "/Volumes/", "/mnt/", "/media/", "/cygdrive/")
# A path goes on behind so many blanks: to the next separator, or to a name with an
# extension, but not where it reads like the rest of a sentence.
_BLANKS_MAX = 8
_TO_SEPARATOR = re.compile(rf"(?: [\w().&+\-]{{1,40}}){{1,4}}[\\/][^{ENDS}:*?,;]*")
_TO_EXTENSION = re.compile(r"(?: [\w()&+\-]{1,40}){1,4}\.[A-Za-z0-9]{1,5}(?![\w/\\.])")
_WORDS = (
    "already and are because but cannot could did does exists failed for from had has "
    "in into is it missing no not or that to was were when which while with"
)
_SENTENCE = frozenset(_WORDS.split())


def _posix_paths(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in pattern.finditer(text):
        start, end = m.span()
        enclosed = text[start - 1 : start] == "<" and text[end : end + 1] == ">"
        if enclosed and re.fullmatch(r"/[A-Za-z][\w\-]*", m[0]):  # </b>
            continue
        end = path_end(text, start, end, personal=m[0].startswith(_MAY_HAVE_BLANKS))
        if end - start >= _PATH_MIN:
            yield start, end, PATH


def _paths(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in pattern.finditer(text):
        yield m.start(), path_end(text, *m.span(), personal=True), PATH


def path_end(text: str, start: int, end: int, *, personal: bool) -> int:
    """Where a path that matched text[start:end] really ends.

    A quoted one ends at its quote; a `personal` one may go on behind a blank.
    """
    before, behind = text[start - 1 : start], text[end : end + 1]
    quote = _CLOSING.get(before, "")
    # Python writes "/home/al's x" where a name holds the other quote.
    inside = text.find(quote, start, end) if quote and not quote.isascii() else -1
    if inside > 0:
        return inside
    if quote and behind != quote and behind in _INSIDE_QUOTES:
        closing = text.find(quote, end, end + _QUOTED_MAX)
        if closing > 0 and "\n" not in text[end:closing]:
            return closing
    end = start + len(text[start:end].rstrip(".!?"))
    for _ in range(_BLANKS_MAX if personal else 0):
        if text[end : end + 1] != " ":
            break
        name = text[max(start, end - 64) : end].replace("\\", "/").rpartition("/")[2]
        m = _TO_SEPARATOR.match(text, end)
        if m is None and "." not in name:
            m = _TO_EXTENSION.match(text, end)
        if m is None or not _SENTENCE.isdisjoint(re.split(r"[\\/ ]", m[0].lower())):
            break
        end = m.end()
    return end


# -- URLs and addresses -------------------------------------------------------

_URL_HOME = re.compile(r"/(?:(?:home|Users|root)/[^/\s]|~\w)")
_SEGMENT = re.compile(r"[A-Za-z0-9_\-]{20,}")
_AUTHORITY = re.compile(AUTHORITY)


def _urls(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in pattern.finditer(text):
        start, authority = m.start("authority"), m["authority"]
        if start == m.end():
            continue
        at = authority.rfind("@")
        port = authority.rpartition(":")[2] if ":" in authority else ""
        if at < 0 and port and not port.isdigit() and authority[0] != "[":
            # user:pass/word@host: what looks like a port is half a password.
            at = text.rfind("@", start, m.end()) - start
        if at > 0:
            yield start, start + at, SECRET
        yield from _url_path(m["path"], m.start("path"), hosted=bool(authority))
        if m["query"] and len(m["query"].rstrip(_TRAILING)) > 1:
            start = m.start("query")
            yield start + 1, start + len(m["query"].rstrip(_TRAILING)), QUERY


def _url_path(path: str, start: int, *, hosted: bool) -> Iterator[Span]:
    home = _URL_HOME.search(path) if hosted else None
    if home or (not hosted and len(path) >= _PATH_MIN):
        begin = home.start() if home else 0
        yield start + begin, start + len(path.rstrip(_TRAILING)), PATH
    elif has_word(path, RUN_MIN):
        for m in _SEGMENT.finditer(path):
            # Numbers are names of commits and sessions here; letters are keys.
            if not _is_number(m[0].replace("-", "")) and is_random(m[0]):
                yield start + m.start(), start + m.end(), SECRET


def _emails(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in pattern.finditer(text):
        if not m["domain"]:
            continue
        # `pass@host` of `scheme://user:pass@host`: the URL's finder cuts less.
        scheme = text.rfind("://", max(0, m.start() - 256), m.start())
        if scheme < 0 or not _AUTHORITY.fullmatch(text, scheme + 3, m.start()):
            yield *m.span(), EMAIL


# -- In free text only --------------------------------------------------------


def _ipv6(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    for m in pattern.finditer(text):
        groups = m["groups"].split(":")
        # A time has colons too: full length, a gap, or six pairs (a network card).
        if any(groups) and (
            "::" in m["groups"]
            or len(groups) == 8
            or (len(groups) == 6 and all(len(group) == 2 for group in groups))
        ):
            start, end = m.span()
            if "]" in text[m.end("groups") : end] and text[start - 1 : start] == "[":
                start -= 1
            yield start, end, IP


# Twice the binary logarithm of how much more often a pair of classes (vowel, consonant,
# capital, digit, anything else) occurs in random base62 and base64 than in mixed-case
# runs of the standard library's source.
_CLASSES = str.maketrans(
    dict.fromkeys(map(chr, range(128)), "-")
    | dict.fromkeys("aeiouy", "v")
    | dict.fromkeys("bcdfghjklmnpqrstvwxz", "c")
    | dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "U")
    | dict.fromkeys("0123456789", "d")
)
_WEIGHTS = {
    first + second: weight
    for first, row in {
        "v": (-4, -6, 2, 8, -6),
        "c": (-5, -1, 3, 4, -6),
        "U": (-1, 3, 4, 6, 1),
        "d": (6, 4, 8, 1, -3),
        "-": (-5, -5, -4, 1, -6),
    }.items()
    for second, weight in zip("vcUd-", row, strict=True)
}
_WEIGHT_MIN = -4

_SWITCH = re.compile(r"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])")
_NUMBER = re.compile(r"(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{20,}")


def is_random(run: str) -> bool:
    """Whether the run, or a part of it between signs, was drawn by chance."""
    return _drawn(run, one_in=6) or any(
        _drawn(part, one_in=10) or _is_number(part)
        for part in re.split(r"[^A-Za-z0-9]+", run)
        if len(part) >= RUN_MIN
    )


def _is_number(run: str) -> bool:
    """Whether it is one long number, hexadecimal or decimal."""
    return _NUMBER.fullmatch(run) is not None


def _drawn(run: str, *, one_in: int) -> bool:
    # So many changes between letters and digits: names have one or two, and more of
    # them where signs divide them; base32 has three in ten characters.
    if len(_SWITCH.findall(run)) * one_in >= len(run):
        return True
    if run.islower() or run.isupper():
        return False
    kinds = run.translate(_CLASSES)
    weight = sum(_WEIGHTS[kinds[i : i + 2]] for i in range(len(kinds) - 1))
    return weight > _WEIGHT_MIN


# By the names of the rules.
FINDERS: dict[str, Finder] = {
    "PEM": _pem,
    "named secret": _named,
    "secret option": _options,
    "path": _posix_paths,
    "path of an option": _posix_paths,
    "path at the root": _paths,
    "path of Windows": _paths,
    "path of a home": _paths,
    "URL of a file": _paths,
    "URL": _urls,
    "e-mail": _emails,
    "IPv6": _ipv6,
}
# What their patterns match is private where these say so.
JUDGES: dict[str, Callable[[str], object]] = {
    "AWS secret": lambda key: not _is_number(key) and is_random(key),
    "user name": searchable_name,
    "random run": is_random,
}
