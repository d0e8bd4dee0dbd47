"""A program that is set up wrongly says so itself, or `status` does, and what to do."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from spool_tools.collector import Collector
from tests.support.surroundings import REPOSITORY, bare_environment, home_in, spooled
from tests.support.tooling import tool


NOWHERE = "https://nowhere.invalid/v1"
ENDPOINT = {"endpoint": NOWHERE, "api_key": "k"}
FLUSHED = "\ntelemetry.flush(timeout_s=20)"


def source_of(then: str, **named: Any) -> str:
    """A program of four lines, configured with these values."""
    return (
        "import sys\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "import telemetry\n"
        f"telemetry.configure(**{ {'app': 'app', 'flush': 'manual', **named}!r})\n"
        f"telemetry.track('ran'){then}\n"
    )


def run(
    program: Path, home: Path, *, is_terminal: bool = True, **variables: str
) -> str:
    """What a program says on standard error, which is a terminal or a pipe."""
    environment = bare_environment(home, **variables)
    if not is_terminal:
        done = subprocess.run(
            [sys.executable, program], env=environment, capture_output=True, check=False
        )
        return done.stderr.decode()
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, program], env=environment, stderr=theirs, check=False
        )
        os.close(theirs)
        said = b""
        while block := _read(ours):
            said += block
    finally:
        os.close(ours)
    return said.decode().replace("\r\n", "\n")


def test_a_program_that_lost_its_endpoint_is_told_until_it_has_one(
    tmp_path: Path,
) -> None:
    """TELEMETRY_ENDPOINT stood in one shell and not in cron: a flush was due for ever."""
    program = tmp_path / "program.py"
    program.write_text(source_of(""))
    run(program, tmp_path)
    assert "no flush has begun" in status(tmp_path)  # it may never have had one
    with Collector(key="k") as collector:
        known = {"TELEMETRY_ENDPOINT": collector.url, "TELEMETRY_API_KEY": "k"}
        program.write_text(source_of(FLUSHED))
        run(program, tmp_path, **known)
        program.write_text(source_of(""))
        run(program, tmp_path)
        said = json.loads(status(tmp_path, "--json"))
        assert (said["why_code"], said["pending"]) == ("no_endpoint", 1)
        assert "set TELEMETRY_ENDPOINT" in said["why"]
        # Here one is known: a flush by hand goes there.
        assert json.loads(status(tmp_path, "--json", **known))["why_code"] != (
            "no_endpoint"
        )
        run(program, tmp_path, **known)
        said = json.loads(status(tmp_path, "--json"))
        assert (said["mistakes"], said["why_code"]) == ([], "scheduled")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other side was closed
        return b""


def status(home: Path, *options: str, **variables: str) -> str:
    """What `status` says of the app, on whichever stream."""
    told = tool("status", "--app", "app", *options, HOME=str(home), **variables)
    return told.out.decode() + told.err


# What is wrong: the settings, the environment, what the program does then, and words
# of the program or of `status` that name the thing and say what to do.
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, str], str, list[str]]] = {
    "a misspelt keyword": ({"verison": "1"}, {}, "", ["TypeError", "'verison'"]),
    "a misspelt mode": (
        {"flush": "lauch"},
        {},
        "",
        ["configure(flush=…)", "launch, thread, exit or manual, not 'lauch'"],
    ),
    "a mode of the environment": (
        {},
        {"TELEMETRY_FLUSH": "sometimes"},
        "",
        ["TELEMETRY_FLUSH: must be launch, thread", "not 'sometimes'; it is ignored"],
    ),
    "a state directory that is relative": (
        {},
        {"XDG_STATE_HOME": "state"},
        "",
        ["XDG_STATE_HOME: is relative; it is ignored", "set an absolute path"],
    ),
    "tags without names": (
        {},
        {"TELEMETRY_TAGS": "blue"},
        "",
        ["TELEMETRY_TAGS: a part of it is no name=value"],
    ),
    "an endpoint without a scheme": (
        {"endpoint": "collect.example/v1"},
        {},
        "",
        ["configure(endpoint=…)", "write https://host/path"],
    ),
    "an endpoint with a misspelt scheme": (
        {"endpoint": "htps://collect.example/v1"},
        {},
        "",
        ["'htps://collect.example/v1' is neither https nor http; write https://"],
    ),
    "an endpoint in the clear": (
        {"endpoint": "http://collect.example/v1"},
        {},
        "",
        ["in the clear", "use https"],
    ),
    "a name with a slash": (
        {"app": "frob/nicate"},
        {},
        "",
        ["configure(app=…)", "use letters, digits", "nothing is recorded"],
    ),
    "a bound of zero": (
        {"spool_bytes_max": 0},
        {},
        "",
        ["configure(spool_bytes_max=…)", "above zero", "default"],
    ),
    "tags that are a list": (
        {"tags": ["beta"]},
        {},
        "",
        ["configure(tags=…)", "dict of texts and numbers"],
    ),
    "a header that is two words": (
        {"header": "api key"},
        {},
        "",
        ["configure(header=…)", "not a header name", "nothing is sent"],
    ),
    "a key with a control character": (
        {"api_key": "a\0b"},
        {},
        "",
        ["configure(api_key=…)", "a line end", "does not print"],
    ),
    "a key of the environment with a line end": (
        {"endpoint": NOWHERE},
        {"TELEMETRY_API_KEY": "a\nb"},
        "",
        ["configure(api_key=…), or TELEMETRY_API_KEY: holds a line end"],
    ),
    "a switch that is a text": (
        {"enabled": "yes"},
        {},
        "",
        ["configure(enabled=…)", "True or False", "telemetry is off"],
    ),
    "a home that is a file": (
        {"home": "~/taken"},
        {},
        "",
        ["taken", "no directory", "not recorded (no_home)"],
    ),
    "a home that cannot be made": (
        {},
        {"TELEMETRY_HOME": "/dev/null/homes"},
        "",
        [
            "cannot be made: Not a directory; set TELEMETRY_HOME to another place",
            "none can be made: /dev/null is no directory; set TELEMETRY_HOME",
        ],
    ),
    "a flush that failed before": (
        {**ENDPOINT, "flush": "launch", "failure_spread_s": 0.001},
        {"TELEMETRY_FLUSH": "launch", "TELEMETRY_DEBUG": "1"},
        FLUSHED + "\nimport os, subprocess\n"
        "if 'SECOND' not in os.environ:\n"
        "    environment = {**os.environ, 'SECOND': '1'}\n"
        "    subprocess.run([sys.executable, *sys.argv], env=environment)\n",
        ["at the earliest: the last flush failed, and `status` says why"],
    ),
    "continuous integration": (
        {**ENDPOINT, "flush": None},
        {"CI": "true", "TELEMETRY_DEBUG": "1"},
        "",
        ["this process flushes by itself, if a flush is due: exit"],
    ),
    "no endpoint": ({}, {}, FLUSHED, ["none is set", "set TELEMETRY_ENDPOINT"]),
    "no key": (
        {"endpoint": NOWHERE},
        {},
        FLUSHED,
        ["none is set", "set TELEMETRY_API_KEY"],
    ),
    "no key, and no flush yet": (
        {"endpoint": NOWHERE, "flush": None},
        {"TELEMETRY_DEBUG": "1"},
        "",
        [
            "once it has a key",
            "no usable api_key; set TELEMETRY_API_KEY",
            "configure(api_key=…): none is set",
            "nothing is sent, and events are kept",
        ],
    ),
    "a name that does not resolve": (
        ENDPOINT,
        {},
        FLUSHED,
        ["nowhere.invalid", "does not resolve"],
    ),
    "a wish to be forgotten goes elsewhere": (
        {**ENDPOINT, "deletion_endpoint": "https://elsewhere.invalid/forget"},
        {},
        "",
        ["configure(deletion_endpoint=…)", "another origin", "no server is asked"],
    ),
    "off by the environment": ({}, {"DO_NOT_TRACK": "1"}, "", ["DO_NOT_TRACK=1"]),
}


def test_each_mistake_is_named_in_words_that_say_what_to_do(tmp_path: Path) -> None:
    """Nothing is worse for an author than a program that runs and of which none arrives."""
    unnamed = {}
    for number, (mistake, (named, variables, then, words)) in enumerate(
        MISTAKES.items()
    ):
        home = tmp_path / str(number)
        home.mkdir()
        (home / "taken").touch()
        program = home / "program.py"
        program.write_text(source_of(then, **named))
        said = run(program, home, **variables) + status(home, **variables)
        missing = [word for word in words if word not in said]
        if missing:
            unnamed[mistake] = (missing, said)
    assert not unnamed


def test_only_a_setting_that_holds_events_back_is_said_to_do_so(tmp_path: Path) -> None:
    """In place of others the default is used, and events leave."""
    program = tmp_path / "program.py"
    for header, holds_back in (("a\nb", False), ("x y", True)):
        program.write_text(source_of("", **ENDPOINT, header=header))
        run(program, tmp_path)
        said = status(tmp_path)
        assert "configure(header=…)" in said
        assert ("nothing was sent by the program's last launch" in said) == holds_back


def test_a_key_that_is_refused_is_named(tmp_path: Path) -> None:
    """The program cannot know it; `status` does, after the first flush."""
    program = tmp_path / "program.py"
    with Collector(key="the right one") as collector:
        program.write_text(
            source_of(FLUSHED, endpoint=collector.url, api_key="a wrong one")
        )
        run(program, tmp_path)
    said = status(tmp_path)
    assert "refuses" in said
    assert "401" in said
    assert "a wrong one" not in said


def test_a_mistake_is_told_to_who_can_mend_it(tmp_path: Path) -> None:
    """A developer at a terminal reads it; a user of an installed program never does."""
    source = source_of("", flush="lauch", tags=3)
    checkout = tmp_path / "program.py"
    installed = tmp_path / "site-packages" / "program.py"
    for path in (checkout, installed):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert len(run(checkout, tmp_path).splitlines()) == 2
    assert run(checkout, tmp_path, is_terminal=False) == ""
    assert run(installed, tmp_path) == ""
    logging = (
        "import logging\nlogging.basicConfig(format='%(levelname)s %(message)s')\n"
    )
    installed.write_text(logging + source)
    lines = run(installed, tmp_path).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("WARNING [Telemetry] ") for line in lines)
    assert run(installed, tmp_path, DO_NOT_TRACK="1") == ""


def test_a_mistake_stands_in_status_until_it_is_mended(tmp_path: Path) -> None:
    """Who operates a program sees it, whoever started it."""
    program = tmp_path / "program.py"
    program.write_text(source_of("", flush="lauch", segment_bytes_max=-1))
    run(program, tmp_path, is_terminal=False)
    found = json.loads(status(tmp_path, "--json"))["mistakes"]
    assert [text.partition("=")[0] for text in found] == [
        "configure(flush",
        "configure(segment_bytes_max",
    ]
    program.write_text(source_of(""))
    run(program, tmp_path, is_terminal=False)
    assert json.loads(status(tmp_path, "--json"))["mistakes"] == []
    assert len(spooled(home_in(tmp_path))) == 2


def test_debug_prints_by_itself_from_the_decision_to_the_answer(tmp_path: Path) -> None:
    """Who asks why nothing arrives sets one variable, and sets up no logging."""
    program = tmp_path / "program.py"
    with Collector(key="k") as collector:
        named = {"endpoint": collector.url, "api_key": "k", "flush": None}
        program.write_text(source_of("", **named))
        # The pipe stays open until the detached flusher has ended.
        said = run(program, tmp_path, is_terminal=False, TELEMETRY_DEBUG="1")
        lines = said.splitlines()
    for words in (
        f"on (no rule turned it off); events go to {collector.url}",
        'recorded: {"event":"ran"',
        "a flusher was started",
        "bytes posted: 200",
    ):
        assert any(words in line for line in lines), (words, said)
    assert all(line.startswith("[Telemetry] ") for line in lines), said
    off = run(
        program, tmp_path, is_terminal=False, TELEMETRY_DEBUG="1", DO_NOT_TRACK="1"
    )
    assert off == "[Telemetry] <telemetry.Client app: off (DO_NOT_TRACK=1)>\n"


def test_a_client_says_what_it_is() -> None:
    """The first thing that is typed into a debugger."""
    import telemetry

    config = telemetry.Config(
        app="app", version="1.2", api_key="secret", endpoint="https://u:p@h.example/v1"
    )
    shown = repr(telemetry.Client(config))
    assert shown.startswith("<telemetry.Client app ")
    assert "https://h.example/v1" in shown or "off" in shown
    assert "secret" not in shown
    assert "u:p" not in shown
