"""Tries mutants: each in a process of its own, against the unit tests of its module.

The tests of a module are the unit tests named after it (`spool/frame.py`:
`test_frame.py`) and those that import it. Nothing is written into the tree:

- a fault inside a function: the tests are collected once, with the original loaded.
  Each mutant is a fork of that process in which the one function gets the code of the
  faulty source. Whoever imported the function has the same object, so meets the fault;
- any other fault (a constant, a default, a class's field) is there when the module is
  loaded: a fork of a process that has not imported the package loads it anew.

Tests that never call the function, in whatever thread or fork, are left out. Those that
killed a mutant of it come first, then the quickest. The first failure kills, as does a
mutant that does not load, that takes several times the processor time of the original,
or that hangs.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import hypothesis
import msgspec
import pytest

from tests.proofs.mutation.mutants import Mutant


REPOSITORY = Path(__file__).parents[3]
PACKAGE = REPOSITORY / "telemetry"
# Processor time counts on a busy machine as on an idle one: only an endless loop takes
# so much more in a test than the original. What waits for ever meets the other bound.
TIMES_SLOWER, LEAST_CPU_S = 2.0, 3.0
# What waits for ever takes none: so little in so long is a hang.
HANGS_S, HANGING_CPU_S = 10.0, 0.05
MEMORY_BYTES_MAX = 4 << 30


class Trial(NamedTuple):
    """What came of one mutant."""

    module: str
    name: str
    fate: str  # killed, slow or survived


class Test(msgspec.Struct):
    """What a test of the unchanged module did: its seconds, and what it called of it."""

    seconds: float
    functions: list[str]


def mirrors_of(module: str) -> list[str]:
    """The unit tests of `telemetry/<module>`, those named after it first."""
    stem = Path(module).stem
    dotted = "telemetry." + module.removesuffix(".py").replace("/", ".")
    named, importing = [], []
    for path in sorted((REPOSITORY / "tests" / "unit").glob("test_*.py")):
        relative = path.relative_to(REPOSITORY).as_posix()
        if path.stem == f"test_{stem}" or path.stem.startswith(f"test_{stem}_"):
            named.append(relative)
        elif dotted in _imports(path.read_text("utf-8")):
            importing.append(relative)
    return named + importing


def _imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{n.name}" for n in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def tried(
    mutants: Sequence[tuple[str, Mutant]], *, jobs: int, say: Callable[[str], None]
) -> Iterator[Trial]:
    """What comes of each mutant, one module after the other, as they end."""
    for module in dict.fromkeys(module for module, _ in mutants):
        ours = [mutant for its, mutant in mutants if its == module]
        tests = mirrors_of(module)
        if not tests:
            yield from (Trial(module, mutant.name, "survived") for mutant in ours)
            continue
        inside = [mutant for mutant in ours if mutant.function]
        outside = [mutant for mutant in ours if not mutant.function]
        first = Collected(module, tests, inside, jobs)
        for line in _lines_of(first.run):
            said = json.loads(line)
            if "tests" in said:
                known = msgspec.convert(said["tests"], dict[str, Test])
                took_s = sum(test.seconds for test in known.values())
                say(f"{module}: {len(known)} tests in {took_s:.1f} s")
            elif "anew" in said:
                outside.append(inside[said["anew"]])
            else:
                yield Trial(module, said["name"], said["fate"])
        for mutant, fate, _ in forked(
            [(each, _loaded_anew(module, each, tests, known)) for each in outside],
            jobs=jobs,
        ):
            yield Trial(module, mutant.name, fate)


def _lines_of(work: Callable[[int], None]) -> Iterator[str]:
    """What a fork that does `work` writes to its pipe; it has to end well."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            work(writing)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as lines:
        yield from lines
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        sys.exit("the tests of a module that is as it was could not be run")


class Collected:
    """The tests of one module, collected in this process; its mutants are forks of it.

    A plugin of pytest: `run` starts pytest, which calls back once it has the tests.
    """

    def __init__(
        self, module: str, tests: list[str], mutants: list[Mutant], jobs: int
    ) -> None:
        self.module = module
        self.tests = tests
        self.mutants = mutants
        self.jobs = jobs
        self.writing = -1
        self.killers: dict[tuple[str, str], int] = {}

    def run(self, writing: int) -> None:
        """Collect, and try every mutant; each result is a line of JSON."""
        self.writing = writing
        _surroundings()
        code = pytest.main([*_OPTIONS, *self.tests], plugins=[self])
        if code:
            raise SystemExit(f"pytest ended with {code}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        known = self._known(session)
        self._say({"tests": msgspec.to_builtins(known)})
        work = []
        for number, mutant in enumerate(self.mutants):
            plant = self._planting(mutant)
            if plant is None:
                self._say({"anew": number})
            else:
                work.append((mutant, self._trial(session, known, mutant, plant)))
        for mutant, fate, said in forked(work, jobs=self.jobs):
            if said:
                key = (mutant.function, said)
                self.killers[key] = self.killers.get(key, 0) + 1
            self._say({"name": mutant.name, "fate": fate})
        return True

    def _known(self, session: pytest.Session) -> dict[str, Test]:
        """What each test does with the original, tried in a fork; all have to pass."""

        def work(writing: int) -> None:
            stderr = os.dup(2)
            directory = tempfile.mkdtemp(prefix="mutants-")
            _quiet(directory)
            known = {}
            for n, item in enumerate(session.items):
                with _calls_in(str(PACKAGE / self.module), directory) as functions:
                    began = time.process_time()
                    _run(session, item, session.items[n + 1 : n + 2])
                    took_s = time.process_time() - began
                if session.testsfailed:
                    os.write(stderr, f"{item.nodeid} fails without a mutant\n".encode())
                    raise SystemExit(1)
                known[item.nodeid] = Test(took_s, sorted(functions))
            shutil.rmtree(directory, ignore_errors=True)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(msgspec.json.encode(known) + b"\n")

        (line,) = _lines_of(work)
        return msgspec.json.decode(line, type=dict[str, Test])

    def _planting(self, mutant: Mutant) -> Callable[[], None] | None:
        """What puts the fault in its place; None where the module is to be loaded."""
        path = PACKAGE / self.module
        mutated = compile(mutant.within(path.read_text("utf-8")), str(path), "exec")
        code = _code_of(mutated, mutant.function.split("."))
        function = _function_of(sys.modules[_dotted(self.module)], mutant.function)
        if code is None or function is None:
            return None
        if code.co_freevars != function.__code__.co_freevars:
            return None

        def plant() -> None:
            function.__code__ = code

        return plant

    def _trial(
        self,
        session: pytest.Session,
        known: dict[str, Test],
        mutant: Mutant,
        plant: Callable[[], None],
    ) -> Callable[[int], int]:
        def trial(writing: int) -> int:
            plant()
            name = mutant.function.rsplit(".", 1)[-1]

            def place(item: pytest.Item) -> tuple[int, float]:
                kills = self.killers.get((mutant.function, item.nodeid), 0)
                return -kills, known[item.nodeid].seconds

            reaching = [
                item for item in session.items if name in known[item.nodeid].functions
            ]
            items = sorted(reaching, key=place)
            return _until_one_fails(session, items, known, writing)

        return trial

    def _say(self, line: dict[str, Any]) -> None:
        content = json.dumps(line).encode() + b"\n"
        while content:
            content = content[os.write(self.writing, content) :]


def _code_of(code: CodeType, path: Sequence[str]) -> CodeType | None:
    """The code of one function within a module's; None where two have its name."""
    for name in path:
        found = [
            each
            for each in code.co_consts
            if isinstance(each, CodeType) and each.co_name == name
        ]
        if len(found) != 1:
            return None
        code = found[0]
    return code


def _function_of(module: ModuleType, path: str) -> FunctionType | None:
    """The function itself, below what decorates it; None where it is not found."""
    found: Any = module
    for name in path.split("."):
        found = vars(found).get(name)
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, (staticmethod, classmethod)):
            found = found.__func__
    found = inspect.unwrap(found) if callable(found) else None
    return found if isinstance(found, FunctionType) else None


class _Faulty(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Loads one module from the source it is given instead of from its file."""

    def __init__(self, module: str, source: str) -> None:
        self.dotted = _dotted(module)
        self.path = str(PACKAGE / module)
        self.source = source

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.dotted:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return self.source.encode()


class _Ordered:
    """A plugin of pytest: the quickest test first, and none after the first failure."""

    def __init__(self, known: dict[str, Test], writing: int) -> None:
        self.known = known
        self.writing = writing
        self.code = 1

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        def seconds(item: pytest.Item) -> float:
            test = self.known.get(item.nodeid)
            return test.seconds if test else 0.0

        if not session.testsfailed:  # else a file could not be collected
            items = sorted(session.items, key=seconds)
            self.code = _until_one_fails(session, items, self.known, self.writing)
        return True


def _loaded_anew(
    module: str, mutant: Mutant, tests: list[str], known: dict[str, Test]
) -> Callable[[int], int]:
    def trial(writing: int) -> int:
        source = mutant.within((PACKAGE / module).read_text("utf-8"))
        sys.meta_path.insert(0, _Faulty(module, source))
        _surroundings()
        ordered = _Ordered(known, writing)
        pytest.main([*_OPTIONS, *tests], plugins=[ordered])
        return ordered.code

    return trial


class Running:
    """A mutant that is being tried, in a process group of its own."""

    def __init__(self, mutant: Mutant, pid: int, reading: int, directory: str) -> None:
        self.mutant = mutant
        self.pid = pid
        self.reading = reading
        self.directory = directory
        self._looked = time.monotonic()
        self._cpu_s = 0.0

    def hangs(self) -> bool:
        """Whether none of its processes did anything for a while."""
        now = time.monotonic()
        if now - self._looked < HANGS_S:
            return False
        before, self._cpu_s, self._looked = self._cpu_s, _cpu_s_of(self.pid), now
        return self._cpu_s - before < HANGING_CPU_S


def _cpu_s_of(group: int) -> float:
    """The processor time of a process group, with children that are reaped."""
    ticks = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{name}/stat").read_text("utf-8", "replace")
            fields = stat.rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def forked(
    work: Sequence[tuple[Mutant, Callable[[int], int]]], *, jobs: int
) -> Iterator[tuple[Mutant, str, str]]:
    """Each mutant, its fate, and the test that killed it, as they end.

    `work` is done in forks, `jobs` at a time; it returns 0 if the mutant survived.
    """
    waiting = list(reversed(work))
    running: list[Running] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_start(*waiting.pop()))
        time.sleep(0.002)
        for one in list(running):
            fate = _fate(one)
            if fate:
                running.remove(one)
                with os.fdopen(one.reading) as said:
                    killer = said.read()
                shutil.rmtree(one.directory, ignore_errors=True)
                yield one.mutant, fate, killer


def _start(mutant: Mutant, trial: Callable[[int], int]) -> Running:
    directory = tempfile.mkdtemp(prefix="mutants-")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.close(reading)
            _quiet(directory)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX,) * 2)
            code = trial(writing)
        finally:
            os._exit(code)
    os.close(writing)
    return Running(mutant, pid, reading, directory)


def _fate(one: Running) -> str:
    """What came of a mutant; empty while its tests run."""
    pid, status = os.waitpid(one.pid, os.WNOHANG)
    if pid == 0 and not one.hangs():
        return ""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)  # nothing that the tests started goes on
    if pid == 0:
        os.waitpid(one.pid, 0)
        return "slow"
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "slow"
    return "survived" if code == 0 else "killed"


def _until_one_fails(
    session: pytest.Session,
    items: Sequence[pytest.Item],
    known: dict[str, Test],
    writing: int,
) -> int:
    """0 if all passed; 1 after the first that failed, whose name is written."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    for n, item in enumerate(items):
        usual_s = known[item.nodeid].seconds if item.nodeid in known else 0.0
        bound_s = time.process_time() + usual_s * TIMES_SLOWER + LEAST_CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(bound_s), most))
        try:
            _run(session, item, items[n + 1 : n + 2])
        finally:
            if session.testsfailed or sys.exc_info()[0]:
                os.write(writing, item.nodeid.encode())
        if session.testsfailed:
            return 1
    return 0


def _run(
    session: pytest.Session, item: pytest.Item, following: Sequence[pytest.Item]
) -> None:
    nextitem = following[0] if following else None
    session.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)


@contextlib.contextmanager
def _calls_in(path: str, directory: str) -> Iterator[set[str]]:
    """The names of the functions of one file that are called meanwhile.

    Known when the block ends; forks tell theirs by a file in `directory`.
    """
    called: set[str] = set()
    parent = os.getpid()
    told_path = f"{directory}/calls"
    Path(told_path).write_bytes(b"")

    def note(frame: Any, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename == path and code.co_name not in called:
            called.add(code.co_name)
            if os.getpid() != parent:
                # A child that may open nothing tells less: then a mutant survives.
                with contextlib.suppress(OSError), open(told_path, "a") as file:
                    file.write(code.co_name + "\n")

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        called.update(Path(told_path).read_text("utf-8").split())


# Output goes nowhere; who needs what a test printed captures it in the test.
_OPTIONS = ["-sqx", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
# The parent has loaded hypothesis already, which pytest remarks on.
_OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]


def _surroundings() -> None:
    """What pytest starts in: our directory, and few, always the same, examples."""
    os.chdir(REPOSITORY)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", phases=phases, database=None, derandomize=True, deadline=None
    )
    hypothesis.settings.load_profile("mutants")


def _quiet(directory: str) -> None:
    """Say nothing, and keep temporary files in `directory`."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = directory
    tempfile.tempdir = None


def _dotted(module: str) -> str:
    return "telemetry." + module.removesuffix(".py").replace("/", ".")
