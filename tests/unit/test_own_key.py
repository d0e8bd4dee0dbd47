"""The program's own key is found however it is written, and whatever of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.config import Config
from telemetry.envelope import Envelope
from telemetry.events import ToolEvent
from telemetry.light_events import NamedEvent
from telemetry.logs import TelemetryLogger, discreet
from telemetry.privacy import OwnKey, own_key_of
from tests.support.canaries import (
    OWN_KEY,
    OWN_KEY_WRITTEN,
    SURROUNDINGS,
    own_key_leaks,
    windows,
)
from tests.support.examples import examples


# Readable, drawn, in digits, with what is escaped everywhere, and beyond ASCII.
KEYS = (
    OWN_KEY,
    "team-blue-2024-collector",
    "9f8e7d6c5b4a39281706f5e4d3c2b1a0",
    "pk_Zx81LmQo04",
    "84615502937716",
    "a b&c<d>e\"f'g\\h/i%j",
    "schl\u00fcssel-\u0436\u043a-4711",
)


def test_the_own_key_is_removed_however_it_is_written() -> None:
    """Programs quote their key in errors, and servers answer with it."""
    found = [
        (key, name, text, out)
        for key in KEYS
        for own in [OwnKey(key)]
        for name, write in OWN_KEY_WRITTEN.items()
        for around in SURROUNDINGS
        for text in [around.format(write(key).strip())]
        for out in [own.without(text)]
        if own_key_leaks(out, key)
    ]
    assert found == []


def test_without_a_look_each_of_them_would_be_found() -> None:
    """The search above can fail."""
    for name, write in OWN_KEY_WRITTEN.items():
        written = write(OWN_KEY).strip()
        assert own_key_leaks(f"error: {written}"), name


def test_other_text_stays_as_it_is() -> None:
    """The same object: what has no piece of the key costs one look."""
    for key in (*KEYS, "", "abc", "hunter2"):
        own = OwnKey(key)
        for text in (
            *("team blue collects", "refused", "50% of a\\b", "&amp; hunter2x", ""),
            *("11111111-2222-4333-8444-555555555555", "2024-01-01T10:00:00Z"),
            *("the team in blue", "a, b, c: d/e f", "0x7ffe 0x10", "1 2 3 4 5 6 7 8"),
        ):
            assert own.without(text) is text, (key, text)


def test_fewer_than_eight_characters_of_it_stay() -> None:
    """Words of a key stand in other texts, too."""
    key = "team-blue-2024-collector"
    for text, out in (
        ("team-bl and blue-20", "team-bl and blue-20"),
        ("team-blue", "<secret>"),
        ("the collector said no", "the <secret> said no"),
        ("team.blue.2024", "<secret>"),
        ("team blue", "team blue"),
    ):
        assert OwnKey(key).without(text) == out, text


def test_two_characters_of_it_in_utf_16_stay() -> None:
    """Their digits are most of an ordinary number; four characters are a fragment."""
    key = "phc_Aq00zT7Lm9Xw4Tb1V"
    own = OwnKey(key)
    for text in ("build 30003000", "300030001", "order-00300030", "54374c"):
        assert own.without(text) == text
    for order in ("utf-16-le", "utf-16-be"):
        assert own.without(f"x {key[5:9].encode(order).hex()}") == "x <secret>"


def test_a_short_key_is_removed_where_it_is_a_word() -> None:
    """A key of three characters is a test's."""
    assert OwnKey("hunter2").without("key hunter2, HUNTER2! hunter22") == (
        "key <secret>, <secret>! hunter22"
    )
    assert OwnKey("abc").without("abc") == "abc"


@settings(max_examples=examples(300), deadline=None)
@given(
    key=st.text(st.characters(codec="utf-8"), min_size=8, max_size=40),
    before=st.text(max_size=20),
    behind=st.text(max_size=20),
    start=st.integers(0, 32),
    size=st.integers(8, 40),
)
def test_no_key_and_no_fragment_of_any_key_stays(
    key: str, before: str, behind: str, start: int, size: int
) -> None:
    """Keys are whatever a server gives out."""
    fragment = key[start : start + size]
    out = OwnKey(key).without(f"{before}{fragment}{behind}")
    if len(fragment) >= 8 and fragment not in before + behind:
        assert fragment not in out


def test_nothing_of_the_key_is_in_an_events_bytes_without_a_scrubber() -> None:
    """The last step before the spool looks at names and numbers, too."""
    key = "sesame-84615502937716"
    number = int(key[-14:])
    envelope = Envelope(
        source=f"from-{key}",
        version=f"1.0+{key}",
        user_uuid=key.upper(),
        scrub=None,
        own_key=OwnKey(key),
        event_bytes_max=1 << 20,
        environment={"TELEMETRY_TAGS": f"a={key},{key}=b", "LANG": f"de_{key}"},
    )
    planted = {
        key: 1,
        "n": number,
        "f": number / 1000,
        "pieces": [key[:5], key[5:9], key[9:15], key[15:]],
        "bytes": [*key.encode()],
        "deep": [{"x": (key.encode(), {key[2:]: None})}],
    }
    for event in (
        NamedEvent(f"event {key}", planted),
        ToolEvent(key, key[:8], key[8:], key[::-1], error=f"no {key.encode()!r}"),
    ):
        sealed = envelope.seal(event).decode()
        for part in (*windows(key, 8), *windows(key[::-1], 8), "115, 101", "115,101"):
            assert part not in sealed, (part, sealed)


def test_names_that_are_public_stay() -> None:
    """A key often begins with the name of its program; an event has to have it."""
    own = own_key_of(
        Config(app="frobnicate", api_key="frobnicate-4f0c81aa", endpoint="https://x"),
        {},
        public=("session_id",),
    )
    assert own.value({"session_id": "frobnicate"}) == {"session_id": "frobnicate"}
    assert own.without("frobnicate-4f") == "<secret>"
    # A name that holds the whole key is none that may be told.
    assert OwnKey("team-blue-9", public=["x team-blue-9"]).without("x team-blue-9") == (
        "x <secret>"
    )


def test_a_key_of_the_environment_and_a_password_are_secrets_too() -> None:
    """Also where the settings cannot be used."""
    config = Config(app="app", endpoint="https://me:pass%2Dword-1@host/")
    own = own_key_of(config, {"TELEMETRY_API_KEY": ' "from-outside-9"\r\n'})
    assert own.without("a from-outside-9 b pass-word-1") == "a <secret> b <secret>"
    unusable = Config(app="app", endpoint=None, api_key=1234567890)  # type: ignore[arg-type]
    assert own_key_of(unusable, {}).without("1234567890") == "<secret>"


@pytest.mark.parametrize(
    ("fields", "is_secret"),
    [
        ({"endpoint": "https://opentelemetry@host/"}, True),
        ({"endpoint": "https://host/", "deletion_endpoint": "https://me:opentelemetry@host/"}, True),
        ({"endpoint": "https://opentelemetry@host/", "format": "clickhouse"}, False),
        ({"endpoint": "https://me:opentelemetry@host/", "format": "clickhouse"}, True),
        ({"endpoint": "https://host/opentelemetry/@me"}, False),
        ({"endpoint": "https://me:p/opentelemetry@host/"}, True),
    ],
)  # fmt: skip
def test_what_is_a_secret_in_a_url(fields: dict[str, Any], is_secret: bool) -> None:
    """A token may stand as the user; ClickHouse's user is a name, in our own fields too."""
    own = own_key_of(Config(app="app", **fields), {})
    assert (own.without("opentelemetry-sdk") != "opentelemetry-sdk") == is_secret


@pytest.mark.parametrize(
    "field", ["app", "api_key", "endpoint", "deletion_endpoint", "format"]
)
def test_a_value_without_a_text_is_no_secret_and_hides_none(field: str) -> None:
    """Whatever a host hands over, the others are known."""

    class Odd:
        def __str__(self) -> str:
            raise ZeroDivisionError

    for odd in (10**5_000, Odd()):
        fields: dict[str, Any] = {"app": "app", "api_key": "a-key-of-ours", field: odd}
        own = own_key_of(Config(**fields), {"TELEMETRY_API_KEY": "from-outside-9"})
        assert own.without("from-outside-9") == "<secret>"
        if field != "api_key":
            assert own.without("a-key-of-ours") == "<secret>"


class Lines(TelemetryLogger):
    """Remembers what is said as a handler would write it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def debug(self, message: str, *args: object) -> None:
        self.said.append(message % args if args else message)

    info = warning = error = debug

    def is_enabled_for(self, level: int) -> bool:
        return level > 10


def test_no_line_of_a_log_holds_the_key() -> None:
    """Debug logs are the first thing that anybody pastes."""
    key, lines = "sesame-0123456789", Lines()
    logger = discreet(lines, OwnKey(key))
    assert logger is not None
    assert discreet(logger, OwnKey(key)) is logger
    assert discreet(lines, OwnKey("")) is lines
    assert discreet(None, OwnKey(key)) is None
    assert logger.is_enabled_for(30)
    assert not logger.is_enabled_for(10)
    for say in (logger.debug, logger.info, logger.warning, logger.error):
        say("%s: %r at 100%%", "flush", OSError(1, f"no {key}"))
        say(key)
        say("%s of %d", "clean", 3)
    with pytest.raises(TypeError):
        logger.info("%d", "no number")
    assert not [line for line in lines.said if key[:8] in line]
    assert lines.said.count("clean of 3") == 4
    assert len(lines.said) == 12
