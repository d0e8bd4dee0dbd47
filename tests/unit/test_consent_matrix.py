"""Every way to be asked for consent, crossed; what was decided, why, and written."""

from __future__ import annotations

import itertools
import json
import os
import pty
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

import telemetry
from telemetry import build_values
from telemetry.consent import Choice, format_choice


NOTICE = "this program counts what it is used for; see `theirs telemetry --help`"


class Case(NamedTuple):
    """One world: what everybody said, and where the program runs."""

    environment: str
    choice: str
    program: str
    build: str
    ci: str
    terminal: str
    notice: str


# As people write them, and as shells, env-files with CRLF ends, editors and `docker
# --env-file` hand them over. Each case takes the next one of each.
YES = ("1", '"1"\r', "true", " YES ", "on\r\n", "'True'", "\ufeff1", "\xa0yes")
NO = ("0", "false\r", " No ", "'off'", '" 0 "', "FALSE\n", "\ufeffno", "")
# What is no plain yes turns telemetry off; what is no plain no is one for other names.
OTHER = ("disabled", '"n"', "2", "nope ", "f", "yes please", "0.0", "-", "never\r", "Y")
ENVIRONMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "silent": {},
    "do not track": {"DO_NOT_TRACK": YES + OTHER, "TELEMETRY_ENABLED": YES + NO},
    "tracking is fine": {"DO_NOT_TRACK": NO, "TELEMETRY_ENABLED": (*YES, "", "  ")},
    "disabled": {"DO_NOT_TRACK": NO, "TELEMETRY_ENABLED": NO[:-1] + OTHER},
}
CI: dict[str, dict[str, tuple[str, ...]]] = {
    "CI": {"GITHUB_ACTIONS": YES + OTHER},
    "no CI": {"CI": NO, "JENKINS_URL": NO},
}
BUILDS = {"": ("",), "false": NO[:-1] + OTHER, "true": YES}
OLDER = "on, told of an older one"
CHOICES = {
    "none": None,
    "on, told": Choice(on=True, date="2026-01-01", notice_version="1"),
    OLDER: Choice(on=True, date="2025-01-01", notice_version="0"),
    "off": Choice(on=False, date="2026-01-01"),
}
AXES = (
    ENVIRONMENTS,
    CHOICES,
    ("on", "off"),
    ("", "false", "true"),
    ("CI", "no CI"),
    ("terminal", "no terminal"),
    ("notice", "no notice"),
)
CASES = [Case(*case) for case in itertools.product(*AXES)]


def _is_tried_every_day(case: Case) -> bool:
    """A quarter of all, in which any three of the seven axes are crossed in full.

    Each value has a place on its axis: those of the first five have an even sum, and
    those of the last five.
    """
    places = [list(axis).index(at) for axis, at in zip(AXES, case, strict=True)]
    return sum(places[:5]) % 2 == sum(places[2:]) % 2 == 0


QUARTER = list(filter(_is_tried_every_day, CASES))


def _expected(case: Case) -> tuple[bool, str]:
    """On or off, and the rule: written down as a person would say it."""
    if case.environment == "do not track":
        return False, "do-not-track"
    if case.environment == "disabled":
        return False, "environment"
    if case.program == "off":
        return False, "program"
    if case.choice == "off":
        return False, "remembered"
    is_told = case.choice == "on, told"
    can_be_told = case.terminal == "terminal" and case.ci == "no CI"
    if case.notice == "notice" and not is_told and not can_be_told:
        return False, "notice"
    if case.choice != "none" or case.notice == "notice":
        return True, "remembered"
    if case.build:
        return case.build == "true", "build"
    return True, "default"


def _spelled(names: dict[str, tuple[str, ...]], number: int) -> dict[str, str]:
    """One of the spellings for each variable; all of them come up, in many pairs."""
    return {
        name: spellings[(number * 7 + number // 8 + turn * 3) % len(spellings)]
        for turn, (name, spellings) in enumerate(names.items())
    }


def _world(case: Case, home: Path, number: int) -> dict[str, object]:
    """What a program in this world decides and writes, in a child of its own."""
    if CHOICES[case.choice] is not None:
        home.mkdir(mode=0o700, parents=True)
        (home / "consent").write_bytes(format_choice(CHOICES[case.choice]))
    reading, writing = os.pipe()
    master, terminal = pty.openpty()
    null = os.open(os.devnull, os.O_WRONLY)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(terminal if case.terminal == "terminal" else null, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            sys.argv = ["theirs", "build"]
            for name in ("CI", "DO_NOT_TRACK", "TELEMETRY_ENABLED"):
                os.environ.pop(name, None)
            os.environ.update(_spelled(ENVIRONMENTS[case.environment], number))
            os.environ.update(_spelled(CI[case.ci], number))
            build = _spelled({"build": BUILDS[case.build]}, number)
            build_values.TELEMETRY_ENABLED = build["build"]
            config = telemetry.Config(
                app="theirs",
                home=str(home),
                flush="manual",
                enabled=case.program == "on",
                notice=NOTICE if case.notice == "notice" else None,
                notice_version="1",
            )
            client = telemetry.Client(config)
            event = telemetry.CommandEvent(action="build", success=True)
            told = {"recorded": client.track(event), "again": client.track(event)}
            told["rule"] = client.decision().rule
            os.write(writing, json.dumps(told).encode())
        except BaseException:
            os.write(writing, json.dumps({"failed": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.close(terminal)
    os.close(null)
    with os.fdopen(reading, "rb") as pipe:
        told: dict[str, object] = json.loads(pipe.read() or b"{}")
    os.waitpid(pid, 0)
    os.set_blocking(master, False)
    try:
        told["shown"] = os.read(master, 4096).decode()
    except OSError:
        told["shown"] = ""
    os.close(master)
    told["files"] = (
        sorted(path.name for path in home.rglob("*")) if home.exists() else []
    )
    return told


def test_every_spelling_comes_up() -> None:
    """A table that skips half of them tells nothing of that half."""
    used = [
        _spelled(names, number)
        for number, case in enumerate(QUARTER)
        for names in (ENVIRONMENTS[case.environment], CI[case.ci])
    ]
    for names in (*ENVIRONMENTS.values(), *CI.values()):
        for name, spellings in names.items():
            assert set(spellings) <= {each.get(name) for each in used}, name


# The child leaves by `_exit`; no thread of the test runner is needed in it.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_decided_why_and_what_is_written(
    environment: str, tmp_path: Path
) -> None:
    """Telemetry is trusted, or it is turned off.

    All cases are tried in `proofs/test_tried_whole.py`.
    """
    cases = list(enumerate(QUARTER))
    hold([each for each in cases if each[1].environment == environment], tmp_path)


def hold(cases: Iterable[tuple[int, Case]], tmp_path: Path) -> None:
    """In each of these worlds it is decided, shown and written what a person expects."""
    for number, case in cases:
        home = tmp_path / str(number)
        told = _world(case, home, number)
        assert "failed" not in told, told["failed"]
        is_on, rule = _expected(case)
        assert (told["recorded"], told["again"]) == (is_on, is_on), (case, told)
        assert told["rule"] == rule, (case, told)
        is_shown = is_on and case.notice == "notice" and case.choice in ("none", OLDER)
        assert told["shown"].count(NOTICE) == (1 if is_shown else 0), (case, told)
        before = [] if case.choice == "none" else ["consent"]
        if not is_on:
            # Nothing at all but the choice that was there before.
            assert told["files"] == before, (case, told)
        else:
            assert "user-uuid" in told["files"]
            assert ("consent" in told["files"]) == bool(before or is_shown)
