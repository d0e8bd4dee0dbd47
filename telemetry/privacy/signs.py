"""How a character is written otherwise: as an escape, or as another that looks like it.

Rules:
- An escape is one of URLs, of JSON, C, Python, a shell, of HTML.
- Whatever is matched stands for some text; nothing is raised, beyond Unicode neither.

It decides nothing about what is private, and knows no text but the escape.
"""

from __future__ import annotations

import sys

from telemetry.privacy.patterns import Pattern


# A character in UTF-8, percent-encoded, whole; then any other byte; then what
# JSON, C, Python and a shell write with a backslash; then what HTML writes.
ESCAPE = Pattern(
    r"%[Ff][0-7](?:%[89ABab][0-9A-Fa-f]){3}"
    r"|%[Ee][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){2}"
    r"|%[CDcd][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]"
    r"|%[0-9A-Fa-f]{2}"
    r"|(?:\\\\)+"
    r"|\\(?:u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|[0-3][0-7]{2}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|[nrtbfv0/\"'`])"
    r"|&(?:#(?:[0-9]{1,7}|[xX][0-9A-Fa-f]{1,6})"
    r"|amp|apos|bsol|colon|commat|equals|gt|lt|period|quot|sol);"
)
# What a backslash and a letter stand for in JSON, C and Python. All others stand
# for themselves.
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " ", "v": " ", "0": " "}

# The named signs of HTML that a path, an address or a quotation is made of.
_NAMED = {
    "amp": "&",
    "apos": "'",
    "bsol": "\\",
    "colon": ":",
    "commat": "@",
    "equals": "=",
    "gt": ">",
    "lt": "<",
    "period": ".",
    "quot": '"',
    "sol": "/",
}

# Letters of Cyrillic and Greek that nobody can tell from Latin ones, and strokes
# that read as a slash: what is copied from a page or made to slip through.
LOOK_ALIKES = str.maketrans(
    "\u0430\u0441\u0435\u04bb\u0456\u0458\u043a\u043e\u0440\u0455\u0445\u0443\u0501\u051b\u051d"
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425"
    "\u03b1\u03bf\u03bd\u03c1\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4"
    "\u2044\u2215\u29f8\u2216\u29f5",
    "acehijkopsxydqwABCEHIJKMOPSTXaovpABEHIKMNOPT///\\\\",
)


def meant(escape: str) -> str:
    """The character that one match of ESCAPE stands for."""
    if escape[:2] == "\\\\":
        return "\\" * (len(escape) // 2)
    if escape[0] == "%":
        return bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace")
    if escape[0] == "&":
        if escape[1] != "#":
            return _NAMED[escape[1:-1]]
        number = escape[2:-1]
        return _character(int("0" + number, 16 if number[0] in "xX" else 10))
    if escape[1] in "uUx" and len(escape) > 2:
        return _character(int("0" + escape[2:].strip("{}"), 16))
    if len(escape) == 4:  # \057
        return chr(int(escape[1:], 8))
    return _ESCAPED.get(escape[1], escape[1])


def _character(code: int) -> str:
    """The character of this number; a question mark beyond Unicode."""
    return chr(code) if code <= sys.maxunicode else "?"
