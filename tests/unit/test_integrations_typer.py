"""Each run of an instrumented typer app becomes one event, however it was declared."""

from __future__ import annotations

import pytest
import typer

from telemetry.integrations import typer as for_typer
from tests.support.wrapped import Recorder, invoke, typer_app


@pytest.fixture
def recorder():
    return Recorder()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ("build", "", [])),
        (["--name=a", "--no-force"], ("build", "", ["--name", "--no-force"])),
        (["--force"], ("build", "Exit", ["--force"])),
        (["--name", "broken"], ("build", "ValueError", ["--name"])),
        (["--wrong"], ("build", "NoSuchOption", [])),
        (["--help"], None),
    ],
)
def test_app_of_one_command_is_recorded(recorder, arguments, told):
    """typer makes a plain command of it, without a group to look on."""
    expected = invoke(typer_app(), *arguments)
    app = for_typer.instrument(typer_app(), client=recorder)
    result = invoke(app, *arguments)
    assert (result.exit_code, result.output) == (expected.exit_code, expected.output)
    assert recorder.told == ([told] if told else [])


def test_typer_app_may_be_instrumented_before_its_commands(recorder):
    """The call belongs beside `Typer()`, where nothing is declared yet."""
    app = for_typer.instrument(typer.Typer(), client=recorder)
    app.registered_commands += typer_app().registered_commands
    invoke(app)
    app.command("other")(lambda: None)
    invoke(app, "other")
    assert [event.action for event in recorder.events] == ["build", "other"]


@pytest.mark.parametrize("late", [False, True])
def test_typer_group_class_of_the_program_is_kept(recorder, late):
    """A class named for a callback wins over the app's, instrumented or not."""

    class Mine(typer.core.TyperGroup):
        pass

    app = typer.Typer() if late else typer.Typer(cls=Mine)

    @app.callback(**({"cls": Mine} if late else {}))
    def callback(verbose: bool = False):
        pass

    sub = typer_app()
    app.add_typer(sub, name="sub")
    for_typer.instrument(app, client=recorder)
    for_typer.instrument(sub, client=recorder)
    assert isinstance(for_typer.get_command(app), Mine)
    invoke(app, "--verbose", "sub", "build")
    assert recorder.told == [("sub build", "", ["--verbose"])]


def test_typer_app_instrumented_twice_is_recorded_once(recorder):
    """As with click: the second call replaces the first."""
    app = for_typer.instrument(typer_app(), client=Recorder())
    invoke(for_typer.instrument(app, client=recorder))
    assert len(recorder.events) == 1
