"""Text in, scrubbed text out: what leaves an event before it is written.

    every string loses                                     and reads
    ------------------------------------------------------ ------------
    absolute paths, `~/x`, `$HOME/x`, file: URLs           `<path>`
    the user's name, as a word of its own, in any case     `<user>`
    e-mail addresses, `user@host:path`                     `<email>`
    keys and tokens of known shape, JWTs, PEM blocks,
      URL credentials, cookies, `password=…`               `<secret>`
    a URL's query and fragment                             `<query>`
    ------------------------------------------------------ ------------
    free text (`error`, `args`) also loses
    ------------------------------------------------------ ------------
    IP addresses with their ports, hardware addresses      `<ip>`
    UUIDs, hex, base64 of 20 characters or more            `<random>`
    ------------------------------------------------------ ------------
    a text that is little else, or made to be misread      `<scrubbed>`

Rules:
- In doubt it cuts. What stays: relative paths (less the user's name), a URL's
  scheme, host and path (less homes and keys), versions, names, dates, and in
  ordinary strings UUIDs, hexadecimal ids and addresses.
- Disguises do not help: escapes of URLs, JSON and HTML (four deep), full width,
  look-alikes, accents either way, invisible characters, colour codes, wrapped lines.
- To scrub twice is to scrub once; nothing is raised for any string; time is linear;
  the result is at most twice as long as the text, and 32 characters.
- A name that is also a word (`root`, `test`, `mark`), or shorter than three letters,
  is not removed: that would tell nothing and spoil much. Its home is removed.

Cost: a string seen before and found clean is one lookup. A new one is first looked at
without regular expressions; only one that may hold something loads `scrub`.

It reads no environment, opens no file, and knows no event.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING

from telemetry.privacy.marks import (
    RUN_MIN,
    SCHEME_WORDS,
    has_word,
    may_be_address,
    may_hold_key,
    may_name_secret,
)
from telemetry.privacy.names import identity_from as identity_from
from telemetry.privacy.names import (
    last_component,
    once,
    searchable_home,
    searchable_name,
)


if TYPE_CHECKING:
    from typing import Any

    from telemetry.privacy.scrub import Identity


# Strings found clean are remembered up to this length, so many for each kind of
# text: names of commands, models and tools recur, messages do not. 256 KiB at most.
_REMEMBERED_CHARS_MAX = 128
_REMEMBERED_MAX = 1024

# Longer strings are not worth a quick look.
_QUICK_CHARS_MAX = 128

# Characters that start nothing by themselves. Letters that are not deleted with
# them, and digits, may make a key; any other character may make a path, an address,
# a URL, a disguise.
_QUIET = b"abcdefghijklmnopqrstuvwxyz -_.,;!?'\"()[]{}<*+&^|`#"

# An IPv4 address has so many dots, a network card's so many dashes.
_DOTS_MIN = 3
_DASHES_MIN = 5

# Options that do not say by their names that a secret follows.
_ACCOUNT_OPTIONS = frozenset({"-u", "--user", "--proxy-user"})
_SHORT_OPTIONS = frozenset({"--pass", "--pw"})

_SECRET = "<secret>"  # noqa: S105  # what stands in its place


class Scrubber:
    """Knows one user's homes and names; made once for a client.

    `homes` are absolute paths, `users` are names as the system gives them. What is
    too short or too common to be searched for is left out. Threads may share one.
    """

    def __init__(self, *, homes: tuple[str, ...], users: tuple[str, ...]) -> None:
        self._homes = once(map(searchable_home, homes))
        self._users = once(map(searchable_name, users))
        # A text without the longest part of a name is without the name.
        self._marks = tuple(max(user.split(), key=len) for user in self._users)
        self._home_marks = tuple(map(last_component, self._homes))
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

        Keys are scrubbed as well; of two that become one, the last wins. A string
        whose key calls it a secret is one. Whatever else is inside comes back as it
        is, and so does `v` itself where nothing changed. Raises RecursionError where
        a value contains itself, or nests as deep as Python does.
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
        return [_SECRET if i in found else item for i, item in enumerate(items)]

    def _belongs(self, option: str, said: object) -> bool:
        """Whether this is a secret, behind this option."""
        if not isinstance(said, str) or said[:1] in ("", "-") or said == _SECRET:
            return False
        if option in _ACCOUNT_OPTIONS:  # curl -u name:password
            return ":" in said
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
            known = may_name_secret(low) or "cookie" in low
            if known:
                from telemetry.privacy.patterns import SECRET_KEY

                known = SECRET_KEY.regex.search(key) is not None
            _remember(self._secret_names, key, known=known)
        return known

    def _searched(self, s: str, clean: dict[str, bool], *, free: bool) -> str:
        # A subclass may compare, hash and lower as it likes.
        plain = s if type(s) is str else str.__str__(s)
        if not self._is_plainly_clean(plain, free=free):
            from telemetry.privacy.scrub import Identity, scrub

            if self._identity is None:
                self._identity = Identity(self._homes, self._users)
            scrubbed = scrub(plain, self._identity, free=free)
            if scrubbed != plain:
                return scrubbed
        _remember(clean, plain, known=True)
        return s

    def _is_plainly_clean(self, s: str, *, free: bool) -> bool:
        """Whether a short string holds nothing that any pattern could match.

        It may say no of a clean string, and never says yes of another.
        """
        if len(s) > _QUICK_CHARS_MAX or not s.isascii():
            return False
        low = s.lower()
        for mark in self._marks:
            if mark in low:
                return False
        if "&" in s and ";" in s:  # &#47;
            return False
        loud = s.encode().translate(None, _QUIET)
        if loud and not loud.isalnum() and not self._is_a_name(s, low, loud, free=free):
            return False
        if " " in s and (
            may_name_secret(low) or SCHEME_WORDS[0] in low or SCHEME_WORDS[1] in low
        ):
            return False
        # Every key has a digit or a capital, and so has what looks random.
        if not loud:
            return True
        if free and (
            s.count(".") >= _DOTS_MIN
            or s.count("-") >= _DASHES_MIN
            or "ip-" in low
            or "ec2-" in low
            or has_word(s, RUN_MIN)
        ):
            return False
        return not may_hold_key(s, low)

    def _is_a_name(self, s: str, low: str, loud: bytes, *, free: bool) -> bool:
        """Whether nothing is loud in it but slashes and colons inside of names."""
        rest = loud.translate(None, b"/:")
        return not (
            (rest and not rest.isalnum())
            or may_be_address(s, low)
            or any(mark in low for mark in self._home_marks)
            or (free and s.count(":") > 1)
        )


def _hidden(v: object) -> object:
    """What a secret's name stands before: each of its strings is one."""
    if isinstance(v, str):
        return _SECRET if v else v
    if isinstance(v, dict):
        return {key: _hidden(item) for key, item in v.items()}
    if isinstance(v, (list, tuple)):
        return type(v)(map(_hidden, v)) if type(v) in (list, tuple) else v
    return v


def describe_exception(error: BaseException, scrubber: Scrubber) -> str:
    """`ClassName: message`, scrubbed as free text; only the name if it has no message.

    Never raises, even if the error cannot say what it is.
    """
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # somebody else's __str__ may raise anything
        message = "<unprintable>"
    return scrubber.free_text(f"{name}: {message}" if message else name)


def _remember(known_of: dict[str, bool], s: str, *, known: bool) -> None:
    if len(s) <= _REMEMBERED_CHARS_MAX:
        if len(known_of) >= _REMEMBERED_MAX:
            # What recurs comes back; keeping an order would cost every lookup.
            known_of.clear()
        known_of[s] = known
