"""Each run of an instrumented click program becomes one event, and nothing else."""

from __future__ import annotations

# ruff: noqa: ARG001, ARG005 - a command's function takes what its options are called
import contextlib
import copy
import gc
import inspect
import threading
import time
import weakref

import click
import pytest

from telemetry.config import CommandPolicy
from telemetry.integrations import click as for_click
from tests.support.wrapped import Recorder, click_program, invoke


@pytest.fixture
def recorder():
    return Recorder()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["build"], ("build", "", [])),
        (["-q", "build", "a", "b"], ("build", "", ["--quiet"])),
        (["build", "-o-", "a"], ("build", "", ["--output"])),
        (["build", "broken"], ("build", "ValueError", [])),
        (["remote", "add", "--fetch"], ("remote add", "", ["--fetch"])),
        (["remote", "add", "--wrong"], ("remote add", "NoSuchOption", [])),
        (["remote", "wrong"], ("remote", "NoSuchCommand", [])),
        (["leave", "--status=0"], ("leave", "", ["--status"])),
        (["leave", "--status=4"], ("leave", "Exit", ["--status"])),
        (["leave", "--status=x"], ("leave", "BadParameter", ["--status"])),
        (["wrong"], ("program", "NoSuchCommand", [])),
        (["--wrong", "build"], ("program", "NoSuchOption", [])),
    ],
)
def test_each_click_run_is_one_event(recorder, arguments, told):
    """Path, declared flag names and the error's class: all that an event says."""
    expected = invoke(click_program(), *arguments)
    program = for_click.instrument(click_program(), client=recorder)
    result = invoke(program, *arguments, env={"PROGRAM_REGION": "secret"})
    assert (result.exit_code, result.output) == (expected.exit_code, expected.output)
    (event,) = recorder.events
    older = {"NoSuchCommand": "UsageError"}  # until click 8.2
    error = told[1] if event.error == told[1] else older.get(told[1])
    assert (event.action, event.error, event.flags) == (told[0], error, told[2])
    assert (event.success, event.args) == (told[1] == "", [])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["build", "--help"], ["remote", "add", "--help"], [], ["remote"]],
)
def test_asking_for_help_is_no_event(recorder, arguments):
    """Whoever reads the help has not yet run anything."""
    result = invoke(for_click.instrument(click_program(), client=recorder), *arguments)
    assert "Usage: " in result.output
    assert recorder.events == []


def test_group_that_runs_by_itself_has_the_programs_name(recorder):
    """A program without sub-commands still has runs to be told apart from others."""

    @click.group(invoke_without_command=True)
    @click.pass_context
    def program(ctx):
        ctx.invoke(build)

    @program.command()
    def build():
        pass

    invoke(for_click.instrument(program, client=recorder), prog_name="tool")
    invoke(for_click.instrument(program, client=recorder, name="kit"))
    invoke(program, "build")
    assert [event.action for event in recorder.events] == ["program", "kit", "build"]


def test_command_called_by_another_is_part_of_its_run(recorder):
    """It shares the context class of its caller, but has no event of its own."""

    @click.command()
    def broken():
        raise ValueError("secret")

    program = click.Command("program")
    program.callback = lambda: click.get_current_context().invoke(broken)
    invoke(for_click.instrument(program, client=recorder))
    assert recorder.told == [("program", "ValueError", [])]


def test_shell_of_the_program_is_one_command(recorder):
    """A read-eval loop runs commands below its own context, line after line."""
    program = click_program()

    @program.command()
    @click.pass_context
    def shell(ctx):
        for line in (["build"], ["build", "a"]):
            with program.make_context(None, line, parent=ctx.parent) as below:
                program.invoke(below)

    invoke(for_click.instrument(program, client=recorder), "shell")
    assert recorder.told == [("shell", "", [])]


def test_failure_that_a_context_swallows_is_recorded(recorder):
    """The command did not come to its end, whatever its resources make of it."""

    @click.command()
    @click.pass_context
    def program(ctx):
        ctx.with_resource(contextlib.suppress(ValueError))
        raise ValueError("secret")

    invoke(for_click.instrument(program, client=recorder))
    assert recorder.told == [("program", "ValueError", [])]


def test_chain_is_one_run(recorder):
    """Its commands share a start and an end, so they share an event."""

    @click.group(chain=True)
    def program():
        pass

    @program.command()
    @click.option("--fast", is_flag=True)
    def one(fast):
        pass

    @program.command()
    @click.option("--status", default=0)
    @click.pass_context
    def two(ctx, status):
        ctx.exit(status)

    for_click.instrument(program, client=recorder)
    invoke(program, "one", "--fast", "two")
    invoke(program, "two", "--status=1", "one")
    invoke(program, "two", "one")
    invoke(program, "one", "two", "--help")
    assert recorder.told == [
        ("one two", "", ["--fast"]),
        ("two one", "Exit", ["--status"]),
        ("two one", "", []),
    ]


def test_callback_that_reenters_its_context_does_not_end_the_run(recorder):
    """click itself does so around callbacks, while arguments are still parsed."""

    def reenter(ctx, param, value):
        with ctx:
            return value

    program = click.Command(
        "program",
        params=[click.Option(["--level"], callback=reenter, is_eager=True)],
        callback=lambda level: 1 / 0,
    )
    invoke(for_click.instrument(program, client=recorder), "--level=3")
    assert recorder.told == [("program", "ZeroDivisionError", ["--level"])]


def test_eager_option_that_fails_is_recorded(recorder):
    """Only what ends well while arguments are parsed is no command."""

    def fail(ctx, param, value):
        if value:
            ctx.exit(3)

    option = click.Option(["--check"], is_flag=True, callback=fail, is_eager=True)
    program = click.Command("program", params=[option], callback=lambda check: None)
    invoke(for_click.instrument(program, client=recorder), "--check")
    assert recorder.told == [("program", "Exit", ["--check"])]


def test_return_value_and_exceptions_reach_the_caller(recorder):
    """Programs that call each other with `standalone_mode=False` rely on both."""
    program = for_click.instrument(click_program(), client=recorder)
    assert program(["build"], standalone_mode=False) == "built"
    assert program(["leave", "--status=4"], standalone_mode=False) == 4
    with pytest.raises(click.UsageError):
        program(["wrong"], standalone_mode=False)
    with pytest.raises(ValueError, match="secret"):
        program(["build", "broken"], standalone_mode=False)
    assert [event.success for event in recorder.events] == [True, False, False, False]


def test_wrapped_command_looks_as_before(recorder):
    """Help, signature, type and copies: nothing that a program may look at."""
    plain, program = click_program(), click_program()
    assert for_click.instrument(program, client=recorder) is program
    assert type(program) is type(plain)
    assert inspect.signature(program.main) == inspect.signature(plain.main)
    contexts = plain.context_class, program.context_class
    names = [(kind.__module__, kind.__qualname__, kind.__doc__) for kind in contexts]
    assert names[0] == names[1]
    assert len({str(inspect.signature(kind)) for kind in contexts}) == 1
    assert invoke(copy.copy(program), "build").exit_code == 0
    assert len(recorder.events) == 1


def test_second_call_replaces_the_first():
    """A command line that is set up twice is still run once."""
    first, second = Recorder(), Recorder()
    program = for_click.instrument(click_program(), client=first)
    for_click.instrument(program, client=second)
    invoke(program, "build")
    assert (len(first.events), len(second.events)) == (0, 1)


def test_other_programs_of_the_process_are_not_recorded(recorder):
    """A library that has a command line of its own did not ask for this."""
    instrumented = for_click.instrument(click_program(), client=recorder)
    invoke(click_program(), "build")
    outer = click.Group("outer", commands={"inner": instrumented})
    invoke(outer, "inner", "build")
    invoke(outer, "inner", "build", "broken")
    assert recorder.events == []


def test_program_may_bring_its_own_context_class(recorder):
    """It is what click offers for the purpose, so programs do."""

    class Context(click.Context):
        def __enter__(self):
            self.mine = True
            return super().__enter__()

    program = click_program()
    program.context_class = Context
    for_click.instrument(program, client=recorder)
    with program.make_context("program", ["build"]) as ctx:
        assert isinstance(ctx, Context)
        assert ctx.mine
    assert recorder.told == [("program", "", [])]


def test_policy_tells_arguments_of_named_commands(recorder, tmp_path):
    """The only way for a value to leave: the program's author names the command."""
    policy = CommandPolicy(arguments_of=("build",))
    program = for_click.instrument(click_program(), client=recorder, policy=policy)
    secret = str(tmp_path / "secret")
    invoke(program, "build", "-o", secret, "a", "b", "--", "-c", "d")
    (event,) = recorder.events
    assert (event.args, event.flags) == (["a", "b"], ["--output"])


def test_policy_tells_extra_arguments_up_to_the_first_dash(recorder):
    """A command that hands arguments on has them outside its parameters."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    program = click.Command("tool", context_settings=settings, callback=lambda: None)
    policy = CommandPolicy(arguments_of=("tool",))
    for_click.instrument(program, client=recorder, policy=policy)
    program.main(["a", "--x=secret", "b"], prog_name="x.py", standalone_mode=False)
    assert recorder.events[0].args == ["a"]


def test_programs_in_two_threads_do_not_mix(recorder):
    """Contexts belong to a thread in click, so runs have to."""
    barrier = threading.Barrier(2, timeout=60)
    program = for_click.instrument(click.Group("program"), client=recorder)
    for name in ("one", "two"):
        option = click.Option([f"--{name}"], is_flag=True)

        def meet(**_flags):
            barrier.wait()

        program.add_command(click.Command(name, params=[option], callback=meet))
    threads = [
        threading.Thread(
            target=program.main, args=([name, f"--{name}"], "p", None, False)
        )
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(recorder.told) == [("one", "", ["--one"]), ("two", "", ["--two"])]


def test_objects_of_the_program_die_as_early_as_before(recorder):
    """What a context holds may own a lock or a temporary directory."""

    class Held:
        pass

    seen = []

    @click.command()
    @click.pass_context
    def program(ctx):
        ctx.obj = Held()
        seen.append(weakref.ref(ctx.obj))

    for_click.instrument(program, client=recorder)
    gc.disable()
    try:
        program.main([], standalone_mode=False)
        assert seen[0]() is None
    finally:
        gc.enable()


def test_duration_is_that_of_the_command(recorder):
    """Milliseconds, of a clock that does not step."""
    program = click.Command("program", callback=lambda: time.sleep(0.05))
    before = time.monotonic_ns()
    invoke(for_click.instrument(program, client=recorder))
    elapsed_ms = (time.monotonic_ns() - before) // 1_000_000
    assert 50 <= recorder.events[0].duration_ms <= elapsed_ms


def test_what_is_no_command_is_left_alone():
    """A mistake in wiring up telemetry costs events, not the program."""
    thing = object()
    assert for_click.instrument(thing) is thing
