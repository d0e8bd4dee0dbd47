"""Tries mutants: each in a process of its own, against the unit tests of its module.

The tests of a module are those named after it (`spool/frame.py`: `test_frame.py`) and
those that import it. They run on a copy of the tree in which the one file is replaced,
so that processes which they start meet the mutant as well. A test that fails, a module
that no longer loads and a run that takes too long kill a mutant.

The parent loads pytest once and forks; it never imports the package itself.
"""

from __future__ import annotations

import ast
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

from tests.proofs.mutation.mutants import Mutant


REPOSITORY = Path(__file__).parents[3]
# What tests of one module need at most of the tree.
PARTS = ("telemetry", "spool_tools", "tests", "fuzz", "pyproject.toml", "README.md")
# Process tests of what is not pure, quickest first.
BESIDE = {
    "spool/writer.py": (
        "tests/process/test_writer_bounds.py",
        "tests/process/test_power.py",
    ),
    "delivery/drain.py": ("tests/process/test_narrowing.py",),
    "books/ledger.py": ("tests/process/test_ledger_faults.py",),
}
# A mutant may be slower than the module; only an endless one meets this.
TIMES_SLOWER, LEAST_S = 8.0, 30.0


class Trial(NamedTuple):
    """What came of one mutant."""

    module: str
    name: str
    fate: str  # killed, slow or survived


def mirrors_of(module: str) -> list[str]:
    """The unit tests of `telemetry/<module>`, those named after it first.

    A module that no unit test imports has its process tests instead; one that writes
    or posts has those beside its unit tests that show what it does to a disk or server.
    """
    stem = Path(module).stem
    dotted = "telemetry." + module.removesuffix(".py").replace("/", ".")
    named, importing = [], []
    for path in sorted((REPOSITORY / "tests" / "unit").glob("test_*.py")):
        relative = path.relative_to(REPOSITORY).as_posix()
        if path.stem == f"test_{stem}" or path.stem.startswith(f"test_{stem}_"):
            named.append(relative)
        elif dotted in _imports(path.read_text("utf-8")):
            importing.append(relative)
    if named or importing or module in BESIDE:
        return named + importing + list(BESIDE.get(module, ()))
    mirrors = sorted((REPOSITORY / "tests" / "process").glob(f"test_{stem}*.py"))
    return [path.relative_to(REPOSITORY).as_posix() for path in mirrors]


def _imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{n.name}" for n in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


class Copy:
    """A copy of the tree, in which one module at a time is a mutant."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for part in PARTS:
            source = REPOSITORY / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, directory / part, ignore=ignored)
            else:
                shutil.copy(source, directory / part)

    def start(self, module: str, source: str, tests: list[str]) -> int:
        """The process that runs the tests on this source of the module."""
        (self.directory / "telemetry" / module).write_text(source, "utf-8")
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = self._run(tests)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return pid

    def original(self, module: str) -> str:
        return (REPOSITORY / "telemetry" / module).read_text("utf-8")

    def restore(self, module: str) -> None:
        path = self.directory / "telemetry" / module
        path.write_text(self.original(module), "utf-8")

    def _run(self, tests: list[str]) -> int:
        os.setsid()
        os.chdir(self.directory)
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = True
        os.environ |= {
            "PYTHONPATH": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.directory),
        }
        tempfile.tempdir = None
        for name in [each for each in sys.modules if each.split(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path.insert(0, str(self.directory))
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutants", phases=phases, database=None, derandomize=True, deadline=None
        )
        hypothesis.settings.load_profile("mutants")
        # The parent has loaded hypothesis already, which pytest remarks on.
        quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options = ["-xq", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"]
        return pytest.main([*options, *quiet, *tests])


class Running(NamedTuple):
    """A mutant that is being tried."""

    module: str
    name: str
    pid: int
    until: float


def baseline_s(copy: Copy, module: str, tests: list[str]) -> float:
    """The seconds that the tests of an unchanged module take; they have to pass."""
    began = time.monotonic()
    pid = copy.start(module, copy.original(module), tests)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        said = (copy.directory / "output").read_text("utf-8", "replace")
        sys.exit(f"the tests of {module} fail without a mutant:\n{said[-4000:]}")
    return time.monotonic() - began


def tried(
    mutants: list[tuple[str, Mutant]], *, jobs: int, say: Callable[[str], None]
) -> Iterator[Trial]:
    """What comes of each mutant of a module, as they end."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as root:
        copies = [Copy(Path(root) / str(n)) for n in range(jobs)]
        tests = {module: mirrors_of(module) for module, _ in mutants}
        bounds = {}
        for module, files in tests.items():
            if files:
                took_s = baseline_s(copies[0], module, files)
                bounds[module] = max(took_s * TIMES_SLOWER, LEAST_S)
                say(f"{module}: {len(files)} files of tests, {took_s:.1f} s")
        waiting = list(reversed(mutants))
        running: dict[int, Running] = {}
        while waiting or running:
            for n in range(jobs):
                while n not in running and waiting:
                    module, mutant = waiting.pop()
                    if not tests[module]:
                        yield Trial(module, mutant.name, "survived")
                        continue
                    source = mutant.within(copies[n].original(module))
                    pid = copies[n].start(module, source, tests[module])
                    until = time.monotonic() + bounds[module]
                    running[n] = Running(module, mutant.name, pid, until)
            time.sleep(0.02)
            for n, one in list(running.items()):
                fate = _fate(one)
                if fate:
                    copies[n].restore(one.module)
                    del running[n]
                    yield Trial(one.module, one.name, fate)


def _fate(one: Running) -> str:
    """What came of a mutant; empty while its tests run."""
    pid, status = os.waitpid(one.pid, os.WNOHANG)
    if pid:
        _end_group(one.pid)
        code = os.waitstatus_to_exitcode(status)
        if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            sys.exit(f"no tests were run for {one.module}")
        return "survived" if code == 0 else "killed"
    if time.monotonic() < one.until:
        return ""
    _end_group(one.pid)
    os.waitpid(one.pid, 0)
    return "slow"


def _end_group(pid: int) -> None:
    """Nothing that the tests started goes on."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
