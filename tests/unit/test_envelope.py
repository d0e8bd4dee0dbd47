"""An event becomes bytes that can be posted, or is refused by name: nothing else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest

import telemetry
from telemetry import events, light_events
from telemetry.envelope import (
    FIELDS,
    Envelope,
    language,
    of_another_user,
    system_name,
)
from telemetry.errors import EventTooBigError, InvalidEventError
from telemetry.light_events import NamedEvent
from telemetry.machine import basic_context
from telemetry.privacy import OwnKey, Scrubber


BOUND = 256 * 1024
SYSTEM = {"event_id", "os", "os_language", "user_uuid", "version"}


class Event:
    """An event of a program's own, with any payload whatever."""

    def __init__(self, payload: Any, name: Any = "custom") -> None:
        self.payload = payload
        self.name = name

    def get_event_type(self) -> Any:
        return self.name

    def to_structured_properties(self) -> Any:
        return self.payload


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text for anybody")


@dataclasses.dataclass
class Data:
    where: str
    when: dt.date


class Struct(msgspec.Struct):
    where: str
    nested: Data


def envelope(
    environment: Mapping[str, str] | None = None,
    *,
    scrub: Scrubber | None = None,
    event_bytes_max: int = BOUND,
) -> Envelope:
    return Envelope(
        source="app",
        version="1.2.3",
        user_uuid="an id",
        scrub=scrub,
        event_bytes_max=event_bytes_max,
        environment={} if environment is None else environment,
    )


def properties(payload: Any, environment: Mapping[str, str] | None = None) -> Any:
    """The properties of an event as a collector reads them, less the system's."""
    sealed = msgspec.json.decode(envelope(environment).seal(Event(payload)))
    return {k: v for k, v in sealed["properties"].items() if k not in SYSTEM}


def test_numbers_that_are_none_are_kept_as_null() -> None:
    """The rest of the event is as true as ever, and somebody should hear of it."""
    sealer = envelope()
    event = telemetry.TokenEvent(model_name="m", cost=math.nan, input_tokens=5)
    sealed = msgspec.json.decode(sealer.seal(event))["properties"]
    assert sealed["cost"] is None
    assert sealed["input_tokens"] == 5
    assert properties({"a": math.inf, "b": [-math.inf, {"c": math.nan}]}) == {
        "a": None,
        "b": [None, {"c": None}],
    }


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        (b"\xfe\xff".decode("utf-8", "surrogateescape"), "\ufffd" * 2),
        (b"\xf0\x9f\x9a".decode("utf-8", "surrogateescape"), "\ufffd" * 3),
        ("a\ud800b", "a\ufffdb"),
        (b"na\xefve", "na\ufffdve"),
        (b"\xed\xa0\x80", "\ufffd" * 3),
        ("\ud83d\ude80", "\ufffd" * 2),
        ("\U0001f680\u2028\0", "\U0001f680\u2028\0"),
    ],
    ids=ascii,
)
def test_bytes_that_are_no_text_are_kept_as_such(
    given_text: str | bytes, kept: str
) -> None:
    """File names and arguments are bytes; one bad byte must not cost the event."""
    for payload in ({"a": given_text}, {"a": [{"b": given_text}]}):
        text = json.dumps(properties(payload), ensure_ascii=False)
        assert json.dumps(kept, ensure_ascii=False) in text
    if isinstance(given_text, str):
        assert properties({given_text: 1, "deep": {given_text: 2}}) == {
            kept: 1,
            "deep": {kept: 2},
        }
        event = Event({}, f"name{given_text}")
        assert msgspec.json.decode(envelope().seal(event))["event"] == f"name{kept}"


class Number(float):
    """As numpy's floats are, which are floats too."""

    __slots__ = ()

    def __float__(self) -> float:
        raise RuntimeError("no number for anybody")


class Count(int):
    __slots__ = ()


def test_subclasses_of_text_and_numbers_are_what_they_are() -> None:
    """A price out of numpy, a string out of a template: each is a sound value."""
    payload = {"t": Shouting("x"), "n": Number(0.5), "c": [Count(5), {"k": Number(2)}]}
    assert properties(payload) == {"t": "x", "n": 0.5, "c": [5, {"k": 2.0}]}
    event = telemetry.TokenEvent(model_name=Shouting("m"), cost=Number(0.25))
    told = msgspec.json.decode(envelope().seal(event))["properties"]
    assert (told["model_name"], told["cost"]) == ("m", 0.25)
    assert properties({"a": Number("nan")}) == {"a": None}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: [text],
        lambda text: (text,),
        lambda text: {text},
        lambda text: {"k": ({"k": (text,)},)},
        lambda text: {text: 1},
        lambda text: [{text: ({text},)}],
        lambda text: text.encode(),
        lambda text: [(text.encode(),)],
        Shouting,
        lambda text: Data(text, dt.date(2026, 1, 2)),
        lambda text: Struct(text, Data(text, dt.date(2026, 1, 2))),
        lambda text: enum.Enum("E", {"A": (text,)})["A"],
    ],
)
@pytest.mark.parametrize("key", ["mine", "error", "args"])
def test_no_shape_hides_a_string_from_the_scrubber(
    wrap: Callable[[str], object], key: str
) -> None:
    """What is scrubbed in a list and not in a tuple is not scrubbed."""
    scrub = Scrubber(homes=("/home/somebody",), users=("somebody",))
    secret = "/home/somebody/project/notes.txt"
    sealed = envelope(scrub=scrub).seal(Event({key: wrap(secret)}))
    assert b"somebody" not in sealed
    assert b"notes.txt" not in sealed
    assert b"somebody" not in envelope(scrub=scrub).seal(Event({secret: 1}))
    tags = f"k={secret},{secret}=v"
    assert b"somebody" not in envelope({"TELEMETRY_TAGS": tags}, scrub=scrub).seal(
        Event({})
    )


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30])
def test_whole_numbers_are_exact(number: int) -> None:
    """A counter that is rounded in silence is wrong for ever."""
    assert properties({"n": number, "deep": [number]}) == {
        "n": number,
        "deep": [number],
    }
    event = telemetry.TokenEvent(total_tokens=number)
    assert b'"total_tokens":%d,' % number in envelope().seal(event)


class Kind(str, enum.Enum):
    DEPLOY = "deploy"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a", "a"),
        (Kind.DEPLOY, "deploy"),
        (telemetry.EventType.TOOL, "tool"),
        (Shouting("a"), "a"),
    ],
)
def test_an_event_is_named_by_its_value(name: str, told: str) -> None:
    """`Kind.DEPLOY` is the name in the program; `deploy` is the name on the wire."""
    assert msgspec.json.decode(envelope().seal(Event({}, name)))["event"] == told


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (Data("here", dt.date(2026, 1, 2)), {"where": "here", "when": "2026-01-02"}),
        (
            Struct("there", Data("here", dt.date(2026, 1, 2))),
            {"where": "there", "nested": {"where": "here", "when": "2026-01-02"}},
        ),
        ({1: "one", 2.5: "float"}, {"1": "one", "2.5": "float"}),
        (
            {"id": uuid.UUID(int=5), "d": decimal.Decimal("1.50")},
            {"id": "00000000-0000-0000-0000-000000000005", "d": "1.50"},
        ),
        ({"t": (1, "two"), "k": Kind.DEPLOY}, {"t": [1, "two"], "k": "deploy"}),
        ({}, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_program_may_have_payloads_of_its_own(
    payload: object, told: dict[str, Any]
) -> None:
    """A Struct, a dataclass or a dict: whatever the program has at hand."""
    assert properties(payload) == told


class Raises:
    def get_event_type(self) -> str:
        raise LookupError("in the middle of the program's own code")

    def to_structured_properties(self) -> dict[str, Any]:
        return {}


class Cut:
    """The end of a recursion that went wrong inside the program."""

    def get_event_type(self) -> str:
        return "cut"

    def to_structured_properties(self) -> Any:
        return self.to_structured_properties()


@pytest.mark.parametrize(
    "event",
    [
        None,
        "an event",
        object(),
        Raises(),
        Cut(),
        Event({}, ""),
        Event({}, None),
        Event({}, 5),
        Event([1, 2]),
        Event("text"),
        Event(None),
        Event({"a": object()}),
        Event({None: 1}),
        telemetry.CommandEvent(action=5),  # type: ignore[arg-type]
        telemetry.CommandEvent(action="run", args="x"),  # type: ignore[arg-type]
        telemetry.CommandEvent(action="run", args=["x", 5]),  # type: ignore[list-item]
        telemetry.CommandEvent(action="run", success="yes"),  # type: ignore[arg-type]
        telemetry.ToolEvent(duration_ms="5"),  # type: ignore[arg-type]
        telemetry.ToolEvent(duration_ms=True),
        telemetry.TokenEvent(cost="0.5"),  # type: ignore[arg-type]
        telemetry.TokenEvent(input_tokens=1.5),  # type: ignore[arg-type]
        telemetry.SessionEndEvent(error="one"),  # type: ignore[arg-type]
        telemetry.SessionEndEvent(error_count=None),  # type: ignore[arg-type]
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_has_no_sound_form_is_invalid(event: Any) -> None:
    """Found when it is tracked, not when it is made: making one never raises."""
    with pytest.raises(InvalidEventError) as caught:
        envelope().seal(event)
    assert caught.value.reason == "invalid"


@pytest.mark.parametrize("field", ["a", "error"])
def test_an_event_above_the_bound_is_refused(field: str) -> None:
    """One event of 10 MB would push ten thousand others out of the spool."""
    with pytest.raises(EventTooBigError) as caught:
        envelope().seal(Event({field: "x" * 10_000_000}))
    assert caught.value.size_bytes == 10_000_000
    assert caught.value.bound_bytes == BOUND


def test_the_bound_counts_bytes_as_they_are_sent() -> None:
    """Exactly at the bound is kept; a byte more, however it is written, is not."""
    empty = len(envelope().seal(Event({"a": ""})))
    for character, size_bytes in (("x", 1), ("é", 2), ("\x01", 6), ("🚀", 4)):
        for count in (10, 100):
            bound = empty + count * size_bytes
            event = Event({"a": character * count})
            assert len(envelope(event_bytes_max=bound).seal(event)) == bound
            with pytest.raises(EventTooBigError):
                envelope(event_bytes_max=bound - 1).seal(event)
    many = Event({"a": ["x" * 1000] * 1000})
    with pytest.raises(EventTooBigError):
        envelope().seal(many)


def test_nothing_overrides_the_system() -> None:
    """Event fields, then tags, then the system's: the last one is the truth."""
    claimed = dict.fromkeys(SYSTEM, "claimed") | {"mine": "field", "both": "field"}
    tags = ",".join(f"{name}=tag" for name in (*SYSTEM, "both"))
    sealed = envelope({"TELEMETRY_TAGS": tags, "LANG": "de_DE.UTF-8"}).seal(
        Event(claimed)
    )
    told = msgspec.json.decode(sealed)["properties"]
    assert told.keys() == {*SYSTEM, "mine", "both"}
    assert (told["mine"], told["both"]) == ("field", "tag")
    assert told["user_uuid"] == "an id"
    assert told["version"] == "1.2.3"
    assert told["os_language"] == "de_DE.UTF-8"
    assert "claimed" not in sealed.decode()


def test_a_language_that_is_a_path_is_not_recorded() -> None:
    """A user's own locale is below the home directory, and no pattern looks here."""
    for name in ("de_DE.UTF-8", "C", "sr_RS@latin", "<x>&\xe9", " "):
        assert language(name) == name
    for path in (
        "/home/anna.smith/locale/de_DE.UTF-8",
        "de/anna",
        "C:\\Users\\anna",
        "",
    ):
        assert language(path) == "en-US"


def test_the_environment_is_read_for_each_event() -> None:
    """Tags and language may change while a program runs."""
    environment: dict[str, str] = {}
    sealer = envelope(environment)
    languages, tags = [], []
    for tongue, text in (("", ""), ("C", "a=1"), (" ", "a=2,b=3"), ("", "")):
        environment.update(LANG=tongue, TELEMETRY_TAGS=text)
        told = msgspec.json.decode(sealer.seal(Event({})))["properties"]
        languages.append(told["os_language"])
        tags.append({name: told[name] for name in told.keys() - SYSTEM})
    assert languages == ["en-US", "C", " ", "en-US"]
    assert tags == [{}, {"a": "1"}, {"a": "2", "b": "3"}, {}]


def test_a_text_that_was_clean_does_not_vouch_for_another() -> None:
    """What recurs takes a short way, and nothing may slip through with it."""
    scrub = Scrubber(homes=("/home/somebody",), users=("somebody",))
    environment: dict[str, str] = {}
    sealer = envelope(environment, scrub=scrub)

    def told(**fields: Any) -> Any:
        event = telemetry.ToolEvent(**{"tool_name": "read", **fields})
        return msgspec.json.decode(sealer.seal(event))["properties"]

    surrogate = "a\ud800"
    for number in range(3):
        assert told(duration_ms=number)["duration_ms"] == number
        assert told(tool_name="/home/somebody/x")["tool_name"] == "<path>"
        assert told(tool_name=surrogate)["tool_name"] == "a\ufffd"
        assert told(tool_name=Shouting("somebody"))["tool_name"] == "<user>"
        assert "error" not in told()
        # A hexadecimal id is clean as a name and no part of an error.
        random = "0123456789abcdef0123456789abcdef"
        assert told(tool_name=random)["tool_name"] == random
        assert random not in told(error=random)["error"]
        for wrong in ({"duration_ms": True}, {"success": 1}, {"tool_name": None}):
            with pytest.raises(InvalidEventError):
                told(**wrong)
    environment["TELEMETRY_TAGS"] = "tool_name=tag"
    assert told()["tool_name"] == "tag"
    environment.clear()
    assert told()["tool_name"] == "read"


@pytest.mark.parametrize("key", ["read-4f0c", "12345678"])
def test_no_short_way_leads_around_the_own_key(key: str) -> None:
    """Also where it stands in what was seen before, or in a number."""
    sealer = Envelope(
        source="app",
        version="1",
        user_uuid="an id",
        scrub=Scrubber(homes=(), users=()),
        own_key=OwnKey(key),
        event_bytes_max=BOUND,
        environment={},
    )
    for _ in range(3):
        for number in (5, 12345678):
            for text in ("read", f"x {key}"):
                event = telemetry.ToolEvent(tool_name=text, duration_ms=number)
                sealed = sealer.seal(event)
                properties = msgspec.json.decode(sealed)["properties"]
                assert key not in str(properties["tool_name"])
                assert key not in str(properties["duration_ms"])


def test_each_event_has_an_id_and_a_time_of_its_own() -> None:
    """Events are told apart, and sorted, by their id alone."""
    sealer = envelope()
    begun_ms = time.time_ns() // 1_000_000
    sealed = [msgspec.json.decode(sealer.seal(Event({}))) for _ in range(2000)]
    ended_ms = time.time_ns() // 1_000_000
    ids = [event["properties"]["event_id"] for event in sealed]
    assert len(set(ids)) == 2000
    for event, text in zip(sealed, ids, strict=True):
        assert begun_ms <= event["event_timestamp"] <= ended_ms
        made = uuid.UUID(text)
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert made.int >> 80 == event["event_timestamp"]


@pytest.mark.parametrize(
    ("platform", "told"),
    [("linux", "linux"), ("darwin", "darwin"), ("win32", "windows")],
)
def test_a_system_has_the_name_of_the_original(platform: str, told: str) -> None:
    """A collector that counts by system must not see Windows twice."""
    assert system_name(platform) == told


def test_an_event_can_be_read_back_as_a_payload() -> None:
    """The published Struct is what is on the wire, field by field."""
    sealed = envelope().seal(telemetry.CommandEvent(action="run", success=True))
    payload = msgspec.json.decode(sealed, type=telemetry.EventPayload)
    assert (payload.event, payload.source) == ("command", "app")
    assert payload.properties["action"] == "run"
    assert os.path.basename(payload.properties["os"]) == payload.properties["os"]


class Colour(enum.Enum):
    """Its members have values that JSON has no form for, and one that it has."""

    RED = Path("/home/somebody/red")
    BLUE = "blue"


def test_values_that_json_has_no_form_for_are_kept_as_their_text() -> None:
    """A program hands over what it has; losing the event would help no one."""
    scrub = Scrubber(homes=("/home/somebody",), users=("somebody",))
    when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    for value, kept in (
        (Path("/home/somebody/x"), "<path>"),
        (PurePosixPath("docs/somebody"), "docs/<user>"),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (when, "2026-01-02T03:04:05Z"),
        (when.date(), "2026-01-02"),
        (Colour.RED, "<path>"),
        (Colour.BLUE, "blue"),
        ({Path("/srv/x")}, ["<path>"]),
        (frozenset({3}), [3]),
        (
            {"deep": [Path("/srv/x"), {"a": decimal.Decimal(1)}]},
            {"deep": ["<path>", {"a": "1"}]},
        ),
        ({Path("/srv/x"): 1}, {"<path>": 1}),
    ):
        sealed = envelope(scrub=scrub).seal(Event({"mine": value}))
        assert msgspec.json.decode(sealed)["properties"]["mine"] == kept, value


def test_long_texts_are_cut_before_they_are_scrubbed() -> None:
    """A program must not wait while a traceback of 250,000 characters is searched."""
    scrub = Scrubber(homes=("/home/somebody",), users=("somebody",))
    seen: list[str] = []

    def look(text: str) -> str:
        seen.append(text)
        scrub.searched += len(text)
        return text

    scrub.free_text = look  # type: ignore[method-assign]
    long = "password=hunter2 " * 20_000
    for event in (
        telemetry.ToolEvent("call", "t", "s", "a", error=long),
        telemetry.CommandEvent("run", [long] * 16),
        telemetry.SessionEndEvent("end", "s", "a", error=[long] * 100),
        telemetry.CommandEvent("run", ["é" * 250_000]),
    ):
        seen.clear()
        sealed = envelope(scrub=scrub).seal(event)
        assert len(sealed) < 40_000
        assert 0 < sum(map(len, seen)) <= 16 * 1024
        assert b" more characters]" in sealed


def test_behind_a_long_text_names_and_short_texts_stay_as_they_are() -> None:
    """The long one alone is cut; names that were cut would be one, and lose a value."""
    scrub = Scrubber(homes=(), users=())
    others = {
        "region": "eu",
        "small": "x y",
        "count": 7,
        "a b c": 1,
        "d e f": {"g h": 2},
    }
    long = "word " * 3_500
    sealed = envelope(scrub=scrub).seal(Event({"traceback": long, **others}))
    told = msgspec.json.decode(sealed)["properties"]
    assert told.pop("traceback").endswith(" more characters]")
    assert {name: told[name] for name in others} == others
    many = {f"{'n ' * 70}{number}": "value" for number in range(400)}
    for names in (many, {"traceback": long, "n " * 9_000: 1}):
        with pytest.raises(InvalidEventError, match="names of its properties"):
            envelope(scrub=scrub).seal(Event(names))


def test_too_many_arguments_are_refused_at_once() -> None:
    """Each would be looked at by each rule, and the event be refused all the same."""
    scrub = Scrubber(homes=(), users=())
    scrub.free_text = pytest.fail  # type: ignore[method-assign]
    for args in (["x"] * 100_000, [str(n) for n in range(40_000)]):
        with pytest.raises(EventTooBigError):
            envelope(scrub=scrub).seal(telemetry.CommandEvent("run", args))


def test_no_half_of_a_key_is_left_where_a_text_is_cut() -> None:
    """No rule knows half of a key, so what stands at a cut goes with the rest."""
    key = "sk-52063f725d8cf3568e48f4d74a88fd86"
    scrub = Scrubber(homes=(), users=())
    far_before = range(2 * 1024, _CUT_AT - len(key), 97)
    for begin in (*far_before, *_begins_at_the_cut(f"({key})")):
        text = f"{_words(begin)}({key})" + ". " * 25_000
        event = telemetry.ToolEvent("call", "t", "s", "a", error=text)
        sealed = envelope(scrub=scrub).seal(event)
        assert b"sk-5" not in sealed, begin
        assert b" more characters]" in sealed


# Free text is cut there, before it is scrubbed.
_CUT_AT = 4 * 1024


def _words(size: int) -> str:
    """So many characters of short words; the last is a blank."""
    return ("a " * size)[-size:]


def _begins_at_the_cut(secret: str) -> range:
    """Where it begins so that a cut is before it, behind it, or between any two letters.

    Of what is longer than a line, in steps that fall on each place of a line.
    """
    begin = max(_CUT_AT - len(secret), 3 * 1024)
    return range(begin - 16, _CUT_AT + 3, 1 if len(secret) < 100 else 31)


def test_what_a_cut_makes_of_other_secrets_goes_as_well() -> None:
    """A block whose end is behind the cut, a name of two words, a word without end."""
    users = ("alice smith", "maria del mar")
    scrub = Scrubber(homes=("/home/alice smith",), users=users)
    line = "MIIEpAIBAAKCAQEAx0Jd8sSpCq2" * 2
    block = f"{line}\n" * 30 + "-----END RSA PRIVATE KEY-----"
    for secret in (
        block,
        "alice smith",
        "maria del mar",
        "password: hunter2hunter2",
        "https://someone:hunter2hunter2@example.com",
        "Authorization: Bearer aGVsbG8gd29ybGQgaHVudGVyMg==",
        "hunter2" * 1000 + " token",
    ):
        for begin in _begins_at_the_cut(secret):
            text = f"{_words(begin)}{secret} b. " * 9
            event = telemetry.ToolEvent("call", error=text)
            sealed = envelope(scrub=scrub).seal(event)
            for trace in (
                b"0Jd8sS",
                b"alice",
                b"maria",
                b"hunter2hunter2h",
                b"someone",
                b"aGVsb",
            ):
                assert trace not in sealed, (begin, secret)


def test_texts_that_patterns_need_not_look_at_are_kept_however_many() -> None:
    """A list of packages is long and clean; one of paths costs time."""
    names = [f"package-{number}" for number in range(5_000)]
    scrub = Scrubber(homes=(), users=())
    sealed = envelope(scrub=scrub).seal(Event({"names": names}))
    assert msgspec.json.decode(sealed)["properties"]["names"] == names
    sealed = envelope(scrub=scrub).seal(
        Event({"names": [f"/srv/app/{number}" for number in range(5_000)]})
    )
    kept = msgspec.json.decode(sealed)["properties"]["names"]
    assert kept.count("<path>") > 200
    assert {text for text in kept if "more characters]" not in text} == {"<path>"}


@pytest.mark.parametrize("user", ["1", "build", 'us"er', "1" * 36])
def test_an_event_of_another_user_is_the_same_but_for_that(user: str) -> None:
    """The id may stand in it by chance: in its time, its name or the program's values."""
    ours = envelope()
    ours.user_uuid = user
    sealed = ours.seal(NamedEvent(f"{user}-finished", {user: user, "x": {"y": user}}))
    before = msgspec.json.decode(sealed)
    after = msgspec.json.decode(of_another_user(sealed, user, "another"))
    assert before["properties"].pop("user_uuid") == user
    assert after["properties"].pop("user_uuid") == "another"
    assert before == after


def test_each_name_that_this_library_gives_is_public() -> None:
    """One that is not would be cut where it is also part of the program's key."""
    kinds = [*vars(events).items(), *vars(light_events).items()]
    ours = [k for name, k in kinds if name.endswith("Payload") and name[0] != "_"]
    ours = [kind for kind in ours if kind is not events.EventPayload]
    assert len(ours) == 5
    of_payloads = {name for kind in ours for name in kind.__struct_fields__}
    assert of_payloads | {*events.SystemProperties.__struct_fields__} == FIELDS


@pytest.mark.parametrize("has_context", [False, True])
def test_no_event_is_shorter_than_the_bound_says(*, has_context: bool) -> None:
    """Where less room is left, an event is refused before it is made."""
    sealer = Envelope(
        source="a",
        version="",
        user_uuid="",
        scrub=None,
        event_bytes_max=BOUND,
        environment={},
        context=basic_context({}, sys.platform) if has_context else None,
    )
    shortest = len(sealer.seal(Event({}, "a")))
    assert 0 < sealer.bytes_min <= shortest
    # Near enough that most events of a full spool are not made.
    assert not has_context or sealer.bytes_min > shortest / 2


class _Ending(telemetry.SessionEndEvent, frozen=True):
    reason: str = ""


def test_an_end_of_a_session_with_a_field_of_a_programs_own_is_recorded() -> None:
    """The class is public, and a program may make another one of it."""
    payload = _Ending(session_id="s", reason="enough").to_structured_properties()
    assert (payload.action, payload.session_id) == ("end", "s")


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"log": "Line Number 7 failed\n" * 1000, "exit": 3}, "log"),
        ({"stdout": "x" * 12_000, "stderr": "y" * 12_000}, "stderr"),
        ({"table": enum.Enum("Kind", {"A": {1: 2}}).A}, "table"),
    ],
)
def test_what_is_cut_keeps_its_name(properties: dict[str, Any], name: str) -> None:
    """A text that uses up what an event may hold took its own name with it."""
    assert (
        name
        in json.loads(
            envelope(scrub=Scrubber(homes=(), users=())).seal(Event(properties))
        )["properties"]
    )
