"""Where in a text the absolute paths are, of Unix and of Windows.

Rules:
- Absolute is what starts at a root, a drive, a server, or somebody's home.
- A path ends where a quotation, a list, a sentence or a line ends; `:3:14` behind it
  stays. A person's path may hold blanks, as far as what follows still looks like one.

It opens nothing: whether a path exists makes no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.privacy import patterns as shapes
from telemetry.privacy import place_patterns as places


if TYPE_CHECKING:
    from collections.abc import Iterator

    Span = tuple[int, int, str]  # text[start:end] is to read as this


PATH = "<path>"

# "/s" and "/h" are units of measure, and one letter tells nothing.
PATH_MIN = 3

# A quoted path with blanks is followed this far to its closing quote. Longer ones
# exist; what is behind has lost its beginning by then.
_QUOTED_PATH_MAX = 512

# GNU tools, compilers and people write the last ones.
_CLOSING = {
    '"': '"',
    "'": "'",
    "`": "`",
    "\u2018": "\u2019",
    "\u201c": "\u201d",
    "\u00ab": "\u00bb",
}
_INSIDE_QUOTES = frozenset(" ()[]{}&,;|<>\t\"'`")

# Below these people name directories, and volumes.
_MAY_HAVE_BLANKS = ("/home/", "/Users/", "/Volumes/", "/mnt/", "/media/", "/cygdrive/")

# Other URLs of files, on a server or here.
_FILE_SCHEMES = ("file:", "smb:", "cifs:", "nfs:", "afp:")

# A path goes on behind so many blanks.
_BLANKS_MAX = 8

# A path of a person may go on behind a blank: to the next separator, or to a name
# with an extension.
_BLANK_TO_SEPARATOR = shapes.Pattern(
    rf"(?: [\w().&+\-]{{1,40}}){{1,4}}[\\/][^{shapes.ENDS}:*?,;]*"
)
_BLANK_TO_EXTENSION = shapes.Pattern(
    r"(?: [\w()&+\-]{1,40}){1,4}\.[A-Za-z0-9]{1,5}(?![\w/\\.])"
)
# ... but not when it reads like the rest of a sentence.
_SENTENCE = (
    "already and are because but cannot could did does exists failed for from had has "
    "in into is it missing no not or that to was were when which while with"
)
_SENTENCE_WORDS = frozenset(_SENTENCE.split())


def posix_paths(text: str, _low: str) -> Iterator[Span]:
    if "/" not in text or not _may_be_absolute(text):
        return
    for m in places.POSIX_PATH.regex.finditer(text):
        start, end = m.span()
        if end - start == 1:
            continue
        enclosed = text[start - 1 : start] == "<" and text[end : end + 1] == ">"
        if enclosed and places.CLOSING_TAG.regex.fullmatch(m[0]):
            continue
        personal = m[0].startswith(_MAY_HAVE_BLANKS)
        end = path_end(text, start, end, personal=personal)
        if end - start >= PATH_MIN:
            yield start, end, PATH


def rooted_paths(text: str, _low: str) -> Iterator[Span]:
    if "/" not in text:
        return
    if text.isascii() and not any(f"{sign}/" in text for sign in places.ROOTED_AFTER):
        return
    for m in places.ROOTED_PATH.regex.finditer(text):
        before = text[m.start() - 1 : m.start()]
        if before >= places.UNSPACED or before in places.ROOTED_AFTER:
            yield m.start(), path_end(text, *m.span(), personal=True), PATH


def windows_paths(text: str, _low: str) -> Iterator[Span]:
    if "\\" not in text and ":/" not in text:
        return
    for m in places.WINDOWS_PATH.regex.finditer(text):
        yield m.start(), path_end(text, *m.span(), personal=True), PATH


def home_paths(text: str, _low: str) -> Iterator[Span]:
    if "/" not in text and "\\" not in text:
        return
    if "~" in text or "$" in text or "%" in text or ".." in text:
        for m in places.HOME_PATH.regex.finditer(text):
            yield m.start(), path_end(text, *m.span(), personal=True), PATH


def file_urls(text: str, low: str) -> Iterator[Span]:
    if any(scheme in low for scheme in _FILE_SCHEMES):
        for m in places.FILE_URL.regex.finditer(text):
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
        closing = text.find(quote, end, end + _QUOTED_PATH_MAX)
        if closing > 0 and "\n" not in text[end:closing]:
            return closing
    end = start + len(text[start:end].rstrip(".!?"))
    for _ in range(_BLANKS_MAX if personal else 0):
        if text[end : end + 1] != " ":
            break
        name = text[max(start, end - 64) : end].replace("\\", "/").rpartition("/")[2]
        m = _BLANK_TO_SEPARATOR.regex.match(text, end)
        if m is None and "." not in name:
            m = _BLANK_TO_EXTENSION.regex.match(text, end)
        if m is None or not _SENTENCE_WORDS.isdisjoint(
            m[0].lower().replace("\\", " ").replace("/", " ").split()
        ):
            break
        end = m.end()
    return end


def _may_be_absolute(text: str) -> bool:
    """Whether some slash in it does not follow a letter or a digit."""
    if len(text) > 256 or not text.isascii():
        return True
    if text[0] == "-" or " -" in text:  # -I/usr/include
        return True
    return any(not before[-1:].isalnum() for before in text.split("/")[:-1])
