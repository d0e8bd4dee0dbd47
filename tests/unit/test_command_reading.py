"""What a command line names, under the names that its author declared."""

from __future__ import annotations

# ruff: noqa: ARG001 - a command's function takes what its options are called
import argparse
import contextlib

import click
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.config import CommandPolicy
from telemetry.integrations import argparse as for_argparse
from telemetry.integrations.command import build_command_info
from telemetry.integrations.recording import long_name
from telemetry.light_events import CommandInfo
from tests.support.examples import examples


# Tells whatever can be told, so that a test sees what was understood.
EVERY_ARGUMENT = CommandPolicy(arguments_of=("files", "tool", "tool add", "add"))


# --- argparse ------------------------------------------------------------------


def refuse(text):
    raise AssertionError(f"{text} was converted")


def tool():
    """A parser with everything that a command line can be short for."""
    parser = argparse.ArgumentParser(prog="tool")
    parser.add_argument("--version", action="version", version="1")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--colour", action=argparse.BooleanOptionalAction)
    parser.add_argument("--log", type=refuse, default="x")
    commands = parser.add_subparsers(dest="command")
    add = commands.add_parser("add", aliases=["a"])
    add.add_argument("-o", "--output", "--out-file", type=refuse)
    add.add_argument("--mode", choices=["fast", "slow"])
    add.add_argument("files", nargs="*", type=refuse)
    remote = commands.add_parser("remote").add_subparsers()
    remote.add_parser("rename").add_argument("--force", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("argv", "action", "flags"),
    [
        ([], "tool", []),
        (["add"], "add", []),
        (["a", "x"], "add", []),
        (["remote", "rename", "--force"], "remote rename", ["--force"]),
        (["-vq", "add"], "add", ["--verbose", "--quiet"]),
        (["-vvv"], "tool", ["--verbose"]),
        (["--verb"], "tool", ["--verbose"]),
        (["--no-colour"], "tool", ["--no-colour"]),
        (["--col"], "tool", ["--colour"]),
        (["--log=secret", "add"], "add", ["--log"]),
        (["--log", "add", "add"], "add", ["--log"]),
        (["add", "-osecret"], "add", ["--output"]),
        (["add", "--out-file", "secret"], "add", ["--output"]),
        (["add", "--outp=secret", "x"], "add", ["--output"]),
        (["add", "--mode", "wrong"], "add", ["--mode"]),
        (["add", "--", "--output", "x"], "add", []),
        (["add", "--secret", "x"], "add", []),
        (["add", "--verbose"], "add", []),
        (["secret"], "tool", []),
        (["-q", "add", "--output"], "add", ["--quiet"]),
        (["--version"], "tool", ["--version"]),
    ],
)
def test_argparse_names_are_the_declared_ones(argv, action, flags):
    """What was typed may be a secret, a typing error or somebody's own alias."""
    info = build_command_info(tool(), argv)
    assert (info.action, info.args, info.flags) == (action, [], flags)


def test_argparse_arguments_are_told_up_to_the_first_dash():
    """A policy that names a command tells its arguments, and still no flag's value."""
    argv = ["add", "-o", "secret", "a", "b", "--", "-c", "d"]
    info = build_command_info(tool(), argv, policy=EVERY_ARGUMENT)
    assert info == CommandInfo(action="add", args=["a", "b"], flags=["--output"])


def test_file_of_arguments_is_not_opened(tmp_path):
    """It may be a pipe that can be read once, and the program is to read it."""
    parser = argparse.ArgumentParser(prog="tool", fromfile_prefix_chars="@")
    parser.add_argument("--force", action="store_true")
    missing = tmp_path / "missing"
    info = build_command_info(parser, [f"@{missing}", "--force"])
    assert info.flags == ["--force"]


def test_reading_a_parser_prints_nothing_and_changes_nothing(capsys):
    """The program will use the same parser, before or after."""
    parser = tool()

    def state():
        return parser.format_help(), [dict(vars(a)) for a in parser._actions]

    before = state()
    build_command_info(parser, ["--version"])
    build_command_info(parser, ["--wrong", "add", "--mode", "wrong"])
    assert state() == before
    assert capsys.readouterr() == ("", "")


WORDS = ["-v", "-q", "-vq", "-ox", "-o", "--out", "--num", "--num=-3", "-3", "--no-x"]
WORDS += ["--x", "--opt", "--", "-", "a", "b c", "-n", "sub", "s", "--ver", "--unknown"]


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=7), st.booleans())
def test_argparse_itself_agrees_on_what_was_given(argv, abbreviations):
    """One flag more than argparse saw would be an event about another command."""
    seen = []

    class Seen(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            if option_string is not None:
                seen.append(long_name(self.option_strings))

    parser = argparse.ArgumentParser(
        prog="tool", allow_abbrev=abbreviations, exit_on_error=False
    )
    nested = parser.add_subparsers().add_parser("sub", aliases=["s"])
    for level in (parser, nested):
        level.add_argument("-v", "--verbose", action=Seen, nargs=0)
        level.add_argument("-q", action=Seen, nargs=0)
        level.add_argument("-o", "--output", action=Seen)
        level.add_argument("-n", "--num", action=Seen, nargs="?")
        level.add_argument("--opt", action=Seen, nargs="*")
    nested.add_argument("rest", nargs=argparse.REMAINDER)

    def stop(message):
        raise ValueError(message)

    parser.error = nested.error = stop
    with contextlib.suppress(ValueError, argparse.ArgumentError):
        parser.parse_known_args(argv)
    reading = for_argparse.read(parser, argv)
    assert {flag.name for flag in reading.flags} == set(seen)


# --- click and typer ----------------------------------------------------------


def explode(*_args, **_kwargs):
    raise AssertionError("reading a command ran it")


class Exploding(click.ParamType):
    name = "exploding"

    def convert(self, value, param, ctx):
        explode()


def click_tool():
    options = [
        click.Option(["-v", "--verbose"], count=True),
        click.Option(["-q", "--quiet"], is_flag=True, callback=explode),
        click.Option(["--colour/--no-colour", " /-C"]),
        click.Option(["--upper", "case"], flag_value="upper"),
        click.Option(["--lower", "case"], flag_value="lower"),
        click.Option(["--log"], type=Exploding(), envvar="TOOL_LOG"),
        click.Option(["--name"], prompt=True),
    ]
    files = click.Argument(["files"], nargs=-1, type=Exploding())
    add = click.Command("add", params=[click.Option(["-o", "--output"]), files])
    wrap = click.Command(
        "wrap",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    rename = click.Command("rename", params=[click.Option(["--force"], is_flag=True)])
    remote = click.Group("remote", commands=[rename], params=[click.Option(["-x"])])
    tool = click.Group("tool", params=options, callback=explode)
    for command in (add, remote, wrap):
        tool.add_command(command)
    return tool


@pytest.mark.parametrize(
    ("argv", "action", "flags"),
    [
        ([], "tool", []),
        (["add", "x"], "add", []),
        (["remote", "rename", "--force"], "remote rename", ["--force"]),
        (["remote", "-x", "1", "rename"], "remote rename", ["-x"]),
        (["-vq", "add"], "add", ["--verbose", "--quiet"]),
        (["--no-colour"], "tool", ["--no-colour"]),
        (["-C"], "tool", ["--no-colour"]),
        (["--lower"], "tool", ["--lower"]),
        (["--log=secret", "add"], "add", ["--log"]),
        (["add", "-osecret"], "add", ["--output"]),
        (["add", "--", "--output", "x"], "add", []),
        (["wrap", "--secret=1", "-z"], "wrap", []),
        (["add", "--secret", "x"], "add", []),
        (["secret"], "tool", []),
        (["--help"], "tool", ["--help"]),
        (["add", "--help"], "add", ["--help"]),
    ],
)
def test_click_command_is_read_without_running_it(monkeypatch, argv, action, flags):
    """Callbacks, types and prompts are the program's, and run once."""
    monkeypatch.setenv("TOOL_LOG", "from the environment")
    info = build_command_info(click_tool(), argv)
    assert (info.action, info.args, info.flags) == (action, [], flags)


def test_click_chain_is_read_command_by_command():
    """The path of a chain is its commands, in the order of the command line."""
    one = click.Command("one", params=[click.Option(["--fast"], is_flag=True)])
    two = click.Command("two", params=[click.Argument(["file"])])
    chain = click.Group("tool", commands=[one, two], chain=True)
    info = build_command_info(chain, ["one", "--fast", "two", "secret", "one"])
    assert info == CommandInfo(action="one two one", args=[], flags=["--fast"])


def test_click_context_tells_only_what_stood_on_the_command_line(monkeypatch):
    """A flag set in the environment says what a machine is like, not what was run."""
    monkeypatch.setenv("TOOL_TOKEN", "secret")
    options = [
        click.Option(["--token"], envvar="TOOL_TOKEN"),
        click.Option(["--level"], default="3"),
        click.Option(["--region"]),
        click.Option(["--colour/--no-colour"], default=True),
        click.Option(["--upper", "case"], flag_value="upper"),
        click.Option(["--lower", "case"], flag_value="lower"),
        click.Option(["--silent"], is_flag=True, expose_value=False),
    ]
    command = click.Command("tool", params=options)
    argv = ["--no-colour", "--lower", "--silent"]
    context = command.make_context("tool", argv, default_map={"region": "eu"})
    info = build_command_info(context, None)
    assert info.action == "tool"
    assert info.flags == ["--no-colour", "--lower", "--silent"]


def test_click_alias_is_told_by_its_declared_name():
    """An alias may come from the user's own configuration."""

    class Aliases(click.Group):
        def get_command(self, ctx, cmd_name):
            wanted = "add" if cmd_name == "my-secret-word" else cmd_name
            return super().get_command(ctx, wanted)

    group = Aliases("tool", commands=[click.Command("add")])
    assert build_command_info(group, ["my-secret-word"]).action == "add"


def test_click_sub_command_has_the_name_its_group_gave_it():
    """One command may serve under two names, and only the group knows which."""
    group = click.Group("tool")
    group.add_command(click.Command("implementation"), "add")
    assert build_command_info(group, ["add"]).action == "add"


def test_typer_app_is_read_without_running_it():
    """An app is a click command in the making, with one command or with many."""
    app = typer.Typer()

    @app.command()
    def files(paths: list[str], force: bool = False, depth: int = 1):
        explode()

    info = build_command_info(app, ["a", "--force", "--depth=2"], "files")
    assert info == CommandInfo(action="files", args=[], flags=["--force", "--depth"])

    @app.command()
    def add():
        explode()

    assert build_command_info(app, ["files", "a", "--no-force"], None).flags == [
        "--no-force"
    ]
    assert build_command_info(app, ["add"]).action == "add"
