"""Text as the wire wants it: trimmed as Unicode says, and always valid UTF-8.

Pure. Bytes that are no UTF-8 reach Python as lone surrogates (PEP 383), one for
each byte; each becomes one U+FFFD.
"""

from __future__ import annotations


# The Unicode property White_Space. `str.strip()` would also take U+001C to
# U+001F, which are separators but not white space.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


def trim(text: str) -> str:
    """The text without white space at its ends."""
    return text.strip(WHITE_SPACE)


def unquoted(text: str) -> str:
    """The text trimmed, and without one pair of quotes (`docker --env-file` keeps them)."""
    text = trim(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return trim(text[1:-1])
    return text


def sound(text: str) -> str:
    """The text with one U+FFFD for each lone surrogate; itself if there is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # Here, not above: few programs ever compile it.
        import re

        return re.sub("[\ud800-\udfff]", "�", text)
    return text


def decode(content: bytes) -> str:
    """The text of some bytes, with one U+FFFD for each byte that is no UTF-8."""
    return sound(content.decode("utf-8", "surrogateescape"))


def shown(value: object) -> str:
    """What a host handed over, also if it has no `repr` or far too many digits."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - it is the host's code
        return f"<{type(value).__name__}>"
