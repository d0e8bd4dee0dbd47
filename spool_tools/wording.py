"""How numbers, times and foreign text are worded for a person. Pure.

Whatever is not printable is escaped the way JSON escapes it: a terminal obeys nothing
that an event, a reply or a file's name holds, and JSON stays valid JSON.
"""

from __future__ import annotations

import re
import time
import unicodedata


CUT = "…"


def size(count: int) -> str:
    """Bytes in a unit that leaves few digits."""
    if count < 1024:
        return f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024 / 1024:.1f} MiB"


def age(seconds: float) -> str:
    """A time span in a unit that leaves few digits."""
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        # From about two of a unit on, that unit is used.
        if seconds > 1.95 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(milliseconds: int | None, now: float) -> str:
    """How long ago a time was, in milliseconds since 1970; `now` is in seconds."""
    if milliseconds is None:
        return "never"
    # A letter that was edited by hand may say any number.
    if milliseconds > now * 1000:
        return f"at {moment(milliseconds)}"
    return f"{age(now - max(milliseconds, 0) / 1000)} ago"


def moment(milliseconds: int) -> str:
    """A time, in milliseconds since 1970, as a person reads it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(milliseconds // 1000))
    except (OverflowError, ValueError, OSError):
        return "a time beyond the calendar"


def many(count: int, noun: str) -> str:
    """A count and its noun: `1 segment`, `1,200 segments`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def columns(text: str) -> int:
    """How many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def cut(text: str, width: int) -> str:
    """The text, shortened where it takes more than `width` columns."""
    if columns(text) <= width:
        return text
    used, kept = 1, 0
    for char in text:
        used += _columns_of(char)
        if used > width:
            break
        kept += 1
    return text[:kept] + CUT if width else ""


def fitted(text: str, width: int) -> str:
    """The text in exactly `width` columns: padded, or shortened."""
    text = cut(text, width)
    return text + " " * (width - columns(text))


def folded(text: str, width: int, indent: int) -> list[tuple[int, int]]:
    """Where the lines of a text begin and end, if all but the first are indented.

    It is broken at blanks only; those between two lines belong to neither.
    """
    if columns(text) <= width:
        return [(0, len(text))]
    lines: list[tuple[int, int]] = []
    start = end = 0
    for word in re.finditer("[^ ]+", text):
        room = width - (indent if lines else 0)
        if end > start and columns(text[start : word.end()]) > room:
            lines.append((start, end))
            start = word.start()
        end = word.end()
    return [*lines, (start, end)]
