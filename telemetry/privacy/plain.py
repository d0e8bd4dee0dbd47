"""What no rule can match, seen without the rules: most names of commands and flags.

Small letters, blanks and hyphens, and no word that announces a secret. All else is
looked at by the `rules`, which take a start as long as the rest of this package.
"""

from __future__ import annotations


SECRET = "<secret>"  # noqa: S105  # what stands in its place

# Each name of a secret has one of these in it.
SECRET_WORDS = (
    *("pass", "pw", "secret", "token", "key", "cred", "auth", "_pat", "sig"),
    *("kennwort", "contrase", "mot de", "senha", "\u043b\u044c", "\u5bc6", "\u30d1"),
)

# A long random string has so many characters at least, a hardware address so many
# hyphens: `ab-cd-ef-ab-cd-ef`.
RUN_MIN = 20
_HYPHENS_MIN = 5
_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyz -")


# Texts found clean are remembered up to this length, so many: names of commands, models
# and tools recur, messages do not. 256 KiB at most.
_REMEMBERED_CHARS_MAX = 128
_REMEMBERED_MAX = 1024


def remember(
    known: dict[str, bool],
    text: str,
    *,
    found: bool = True,
    always: tuple[str, ...] = (),
) -> None:
    """Keep what was found of a text, where it is short; those in `always` stay."""
    if len(text) <= _REMEMBERED_CHARS_MAX:
        if len(known) >= _REMEMBERED_MAX:
            # What recurs comes back; keeping an order would cost every lookup.
            known.clear()
            known.update(dict.fromkeys(always, True))
        known[text] = found


def is_plain(text: str) -> bool:
    """Whether no rule can match the text. It may say no of a text that none matches."""
    return (
        len(text) < RUN_MIN
        and _SIGNS.issuperset(text)
        and text.count("-") < _HYPHENS_MIN
        and not any(map(text.__contains__, SECRET_WORDS))
    )
