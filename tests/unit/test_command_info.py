"""What is told of a command: what the Go original told, and by default far less."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from telemetry.config import CommandPolicy
from telemetry.integrations.command import build_command_info
from telemetry.light_events import CommandInfo
from tests.support.replay import SEED_POLICY


VECTORS = Path(__file__).parents[1] / "vectors" / "command_info.jsonl"
CASES = {
    case["case"]: case for case in map(json.loads, VECTORS.read_text().splitlines())
}


# --- The recorded cases -------------------------------------------------------


def expected(case):
    info = case["output"]["info"]
    return info and CommandInfo(
        action=info["Action"], args=info["Args"], flags=info["Flags"]
    )


def declared(case):
    """The flags of the case as (name, takes a value); cobra's own included."""
    flags = case["input"].get("Flags", []) + (case["input"].get("Parent") or [])
    names = [(flag["Name"], flag["Kind"] == "string") for flag in flags]
    names += [("help", False)] if case["input"].get("InitHelp") else []
    names += [("version", False)] if case["input"].get("InitVer") else []
    return names


def typed(case):
    """`--x=false` is how Go turns a switch off; here that is `--no-x`."""
    arguments = case["input"].get("Parse", [])
    return [
        "--no-" + argument[2:].removesuffix("=false")
        if argument.endswith("=false")
        else argument
        for argument in arguments
    ]


def click_options(case):
    return [
        click.Option([f"--{name}"] if takes_value else [f"--{name}/--no-{name}"])
        for name, takes_value in declared(case)
    ]


def through_click(case):
    """The case as a click context, or as a program where it was executed."""
    inputs = case["input"]
    options = click_options(case)
    if "Execute" not in inputs:
        command = click.Command(inputs["Use"], params=options, add_help_option=False)
        context = command.make_context(inputs["Use"], typed(case))
        return build_command_info(
            context, inputs["Args"], inputs["Base"], policy=SEED_POLICY
        )
    told = []

    @click.pass_context
    def callback(context, files, **_flags):
        told.append(build_command_info(context, files, "run", policy=SEED_POLICY))

    files = click.Argument(["files"], nargs=-1)
    run = click.Command("run", params=[*options, files], callback=callback)
    root = click.Group("cagent", commands=[run], params=options)
    with contextlib.redirect_stdout(io.StringIO()):
        root.main(inputs["Execute"], prog_name="cagent", standalone_mode=False)
    assert len(told) == case["output"]["run_called"]
    return told[0] if told else None


def add_flags(parser, case):
    for name, takes_value in declared(case):
        action = "store" if takes_value else argparse.BooleanOptionalAction
        parser.add_argument(f"--{name}", action=action)


def through_argparse(case):
    """The case as an argv. Arguments follow `--`, which argparse takes as they are."""
    inputs = case["input"]
    if "Execute" not in inputs:
        parser = argparse.ArgumentParser(prog="cagent", add_help=False)
        add_flags(parser, case)
        parser.add_argument("files", nargs="*")
        argv = [*typed(case), "--", *(inputs["Args"] or [])]
        return build_command_info(parser, argv, inputs["Base"], policy=SEED_POLICY)
    parser = argparse.ArgumentParser(prog="cagent")
    run = parser.add_subparsers().add_parser("run")
    for level in (parser, run):
        add_flags(level, case)
    argv = inputs["Execute"]
    for word in argv[argv.index("run") + 1 :]:
        if not word.startswith("-"):
            run.add_argument(word.partition(".")[0])
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(argv)
    except SystemExit:
        assert case["output"]["run_called"] == 0
        return None
    return build_command_info(parser, argv, "run", policy=SEED_POLICY)


@pytest.mark.parametrize("name", CASES)
def test_click_tells_what_the_original_told(name):
    """Whoever replaces the original keeps the events that their tables know."""
    assert through_click(CASES[name]) == expected(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_argparse_tells_what_the_original_told(name):
    """The policy is one, whichever framework the program was moved to."""
    assert through_argparse(CASES[name]) == expected(CASES[name])


def test_every_recorded_case_is_replayed():
    """A vector that went missing would be a promise that nobody checks."""
    assert len(CASES) == 27


@pytest.mark.parametrize("name", CASES)
def test_default_policy_tells_no_argument_of_any_recorded_case(name):
    """The original's arguments are file names and prompts: nobody's business."""
    inputs = CASES[name]["input"]
    args = inputs.get("Args") or inputs.get("Execute")
    assert build_command_info(None, args, inputs.get("Base", "run")).args == []


# --- The policy, and what is no command ----------------------------------------


def test_policy_limits_flags_and_sets_their_order():
    """What a program's privacy notice lists is what its events can hold."""
    policy = CommandPolicy(flags=("--quiet", "--log"), switches=("--verbose",))
    parser = argparse.ArgumentParser(prog="tool")
    for name in ("--log", "--name"):
        parser.add_argument(name)
    for name in ("--quiet", "--verbose"):
        parser.add_argument(name, action="store_true")
    argv = ["--log=x", "--quiet", "--verbose", "--name", "secret"]
    info = build_command_info(parser, argv, policy=policy)
    assert info.flags == ["--verbose", "--quiet", "--log"]


def test_policy_names_whole_actions_only():
    """Naming "remote rename" must not tell the arguments of "remote" or "rename"."""
    policy = CommandPolicy(arguments_of="remote rename")
    for action in ("remote", "rename", "", "remote rename x"):
        assert build_command_info(None, ["secret"], action, policy=policy).args == []
    told = build_command_info(None, ["x"], "remote rename", policy=policy)
    assert told.args == ["x"]


@pytest.mark.parametrize("command", [None, object(), 7, argparse, "text"])
def test_unknown_object_has_no_flags(command):
    """Nobody's program may fail because of what it asked to have described."""
    info = build_command_info(command, ["--secret", "secret"], "run")
    assert info == CommandInfo(action="run", args=[], flags=[])


def test_parser_that_fails_is_told_by_its_given_name():
    """A parser of an unforeseen make costs its flags, never the program."""
    parser = argparse.ArgumentParser()
    parser._actions = None
    info = build_command_info(parser, ["--force"], "run")
    assert info == CommandInfo(action="run", args=[], flags=[])


def test_reading_argparse_loads_no_other_framework():
    """A program pays only for the framework it uses."""
    code = """
import sys, argparse
from telemetry import build_command_info
before = set(sys.modules)
info = build_command_info(argparse.ArgumentParser(prog="x"), [])
assert info.action == "x"
assert not {"click", "typer"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
