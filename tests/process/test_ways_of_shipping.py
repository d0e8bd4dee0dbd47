"""A program that was packed in each usual way delivers what it records.

The program is a package with a command of its own; the wheels of it, of this library and
of what that needs are made once, and each tool installs from them alone. The launches
find a flush due. What packs a program is in the dependency group `shipping`; without it
these tests are skipped by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from spool_tools.collector import Collector
from telemetry.delivery.schedule import STARTS_MAX
from tests.support.launching import ROOT, await_no_flusher, environment_of


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "frob"
version = "1.0"
dependencies = ["spooled-telemetry"]
scripts = { frob = "frob:main" }
"""
PROGRAM = """
import telemetry

def main():
    # A slow machine gets its time for a flush at exit, an idle one needs a tenth of it.
    telemetry.configure("app", version="1.0", exit_timeout_s=30.0)
    telemetry.track_command("build", [])
    print("built")
"""
MAIN = "from frob import main\nmain()\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels from which every way installs, and the program's script."""
    directory = tmp_path_factory.mktemp("house")
    package = directory / "project" / "frob"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text(PROGRAM)
    (package / "__main__.py").write_text(MAIN)
    _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-build-isolation",
        "-w",
        directory,
        ROOT,
        package.parent,
    )
    (directory / "run.py").write_text(MAIN)
    return directory


def _run(*command: str | Path, **more: str) -> None:
    """A command that has to succeed; what it said is shown where it does not."""
    environment = {**os.environ, "PYTHONPATH": "", **more}
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _environment(house: Path, where: Path) -> Path:
    """A virtual environment with the program in it."""
    _run(sys.executable, "-m", "venv", "--without-pip", where / "venv")
    bin_ = where / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", bin_ / "python")
    _run(*pip, "install", "-q", "--no-index", "--find-links", house, "frob")
    return bin_


def venv(house: Path, where: Path) -> list[str]:
    return [str(_environment(house, where) / "frob")]


def pipx(house: Path, where: Path) -> list[str]:
    places = {"PIPX_HOME": str(where / "pipx"), "PIPX_BIN_DIR": str(where / "bin")}
    arguments = f"--no-index --find-links {house}"
    _run(_tool("pipx"), "install", "-q", "--pip-args", arguments, "frob", **places)
    return [str(where / "bin" / "frob")]


def _uv(house: Path, where: Path, *command: str) -> list[str]:
    offline = ["--python", sys.executable, "--no-index", "--find-links", str(house)]
    return [_tool("uv"), "-q", *command, "--cache-dir", str(where / "cache"), *offline]


def uv_tool(house: Path, where: Path) -> list[str]:
    places = {"UV_TOOL_DIR": str(where / "uv"), "UV_TOOL_BIN_DIR": str(where / "bin")}
    _run(*_uv(house, where, "tool", "install"), "frob", **places)
    return [str(where / "bin" / "frob")]


def uv_run(house: Path, where: Path) -> list[str]:
    """The environment is made for the command and removed with it."""
    fresh = ["--isolated", "--no-project", "--no-cache", "--with", "frob", "frob"]
    return [*_uv(house, where, "run"), *fresh]


def shiv(house: Path, where: Path) -> list[str]:
    packed = where / "frob.pyz"
    source = ["--no-index", "--find-links", str(house), "frob"]
    _run(_tool("shiv"), "-q", "-c", "frob", "-o", packed, *source)
    return [sys.executable, str(packed)]


def _pyinstaller(house: Path, where: Path, kind: str) -> Path:
    bin_ = _environment(house, where)
    _run(
        *(sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", kind),
        *("--specpath", where, "--workpath", where / "work", "--distpath", where),
        *("--name", "frob", "--paths", next(bin_.parent.glob("lib/*/site-packages"))),
        house / "run.py",
    )
    return where / "frob"


def pyinstaller_one_file(house: Path, where: Path) -> list[str]:
    return [str(_pyinstaller(house, where, "--onefile"))]


def pyinstaller_one_folder(house: Path, where: Path) -> list[str]:
    return [str(_pyinstaller(house, where, "--onedir") / "frob")]


WAYS: Mapping[str, Callable[[Path, Path], list[str]]] = {
    way.__name__.replace("_", " "): way
    for way in (
        *(venv, pipx, uv_tool, uv_run, shiv),
        *(pyinstaller_one_file, pyinstaller_one_folder),
    )
}


def _tool_of(way: str) -> str:
    """The program that makes it, of the dependency group `shipping`."""
    return "python" if way == "venv" else way.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way,
            marks=pytest.mark.skipif(
                not Path(sys.executable).with_name(_tool_of(way)).exists(),
                reason=f"no {_tool_of(way)}: pip install --group shipping",
            ),
        )
        for way in WAYS
    ],
)
def test_what_a_packed_program_records_arrives(
    way: str, house: Path, tmp_path: Path
) -> None:
    """By a flusher of its own, or from the program after three launches at most."""
    command = WAYS[way](house, tmp_path)
    state = tmp_path / "state"
    due = state / "app" / "next-flush"
    with Collector(key="key") as collector:
        environment = environment_of(
            *(state, collector.url), PYTHONPATH="", SHIV_ROOT=str(tmp_path / "shiv")
        )
        for launch in range(1, STARTS_MAX + 2):
            if due.exists():
                os.utime(due, (1, 1))
            done = subprocess.run(
                command,
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            told = (done.returncode, done.stdout, done.stderr)
            assert told == (0, "built\n", ""), f"launch {launch}"
            await_no_flusher(state)
            if collector.wait(events=launch, timeout_s=0.0):
                return
        raise AssertionError(f"nothing arrived in {launch} launches")


PROGRAM_IN_A_ZIP = """
import argparse, logging, sys
import telemetry
logging.basicConfig(level=logging.DEBUG)
from telemetry.integrations import argparse as recorded, click, typer
telemetry.configure("app")
click.instrument(object())
typer.instrument(object(), name="x")
event = telemetry.ToolEvent(action="call", tool_name="t", success=True)
print(telemetry.track(event), telemetry.track_command("build", ["--x"]))
with recorded.command(argparse.ArgumentParser()) as command:
    assert command.status(3) == 3
sys.exit(recorded.run(argparse.ArgumentParser(), lambda _: 4, []))
"""


def test_a_zip_file_without_the_compiled_dependency_hurts_nobody(
    house: Path, tmp_path: Path
) -> None:
    """Python loads no shared object from a zip; the program runs as if without us."""
    packed = tmp_path / "frob.pyz"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__main__.py", PROGRAM_IN_A_ZIP)
        for path in house.glob("*.whl"):
            with zipfile.ZipFile(path) as wheel:
                for name in wheel.namelist():
                    archive.writestr(name, wheel.read(name))
    done = subprocess.run(
        [sys.executable, "-S", str(packed)],
        env=environment_of(tmp_path, PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "False None\n"), done.stderr
    assert "No module named 'msgspec" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "app").exists()
