"""Programs that know nothing of telemetry, wrapped by a script of somebody else."""

from __future__ import annotations

import json

import pytest

from tests.support.wrapped import RECORDER, nursery


OUTSIDE = """
import os, sys
from {module} import {command} as command, {main} as main
if "RECORD_TO" in os.environ:
    from recorder import Recorder
    from telemetry.integrations.click import instrument
    instrument(command, client=Recorder())
sys.exit(main())
"""


@pytest.fixture(scope="module")
def run_black(tmp_path_factory):
    """As `both`, with black loaded once."""
    pytest.importorskip("black")
    with nursery(tmp_path_factory.mktemp("nursery"), "import black") as run:
        yield run


@pytest.fixture(scope="module")
def run_flask(tmp_path_factory):
    """As `both`, with flask loaded once."""
    pytest.importorskip("flask")
    with nursery(tmp_path_factory.mktemp("nursery"), "import flask.cli") as run:
        yield run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--check", "good.py"], ("", ["--check"])),
        (["--check", "bad.py"], ("Exit", ["--check"])),
        (
            ["-q", "--check", "-l20", "."],
            ("Exit", ["--line-length", "--check", "--quiet"]),
        ),
        (["broken.py"], ("Exit", [])),
        (["--secret"], ("NoSuchOption", [])),
        (["--version"], None),
    ],
)
def test_black_wrapped_from_outside(run_black, tmp_path, arguments, told):
    """A program must not have to be written for this."""
    (tmp_path / "recorder.py").write_text(RECORDER)
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("x=1\n")
    (tmp_path / "broken.py").write_text("x = (\n")
    script = tmp_path / "program"
    script.write_text(
        OUTSIDE.format(module="black", command="main", main="patched_main")
    )
    plain, wrapped, events = run_black(script, arguments, tmp_path)
    assert wrapped == plain
    assert [(event["error"], event["flags"]) for event in events] == (
        [told] if told else []
    )
    assert "secret" not in json.dumps(events)


APPLICATION = """
import click
from flask import Flask

def create_app():
    print("creating")
    app = Flask(__name__)

    @app.cli.command("greet")
    @click.option("--name")
    def greet(name):
        if name == "secret":
            raise ValueError(name)
        print("hello", name)

    return app
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--app", "application", "greet", "--name", "you"], ("greet", "")),
        (["--app", "application", "greet", "--name=secret"], ("greet", "ValueError")),
        (["--app", "application", "routes"], ("routes", "")),
        (["--app", "missing", "routes"], ("routes", "NoAppException")),
        (["--app", "application", "nothing"], ("program", "NoSuchCommand")),
        (["--version"], None),
        ([], None),
    ],
)
def test_flask_wrapped_from_outside(run_flask, tmp_path, arguments, told):
    """Its commands are found at run time, and its application is made only once."""
    (tmp_path / "recorder.py").write_text(RECORDER)
    (tmp_path / "application.py").write_text(APPLICATION)
    script = tmp_path / "program"
    script.write_text(OUTSIDE.format(module="flask.cli", command="cli", main="main"))
    plain, wrapped, events = run_flask(script, arguments, tmp_path)
    assert wrapped == plain
    if told == ("program", "NoSuchCommand"):  # a UsageError until click 8.2
        assert events.pop()["error"] in ("NoSuchCommand", "UsageError")
        told = None
    assert [(event["action"], event["error"]) for event in events] == (
        [told] if told else []
    )
    assert "secret" not in json.dumps(events)
