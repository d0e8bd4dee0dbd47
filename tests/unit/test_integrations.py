"""What holds for every framework: telemetry that fails, and calls that repeat."""

from __future__ import annotations

import contextlib

import click
import pytest

from telemetry.config import CommandPolicy
from telemetry.integrations import argparse as for_argparse
from telemetry.integrations import click as for_click
from telemetry.integrations import typer as for_typer
from telemetry.testing import assert_commands_decided
from tests.support.wrapped import (
    Recorder,
    click_program,
    invoke,
    parser_and_main,
    typer_app,
)


class Broken:
    """A client whose every event fails."""

    def track(self, event):
        raise OSError("no space left on device")


@pytest.fixture
def recorder():
    return Recorder()


@pytest.mark.parametrize("framework", [for_click, for_typer])
def test_instrumenting_again_and_again_piles_nothing_up(framework):
    """A test suite may do so thousands of times in one process."""
    program = click_program() if framework is for_click else typer_app()
    depths = []
    for _ in range(3):
        framework.instrument(program)
        command = program
        if framework is for_typer:
            command = for_typer.get_command(program)
        depths.append(
            (
                len(type(command).__mro__),
                len(command.context_class.__mro__),
                wrappings(command.context_class.__enter__),
            )
        )
    assert len(set(depths)) == 1


def wrappings(function):
    """How many functions stand around the original one."""
    count = 0
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
        count += 1
    return count


def test_failing_client_changes_nothing():
    """Whatever the reason, the program ends as it would have ended."""
    program = for_click.instrument(click_program(), client=Broken())
    assert program(["build"], standalone_mode=False) == "built"
    assert invoke(program, "leave", "--status=4").exit_code == 4
    assert invoke(for_typer.instrument(typer_app(), client=Broken())).exit_code == 0
    parser, main = parser_and_main()
    assert for_argparse.run(parser, main, ["build"], client=Broken()) is None


def test_run_is_recorded_though_its_parameters_cannot_be_read(recorder):
    """Of a command that we fail to understand, success and duration are known."""

    class Odd(click.Command):
        def get_help_option(self, ctx):
            if ctx.params:
                raise RuntimeError("odd")
            return super().get_help_option(ctx)

    def accept(**_parameters):
        pass

    program = Odd("program", params=[click.Option(["--x"])], callback=accept)
    invoke(for_click.instrument(program, client=recorder), "--x=1")
    parser, main = parser_and_main()
    parser.fromfile_prefix_chars = 7
    with contextlib.suppress(TypeError):
        for_argparse.run(parser, main, ["build"], client=recorder)
    assert [(event.action, event.flags) for event in recorder.events] == [
        ("program", []),
        ("program", []),
    ]


def test_interrupt_while_recording_reaches_the_program():
    """Ctrl-C is meant for the program, wherever it happens to be."""

    class Interrupted:
        def track(self, event):
            raise KeyboardInterrupt

    program = for_click.instrument(click_program(), client=Interrupted())
    assert invoke(program, "build").exit_code == 1
    with (
        pytest.raises(KeyboardInterrupt),
        for_argparse.command(parser_and_main()[0], [], client=Interrupted()),
    ):
        pass


def test_a_new_command_cannot_slip_in_without_a_decision():
    """Who adds `deploy --token` has to say what may be told of it."""
    parser, _ = parser_and_main()
    for_argparse.telemetry_commands(parser)
    app = typer_app()
    app.command("watch")(lambda: None)
    for_typer.telemetry_commands(app)
    cli = click_program()
    for_click.telemetry_commands(cli)
    of_click = ("build", "remote add", "leave")
    for program, actions in (
        (parser, ("build",)),
        (cli, of_click),
        (app, ("build", "watch")),
    ):
        decided = CommandPolicy(names_of=actions[1:], arguments_of=actions[:1])
        assert_commands_decided(program, decided)
        with pytest.raises(AssertionError, match="'build' is not decided: name it"):
            assert_commands_decided(program, CommandPolicy(names_of=actions[1:]))
        with pytest.raises(AssertionError, match="'gone' is decided, but no command"):
            assert_commands_decided(
                program, CommandPolicy(names_of=actions, flags_of=("gone",))
            )
    assert_commands_decided(typer_app(), CommandPolicy(names_of=("build",)))
    with pytest.raises(TypeError, match="no program"):
        assert_commands_decided(object(), CommandPolicy())
