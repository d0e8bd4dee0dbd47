"""Programs to wrap, a client that keeps what it is given, and runs to compare."""

from __future__ import annotations

# ruff: noqa: ARG001, ARG005 - a command's function takes what its options are called
import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import typer
from click.testing import CliRunner
from typer.testing import CliRunner as TyperRunner


REPOSITORY = Path(__file__).parents[2]

# Stands beside each program; only the wrapped run imports it.
RECORDER = """
import os
import msgspec

class Recorder:
    def track(self, event):
        with open(os.environ["RECORD_TO"], "ab") as file:
            file.write(msgspec.json.encode(event) + b"\\n")
        if "RECORDER_FAILS" in os.environ:
            raise RuntimeError("the disk is full")
        return True
"""

# Loads what its programs need once, and forks for each program that it is told of. The
# fork runs that program as its own main module and ends by the interpreter's own end;
# what hangs is ended by the alarm.
NURSERY = """
import gc, json, os, signal, sys
{loading}
gc.freeze()  # or each fork would walk, and so copy, all of that as it ends
while line := sys.stdin.readline():
    told = json.loads(line)
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(60)
os.environ.update(told["environment"])
os.chdir(told["directory"])
for number, name in enumerate((os.devnull, "stdout", "stderr")):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
sys.stdin = open(0, closefd=False)
sys.argv = told["arguments"]
sys.path[0] = os.path.dirname(sys.argv[0])
program = sys.modules["__main__"] = type(sys)("__main__")
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"), program.__dict__)
"""

LOADING_TYPER = """
import typer, typer.rich_utils, telemetry.integrations.typer, msgspec

def first(text: str):
    pass  # typer loads the rest as it reads its first arguments

app = typer.Typer()
app.command()(first)
app(["text"], standalone_mode=False)
"""


class Recorder:
    """Keeps the events it is given."""

    def __init__(self):
        self.events = []

    def track(self, event):
        self.events.append(event)
        return True

    @property
    def told(self):
        return [(event.action, event.error, event.flags) for event in self.events]


def click_program():
    @click.group()
    @click.option("--verbose/--quiet", "-v/-q")
    @click.option("--region", envvar="PROGRAM_REGION")
    def program(verbose, region):
        pass

    @program.command()
    @click.argument("files", nargs=-1)
    @click.option("-o", "--output", type=click.File("w"))
    def build(files, output):
        if "broken" in files:
            raise ValueError("secret")
        return "built"

    @program.group()
    @click.pass_context
    def remote(ctx):
        ctx.call_on_close(lambda: None)

    @remote.command("add")
    @click.option("--fetch", is_flag=True, callback=lambda ctx, param, value: value)
    @click.pass_context
    def remote_add(ctx, fetch):
        ctx.invoke(build, files=())
        return fetch

    @program.command()
    @click.option("--status", type=int)
    @click.pass_context
    def leave(ctx, status):
        ctx.find_root().exit(status)

    return program


def typer_app():
    app = typer.Typer()

    @app.command()
    def build(name: str = "x", force: bool = False):
        if name == "broken":
            raise ValueError("secret")
        if force:
            raise typer.Exit(3)

    return app


def parser_and_main():
    parser = argparse.ArgumentParser(prog="program")
    parser.add_argument("--status", type=int)
    build = parser.add_subparsers().add_parser("build")
    build.add_argument("files", nargs="*")

    def main(given):
        if "broken" in given.files:
            raise ValueError("secret")
        return given.status

    return parser, main


def invoke(program, *arguments, **options):
    runner = TyperRunner() if isinstance(program, typer.Typer) else CliRunner()
    return runner.invoke(program, arguments, **options)


def start(script, arguments, cwd, stdin=subprocess.DEVNULL, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("COV_")}
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(REPOSITORY), **environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process):
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def both(script, arguments, cwd, **environment):
    """How the unwrapped and the wrapped program ended, and what was recorded."""
    record = cwd / "recorded"
    plain = start(script, arguments, cwd, **environment)
    wrapped = start(script, arguments, cwd, RECORD_TO=str(record), **environment)
    return ended(plain), ended(wrapped), recorded(record)


def recorded(record):
    """The events in the file of a recorder."""
    lines = record.read_text().splitlines() if record.exists() else []
    return [json.loads(line) for line in lines]


@contextlib.contextmanager
def nursery(directory: Path, loading: str) -> Iterator[Callable]:
    """What does as `both`, in forks of one process that has run `loading` already.

    Where there is no fork, it is `both`.
    """
    if not hasattr(os, "fork"):
        yield both
        return
    script = directory / "nursery.py"
    script.write_text(NURSERY.replace("{loading}", loading))
    process = start(script, [], directory, stdin=subprocess.PIPE)

    def one(script, arguments, cwd, **environment):
        told = {
            "arguments": [str(script), *arguments],
            "directory": str(cwd),
            "environment": environment,
        }
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        return code, (cwd / "stdout").read_bytes(), (cwd / "stderr").read_bytes()

    def both_forked(script, arguments, cwd):
        record = cwd / "recorded"
        plain = one(script, arguments, cwd)
        wrapped = one(script, arguments, cwd, RECORD_TO=str(record))
        return plain, wrapped, recorded(record)

    try:
        yield both_forked
    finally:
        assert ended(process) == (0, b"", b"")
