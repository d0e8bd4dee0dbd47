"""Who may import what: the house, file by file, and a walk through every import.

The number is the rank. A file imports only lower ranks, or its own rank inside its
own folder where the list puts it after. Imports inside functions count, and so do
those under TYPE_CHECKING: they load nothing, but they tie one file to another.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.support.surroundings import REPOSITORY


HOUSE = """
0 errors.py
0 switches.py
0 paths.py
0 locks.py
0 files.py
0 text.py
0 logs.py
0 _build.py
0 build_values.py
0 privacy/patterns.py
0 privacy/place_patterns.py
0 privacy/signs.py
0 privacy/marks.py
0 privacy/views.py
0 privacy/names.py
0 privacy/paths.py
0 privacy/randomness.py
0 privacy/keys.py
0 privacy/finders.py
0 privacy/scrub.py
0 privacy/__init__.py
0 spool/__init__.py
0 wire/__init__.py
0 books/__init__.py
0 delivery/__init__.py
1 identity.py
1 events.py
1 spool/frame.py
1 spool/refusals.py
1 wire/endpoint.py
2 config.py
2 consent.py
2 notice.py
2 envelope.py
2 session.py
2 spool/segment.py
2 spool/power.py
2 spool/writer.py
2 spool/reader.py
3 wire/verdict.py
3 wire/formats.py
3 wire/reply.py
3 wire/deadline.py
3 wire/transport.py
3 wire/retry.py
3 books/entries.py
3 books/rows.py
3 books/view.py
3 books/ledger.py
3 books/books.py
4 delivery/schedule.py
4 delivery/backoff.py
4 delivery/opt_out.py
4 delivery/dead_letters.py
4 delivery/resend.py
4 delivery/census.py
4 delivery/report.py
4 delivery/purge.py
4 delivery/settlement.py
4 delivery/search.py
4 delivery/drain.py
4 delivery/launch.py
4 delivery/upkeep.py
4 delivery/flush.py
4 delivery/background.py
4 delivery/detached.py
5 pipeline.py
5 client.py
5 context.py
6 api.py
7 integrations/command.py
7 integrations/recording.py
7 integrations/argparse_reading.py
7 integrations/argparse.py
7 integrations/click_reading.py
7 integrations/click.py
7 integrations/typer.py
7 integrations/__init__.py
7 testing.py
8 __init__.py
"""
# Written by the build hook, into wheels only.
GENERATED = "_build.py"
# What the house is built with, not a part of it: it imports nothing of it.
BUILD_HOOK = "build_hook.py"
# `build_command_info` looks at what it is given and asks the one who can read that.
DISPATCH = "integrations/command.py"
READERS = {
    "integrations/argparse_reading.py",
    "integrations/click_reading.py",
    "integrations/typer.py",
}
# Each library has one owner, who names every option of it; msgspec is everybody's.
OWNERS = {
    "diskcache": {"books/ledger.py"},
    "urllib3": {"wire/transport.py"},
    "tenacity": {"wire/retry.py"},
    "click": {"integrations/click.py", "integrations/click_reading.py"},
    "typer": {"integrations/typer.py"},
    "pytest": {"testing.py"},
    "hatchling": {BUILD_HOOK},
}
# Named here although every file of the standard library would do: one owner each.
OWNERS |= {"fcntl": {"locks.py"}, "msvcrt": {"locks.py"}}
EVERYBODYS = {"msgspec", "telemetry"}
# Known to every type checker, installed by nobody: never at run time.
FOR_TYPES = "typing_extensions"

OTHERS = EVERYBODYS | OWNERS.keys()

RANKS = {
    path: (int(rank), number)
    for number, (rank, path) in enumerate(map(str.split, HOUSE.split("\n")[1:-1]))
}
PACKAGE = REPOSITORY / "telemetry"
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The names of everything that is imported anywhere, dots included.

    `from a import b` may mean the module `a.b` or a name in `a`: both are given.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}|{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node.func):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                yield str(first.value)


def at_run_time(tree: ast.Module) -> ast.Module:
    """The module as it runs, without what stands under `if TYPE_CHECKING`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith(
            "TYPE_CHECKING"
        ):
            node.body = [ast.Pass()]
    return tree


def tops(names: Iterator[str]) -> set[str]:
    """The packages that imports lead to."""
    return {name.partition(".")[0].partition("|")[0] for name in names}


def _is_import_call(function: ast.expr) -> bool:
    name = getattr(function, "attr", getattr(function, "id", ""))
    return name in {"import_module", "__import__"}


def file_of(name: str) -> str | None:
    """The file of the package that an import leads to; None outside of it."""
    module, _, member = name.partition("|")
    if module.partition(".")[0] != "telemetry":
        return None
    inner = module.split(".")[1:]
    for parts in ([*inner, member], inner) if member else (inner,):
        for path in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
            if path in RANKS:
                return path
    return f"{module}: no file of the house"


def problems(path: str, source: str) -> list[str]:
    """Which imports of `source`, standing in `path`, break the rules."""
    found = []
    for name in imported(ast.parse(source)):
        top = name.partition(".")[0].partition("|")[0]
        target = file_of(name)
        if name.startswith("."):
            found.append(f"{path} imports {name!r}, which is relative")
        elif target is not None:
            if not may_import(path, target):
                found.append(f"{path} imports {target}")
        elif path not in OWNERS.get(top, {path}):
            found.append(f"{path} imports {top}, which belongs to {OWNERS[top]}")
        elif top not in sys.stdlib_module_names | {FOR_TYPES} | OTHERS:
            found.append(f"{path} imports {top}, which nobody may")
    if FOR_TYPES in tops(imported(at_run_time(ast.parse(source)))):
        found.append(f"{path} needs {FOR_TYPES} at run time")
    return found


def may_import(path: str, target: str) -> bool:
    if target not in RANKS or path not in RANKS:
        return False
    if path == DISPATCH and target in READERS:
        return True
    (rank, place), (of_rank, of_place) = RANKS[path], RANKS[target]
    if rank != of_rank:
        return of_rank < rank
    same_folder = path.rpartition("/")[0] == target.rpartition("/")[0]
    return same_folder and of_place < place


def test_every_file_has_a_rank() -> None:
    """A file that nobody placed is imported by everybody before long."""
    assert set(FILES) - {BUILD_HOOK} == set(RANKS) - {GENERATED}
    numbers = [rank for rank, _ in RANKS.values()]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_stands_below_it(path: str) -> None:
    """Without layers a launch ends up loading the flusher."""
    source = (PACKAGE / path).read_text("utf-8")
    assert problems(path, source) == []


@pytest.mark.parametrize("library", ["diskcache", "urllib3", "tenacity"])
def test_a_library_has_one_owner(library: str) -> None:
    """Its surprises are then translated in one place, and it can be replaced."""
    trees = {path: ast.parse((PACKAGE / path).read_text("utf-8")) for path in FILES}
    users = {path for path, tree in trees.items() if library in tops(imported(tree))}
    assert users == OWNERS[library]


def test_tools_import_the_package_and_never_the_reverse() -> None:
    """Programs install the package; the tools are for whoever looks into a spool."""
    allowed = EVERYBODYS | {"spool_tools", "rich", "pytest"} | sys.stdlib_module_names
    for path in sorted((REPOSITORY / "spool_tools").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        assert tops(imported(tree)) <= allowed | {FOR_TYPES}, path
        assert tops(imported(at_run_time(tree))) <= allowed, path
    with_tools = "from telemetry import Config\nimport spool_tools.cli\n"
    assert problems("testing.py", with_tools) == [
        "testing.py imports __init__.py",
        "testing.py imports spool_tools, which nobody may",
    ]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("paths.py", "from telemetry.api import track"),
        ("paths.py", "from telemetry import api"),
        ("paths.py", "import telemetry.api as somewhere"),
        ("paths.py", "def f():\n    from telemetry.api import track"),
        ("paths.py", "if TYPE_CHECKING:\n    from telemetry.api import track"),
        ("paths.py", "from telemetry import track"),
        ("paths.py", "from . import errors"),
        ("paths.py", "import_module('telemetry.api')"),
        ("errors.py", "from telemetry.paths import Home"),
        ("spool/frame.py", "from telemetry.events import EventType"),
        ("spool/reader.py", "from telemetry.wire.formats import Batch"),
        ("delivery/drain.py", "import diskcache"),
        ("delivery/drain.py", "from urllib3.util import Timeout"),
        ("client.py", "def f():\n    import tenacity"),
        ("files.py", "import fcntl"),
        ("client.py", "import requests"),
        ("client.py", "from typing_extensions import Self"),
        ("nowhere.py", "from telemetry.errors import TelemetryError"),
        ("paths.py", "from telemetry.nowhere import something"),
    ],
)
def test_what_breaks_the_rules_is_found(path: str, source: str) -> None:
    """A walk that overlooks one way of importing holds nothing."""
    assert len(problems(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("paths.py", "from telemetry.errors import ConfigError"),
        ("client.py", "import os, sys, msgspec\nfrom telemetry import errors"),
        ("books/ledger.py", "from diskcache import Cache"),
        ("build_values.py", "from telemetry import _build"),
        ("api.py", "if TYPE_CHECKING:\n    from typing_extensions import Self"),
        (
            "spool/writer.py",
            "def f():\n    from telemetry.spool.power import SharedSync",
        ),
    ],
)
def test_what_keeps_the_rules_is_let_through(path: str, source: str) -> None:
    """A walk that refuses what is right would soon be switched off."""
    assert problems(path, source) == []
