"""Each run inside the block, or through `run`, becomes one event."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback

import pytest

from telemetry.integrations import argparse as for_argparse
from tests.support.wrapped import Recorder, parser_and_main


@pytest.fixture
def recorder():
    return Recorder()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["build"], ("build", "", [])),
        (["--status=0", "build"], ("build", "", ["--status"])),
        (["--sta=4", "build"], ("build", "SystemExit", ["--status"])),
        (["build", "broken"], ("build", "ValueError", [])),
        (["--status", "x"], ("program", "ArgumentError", ["--status"])),
        (["wrong"], ("program", "ArgumentError", [])),
        (["--help"], None),
        (["build", "--help"], None),
    ],
)
def test_each_argparse_run_is_one_event(recorder, arguments, told):
    """The status that `main` returns is the program's exit status."""
    parser, main = parser_and_main()
    with contextlib.suppress(ValueError, SystemExit):
        for_argparse.run(parser, main, arguments, client=recorder)
    assert recorder.told == ([told] if told else [])


def test_run_returns_what_main_returns(recorder):
    """It stands between the program and `sys.exit`, and must be transparent."""
    parser, _ = parser_and_main()
    answer = object()
    returned = for_argparse.run(parser, lambda _: answer, [], client=recorder)
    assert returned is answer


def test_run_leaves_no_frame_in_a_traceback(recorder):
    """A traceback shows the user's program, from 3.11 on as if it stood alone."""
    parser, main = parser_and_main()
    with pytest.raises(ValueError, match="secret") as caught:
        for_argparse.run(parser, main, ["build", "broken"], client=recorder)
    frames = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
    inside = ["run"] if sys.version_info < (3, 11) else []
    assert frames == [
        "test_run_leaves_no_frame_in_a_traceback",
        *inside,
        "main",
    ]


def test_status_can_be_noted_inside_the_block(recorder):
    """A return from inside the block is the usual way out, and cannot be seen."""
    parser, _ = parser_and_main()

    def main(status):
        with for_argparse.command(parser, ["build"], client=recorder) as running:
            return running.status(status)

    statuses = [0, None, False, 3, "no", ""]
    assert [main(status) for status in statuses] == statuses
    assert [event.success for event in recorder.events] == 3 * [True] + 3 * [False]


def test_parser_may_be_finished_inside_the_block(recorder, monkeypatch):
    """Programs add sub-commands late, and take from `sys.argv` as they go."""
    monkeypatch.setattr(sys, "argv", ["program", "late", "--force"])
    parser = argparse.ArgumentParser(prog="program")
    with for_argparse.command(parser, client=recorder):
        late = parser.add_subparsers().add_parser("late")
        late.add_argument("--force", action="store_true")
        sys.argv.clear()
    assert recorder.told == [("late", "", ["--force"])]


def test_exit_of_the_program_is_told_from_that_of_the_parser(recorder):
    """`--version` is no command; a command that leaves with 0 is one."""
    parser, _ = parser_and_main()

    def leave(_):
        sys.exit()

    with pytest.raises(SystemExit):
        for_argparse.run(parser, leave, ["build"], client=recorder)
    assert recorder.told == [("build", "", [])]
