"""Whether telemetry is on: the order of the rules, and the one file that remembers.

Consent is asked before a byte is written, before a flusher is started and before
each request. A rule that is asked too late, or in the wrong order, records somebody
who has said no.
"""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import telemetry
from telemetry.consent import (
    Choice,
    consent,
    format_choice,
    parse_choice,
    read_choice,
    remember_choice,
    rules,
)
from telemetry.errors import TelemetryError
from telemetry.paths import Home
from telemetry.switches import Decision, ci_variable, environment_decision
from tests.support.surroundings import (
    bare_environment,
    fresh_process,
    only_environment,
    quiet_config,
    spooled,
)


def decide(**values: Any) -> Decision:
    """What the strongest rule says that says anything."""
    return next(said for said in rules(**values).values() if said is not None)


# What makes a text of an env-file, a shell or a mounted secret another one.
SPELLINGS = ("{}", " {}", "{} ", "{}\r", "{}\n", "{}\r\n", '"{}"', "'{}'", '" {} "\r')
ON = ["", "1", "true", "yes", "on", "True", "YES", "oN"]
OFF = [
    "0",
    "false",
    "no",
    "off",
    "n",
    "f",
    "disabled",
    "never",
    "none",
    "2",
    "x y",
    '"',
]


def spelt(words: list[str]) -> list[str]:
    """Every word in every spelling, in every case."""
    return [
        spelling.format(word)
        for word in words
        for spelling in SPELLINGS
        for word in {word, word.upper(), word.capitalize()}
    ]


def test_anything_but_a_plain_yes_turns_it_off() -> None:
    """Whoever sets the variable to something else wants less telemetry, not more."""
    for text in spelt(OFF):
        decision = environment_decision({"TELEMETRY_ENABLED": text})
        assert decision is not None, text
        assert (decision.on, decision.rule) == (False, "environment"), text
    for text in spelt(ON):
        environment = {"TELEMETRY_ENABLED": text}
        assert environment_decision(environment) is None, text
        # It can only turn off; `true` overrules nobody else's no.
        for enabled, choice in ((False, None), (True, Choice(on=False))):
            assert not decide(
                environment=environment, enabled=enabled, choice=choice, build=""
            ).on


def test_do_not_track_wins_unless_it_says_no() -> None:
    """The variable is shared by many programs: it is set once and meant for all."""
    no = ["", "0", "false", "no", "off"]
    for text in spelt(no):
        assert environment_decision({"DO_NOT_TRACK": text}) is None, text
    for text in spelt(["1", "true", "yes", "on", "2", "anything", "n", "f"]):
        everything = {"DO_NOT_TRACK": text, "TELEMETRY_ENABLED": "true"}
        decision = decide(
            environment=everything, enabled=True, choice=Choice(on=True), build="true"
        )
        assert (decision.on, decision.rule) == (False, "do-not-track"), text


def test_a_build_that_says_no_is_off_however_it_is_spelt() -> None:
    """The build machine has env-files, too."""
    for text in spelt(OFF):
        decision = decide(environment={}, enabled=True, choice=None, build=text)
        assert (decision.on, decision.rule) == (False, "build"), text


def test_continuous_integration_is_known_by_many_names() -> None:
    """`CI=false` is how a developer says that this is no such machine."""
    assert ci_variable({}) == ""
    names = [
        "CI",
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "BUILDKITE",
        "TF_BUILD",
        "JENKINS_URL",
    ]
    for name in [*names, "TEAMCITY_VERSION", "CODEBUILD_BUILD_ID"]:
        for text in spelt(["", "0", "false", "no", "off"]):
            assert ci_variable({name: text}) == "", text
        for text in spelt(["1", "true", "https://ci.example.com/"]):
            assert ci_variable({name: text}) == name, text


def test_the_strongest_rule_decides() -> None:
    """All 2^6 combinations: each rule is asked only where no stronger one has spoken."""
    switches = itertools.product([False, True], repeat=6)
    for track, off, program, said_no, due, built_off in switches:
        decision = decide(
            environment={
                **({"DO_NOT_TRACK": "1"} if track else {}),
                **({"TELEMETRY_ENABLED": "off"} if off else {}),
            },
            enabled=not program,
            choice=Choice(on=False, date="2026-01-02") if said_no else None,
            build="false" if built_off else "",
            notice_due=due,
        )
        rules = [
            (track, "do-not-track"),
            (off, "environment"),
            (program, "program"),
            (due, "notice"),
            (said_no, "remembered"),
            (built_off, "build"),
        ]
        expected = next((rule for applies, rule in rules if applies), "default")
        assert decision.rule == expected
        assert decision.on == (expected == "default")
        assert decision.reason


def test_a_remembered_yes_is_stronger_than_the_build() -> None:
    """The user was asked; whoever built the program was not there."""
    chosen = decide(environment={}, enabled=True, choice=Choice(on=True), build="false")
    assert (chosen.on, chosen.rule) == (True, "remembered")
    built = decide(environment={}, enabled=True, choice=None, build="true")
    assert (built.on, built.rule) == (True, "build")
    assert repr(Decision("build", "why", on=True)) == "Decision(on, build: why)"


def test_a_variable_is_not_repeated_at_length() -> None:
    """A reason is shown and logged; what stands in a variable may be anything."""
    decision = environment_decision({"DO_NOT_TRACK": "x" * 1000})
    assert decision is not None
    assert len(decision.reason) < 60


CHOICES = st.builds(
    Choice,
    on=st.booleans(),
    date=st.dates().map(str),
    notice_version=st.from_regex(r"[A-Za-z0-9.]{0,20}", fullmatch=True),
    is_finished=st.booleans(),
    asks=st.booleans(),
)


@given(CHOICES)
def test_a_choice_survives_its_file(choice: Choice) -> None:
    """What was chosen is read back by every later launch."""
    choice.is_finished = choice.is_finished or choice.on
    choice.asks = choice.asks and not choice.on
    content = format_choice(choice)
    assert content.count(b"\n") == 1
    assert content.endswith(b"\n")
    read = parse_choice(content)
    assert (read.on, read.date, read.is_finished, read.asks) == (
        choice.on,
        choice.date,
        choice.is_finished,
        choice.asks,
    )
    if choice.is_finished and not choice.asks:
        assert read.notice_version == choice.notice_version


def test_a_damaged_sentence_behind_off_has_what_was_kept_removed() -> None:
    """To remove what is gone already harms nothing."""
    whole = format_choice(Choice(on=False, date="2026-01-02", is_finished=False))
    for size in range(len("off 2026-01-02 ("), len(whole) - 1):
        choice = parse_choice(whole[:size])
        assert (choice.on, choice.is_finished, choice.asks) == (False, False, False)


@given(st.binary(max_size=300))
def test_a_damaged_file_turns_nothing_on(content: bytes) -> None:
    """Only the plain word counts as yes: a damaged no must not become one."""
    choice = parse_choice(content)
    assert choice.on == (content.decode("utf-8", "replace").split()[:1] == ["on"])


@pytest.mark.parametrize("flipped", range(3))
def test_a_flipped_bit_of_off_stays_off(flipped: int) -> None:
    """`off` and `on` are further apart than one bit."""
    for bit in range(8):
        content = bytearray(b"off 2026-01-02 1\n")
        content[flipped] ^= 1 << bit
        assert not parse_choice(bytes(content)).on


def test_the_file_is_one_private_line(tmp_path: Path) -> None:
    """A person can read it, and write it with `echo off > consent`."""
    path = tmp_path / "consent"
    assert read_choice(str(path)) is None
    remember_choice(str(path), Choice(on=False, date="2026-01-02", notice_version="3"))
    assert path.read_bytes() == b"off 2026-01-02 3\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remember_choice(str(path), Choice(on=True, date="2026-01-03"))
    assert path.read_bytes() == b"on 2026-01-03\n"
    assert os.listdir(tmp_path) == ["consent"]
    for content, on in (
        (b"off", False),
        (b"on", True),
        (b"", False),
        (b"onward", False),
    ):
        path.write_bytes(content)
        choice = read_choice(str(path))
        assert choice is not None
        assert choice.on is on


def test_a_file_that_cannot_be_read_means_off(tmp_path: Path) -> None:
    """Somebody made a choice, and it cannot be known which: so nothing is recorded."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("directory", "link"):
        choice = read_choice(str(tmp_path / name))
        assert choice is not None
        assert not choice.on


def test_where_no_file_can_be_there_is_no_choice(tmp_path: Path) -> None:
    """A home that cannot be used is told as such, not as somebody's no."""
    (tmp_path / "file").write_text("")
    assert read_choice(str(tmp_path / "file" / "consent")) is None
    with only_environment(bare_environment(tmp_path)):
        config = quiet_config(tmp_path / "file" / "home", strict=True)
        with telemetry.Client(config) as client:
            assert client.decision().on
            with pytest.raises(telemetry.HomeError):
                client.track(telemetry.CommandEvent(action="run"))


def test_a_choice_is_obeyed_by_the_next_client(tmp_path: Path) -> None:
    """Turned off once means off for every later launch, until it is turned on."""
    home = Home(str(tmp_path / "home"))
    with only_environment(bare_environment(tmp_path)):
        for on, told in ((False, 0), (True, 1), (False, 1), (True, 2)):
            (tmp_path / "home").mkdir(mode=0o700, exist_ok=True)
            remember_choice(home.consent, Choice(on=on, date="2026-01-02"))
            with telemetry.Client(quiet_config(tmp_path / "home")) as client:
                assert client.track(telemetry.CommandEvent(action="run")) is on
                assert client.decision().rule == "remembered"
            assert len(spooled(home)) == told


@pytest.mark.parametrize(
    "variables",
    [{"TELEMETRY_ENABLED": "no"}, {"DO_NOT_TRACK": "1"}],
    ids=lambda variables: next(iter(variables)),
)
def test_off_by_environment_is_off_for_every_way_in(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """Whichever function a program calls, nothing is made and nothing is raised."""
    environment = bare_environment(tmp_path / "user", **variables)
    with only_environment(environment), fresh_process():
        assert not telemetry.get_telemetry_enabled()
        client = telemetry.Client(quiet_config(tmp_path / "home", strict=True))
        for one in (client, telemetry.configure("app", strict=True)):
            assert not one.track(telemetry.CommandEvent(action="run"))
            assert one.record_session_start("agent", "id") == "id"
            one.record_error("it failed")
            one.record_session_end()
            assert one.flush().stopped == "off"
            assert not one.decision().on
            one.close()
        telemetry.track_command("run", ["x"])
        assert not telemetry.track(telemetry.CommandEvent(action="run"))
        assert telemetry.flush().stopped == "off"
    assert list(tmp_path.iterdir()) == []


def test_a_program_can_only_turn_it_off(tmp_path: Path) -> None:
    """`enabled=True` is what it is anyway: it is nobody's consent."""
    for variables, enabled, rule in (
        ({"DO_NOT_TRACK": "1"}, True, "do-not-track"),
        ({"TELEMETRY_ENABLED": "true"}, False, "program"),
    ):
        config = quiet_config(tmp_path / "home", enabled=enabled)
        environment = bare_environment(tmp_path, **variables)
        with only_environment(environment), telemetry.Client(config) as client:
            assert not client.track(telemetry.CommandEvent(action="run"))
            assert client.decision().rule == rule
    assert list(tmp_path.iterdir()) == []


def test_opting_out_is_noticed_at_the_next_event(tmp_path: Path) -> None:
    """A program that runs for days must not go on recording somebody who said no."""
    home = Home(str(tmp_path / "home"))
    with only_environment(bare_environment(tmp_path)):
        with telemetry.Client(quiet_config(tmp_path / "home")) as client:
            assert client.track(telemetry.CommandEvent(action="before"))
            # What `disable` does: the choice first, then the segments.
            remember_choice(home.consent, Choice(on=False, date="2026-01-02"))
            for name in os.listdir(home.spool):
                os.unlink(home.segment(name))
            assert not client.track(telemetry.CommandEvent(action="after"))
            assert not client.track(telemetry.CommandEvent(action="later"))
            assert client.decision().rule == "remembered"
            assert telemetry_is_quiet(client)
        assert spooled(home) == []


def telemetry_is_quiet(client: telemetry.Client) -> bool:
    """Whether every method answers without recording, and without an error."""
    try:
        client.record_session_start("agent", "id")
        client.record_session_end()
    except TelemetryError:
        return False
    return client.flush().stopped == "off"


def test_one_function_answers_for_the_program_and_its_flusher(tmp_path: Path) -> None:
    """A home that was removed with its consent has the notice due again, everywhere."""
    home = Home(str(tmp_path))
    config = quiet_config(tmp_path, notice="we count")
    assert consent(None, {}, config).rule == "notice"
    assert consent(home, {}, config).rule == "notice"
    assert consent(home, {}).rule == "default"
    remember_choice(
        home.consent, Choice(on=True, date="2026-01-02", notice_version="1")
    )
    assert consent(home, {}, config).rule == "remembered"
    remember_choice(home.consent, Choice(on=False))
    assert consent(home, {}, config).rule == consent(home, {}).rule == "remembered"
    assert consent(home, {}, quiet_config(tmp_path, enabled=False)).rule == "program"


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"maybe \x1b[2J now", b"on"[:1]])
def test_a_choice_that_cannot_be_read_is_said_to_be_none_of_the_users(
    content: bytes,
) -> None:
    """It counts as off, and nothing of it is shown: it may move a terminal's cursor."""
    choice = parse_choice(content)
    assert (choice.on, choice.is_readable) == (False, False)
    said = rules(environment={}, enabled=True, choice=choice, build="")["remembered"]
    assert said is not None
    assert said.reason.isprintable()
    assert "cannot be read" in said.reason
    assert "user turned" not in said.reason
    assert parse_choice(b"off 2026-01-31\n").is_readable
    odd = parse_choice(b"off \x1b[2J 2\n")
    assert parse_choice(format_choice(odd)).date == odd.date
    said = rules(environment={}, enabled=True, choice=odd, build="")["remembered"]
    assert said is not None
    assert said.reason == "the user turned it off"
