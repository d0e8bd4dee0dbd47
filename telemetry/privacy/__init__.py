"""Text in, scrubbed text out: what leaves an event before it is written.

    every string loses                                     and reads
    ------------------------------------------------------ ------------
    absolute paths, `~/x`, `$HOME/x`, file: URLs           `<path>`
    the user's name, as a word of its own, in any case     `<user>`
    e-mail addresses, `user@host:path`                     `<email>`
    the program's own API key, or eight characters of it   `<secret>`
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

Files: `rules` is the table of secrets, `places` that of names and places, `finders`
what a pattern cannot say, `escapes` what a text reads as, `own_key` the program's own
key, `scrub` applies them. A new maker's key is a line in `rules`.

Cost: a string seen before and found clean is one lookup. A new short one is looked at
by an index of the rules' literals; only one that may hold something loads `scrub`.

It reads no environment, opens no file, and knows no event.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING

from telemetry.privacy.own_key import OwnKey
from telemetry.privacy.own_key import without_secret as without_secret
from telemetry.privacy.places import (
    ADDRESSES,
    FREE,
    PATHS,
    last_component,
    once,
    searchable_home,
    searchable_name,
)
from telemetry.privacy.places import identity_from as identity_from
from telemetry.privacy.rules import SECRET, SECRET_KEY, SECRET_WORDS, SECRETS, Index


if TYPE_CHECKING:
    from typing import Any

    from telemetry.privacy.scrub import Identity

EVERYWHERE = (*PATHS, *ADDRESSES, *SECRETS)
IN_FREE_TEXT = (*EVERYWHERE, *FREE)
_INDEX = Index(IN_FREE_TEXT)

# Strings found clean are remembered up to this length, so many for each kind of
# text: names of commands, models and tools recur, messages do not. 256 KiB at most.
_REMEMBERED_CHARS_MAX = 128
_REMEMBERED_MAX = 1024

# Options that do not say by their names that a secret follows.
_ACCOUNT_OPTIONS = frozenset({"-u", "--user", "--proxy-user"})
_SHORT_OPTIONS = frozenset({"--pass", "--pw"})


class Scrubber:
    """Removes one user's homes and names, one key, and what the rules find.

    Made once for a client; threads may share one.

    Args:
        homes: absolute paths.
        users: names as the system gives them.
        key: the program's own API key; empty where there is none.

    Homes and names that are too short or too common are not searched for.
    """

    def __init__(
        self, *, homes: tuple[str, ...], users: tuple[str, ...], key: str = ""
    ) -> None:
        self._homes = once(map(searchable_home, homes))
        self._users = once(map(searchable_name, users))
        # A text without the longest part of a name is without the name.
        self._marks = (
            *(max(user.split(), key=len) for user in self._users),
            *map(last_component, self._homes),
        )
        self._key = OwnKey(key)
        self._identity: Identity | None = None
        # Strings that were found clean: who is in a hurry looks here first.
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

    def value(self, v: object, *, free: bool = False) -> object:
        """The value with its strings scrubbed, inside dicts, lists and tuples too.

        Args:
            v: any value. What is no string, dict, list or tuple stays as it is.
            free: whether its strings are free text.

        Returns:
            The new value, or `v` itself where nothing changed. Keys are scrubbed as
            well; of two that become one, the last wins. A string whose key names a
            secret is one.

        Raises:
            RecursionError: a value contains itself, or nests as deep as Python does.
        """
        if isinstance(v, str):
            return self.free_text(v) if free else self.text(v)
        if isinstance(v, dict):
            new = {
                self.value(k, free=free): self._item(k, x, free=free)
                for k, x in v.items()
            }
            same = len(new) == len(v) and all(map(is_, new.values(), v.values()))
            return v if same and all(map(is_, new, v)) else new
        if isinstance(v, (list, tuple)):
            items = self.behind_options([self.value(x, free=free) for x in v])
            if all(map(is_, items, v)):
                return v
            return items if isinstance(v, list) else tuple(items)
        return v

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
        return option in _SHORT_OPTIONS or self._names_secret(option)

    def _item(self, key: object, v: object, *, free: bool) -> object:
        if (
            v
            and isinstance(key, str)
            and isinstance(v, (str, list, tuple, dict))
            and self._names_secret(key)
        ):
            return _hidden(v)
        return self.value(v, free=free)

    def _names_secret(self, key: str) -> bool:
        known = self._secret_names.get(key)
        if known is None:
            low = key.lower()
            known = any(word in low for word in (*SECRET_WORDS, "cookie"))
            if known:
                import re

                known = re.search(SECRET_KEY, key) is not None
            _remember(self._secret_names, key, known=known)
        return known

    def _searched(self, s: str, clean: dict[str, bool], *, free: bool) -> str:
        # A subclass may compare, hash and lower as it likes.
        plain = s if type(s) is str else str.__str__(s)
        if not self._is_plainly_clean(plain, free=free):
            from telemetry.privacy.scrub import Identity, scrub

            if self._identity is None:
                self._identity = Identity(self._homes, self._users)
            rules = IN_FREE_TEXT if free else EVERYWHERE
            scrubbed = scrub(plain, rules, self._identity, self._key)
            if scrubbed != plain:
                return scrubbed
        _remember(clean, plain, known=True)
        return s

    def _is_plainly_clean(self, s: str, *, free: bool) -> bool:
        """Whether no rule, name or key can match in a short string or undo it.

        It may say no of a clean string, and never says yes of another.
        """
        if len(s) > _REMEMBERED_CHARS_MAX or not s.isascii() or not s.isprintable():
            return False
        if "\\" in s or "%" in s or ("&" in s and ";" in s):  # an escape
            return False
        low = s.lower()
        for mark in self._marks:
            if mark in low:
                return False
        # As `scrub.as_searched` has it: a line's end stands for the start.
        return not (
            self._key.may_be_in(s) or _INDEX.may_match(f"\n{s}", f"\n{low}", free=free)
        )


def _hidden(v: object) -> object:
    """A value whose name says that it is a secret: each string in it is replaced."""
    if isinstance(v, str):
        return SECRET if v else v
    if isinstance(v, dict):
        return {key: _hidden(item) for key, item in v.items()}
    if isinstance(v, (list, tuple)):
        return type(v)(map(_hidden, v)) if type(v) in (list, tuple) else v
    return v


def _remember(known_of: dict[str, bool], s: str, *, known: bool) -> None:
    if len(s) <= _REMEMBERED_CHARS_MAX:
        if len(known_of) >= _REMEMBERED_MAX:
            # What recurs comes back; keeping an order would cost every lookup.
            known_of.clear()
        known_of[s] = known
