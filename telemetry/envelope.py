"""An event becomes the bytes that will be posted.

    {"event": …, "event_timestamp": <ms>, "source": …, "properties": {…}}

Properties are the payload's fields, then the pairs of TELEMETRY_TAGS, then the
system's fields, which nothing can override; they are sorted by name. Every
string but the system's own is scrubbed here, before any byte is written.

What can be kept in a sound form is kept: bytes that are no UTF-8 as U+FFFD, a
number that is not finite as null, a path, a decimal number, a UUID, a date, a member
of an enumeration and a set as their text. What cannot raises InvalidEventError. The
environment is read anew for each event. Nothing here touches a file.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.errors import EventTooBigError, InvalidEventError
from telemetry.events import (
    CommandPayload,
    SessionEndPayload,
    SessionStartPayload,
    StructuredEvent,
    TokenPayload,
    ToolPayload,
)
from telemetry.identity import EventIds
from telemetry.text import decode, sound, trim, unquoted


if TYPE_CHECKING:
    from telemetry.privacy import Scrubber

# Payloads of ours are held against their types; those of a program are its own.
_OURS = frozenset(
    {CommandPayload, SessionEndPayload, SessionStartPayload, TokenPayload, ToolPayload}
)
# Free text, written by people and other programs: these lose more when scrubbed.
FREE_TEXT = frozenset({"error", "args"})
# Kept as they are by `to_builtins`, which would else make them base64.
_BYTES = (bytes, bytearray, memoryview)
# What `to_builtins` makes of everything that is a sequence.
_SEQUENCES = (list, tuple)
# Texts are cut at so many characters before they are scrubbed, which takes a millisecond
# for some hundreds of dense ones: free text (a traceback is shorter), any other, and all
# items of a list of free text together.
_FREE_CHARS_MAX = 8 * 1024
_TEXT_CHARS_MAX = 64 * 1024
_LIST_CHARS_MAX = 32 * 1024
# An item is cut at this many, or at fewer where there are many of them.
_ITEM_CHARS_MAX, _ITEM_CHARS_MIN = 2048, 64
# A key on one line is hardly longer; the items of a long list have less.
_CUT_CHARS_MAX, _CUT_CHARS_MIN = 1024, 256
_INFINITY = float("inf")
_NO_LANGUAGE = "en-US"
_TAGS = "TELEMETRY_TAGS"
_LANGUAGE = "LANG"
_NAMES_MAX = 100
# For a class of which no event was seen: no name is this object.
_UNNAMED: tuple[object, bytes] = (object(), b"")


class Envelope:
    """Makes envelopes for one program on one machine.

    `scrub` is None where strings go as they are. `event_bytes_max` bounds the
    result, in bytes. `version` and `user_uuid` may be set anew at any time. `warnings`
    grows by a sentence for each change that was made to keep an event; who reads them
    clears it.
    """

    def __init__(
        self,
        *,
        source: str,
        version: str,
        user_uuid: str,
        scrub: Scrubber | None,
        event_bytes_max: int,
        environment: Mapping[str, str],
    ) -> None:
        self.version = version
        self.ids = EventIds()
        self.warnings: list[str] = []
        self._scrub = scrub
        self._clean: Mapping[str, bool] = scrub.clean if scrub else {}
        self._clean_free: Mapping[str, bool] = scrub.clean_free if scrub else {}
        self.user_uuid = user_uuid
        self._event_bytes_max = event_bytes_max
        self._environment = environment
        self._encoder = msgspec.json.Encoder(order="sorted")
        self._source = self._encoder.encode(sound(source))
        self._os = system_name(sys.platform)
        # The table behind `os.environ`, which encodes each name anew and raises
        # inside for one that is not set. Any other mapping is its own table.
        self._table: Mapping[Any, Any] = getattr(environment, "_data", environment)
        self._tags_name: object = _TAGS
        self._language_name: object = _LANGUAGE
        # The language as it stands in that table, and as text.
        self._language: tuple[object, str] = (None, _NO_LANGUAGE)
        # What the events of a class were called last, and that as JSON. By the id of
        # the class, which may have no hash: what it was called decides, and is kept.
        self._names: dict[int, tuple[object, bytes]] = {}
        if self._table is not environment:
            self._tags_name = os.fsencode(_TAGS)
            self._language_name = os.fsencode(_LANGUAGE)
        self._tags_text = ""
        self._tags: dict[str, str] = {}

    def seal(self, event: StructuredEvent) -> bytes:
        """The event as compact JSON, with a new id and the time of now.

        Raises InvalidEventError and EventTooBigError; nothing is kept then.
        """
        try:
            given = event.get_event_type()
            payload = event.to_structured_properties()
        except Exception as error:
            # Its class alone: what it says may be what the user typed.
            problem = f"{type(event).__name__} raised {type(error).__name__}"
            raise InvalidEventError(problem) from error
        known, name = self._names.get(id(type(event)), _UNNAMED)
        if known is not given:
            name = self._name(type(event), given)
        properties = self._properties(payload)
        if self._tags_name in self._table:
            properties.update(self._read_tags(self._environment.get(_TAGS, "")))
        timestamp_ms = time.time_ns() // 1_000_000
        properties["event_id"] = self.ids.new(timestamp_ms)
        properties["os"] = self._os
        language = self._table.get(self._language_name)
        if language != self._language[0]:
            text = self._environment.get(_LANGUAGE) or _NO_LANGUAGE
            self._language = (language, text)
        properties["os_language"] = self._language[1]
        properties["user_uuid"] = self.user_uuid
        properties["version"] = self.version
        encode = self._encoder.encode
        try:
            content = encode(properties)
        except UnicodeEncodeError:
            content = encode(_sound_value(properties))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidEventError(f"{type(event).__name__}: {error}") from error
        sealed = b'{"event":%b,"event_timestamp":%d,"source":%b,"properties":%b}' % (
            name,
            timestamp_ms,
            self._source,
            content,
        )
        if len(sealed) > self._event_bytes_max:
            raise EventTooBigError(len(sealed), self._event_bytes_max)
        return sealed

    def _name(self, kind: type[object], given: object) -> bytes:
        """An event's name as JSON. Raises InvalidEventError where it is none."""
        # `str` of a member of an enumeration would be its name in the program.
        name = given.value if isinstance(given, Enum) else given
        if not isinstance(name, str) or not name:
            wrong = "''" if isinstance(name, str) else f"a {type(name).__name__}"
            raise InvalidEventError(f"{kind.__name__}: {wrong} is no name of an event")
        name = self._text(str.__str__(name), free=False)
        encoded = self._encoder.encode(sound(name))
        if id(kind) in self._names or len(self._names) < _NAMES_MAX:
            self._names[id(kind)] = (given, encoded)
        return encoded

    def _properties(self, payload: Any) -> dict[str, Any]:
        """The payload's fields, scrubbed, as values that JSON has."""
        try:
            values = msgspec.to_builtins(
                payload, builtin_types=_BYTES, str_keys=True, enc_hook=_plain
            )
            if type(payload) in _OURS:
                return self._ours(values, type(payload))
            if isinstance(values, dict):
                return self._theirs(values, are_names_data=isinstance(payload, dict))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidEventError(f"{type(payload).__name__}: {error}") from error
        raise InvalidEventError(f"a payload is no {type(payload).__name__}")

    def _ours(self, values: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
        """A payload of ours, which is held against its types."""
        clean, clean_free = self._clean, self._clean_free
        for name, value in values.items():
            if type(value) is str:
                # Most were seen before.
                if value and value not in (clean_free if name in FREE_TEXT else clean):
                    values[name] = self._text(value, free=name in FREE_TEXT)
            elif type(value) is not int and type(value) is not bool:
                values[name] = self._value(value, free=name in FREE_TEXT)
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
        sound_values = {
            name: self._value(value, free=name in FREE_TEXT)
            for name, value in values.items()
        }
        if self._scrub is None:
            return sound_values
        # Once more as a whole: a name can say that its text is a secret.
        scrubbed: Any = self._scrub.value(sound_values)
        if are_names_data or len(scrubbed) == len(values) == 0:
            return dict(scrubbed)
        return dict(zip(values, scrubbed.values(), strict=False))

    def _value(self, value: Any, *, free: bool) -> Any:
        """A value of a payload with every string in it scrubbed."""
        if isinstance(value, str):
            return self._text(value, free=free)
        if isinstance(value, float):
            if -_INFINITY < value < _INFINITY:
                return value
            self.warnings.append(f"{value} is no number on the wire; null was recorded")
            return None
        if isinstance(value, _SEQUENCES):
            return self._list(value, free=free)
        if isinstance(value, dict):
            return {
                self._text(str(key), free=free): self._value(
                    item, free=free or key in FREE_TEXT
                )
                for key, item in value.items()
            }
        if isinstance(value, _BYTES):
            return self._text(decode(bytes(value)), free=free)
        if value is None or isinstance(value, int):
            return value
        return self._value(_plain(value), free=free)  # of a member of an enumeration

    def _list(self, items: Sequence[Any], *, free: bool) -> list[Any]:
        """The items scrubbed. Raises EventTooBigError before it takes long."""
        if self._scrub is None:
            return [self._value(item, free=free) for item in items]
        chars_max = 0
        if free:
            chars_max = _LIST_CHARS_MAX // max(len(items), 1)
            chars_max = max(min(chars_max, _ITEM_CHARS_MAX), _ITEM_CHARS_MIN)
        # Each takes three bytes besides: its quotes and a comma.
        size = 3 * len(items)
        if size <= self._event_bytes_max:
            sizes = (len(item) for item in items if isinstance(item, str))
            size += sum(min(n, chars_max) if chars_max else n for n in sizes)
        if size > self._event_bytes_max:
            raise EventTooBigError(size, self._event_bytes_max)
        scrubbed = [
            self._text(item, free=free, chars_max=chars_max)
            if isinstance(item, str)
            else self._value(item, free=free)
            for item in items
        ]
        return self._scrub.behind_options(scrubbed)

    def _text(self, text: str, *, free: bool, chars_max: int = 0) -> str:
        """The text scrubbed; one of more than `chars_max` characters is cut first."""
        scrub = self._scrub
        if len(text) > self._event_bytes_max and (scrub is None or not free):
            raise EventTooBigError(len(text), self._event_bytes_max)
        if scrub is None:
            return text
        if len(text) > _ITEM_CHARS_MIN:
            bound = chars_max or (_FREE_CHARS_MAX if free else _TEXT_CHARS_MAX)
            if len(text) > bound:
                return self._shortened(text, bound, free=free)
        return scrub.free_text(text) if free else scrub.text(text)

    def _shortened(self, text: str, chars_max: int, *, free: bool) -> str:
        """The beginning of a long text, scrubbed, with a mark.

        What a cut leaves at the end may be half of a key, which no rule knows. So more
        is scrubbed than is kept, and the end of that goes.
        """
        assert self._scrub is not None  # noqa: S101 - its caller looked
        margin = max(_CUT_CHARS_MIN, min(_CUT_CHARS_MAX, chars_max))
        begin = text[: chars_max + margin]
        kept = self._scrub.free_text(begin) if free else self._scrub.text(begin)
        kept = kept[: max(len(kept) - margin, 0)]
        return f"{kept} … [{len(text) - chars_max} more characters]"

    def _read_tags(self, text: str) -> dict[str, str]:
        if text != self._tags_text:
            tags: Any = {
                self._text(name, free=False): self._text(value, free=False)
                for name, value in parse_tags(unquoted(text)).items()
            }
            # Once more as a whole: a name can say that its text is a secret.
            if self._scrub is not None:
                tags = self._scrub.value(tags)
            self._tags = tags
            self._tags_text = text
        return self._tags


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


def system_name(platform: str) -> str:
    """`linux`, `darwin` or `windows` for a `sys.platform`; others as they are."""
    return "windows" if platform == "win32" else platform


def _plain(value: Any) -> Any:
    """The text or number that an object stands for: `numpy.float64`, `Markup`, a path."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else os.fsdecode(path)
    raise TypeError(f"{type(value).__name__} has no form as JSON")


def _sound_value(value: Any) -> Any:
    """A value of JSON's types with every string in it valid Unicode."""
    if isinstance(value, str):
        return sound(value)
    if isinstance(value, _SEQUENCES):
        return [_sound_value(item) for item in value]
    if isinstance(value, dict):
        return {sound(key): _sound_value(item) for key, item in value.items()}
    return value
