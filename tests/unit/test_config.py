"""How what is named, the environment, the build and the defaults become one Config."""

from __future__ import annotations

import datetime as dt
import doctest
import inspect
import itertools
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import telemetry.config
from telemetry.client import Client
from telemetry.config import Config, resolve
from telemetry.errors import ConfigError, EndpointError
from telemetry.mistakes import sentence


# Fields that the environment or the build may set, their variable, and a default.
LAYERED = [
    ("endpoint", "TELEMETRY_ENDPOINT", ""),
    ("api_key", "TELEMETRY_API_KEY", ""),
    ("header", "TELEMETRY_HEADER", "x-api-key"),
]
BOUNDS = [
    field.name
    for field in msgspec.structs.fields(Config)
    if field.type in {int, float} and field.default
]


def resolved(environment: dict[str, str] | None = None, **named: object) -> Config:
    return resolve({"app": "app", **named}, environment=environment or {}, build={})


@pytest.mark.parametrize(("field", "variable", "default"), LAYERED)
def test_the_nearest_voice_is_heard(field: str, variable: str, default: str) -> None:
    """Named, then the environment, then the build, then the default: all 8 cases."""
    for named, said, built in itertools.product([False, True], repeat=3):
        config = resolve(
            {"app": "app", field: "named" if named else None},
            environment={variable: "said"} if said else {},
            build={field: "built" if built else ""},
        )
        expected = [("named", named), ("said", said), ("built", built), (default, True)]
        heard = next(value for value, speaks in expected if speaks)
        assert getattr(config, field) == heard


def test_an_empty_variable_says_nothing_but_for_the_header() -> None:
    """An empty header is a choice: requests go without a key."""
    empty = {"TELEMETRY_ENDPOINT": "", "TELEMETRY_API_KEY": "", "TELEMETRY_HEADER": ""}
    built = {"endpoint": "built", "api_key": "built", "header": "built"}
    config = resolve({"app": "app"}, environment=empty, build=built)
    assert (config.endpoint, config.api_key, config.header) == ("built", "built", "")
    named = resolve({"app": "app", "header": ""}, environment={}, build=built)
    assert named.header == ""


@pytest.mark.parametrize(
    ("environment", "named", "mode"),
    [
        ({}, None, "launch"),
        ({"CI": "true"}, None, "exit"),
        ({"CI": ""}, None, "launch"),
        ({"CI": "false"}, None, "launch"),
        ({"GITHUB_ACTIONS": "true"}, None, "exit"),
        ({"CI": "true"}, "launch", "launch"),
        ({"CI": "true", "TELEMETRY_FLUSH": "manual"}, None, "manual"),
        ({"TELEMETRY_FLUSH": "EXIT"}, None, "exit"),
        ({"TELEMETRY_FLUSH": "thread"}, "manual", "manual"),
        ({"TELEMETRY_FLUSH": "sometimes"}, None, "launch"),
        ({"TELEMETRY_FLUSH": ""}, None, "launch"),
    ],
)
def test_events_leave_as_was_said(
    environment: dict[str, str], named: str | None, mode: str
) -> None:
    """A test run in CI ends at once and leaves no process behind."""
    config, _ = resolved(environment, flush=named).sound()
    assert config.flush_mode(environment) == mode


@pytest.mark.parametrize(
    ("said", "debug"),
    [("", False), ("0", False), ("no", False), ("1", True), ("yes", True)],
)
def test_debug_comes_from_the_environment(said: str, *, debug: bool) -> None:
    """Whoever looks for a fault cannot always change the program."""
    assert resolved({"TELEMETRY_DEBUG": said}).debug is debug
    assert resolved({"TELEMETRY_DEBUG": said}, debug=True).debug
    assert not resolved({"TELEMETRY_DEBUG": said}, debug=False).debug


def test_a_setting_that_does_not_exist_is_an_error() -> None:
    """A misspelt `scrub` would otherwise be off in silence."""
    with pytest.raises(TypeError, match="scrup"):
        telemetry.configure("app", scrup=False)  # type: ignore[call-arg]


def test_every_setting_can_be_named_in_configure() -> None:
    """An editor offers them, and a type checker knows them: none is left out."""
    named = inspect.signature(telemetry.configure).parameters
    assert [*named] == [*Config.__struct_fields__, "logger"]


# A value that no field of that type can have.
WRONG = {str: 5, bool: "yes", int: "5", float: "5"}


@pytest.mark.parametrize("field", msgspec.structs.fields(Config), ids=lambda f: f.name)
def test_every_field_is_held_against_its_type(field: msgspec.structs.FieldInfo) -> None:
    """A wrong type would surface far away, in the middle of a flush."""
    wrong = WRONG.get(field.type, object())
    if field.name != "strict":
        with pytest.raises(ConfigError) as caught:
            Config(**{"app": "app", field.name: wrong, "strict": True})  # type: ignore[arg-type]
        assert caught.value.field == field.name
    config = Config(**{"app": "app", field.name: wrong})  # type: ignore[arg-type]
    sound, problems = config.sound()
    assert [problem.field for problem in problems] == [field.name]
    if field.name == "enabled":
        assert sound.enabled is False
    elif field.name not in {"app", "home"}:
        assert getattr(sound, field.name) == getattr(Config(app="app"), field.name)
        assert sound.problems() == []


@pytest.mark.parametrize(
    "value", [b"bytes", dt.date(2026, 1, 2), None, ["a"], 3.5], ids=repr
)
def test_what_is_no_text_is_no_key(value: object) -> None:
    """Bytes and dates have a form as JSON; as a header they would be nonsense."""
    config = Config(app="app", api_key=value)  # type: ignore[arg-type]
    assert [problem.field for problem in config.problems()] == ["api_key"]


def test_a_key_without_a_truth_is_shown_all_the_same() -> None:
    """A host's value may raise for whatever it is asked."""

    class Odd:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    assert "api_key=…" in repr(Config(app="app", api_key=Odd()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in BOUNDS if name != "app"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_bound_is_a_number_above_zero(name: str, value: float) -> None:
    """Zero would refuse every event, or retry without a pause."""
    config = Config(**{"app": "app", name: value})  # type: ignore[arg-type]
    assert [problem.field for problem in config.problems()] == [name]
    sound, _ = config.sound()
    assert getattr(sound, name) == getattr(Config(app="app"), name)


@pytest.mark.parametrize("name", ["version", "source", "api_key", "header", "endpoint"])
def test_what_goes_into_a_header_is_one_line(name: str) -> None:
    """A line's end would start another header, of the text's own choice."""
    for text in ("a\nb", "a\r\nX-Evil: 1", "\0", "\x7f", "a\u2028b"):
        config = Config(**{"app": "app", name: text})  # type: ignore[arg-type]
        assert [problem.field for problem in config.problems()] == [name], text
        assert text not in str(config.problems()[0])


def test_an_end_that_nobody_meant_is_no_part_of_a_setting() -> None:
    """A secret that is read from a file ends in a line end, an env-file in CRLF."""
    named = ["app", "version", "source", "api_key", "header", "endpoint"]
    for ends in ("{}\n", "{}\r\n", "\t{} ", "{}"):
        config = Config(**{name: ends.format("value") for name in named})
        assert {getattr(config, name) for name in named} == {"value"}, ends
        replaced = msgspec.structs.replace(config, version=ends.format("2"))
        assert replaced.version == "2"
    for ends in ("{}\n", "{}\r", ' "{}" ', "'{}'\r\n", "{} "):
        said = {variable: ends.format("said") for _, variable, _ in LAYERED}
        config = resolve({"app": "app"}, environment=said, build={})
        assert {getattr(config, field) for field, _, _ in LAYERED} == {"said"}, ends
        built = {field: ends.format("built") for field, _, _ in LAYERED}
        config = resolve({"app": "app"}, environment={}, build=built)
        assert {getattr(config, field) for field, _, _ in LAYERED} == {"built"}, ends
        for mode in ("manual", "MANUAL"):
            environment = {"TELEMETRY_FLUSH": ends.format(mode)}
            config, problems = resolved(environment).sound()
            assert (config.flush_mode(environment), problems) == ("manual", []), ends
    assert resolved({"TELEMETRY_HEADER": '""'}).header == ""


def test_no_value_is_dropped_in_silence() -> None:
    """Of a variable that does not count as it stands, whoever set it is told."""
    unix, windows = {"HOME": "/home/u"}, {"USERPROFILE": r"C:\Users\u"}
    for platform, environment, misread in (
        ("linux", {**unix, "TELEMETRY_FLUSH": "sometimes"}, ["TELEMETRY_FLUSH"]),
        ("linux", {**unix, "TELEMETRY_FLUSH": ' "MANUAL"\r'}, []),
        ("linux", {**unix, "XDG_STATE_HOME": "state"}, ["XDG_STATE_HOME"]),
        ("darwin", {**unix, "XDG_STATE_HOME": "~/state"}, ["XDG_STATE_HOME"]),
        ("linux", {**unix, "XDG_STATE_HOME": "'/state'\n"}, []),
        ("linux", {**unix, "XDG_STATE_HOME": " "}, []),
        ("linux", {**unix, "TELEMETRY_HOME": "../state"}, ["TELEMETRY_HOME"]),
        ("linux", {**unix, "TELEMETRY_HOME": "~/x", "XDG_STATE_HOME": "x"}, []),
        ("win32", {**windows, "LOCALAPPDATA": r"AppData\Local"}, ["LOCALAPPDATA"]),
        ("win32", {**windows, "LOCALAPPDATA": r"\Local"}, ["LOCALAPPDATA"]),
        ("win32", {**windows, "LOCALAPPDATA": r"D:\Local"}, []),
        ("win32", {**windows, "LOCALAPPDATA": r"\\server\share"}, []),
        ("win32", {**windows, "XDG_STATE_HOME": "state"}, []),
        ("linux", {**unix, "TELEMETRY_TAGS": "ring=3,blue, =x"}, ["TELEMETRY_TAGS"]),
        ("linux", {**unix, "TELEMETRY_TAGS": '"ring=3, team=,"\r'}, []),
    ):
        for flush in (None, "launch"):
            config, problems = resolved(environment, flush=flush).sound()
            found = config.misread(environment, platform)
            assert [each.field for each in found] == misread, environment
            assert not problems
        elsewhere = resolved(environment, home="/exact").misread(environment, platform)
        names = {each.field for each in elsewhere}
        assert names <= {"TELEMETRY_FLUSH", "TELEMETRY_TAGS"}, environment


def test_every_field_is_documented_where_help_finds_it() -> None:
    """And what the example shows is what happens."""
    assert Config.__doc__ is not None
    for field in msgspec.structs.fields(Config):
        assert f"    {field.name}: " in Config.__doc__
    assert doctest.testmod(telemetry.config) == (0, 3)


def test_two_kinds_of_faults_are_both_put_right() -> None:
    """A wrong type must not keep a bound of zero from being seen."""
    config = Config(app="app", version=5, flush_interval_s=0.0)  # type: ignore[arg-type]
    sound, problems = config.sound()
    assert {problem.field for problem in problems} == {"version", "flush_interval_s"}
    assert (sound.version, sound.flush_interval_s) == ("unknown", 60.0)


@pytest.mark.parametrize(
    "endpoint",
    [
        "no url",
        "ftp://example.com/",
        "http://example.com/",
        "https://",
        "//example.com",
    ],
)
def test_strict_checks_the_endpoint(endpoint: str) -> None:
    """Where nothing can be sent, a test wants to know at once."""
    with pytest.raises(EndpointError):
        Config(app="app", endpoint=endpoint, strict=True)
    assert Config(app="app", endpoint=endpoint).endpoint == endpoint
    assert Config(app="app", endpoint="https://example.com/", strict=True).strict


def test_no_secret_is_shown() -> None:
    """A Config is printed in a traceback, and a traceback in a report."""
    endpoint = "https://somebody:a-password@example.com/v1?token=a-token"
    config = Config(app="app", api_key="a-secret-key", endpoint=endpoint)
    for shown in (repr(config), str(config), f"{config}"):
        assert "a-secret-key" not in shown
        assert "a-password" not in shown
        assert "a-token" not in shown
        assert "api_key=…" in shown
        assert "example.com" in shown
    assert "api_key=''" in repr(Config(app="app"))


def test_a_path_is_a_home(tmp_path: Path) -> None:
    """Dropped as no text, it would send a test's events to the user's own home."""
    config = Config(app="app", home=tmp_path)  # type: ignore[arg-type]
    assert config.home == str(tmp_path)
    assert config.problems() == []
    assert resolved(home=tmp_path).home == str(tmp_path)


def test_the_source_is_the_app_unless_it_is_named() -> None:
    """A program may be known to its collector by another name than to its user."""
    assert Config(app="app").wire_source() == "app"
    assert Config(app="app", source="another").wire_source() == "another"


def test_a_config_cannot_be_changed() -> None:
    """It is shared by threads and handed to another process."""
    config = telemetry.Config(app="app")
    with pytest.raises(AttributeError):
        config.app = "another"  # type: ignore[misc]


class WithoutRepr:
    """A host's own, with a fault in it."""

    def __repr__(self) -> str:
        raise RuntimeError


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=string.printable + "\ud800é", max_size=20),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.sampled_from([object(), WithoutRepr(), 10**5000]),
)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in msgspec.structs.fields(Config)]),
        ANYTHING,
        max_size=6,
    ).filter(lambda fields: fields.get("strict") is not True)
)
@settings(deadline=None)
@example({"flush_interval_s": 10**400, "spool_bytes_max": 10**400})
@example({"enabled": "\ud800", "flush": "\ud800", "app": "\ud800"})
@example({"version": "\ud800", "home": "\ud800"})
@example({"accept_statuses": [0]})
@example({"accept_statuses": (10**5000,)})
def test_any_config_has_a_sound_form(fields: dict[str, object]) -> None:
    """Whatever a host hands over, it must not raise, and what comes out is usable."""
    config = Config(**{**fields, "app": "app"})  # type: ignore[arg-type]
    sound, problems = config.sound()
    kept = {"home", "endpoint", "header", "accept_statuses"}
    assert {problem.field for problem in sound.problems()} <= kept
    assert problems or sound is config
    assert repr(config).startswith("Config(app='app'")
    Client(config).decision()
    if fields.get("enabled", True) is not True:
        assert sound.enabled is False


def test_a_status_that_accepts_nothing_is_told_and_the_others_stay() -> None:
    """Without the option every 2xx would be taken for acceptance."""
    for statuses, problem in (
        ((200, 409), "409 accepts nothing: only a 2xx does; the others count"),
        ((0, 999), "0, 999 accepts nothing: only a 2xx does; nothing is delivered"),
    ):
        config, (error,) = Config(app="app", accept_statuses=statuses).sound()
        assert config.accept_statuses == statuses
        assert sentence(error).endswith(problem)
    assert Config(app="app", accept_statuses=(200, 201)).problems() == []
    # What is no status the ledger could not hold.
    for statuses in (("200",), (2**64,), (-1,)):
        config, _ = Config(app="app", accept_statuses=statuses).sound()  # type: ignore[arg-type]
        assert config.accept_statuses == ()
