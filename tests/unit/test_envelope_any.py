"""Any payload whatever becomes sound JSON or is refused by name: nothing else happens."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import json
import math
import re
import types
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from telemetry.envelope import Envelope, parse_tags
from telemetry.errors import EventTooBigError, InvalidEventError
from telemetry.privacy import Scrubber
from telemetry.text import sound, trim
from tests.support.examples import examples


BOUND = 256 * 1024


CONTROL = re.compile(rb"[\x00-\x1f]")


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


def assert_sound(sealed: bytes, event_bytes_max: int = BOUND) -> None:
    """What a spool and a request rely on: one line of compact JSON within the bound."""
    assert not CONTROL.search(sealed)
    assert len(sealed) <= event_bytes_max
    event = json.loads(sealed, parse_constant=refuse)  # another parser than ours
    assert list(event) == ["event", "event_timestamp", "source", "properties"]
    assert isinstance(event["event"], str)
    assert event["event"]
    assert event["properties"].keys() >= SYSTEM
    names = list(event["properties"])
    payload, common = divided(names)
    assert payload == sorted(payload, key=str.encode)
    assert common == sorted(common, key=str.encode)
    # Nothing between the tokens: the same length as the shortest form there is.
    assert b" " not in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", sealed)


def divided(names: list[str]) -> tuple[list[str], list[str]]:
    """The payload's fields stand before the event's id, what all have in common behind."""
    at = names.index("event_id")
    return names[:at], names[at + 1 :]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


TEXTS = st.text(alphabet=st.characters(codec=None), max_size=12)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXTS,
    st.binary(max_size=12),
    st.decimals(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
)


HOSTILE = st.sampled_from(
    [
        object(),
        object,
        len,
        1j,
        float("nan"),
        float("-inf"),
        -0.0,
        5e-324,
        "\ud800",
        "\udcff\udfff",
        "\x00\x1e\n\r\x7f\u2028",
        "</script>",
        b"\xff\xfe",
        bytearray(b"\xf0\x9f"),
        memoryview(b"view"),
        10**400,
        range(3),
        iter([1]),
        enum.Enum("Colour", "RED").RED,
        msgspec.UNSET,
        msgspec.Raw(b"{not json"),
        msgspec.Raw(b'"raw\nline"'),
        decimal.Decimal("NaN"),
        Exception("an exception"),
        dt.timezone.utc,
    ]
)


KEYS = st.one_of(
    TEXTS,
    st.sampled_from(["event_id", "version", "os", "user_uuid", "error", "args", ""]),
    st.integers(),
    st.floats(),
    st.binary(max_size=4),
    st.none(),
    st.tuples(st.integers()),
)


VALUES = st.recursive(
    st.one_of(SCALARS, HOSTILE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(TEXTS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=12,
)


NAMES = st.one_of(
    st.just("custom"), TEXTS, st.none(), st.integers(), st.binary(max_size=3)
)


@settings(max_examples=examples(400), deadline=None)
@given(VALUES, NAMES, TEXTS)
@example({"a": {"b": "\ud800"}, "\udc80": 1}, "custom", "k=\udcff")
@example({"a": msgspec.Raw(b"{not json")}, "custom", "")
@example({"a": msgspec.Raw(b'"raw\nline"')}, "custom", "")
@example({1: "a", "1": "b"}, "custom", "")
@example({"error": ["\ud800", {"deep": b"\xff"}]}, "custom", "")
@example({"cost": math.nan}, "custom", "")
def test_any_payload_is_sealed_or_refused(payload: Any, name: Any, tags: str) -> None:
    """A host hands over what it has; what is posted must be JSON, and nothing raises else."""
    sealer = envelope({"TELEMETRY_TAGS": tags, "LANG": tags})
    try:
        sealed = sealer.seal(Event(payload, name))
    except (InvalidEventError, EventTooBigError):
        return
    assert_sound(sealed)


@settings(max_examples=examples(100), deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4), TEXTS)
def test_a_scrubbed_payload_is_sealed_or_refused(
    payload: dict[str, Any], tags: str
) -> None:
    """The scrubber meets every string there is, sound or not."""
    scrub = Scrubber(homes=("/home/somebody",), users=("somebody",))
    sealer = envelope({"TELEMETRY_TAGS": tags}, scrub=scrub)
    try:
        sealed = sealer.seal(Event(payload))
    except (InvalidEventError, EventTooBigError):
        return
    assert_sound(sealed)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda key: key not in SYSTEM),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.text(max_size=8)
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_what_is_json_already_arrives_as_it_is(payload: dict[str, Any]) -> None:
    """Without scrubbing nothing is changed, and the host's own object never is."""
    before = json.dumps(payload)
    assert properties(payload) == payload
    assert json.dumps(payload) == before


@pytest.mark.parametrize("depth", [10, 100, 400, 5_000, 100_000])
@pytest.mark.parametrize("kind", ["list", "dict", "cycle"])
def test_depth_is_refused_before_it_overflows(depth: int, kind: str) -> None:
    """A structure that holds itself must not take the host's stack with it."""
    inner: Any = []
    if kind == "cycle":
        inner.append(inner)
    for _ in range(depth):
        inner = {"k": inner} if kind == "dict" else [inner]
    try:
        sealed = envelope().seal(Event({"deep": inner}))
    except InvalidEventError:
        assert depth > 100 or kind == "cycle"
    else:
        assert not CONTROL.search(sealed)
        assert kind != "cycle"
    while inner and kind != "cycle":  # taken apart by hand: so deep, freeing recurses
        inner = inner["k"] if kind == "dict" else inner[0]


@given(TEXTS)
def test_tags_keep_the_rules_of_the_original(text: str) -> None:
    """Split at commas, cut at the first equals sign, trimmed, the last one counts."""
    tags = parse_tags(text)
    expected = {}
    for part in text.split(","):
        if "=" in part and trim(part.split("=")[0]):
            expected[sound(trim(part.split("=")[0]))] = sound(
                trim(part.split("=", 1)[1])
            )
    assert tags == expected
    assert all("," not in name and "=" not in name and name for name in tags)


@dataclasses.dataclass
class Deployed:
    region: str
    where: Path


KEPT: list[tuple[Any, Any]] = [
    (Path("a/b"), "a/b"),
    (decimal.Decimal("1.50"), "1.50"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), "2026-01-02T00:00:00Z"),
    (dt.timedelta(seconds=90), "PT90S"),
    (enum.Enum("Colour", {"RED": "r"}).RED, "r"),  # type: ignore[attr-defined]
    ({1}, [1]),
    (b"ab\xff", "ab\ufffd"),
    (Deployed("eu", Path("x")), {"region": "eu", "where": "x"}),
    ({"deep": [{"deeper": ({Path("x")},)}]}, {"deep": [{"deeper": [["x"]]}]}),
    (math.nan, None),
    (10**30, 10**30),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (collections.deque([1, Path("x")]), [1, "x"]),
    (range(3), [0, 1, 2]),
    (fractions.Fraction(1, 3), "1/3"),
    (1j, "1j"),
    (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
    (OSError(2, "/home/me/secret"), "FileNotFoundError"),
]


def test_a_value_is_kept_in_the_form_that_its_author_would_read() -> None:
    """An event is not lost for one path or one decimal number in it."""
    for value, expected in KEPT:
        assert properties({"value": value}) == {"value": expected}, value


def test_what_has_no_form_is_refused_and_nothing_else_happens() -> None:
    """A circle has no end, and an address means nothing elsewhere."""
    circle: dict[str, Any] = {}
    circle["again"] = circle
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    endless = range(10**15)
    for value in (circle, deep, object(), object, len, iter([1]), Event, endless):
        with pytest.raises(InvalidEventError):
            properties({"value": value})
