"""Text in, scrubbed text out: what leaves an event before it is written.

    every string loses                                     and reads
    ------------------------------------------------------ ------------
    absolute paths, `~/x`, `$HOME/x`, file: URLs           `<path>`
    the user's name, as a word of its own, in any case     `<user>`
    e-mail addresses, `user@host:path`                     `<email>`
    the program's own API key, or eight characters of it,
      in any form that `own_key` names, with or without a
      scrubber                                             `<secret>`
    keys and tokens of known shape, JWTs, PEM blocks,
      URL credentials, cookies, `password=…`               `<secret>`
    a URL's query and fragment                             `<query>`
    ------------------------------------------------------ ------------
    free text (`error`, `args`) also loses
    ------------------------------------------------------ ------------
    IP addresses with their ports, hardware addresses      `<ip>`
    UUIDs, hex, base64 of 20 characters or more            `<random>`
    ------------------------------------------------------ ------------
    a text that is little else                             `<scrubbed>`

Rules:
- In doubt it cuts. What stays: relative paths (less the user's name), a URL's
  scheme, host and path (less homes and keys), versions, names, dates, and in
  ordinary strings UUIDs, hexadecimal ids and addresses.
- Escapes of URLs, JSON and HTML are undone to look, four deep. The own key is found in
  base64, hexadecimal and reversed as well (see `own_key`).
- To scrub twice is to scrub once; nothing is raised for any string; time is linear;
  the result is at most twice as long as the text, and 32 characters.

Not found, and not promised:
- what only a program that attacks itself would write: letters of other scripts that
  look alike, full width, invisible characters or colours inside a key, a key of others
  that is wrapped over two lines or encoded again;
- a secret of no known shape without a name before it; a password in a sentence;
- a name that is also a word (`root`, `test`, `mark`), or shorter than three letters:
  it would tell nothing and spoil much. Its home is removed;
- names of other people, where the text does not say that they are names.

Files: `rules` is the table of what is private, `plain` what is known without it, `finders`
what a pattern cannot say, `escapes` what a text reads as, `own_key` the program's own
key, `scrub` applies the rules. A new maker's key is a line in `rules`.

Cost: a string seen before and found clean is one lookup. A new short one of plain words
(`plain`) loads nothing, another is looked at by the index of the rules' literals; only
one that may hold something loads `scrub`.

It reads no environment, opens no file, and knows no event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.privacy.own_key import OwnKey as OwnKey
from telemetry.privacy.own_key import own_key_of as own_key_of
from telemetry.privacy.plain import (
    SECRET,
    SECRET_WORDS,
    is_plain,
    last_component,
    once,
    remember,
    searchable_home,
    searchable_name,
)
from telemetry.privacy.plain import identity_from as identity_from


if TYPE_CHECKING:
    from typing import Any

    from telemetry.privacy.scrub import Identity

# What a text costs besides its characters.
_TEXT_CHARS = 64
# Longer ones are messages, which are searched at once.
_PLAIN_CHARS_MAX = 128

# A smaller number under a secret's name is a count or a switch.
_NUMBER_MIN = 100_000

# Options that do not say by their names that a secret follows.
_ACCOUNT_OPTIONS = frozenset({"-u", "--user", "--proxy-user"})
_SHORT_OPTIONS = frozenset({"--pass", "--pw"})


class Scrubber:
    """Removes one user's homes and names, and what the rules find.

    Made once for a client; threads may share one.

    Args:
        homes: absolute paths.
        users: names as the system gives them.

    Homes and names that are too short or too common are not searched for.
    """

    def __init__(self, *, homes: tuple[str, ...], users: tuple[str, ...]) -> None:
        self._homes = once(map(searchable_home, homes))
        self._users = once(map(searchable_name, users))
        # A text without the longest part of a name is without the name.
        self._marks = (
            *(max(user.split(), key=len) for user in self._users),
            *map(last_component, self._homes),
        )
        self._identity: Identity | None = None
        # How many characters patterns had to look at; a text costs so many by itself.
        self.searched = 0
        # Strings that were found clean: a caller in a hurry looks here first.
        self.clean: dict[str, bool] = {}
        self.clean_free: dict[str, bool] = {}
        self._secret_names: dict[str, bool] = {}

    def text(self, s: str) -> str:
        """The string without what every string loses; the same object if clean."""
        if s in self.clean:
            return s
        return self._searched(s, self.clean, free=False)

    def free_text(self, s: str) -> str:
        """The same for what people or other programs wrote: `error`, `args`."""
        if s in self.clean_free:
            return s
        return self._searched(s, self.clean_free, free=True)

    def behind_options(self, items: list[Any]) -> list[Any]:
        """The items less what follows an option that names a secret: `--password`, `x`.

        The list itself if there is none.
        """
        found = {
            place
            for place, option in enumerate(items[:-1], start=1)
            if isinstance(option, str)
            and option[:1] == "-"
            and self._belongs(option, items[place])
        }
        if not found:
            return items
        return [SECRET if i in found else item for i, item in enumerate(items)]

    def _belongs(self, option: str, value: object) -> bool:
        """Whether this value is a secret behind this option."""
        if not isinstance(value, str) or value[:1] in ("", "-") or value == SECRET:
            return False
        if option in _ACCOUNT_OPTIONS:  # curl -u name:password
            return ":" in value
        return option in _SHORT_OPTIONS or self.names_secret(option)

    def names_secret(self, key: str) -> bool:
        """Whether what stands under this name, in a dict, is a secret."""
        known = self._secret_names.get(key)
        if known is None:
            low = key.lower()
            known = any(word in low for word in (*SECRET_WORDS, "cookie"))
            if known:
                import re

                from telemetry.privacy.rules import SECRET_KEY

                known = re.search(SECRET_KEY, key) is not None
            remember(self._secret_names, key, found=known)
        return known

    def _searched(self, s: str, clean: dict[str, bool], *, free: bool) -> str:
        # A subclass may compare, hash and lower as it likes.
        plain = s if type(s) is str else str.__str__(s)
        if not self._is_plainly_clean(plain, free=free):
            from telemetry.privacy.rules import EVERYWHERE, IN_FREE_TEXT
            from telemetry.privacy.scrub import Identity, scrub

            self.searched += len(plain) + _TEXT_CHARS
            if self._identity is None:
                self._identity = Identity(self._homes, self._users)
            rules = IN_FREE_TEXT if free else EVERYWHERE
            scrubbed = scrub(plain, rules, self._identity)
            if scrubbed != plain:
                return scrubbed
        remember(clean, plain)
        return s

    def _is_plainly_clean(self, s: str, *, free: bool) -> bool:
        """Whether no rule or name can match in a short string or undo it.

        It may say no of a clean string, and never says yes of another.
        """
        if len(s) > _PLAIN_CHARS_MAX or not s.isascii() or not s.isprintable():
            return False
        if "\\" in s or "%" in s or ("&" in s and ";" in s):  # an escape
            return False
        low = s.lower()
        for mark in self._marks:
            if mark in low:
                return False
        if is_plain(s):
            return True
        from telemetry.privacy.rules import INDEX

        # As `scrub.as_searched` has it: a line's end stands for the start.
        return not INDEX.may_match(f"\n{s}", f"\n{low}", free=free)


def hidden(v: Any) -> Any:
    """A value whose name says that it is a secret: each string in it is replaced.

    So is a number that is no count: of six digits or more.
    """
    if isinstance(v, str):
        return SECRET if v else v
    if isinstance(v, (int, float)) and abs(v) >= _NUMBER_MIN:
        return SECRET
    if isinstance(v, dict):
        return {key: hidden(item) for key, item in v.items()}
    if isinstance(v, (list, tuple)):
        return [*map(hidden, v)]
    return v
