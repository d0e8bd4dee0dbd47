"""Wrapped and unwrapped programs, run as real processes, end alike to the byte."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest

from tests.support.wrapped import (
    LOADING_TYPER,
    RECORDER,
    both,
    ended,
    nursery,
    start,
)


# One way to end each, by name; `ctx` is a click or typer context where there is one.
ENDINGS = """
class Strange(BaseException):
    pass

def end(how, status, ctx=None):
    print("working", flush=True)
    if how == "return":
        return status
    if how == "exit":
        sys.exit(status)
    if how == "text":
        sys.exit("it went wrong")
    if how == "interrupt":
        signal.raise_signal(signal.SIGINT)
    if how == "strange":
        raise Strange("secret")
    if how == "error":
        try:
            {}["secret"]
        except KeyError as exc:
            raise ValueError("another secret") from exc
    if how == "handled":
        try:
            {}["secret"]
        except KeyError:
            sys.exit(7)
    if how in ("SIGTERM", "SIGHUP"):
        os.kill(os.getpid(), getattr(signal, how))
        signal.pause()
    if how == "own-handler":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        signal.raise_signal(signal.SIGTERM)
    if "seen-enough" in how:
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        os.close(reading)
        try:
            os.write(1, b"one line more")
        except BrokenPipeError:
            if how != "seen-enough-and-silenced":
                raise
            # As rich does, and the manual of Python.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)
    if how == "ctx-exit":
        ctx.exit(status)
    if how == "ctx-abort":
        ctx.abort()
    if how == "ctx-fail":
        ctx.fail("wrong")
    if how == "ctx-close":
        ctx.call_on_close(lambda: 1 / 0)
    if how in ("root-close", "error-and-close"):
        ctx.find_root().call_on_close(lambda: 1 / 0)
    if how == "error-and-close":
        raise ValueError("secret")
    if how == "broken-pipe":
        raise BrokenPipeError(errno.EPIPE, "nobody reads")
"""

HEAD = "import contextlib, errno, os, signal, sys\n" + ENDINGS

CLICK = """
import click

@click.group()
@click.option("--verbose", "-v", is_flag=True)
@click.version_option("1.0", prog_name="program")
def cli(verbose):
    pass

@cli.command("end")
@click.argument("how")
@click.option("--status", type=int, default=0)
@click.pass_context
def end_(ctx, how, status):
    if how == "prompt":
        click.prompt("name")
    return end(how, status, ctx)

@cli.result_callback()
def finish(status, verbose):
    print("finished", status)

if "RECORD_TO" in os.environ:
    from recorder import Recorder
    from telemetry.integrations.click import instrument
    instrument(cli, client=Recorder())
cli()
"""

TYPER = """
import typer

app = typer.Typer(pretty_exceptions_show_locals=False)  # they have addresses

if "RECORD_TO" in os.environ:
    from recorder import Recorder
    from telemetry.integrations.typer import instrument
    instrument(app, client=Recorder())

@app.command("end")
def end_(ctx: typer.Context, how: str, status: int = 0):
    end(how, status, ctx)

@app.callback()
def main(verbose: bool = False):
    pass

app()
"""

ARGPARSE = """
import argparse

parser = argparse.ArgumentParser(prog="program")
parser.add_argument("-v", "--verbose", action="store_true")
parser.add_argument("--version", action="version", version="1.0")
commands = parser.add_subparsers(required=True)
ending = commands.add_parser("end")
ending.add_argument("how")
ending.add_argument("--status", type=int, default=0)

wrapper = contextlib.nullcontext()
if "RECORD_TO" in os.environ:
    from recorder import Recorder
    from telemetry.integrations.argparse import command
    wrapper = command(parser, client=Recorder())

def main():
    given = parser.parse_args()
    return end(given.how, given.status)

with wrapper:
    sys.exit(main())
"""

PROGRAMS = {"click": CLICK, "typer": TYPER, "argparse": ARGPARSE}
LOADING = {
    "click": "import click, telemetry.integrations.click, msgspec",
    "typer": LOADING_TYPER,
    "argparse": "import argparse, telemetry.integrations.argparse, msgspec",
}

# arguments -> what is recorded: the error and the flags; None for no event at all
ANYWHERE = {
    "end return": ("", []),
    "-v end return": ("", ["--verbose"]),
    "end exit": ("", []),
    "end exit --status 3": ("SystemExit", ["--status"]),
    "end text": ("SystemExit", []),
    "end interrupt": ("KeyboardInterrupt", []),
    "end strange": ("Strange", []),
    "end error": ("ValueError", []),
    "end handled": ("KeyError", []),
    "end SIGTERM": ("SIGTERM", []),
    "end SIGHUP": ("SIGHUP", []),
    "end own-handler": ("SystemExit", []),
    "end seen-enough": ("", []),
    "end --help": None,
    "--help": None,
}
CLICK_LIKE = {
    "end ctx-exit": ("", []),
    "end ctx-exit --status=3": ("Exit", ["--status"]),
    "end ctx-abort": ("Abort", []),
    "end ctx-fail": ("UsageError", []),
    "end ctx-close": ("ZeroDivisionError", []),
    "end root-close": ("ZeroDivisionError", []),
    "end error-and-close": ("ZeroDivisionError", []),
    "end broken-pipe": ("BrokenPipeError", []),
    "end return --secret": ("NoSuchOption", []),
}
TABLE = {
    ("click", arguments): told
    for arguments, told in {
        **ANYWHERE,
        **CLICK_LIKE,
        "end prompt": ("Abort", []),
        "end return --status=3": ("", ["--status"]),
        "--version": None,
        "": None,
    }.items()
}
TABLE |= {
    ("typer", arguments.replace("-v ", "--verbose ")): told
    for arguments, told in {**ANYWHERE, **CLICK_LIKE}.items()
}
TABLE |= {
    ("argparse", arguments): told
    for arguments, told in {
        **ANYWHERE,
        "end seen-enough-and-silenced": ("", []),
        "end return --status=3": ("SystemExit", ["--status"]),
        "end return --secret": ("SystemExit", []),
        "--version": None,
    }.items()
}


@pytest.fixture
def program(tmp_path):
    def write(framework):
        (tmp_path / "recorder.py").write_text(RECORDER)
        script = tmp_path / "program.py"
        script.write_text(HEAD + PROGRAMS[framework])
        return script

    return write


@pytest.fixture(scope="module")
def nurseries(tmp_path_factory):
    """As `both`, by framework, from a process that has loaded that one."""
    with contextlib.ExitStack() as stack:
        yield {
            framework: stack.enter_context(
                nursery(tmp_path_factory.mktemp(framework), loading)
            )
            for framework, loading in LOADING.items()
        }


@pytest.mark.parametrize(("framework", "arguments"), TABLE)
def test_wrapped_program_ends_as_before(
    program, nurseries, tmp_path, framework, arguments
):
    """Whoever reads its output, its traceback or its status must see no difference."""
    script = program(framework)
    plain, wrapped, events = nurseries[framework](script, arguments.split(), tmp_path)
    if sys.version_info < (3, 11) and "error-and-close" in arguments:
        # A failure while a context closes passes through our frame, which
        # Python 3.10 cannot take out of the traceback.
        plain, wrapped = plain[:2], wrapped[:2]
    assert wrapped == plain
    told = TABLE[framework, arguments]
    if told is None:
        assert events == []
        return
    (event,) = events
    assert (event["action"], event["args"]) == ("end", [])
    assert event["success"] is (told[0] == "")
    assert event["duration_ms"] >= 0
    # What the shell makes of a signal.
    code = plain[0] if plain[0] >= 0 else 128 - plain[0]
    known = code if "seen-enough" not in arguments else None
    assert event["exit_code"] == known
    if "--secret" in arguments:  # which class says so differs between versions
        assert event["error"] in ("NoSuchOption", "UsageError", "ArgumentError")
    else:
        assert (event["error"], event["flags"]) == told
    assert "secret" not in json.dumps(event)


@pytest.mark.parametrize("framework", PROGRAMS)
@pytest.mark.parametrize("how", ["return", "error"])
def test_failing_telemetry_is_not_seen(program, tmp_path, framework, how):
    """A full disk is no reason for a program to end in another way."""
    script = program(framework)
    plain, wrapped, events = both(script, ["end", how], tmp_path, RECORDER_FAILS="1")
    assert wrapped == plain
    assert len(events) == 1  # it did get that far


def test_standard_traceback_of_typer_is_unchanged(program, tmp_path):
    """Its pretty traceback hides frames; this one would show each of ours."""
    script = program("typer")
    environment = {"TYPER_STANDARD_TRACEBACK": "1", "_TYPER_STANDARD_TRACEBACK": "1"}
    plain, wrapped, _ = both(script, ["end", "error"], tmp_path, **environment)
    assert wrapped == plain
    assert b"Traceback (most recent call last)" in plain[2]


@pytest.mark.parametrize(
    ("framework", "variable"),
    [
        ("click", "_PROGRAM.PY_COMPLETE"),
        ("click", "_PROGRAM_PY_COMPLETE"),
        ("typer", "_PROGRAM.PY_COMPLETE"),
    ],
)
def test_shell_completion_is_no_command(program, tmp_path, framework, variable):
    """It runs at every press of the tab key, and its output goes to the shell."""
    kind = {"click": "bash_complete", "typer": "complete_bash"}[framework]
    environment = {variable: kind, "COMP_WORDS": "program.py en", "COMP_CWORD": "1"}
    environment["_TYPER_COMPLETE_ARGS"] = "program.py en"
    plain, wrapped, events = both(program(framework), [], tmp_path, **environment)
    assert wrapped == plain
    assert events == []


def test_argcomplete_is_no_command(program, tmp_path):
    """argcomplete answers from inside the program that it completes."""
    script = program("argparse")
    _, _, events = both(script, ["end", "return"], tmp_path, _ARGCOMPLETE="1")
    assert events == []


PROCESS_WIDE = """
import argparse
from telemetry.integrations.argparse import command

parser = argparse.ArgumentParser(prog="program")
parser.add_argument("--force", action="store_true")
with command(parser):
    parser.parse_args()
"""


def test_without_a_client_the_process_wide_one_records(tmp_path):
    """The three lines of the documentation name no client."""
    pytest.importorskip("telemetry.api")
    script = tmp_path / "program.py"
    script.write_text(PROCESS_WIDE)
    environment = {"TELEMETRY_HOME": str(tmp_path), "TELEMETRY_FLUSH": "manual"}
    process = start(
        script, ["--force"], tmp_path, TELEMETRY_ENABLED="true", **environment
    )
    assert ended(process)[0] == 0
    (segment,) = (tmp_path / "telemetry" / "spool").iterdir()
    record = json.loads(segment.read_bytes().strip(b"\x1e\n"))["rec"]
    assert record["event"] == "command"
    assert record["properties"]["action"] == "program"
    assert record["properties"]["flags"] == ["--force"]
