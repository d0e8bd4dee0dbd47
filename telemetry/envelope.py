"""An event becomes the bytes that will be posted.

    {"event": …, "event_timestamp": <ms>, "source": …, "properties": {…}}

Properties are the payload's fields, then the pairs of TELEMETRY_TAGS, then the
system's fields, which nothing can override. Every string but the system's own is
scrubbed here, before any byte is written; the program's own key goes from all of them.
What all events have in common is encoded once.

What can be kept in a sound form is kept: bytes that are no UTF-8 as U+FFFD, a number that
is not finite as null, what has a text as its text. What cannot raises InvalidEventError.
The environment is read anew for each event. Nothing here touches a file.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import astuple

from telemetry.errors import EventTooBigError, InvalidEventError
from telemetry.identity import EventIds
from telemetry.light_events import CommandEvent
from telemetry.text import decode, sound, trim, unquoted


if TYPE_CHECKING:
    from telemetry.events import StructuredEvent
    from telemetry.privacy import OwnKey, Scrubber

# Payloads of ours are held against their types; those of a program are its own.
_OURS = frozenset({"telemetry.events", "telemetry.light_events"})
# Names that this library gives: fields of its payloads and the system's. By hand, as
# the classes of rarer events are not made at a launch; a test compares.
_FIELDS = """
    action agent_name arch args ci container cost duration_ms error error_count
    event_id exit_code flags input_tokens install invocation_id is_success
    model_name os os_language os_version output_tokens python sdk session_id
    tool_calls tool_name total_tokens user_uuid version
"""
FIELDS = frozenset(_FIELDS.split())
# Free text, written by people and other programs: these lose more when scrubbed.
FREE_TEXT = frozenset({"error", "args"})
# Two bytes each: more of them are no event of any size that is allowed by default.
_ITEMS_MAX = 128 * 1024
# Kept as they are by `to_builtins`, which would else make them base64.
_BYTES = (bytes, bytearray, memoryview)
# What `to_builtins` makes of everything that is a sequence.
_SEQUENCES = (list, tuple)
# Texts are cut at so many characters before they are scrubbed, which takes a millisecond
# for some hundreds of dense ones: free text (a traceback is shorter), any other, and
# all texts of an event together that patterns have to look at.
_FREE_CHARS_MAX = 4 * 1024
_TEXT_CHARS_MAX = 16 * 1024
_EVENT_CHARS_MAX = 16 * 1024
# Longer texts are always looked at by patterns. Short ones, and names, may be as many once
# more behind a long one: that alone is to be cut.
_SHORT_CHARS_MAX = 128
# A key on one line is hardly longer.
_CUT_CHARS_MAX = 1024
# A person's name hardly has more words.
_CUT_WORDS = 4
# Where a block of a key ends, which has begun before the text did.
_BLOCK_END, _BLOCK_CHARS_MAX = "-----END", 4096
_BLOCK = "".join(filter(str.isalnum, map(chr, range(128)))) + "+/= \t\r\n\\"
_INFINITY = float("inf")
_NO_LANGUAGE = "en-US"
_TAGS = "TELEMETRY_TAGS"
_LANGUAGE = "LANG"
_NAMES_MAX = 100
# For a class of which no event was seen: no name is this object.
_UNNAMED: tuple[object, bytes] = (object(), b"")
# Values of these types are as they are; a number with a fraction may not be finite.
_PLAIN = frozenset({str, int, bool, type(None)})
# Texts of events recur: names of tools, of models, of sessions. So many together are
# remembered, of payloads of so many bytes: at most 256 KiB for each class of them.
_SEEN_MAX, _SEEN_BYTES_MAX = 256, 1024


class _Common:
    """Tags, then the system's fields; `content` is their JSON less the brace before them.

    `made_of` is what they depend on, no payload may have one of `names`. `seen` is what
    may be sent as it is, by the id of its class.
    """

    __slots__ = ("content", "made_of", "names", "seen")

    def __init__(
        self, made_of: tuple[object, ...], names: frozenset[str], content: bytes
    ) -> None:
        self.made_of = made_of
        self.names = names
        self.content = content
        self.seen: dict[int, _Seen] = {}


class _Seen:
    """Payloads of one class of ours in which nothing had to be changed.

    Nor has it in another one with the same texts and types, whatever its numbers are.
    """

    __slots__ = ("kinds", "texts", "texts_of")

    def __init__(self, values: tuple[object, ...]) -> None:
        self.kinds = (*map(type, values),)
        places = [i for i, kind in enumerate(self.kinds) if kind is str]
        self.texts_of = itemgetter(*places)
        self.texts: set[object] = set()

    def has(self, values: tuple[object, ...]) -> bool:
        """Whether a payload with these values is known to be right."""
        return (*map(type, values),) == self.kinds and (
            self.texts_of(values) in self.texts
        )

    def add(self, values: tuple[object, ...]) -> None:
        """Payloads of the same types with the same texts are known from now on."""
        if len(self.texts) >= _SEEN_MAX:
            self.texts.clear()
        self.texts.add(self.texts_of(values))


class Envelope:
    """Makes envelopes for one program on one machine.

    `scrub` is None where strings go as they are, less `own_key`. `event_bytes_max` bounds
    the result, in bytes. `tags` are the program's own; `context` is None where an event
    has no more of the system's fields than the wire format names. `version` and
    `user_uuid` may be set anew at any time.
    """

    def __init__(
        self,
        *,
        source: str,
        version: str,
        user_uuid: str,
        scrub: Scrubber | None,
        own_key: OwnKey | None = None,
        event_bytes_max: int,
        environment: Mapping[str, str],
        tags: Mapping[str, Any] | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        self.version = version
        self.ids = EventIds()
        self._scrub = scrub
        self._clean: Mapping[str, bool] = scrub.clean if scrub else {}
        self._clean_free: Mapping[str, bool] = scrub.clean_free if scrub else {}
        self.user_uuid = user_uuid
        self._event_bytes_max = event_bytes_max
        self._environment = environment
        self._encoder = msgspec.json.Encoder(order="sorted")
        self._own_key = own_key or None
        self._key_has_number = own_key is not None and own_key.has_number
        self._source = self._encoder.encode(sound(self._without_key(source)))
        self._context = context
        self._bytes_min = 0
        self._own_tags = self._clean_tags(tags) if tags else {}
        # The table behind `os.environ`, which encodes each name anew and raises
        # inside for one that is not set. Any other mapping is its own table.
        self._table: Mapping[Any, Any] = getattr(environment, "_data", environment)
        self._tags_name: object = _TAGS
        self._language_name: object = _LANGUAGE
        # What the events of a class were called last, and that as JSON. By the id of
        # the class, which may have no hash: what it was called decides, and is kept.
        self._names: dict[int, tuple[object, bytes]] = {}
        if self._table is not environment:
            self._tags_name = os.fsencode(_TAGS)
            self._language_name = os.fsencode(_LANGUAGE)
        self._invocation_id = ""
        self._last_common: _Common | None = None

    def after_fork(self) -> None:
        """In a forked child: ids of its own."""
        self.ids.renew()
        self._invocation_id = ""
        self._last_common = None

    @property
    def bytes_min(self) -> int:
        """No event is shorter than the system's fields, whatever its payload; bytes."""
        if not self._bytes_min:
            ids = dict.fromkeys(("event_id", "invocation_id"), "-" * 36)
            system = {**self._context, **ids} if self._context else {}
            # The key may have been cut from them.
            content = self._encoder.encode(self._without_key(system))
            self._bytes_min = len(content) + len(self._source)
        return self._bytes_min

    def seal(self, event: StructuredEvent) -> bytes:
        """The event as compact JSON, with a new id and the time of now.

        Raises InvalidEventError and EventTooBigError; nothing is kept then.
        """
        given, payload = _asked(event)
        known, name = self._names.get(id(type(event)), _UNNAMED)
        if known is not given:
            name = self._name(type(event), given)
        timestamp_ms = time.time_ns() // 1_000_000
        event_id = self.ids.new(timestamp_ms)
        try:
            common = self._common(event_id)
            seen = common.seen.get(id(type(payload)))
            if seen is not None and seen.has(astuple(payload)):
                content = self._encoder.encode(payload)
            else:
                content = self._scrubbed(payload, common)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidEventError(f"{type(payload).__name__}: {error}") from error
        sealed = (
            b'{"event":%b,"event_timestamp":%d,"source":%b,'
            b'"properties":%b"event_id":"%b",%b}'
        ) % (
            name,
            timestamp_ms,
            self._source,
            # It may have no field at all.
            content[:-1] + b"," if len(content) > 2 else b"{",
            event_id.encode(),
            common.content,
        )
        if len(sealed) > self._event_bytes_max:
            raise EventTooBigError(len(sealed), self._event_bytes_max)
        return sealed

    def _common(self, event_id: str) -> _Common:
        """What all events have in common, made anew where it has changed."""
        look_up = self._table.get
        made_of = (
            look_up(self._tags_name),
            look_up(self._language_name),
            self.user_uuid,
            self.version,
        )
        common = self._last_common
        if common is not None and common.made_of == made_of:
            return common
        text = self._environment.get(_TAGS, "")
        fields = {
            **self._own_tags,
            **self._clean_tags(parse_tags(unquoted(text))),
            "os": system_name(sys.platform),
            "os_language": language(self._environment.get(_LANGUAGE, "")),
            "user_uuid": self.user_uuid,
            "version": self.version,
            **(self._context or {}),
        }
        fields = self._without_key(fields)
        fields.pop("event_id", None)
        if self._context is not None:
            # The first event of a process names it.
            self._invocation_id = self._invocation_id or event_id
            fields["invocation_id"] = self._invocation_id
        common = self._last_common = _Common(
            made_of, frozenset((*fields, "event_id")), self._json(fields)[1:]
        )
        return common

    def _scrubbed(self, payload: Any, common: _Common) -> bytes:
        """A payload as JSON. Raises InvalidEventError, and what its values raise."""
        # The last step before bytes: whatever was done to a text, it passes here.
        properties = self._without_key(self._properties(payload))
        if not common.names.isdisjoint(properties):
            properties = {k: v for k, v in properties.items() if k not in common.names}
        content = self._json(properties)
        # Each number has to be looked at where the key may be one.
        if type(payload).__module__ in _OURS and not self._key_has_number:
            self._remember(payload, content, common.seen)
        return content

    def _remember(self, payload: Any, content: bytes, seen: dict[int, _Seen]) -> None:
        """See payloads like this one as right, where nothing was changed in it."""
        values = astuple(payload)
        if len(content) > _SEEN_BYTES_MAX or not _PLAIN.issuperset(map(type, values)):
            return
        try:
            if self._encoder.encode(payload) != content:
                return
        except UnicodeEncodeError:
            return
        like = seen.get(id(type(payload)))
        if like is None or like.kinds != (*map(type, values),):
            like = seen[id(type(payload))] = _Seen(values)
        like.add(values)

    def _json(self, value: dict[str, Any]) -> bytes:
        try:
            return self._encoder.encode(value)
        except UnicodeEncodeError:
            return self._encoder.encode(_sound_value(value))

    def _name(self, kind: type[object], given: object) -> bytes:
        """An event's name as JSON. Raises InvalidEventError where it is none."""
        # `str` of a member of an enumeration would be its name in the program.
        name = given.value if isinstance(given, Enum) else given
        if not isinstance(name, str) or not name:
            wrong = "''" if isinstance(name, str) else f"a {type(name).__name__}"
            raise InvalidEventError(f"{kind.__name__}: {wrong} is no name of an event")
        name = self._text(str.__str__(name), [_TEXT_CHARS_MAX], free=False)
        encoded = self._encoder.encode(sound(self._without_key(name)))
        if id(kind) in self._names or len(self._names) < _NAMES_MAX:
            self._names[id(kind)] = (given, encoded)
        return encoded

    def _without_key(self, value: Any) -> Any:
        return self._own_key.value(value) if self._own_key else value

    def _properties(self, payload: Any) -> dict[str, Any]:
        """The payload's fields, scrubbed, as values that JSON has."""
        values = msgspec.to_builtins(
            payload, builtin_types=_BYTES, str_keys=True, enc_hook=_plain
        )
        if type(payload).__module__ in _OURS:
            return self._ours(values, type(payload))
        if isinstance(values, dict):
            return self._theirs(values, are_names_data=isinstance(payload, dict))
        raise InvalidEventError(f"a payload is no {type(payload).__name__}")

    def _ours(self, values: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
        """A payload of ours, which is held against its types."""
        clean, clean_free = self._clean, self._clean_free
        left = [_EVENT_CHARS_MAX]
        for name, value in values.items():
            if type(value) is str:
                # Most were seen before.
                if value and value not in (clean_free if name in FREE_TEXT else clean):
                    values[name] = self._text(value, left, free=name in FREE_TEXT)
            elif type(value) is not int and type(value) is not bool:
                values[name] = self._value(value, left, free=name in FREE_TEXT)
        kept = values
        if values.get("cost", 0) is None:
            # A number that is not finite is null by now, and that is allowed.
            kept = {**values, "cost": 0.0}
        msgspec.convert(kept, kind)
        return values

    def _theirs(
        self, values: dict[str, Any], *, are_names_data: bool
    ) -> dict[str, Any]:
        """A payload of the program's own: names of dicts may be data, and scrubbed."""
        left = [_EVENT_CHARS_MAX]
        return {
            self._label(name, left) if are_names_data else name: self._item(
                name, value, left, free=name in FREE_TEXT
            )
            for name, value in values.items()
        }

    def _item(self, name: str, value: Any, left: list[int], *, free: bool) -> Any:
        """A named value scrubbed; hidden if its name says that it is a secret."""
        value = self._value(value, left, free=free)
        if self._scrub is None or not self._scrub.names_secret(name):
            return value
        from telemetry.privacy import hidden

        return hidden(value)

    def _value(self, value: Any, left: list[int], *, free: bool) -> Any:
        """A value scrubbed; `left` is how many more characters of the event are looked at."""
        if isinstance(value, str):
            return self._text(value, left, free=free)
        if isinstance(value, float):
            return value if -_INFINITY < value < _INFINITY else None
        if isinstance(value, _SEQUENCES):
            return self._list(value, left, free=free)
        if isinstance(value, dict):
            # Of a variable in a list of them: {"name": "DB_PASSWORD", "value": "x"}.
            named = value.get("name")
            return {
                self._label(str(key), left, free=free): self._item(
                    str(named if key == "value" and named else key),
                    item,
                    left,
                    free=free or key in FREE_TEXT,
                )
                for key, item in value.items()
            }
        if isinstance(value, _BYTES):
            return self._text(decode(bytes(value)), left, free=free)
        if value is None or isinstance(value, int):
            return value
        # Of a member of an enumeration.
        return self._value(_plain(value), left, free=free)

    def _list(self, items: Sequence[Any], left: list[int], *, free: bool) -> list[Any]:
        """The items scrubbed. Raises EventTooBigError before it takes long."""
        if self._scrub is not None:
            # Each takes three bytes besides: its quotes and a comma.
            size = 3 * len(items)
            if size <= self._event_bytes_max:
                sizes = [len(item) for item in items if isinstance(item, str)]
                short = sum(chars for chars in sizes if chars <= _SHORT_CHARS_MAX)
                size += short + min(sum(sizes) - short, _EVENT_CHARS_MAX)
            if size > self._event_bytes_max:
                raise EventTooBigError(size, self._event_bytes_max)
        scrubbed = [self._value(item, left, free=free) for item in items]
        return scrubbed if self._scrub is None else self._scrub.behind_options(scrubbed)

    def _text(
        self, text: str, left: list[int], *, free: bool, is_name: bool = False
    ) -> str:
        """The text scrubbed, after it was cut where it, or the event, is too long."""
        scrub = self._scrub
        if len(text) > self._event_bytes_max and (scrub is None or not free):
            raise EventTooBigError(len(text), self._event_bytes_max)
        if scrub is None or text in (self._clean_free if free else self._clean):
            return text
        size = len(text)
        is_whole = is_name or size <= _SHORT_CHARS_MAX
        room = left[0] + (_EVENT_CHARS_MAX if is_whole else 0)
        bound = min(_FREE_CHARS_MAX if free and not is_name else _TEXT_CHARS_MAX, room)
        if size > bound and is_name:
            raise InvalidEventError("the names of its properties are too long")
        if size > bound:
            text = _cut(text, bound)
        before = scrub.searched
        clean = scrub.free_text(text) if free else scrub.text(text)
        left[0] -= scrub.searched - before
        if len(text) == size:
            return clean
        kept = _beginning(clean)
        more = size - len(text) + len(clean) - len(kept)
        return f"{kept} … [{more} more characters]".lstrip()

    def _label(self, name: str, left: list[int], *, free: bool = False) -> str:
        """A name scrubbed. Cut, two would be one: it raises InvalidEventError instead."""
        return self._text(name, left, free=free, is_name=True)

    def _clean_tags(self, tags: Mapping[str, Any]) -> dict[str, Any]:
        left = [_EVENT_CHARS_MAX]
        return {
            self._label(sound(name), left): self._item(name, value, left, free=False)
            for name, value in tags.items()
        }


def _asked(event: StructuredEvent) -> tuple[object, Any]:
    """An event's name and its payload, as it gives them. Raises InvalidEventError."""
    try:
        payload = event.to_structured_properties()
        if type(event) is CommandEvent:
            return "command", payload  # a launch does without the class of its type
        return event.get_event_type(), payload
    except Exception as error:
        # Its class alone: what it says may be what the user typed.
        problem = f"{type(event).__name__} raised {type(error).__name__}"
        raise InvalidEventError(problem) from error


def _cut(text: str, chars_max: int) -> str:
    """At most so much of a text; nothing of a block whose end is behind the cut."""
    chars_max = max(chars_max, 0)
    if text.find(_BLOCK_END, chars_max, chars_max + _BLOCK_CHARS_MAX) >= 0:
        return text[:chars_max].rstrip(_BLOCK)
    return text[:chars_max]


def _beginning(clean: str) -> str:
    """A text that was cut and then scrubbed, less what may be half of a secret.

    No rule knows half of a key or of a name, so the last words go; in a word without an
    end, all that a key could be.
    """
    begin = max(len(clean) - _CUT_CHARS_MAX, 0)
    words = clean[begin:].rsplit(maxsplit=_CUT_WORDS)
    return clean[: begin + (len(words[0]) if len(words) > _CUT_WORDS else 0)]


def parse_tags(text: str) -> dict[str, str]:
    """The pairs of TELEMETRY_TAGS: `name=value,name=value`.

    Both sides are trimmed; a part without `=` or without a name is skipped; of
    two with one name the last counts.
    """
    tags = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = trim(name)
        if equals and name:
            tags[sound(name)] = sound(trim(value))
    return tags


def language(value: str) -> str:
    """LANG as it stands; `en-US` where it is empty, or the path of a user's own locale."""
    is_path = "/" in value or "\\" in value
    return value if value and not is_path else _NO_LANGUAGE


def system_name(platform: str) -> str:
    """`linux`, `darwin` or `windows` for a `sys.platform`; others as they are."""
    return "windows" if platform == "win32" else platform


def _plain(value: Any) -> Any:
    """What an object stands for: `numpy.float64`, `Markup`, a path, a deque, a fraction."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, os.PathLike):
        # One spelling of a relative path, whatever system wrote it.
        return os.fsdecode(value).replace(os.sep, "/")
    if isinstance(value, Mapping):
        return dict(_bounded(value.items()))
    if isinstance(value, (Sequence, AbstractSet)):
        return _bounded(value)
    if isinstance(value, BaseException):
        # Its class alone: what it says may be what the user typed.
        return type(value).__name__
    kind: Any = type(value)
    text = str(value) if kind.__repr__ is not object.__repr__ else "<"
    # That of a function, a class or an open file names it by its address.
    if text[:1] == "<":
        raise TypeError(f"{kind.__name__} has no form as JSON")
    return text


def _bounded(items: Iterable[Any]) -> list[Any]:
    """The items. Raises ValueError for more than an event can hold: `range(10**9)`."""
    found = list(islice(items, _ITEMS_MAX + 1))
    if len(found) > _ITEMS_MAX:
        raise ValueError(f"more than {_ITEMS_MAX:,} items")
    return found


def _sound_value(value: Any) -> Any:
    """A value of JSON's types with every string in it valid Unicode."""
    if isinstance(value, str):
        return sound(value)
    if isinstance(value, _SEQUENCES):
        return [_sound_value(item) for item in value]
    if isinstance(value, dict):
        return {sound(key): _sound_value(item) for key, item in value.items()}
    return value


def of_another_user(sealed: bytes, user: str, now: str) -> bytes:
    """The same event, with the same id, of the user `now` instead of `user`."""
    before, mark, behind = sealed.rpartition(_named(user))
    return before + _named(now) + behind if mark else sealed


def _named(user: str) -> bytes:
    return b'"user_uuid":' + msgspec.json.encode(user)
