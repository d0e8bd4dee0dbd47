"""Who may import what: layers of the house, owners of libraries, and no circles.

An import goes to a lower layer, or sideways within one wing, never up. Imports inside
functions count, and so do those under TYPE_CHECKING: they load nothing, but they tie
one file to another.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.support.surroundings import REPOSITORY


# From the ground up. A name is a wing (a folder, with all its files) or a file; a wing
# may import sideways, single files of one layer may as well, if no circle arises.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "absent errors interrupts paths files_posix files_windows files text logs switches _build build_values privacy threads",
        "identity events light_events envelope session spool",
        "wire",
        "config consent notice commands machine mistakes",
        "books",
        "delivery",
        "pipeline client context",
        "api",
        "integrations testing",
        "__init__",
    )
)
# One file owns each library: it names every option and translates every error.
OWNERS: Mapping[str, frozenset[str]] = {
    "diskcache": frozenset({"books/ledger.py"}),
    "urllib3": frozenset({"wire/library.py"}),
    "tenacity": frozenset({"wire/retry.py"}),
    "click": frozenset({"integrations/click.py"}),
    "typer": frozenset({"integrations/typer.py"}),
    "hatchling": frozenset({"build_hook.py"}),
    "spool_tools": frozenset({"integrations/own_commands.py"}),
    "fcntl": frozenset({"files_posix.py"}),
    "msvcrt": frozenset({"files_windows.py"}),
}
ANYBODY = frozenset({"msgspec"})
# Type checkers know it, and no program installs it: never at run time.
FOR_TYPES = "typing_extensions"
# Used when a wheel is built; it imports nothing of the package.
BUILD_HOOK = "build_hook.py"

PACKAGE = REPOSITORY / "telemetry"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}


def layer_of(path: str) -> int | None:
    """The number of a file's layer; None where no layer names it."""
    name = path.partition("/")[0].removesuffix(".py")
    return next((n for n, names in enumerate(LAYERS) if name in names), None)


def imported(tree: ast.AST) -> Iterator[str]:
    """What each import names, with dots. `from a import b` gives `a|b`."""
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


def _is_import_call(function: ast.expr) -> bool:
    name = getattr(function, "attr", getattr(function, "id", ""))
    return name in {"import_module", "__import__"}


def at_run_time(tree: ast.Module) -> ast.Module:
    """The module without what stands under `if TYPE_CHECKING`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    return tree


def top(name: str) -> str:
    """The package that an import leads to."""
    return name.partition("|")[0].partition(".")[0]


def target_of(name: str, files: Mapping[str, object]) -> str:
    """The file of `telemetry` that an import leads to; the name itself if none is."""
    module, _, member = name.partition("|")
    inner = module.split(".")[1:]
    for parts in ([*inner, member], inner) if member else (inner,):
        for path in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
            if path in files or path == "_build.py":
                return path
    return name


def problems(path: str, source: str) -> list[str]:
    """Which imports of `source`, standing in `path`, break the rules."""
    found = []
    tree = ast.parse(source)
    for name in imported(tree):
        library = top(name)
        if name.startswith("."):
            found.append(f"{path} imports {name!r}, which is relative")
        elif library == "telemetry":
            target = target_of(name, SOURCES)
            if not may_import(path, target):
                found.append(f"{path} imports {target}")
        elif path not in OWNERS.get(library, {path}):
            found.append(f"{path} imports {library}, which {OWNERS[library]} owns")
        elif library not in sys.stdlib_module_names | ANYBODY | OWNERS.keys() | {
            FOR_TYPES
        }:
            found.append(f"{path} imports {library}, which is no dependency")
    if FOR_TYPES in map(top, imported(at_run_time(tree))):
        found.append(f"{path} needs {FOR_TYPES} at run time")
    return found


def may_import(path: str, target: str) -> bool:
    mine, theirs = layer_of(path), layer_of(target)
    if mine is None or theirs is None or target == "__init__.py":
        return False
    if theirs != mine:
        return theirs < mine
    # A folder within a wing is part of it.
    wing, of_wing = ("/".join(each.split("/")[:-1][:1]) for each in (path, target))
    return wing == of_wing or not (wing and of_wing)


def test_each_file_stands_in_a_layer() -> None:
    """A file outside the layers would be imported from everywhere before long."""
    assert [p for p in SOURCES if layer_of(p) is None] == [BUILD_HOOK]


def test_imports_go_down_or_stay_in_their_wing() -> None:
    """Without layers a launch ends up loading the flusher."""
    assert [
        each for path, text in SOURCES.items() for each in problems(path, text)
    ] == []


def test_imports_make_no_circle() -> None:
    """What is tied in a circle can be neither read nor replaced alone."""
    graph = {
        path: {
            target
            for name in imported(ast.parse(text))
            if top(name) == "telemetry"
            and (target := target_of(name, SOURCES)) in SOURCES
            and path != target
        }
        for path, text in SOURCES.items()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_each_library_is_used_by_its_owner() -> None:
    """An owner that no longer uses its library is a stale permission."""
    users = {
        path: {top(name) for name in imported(ast.parse(text))}
        for path, text in SOURCES.items()
    }
    for library in ("diskcache", "urllib3", "tenacity"):
        using = {path for path, libraries in users.items() if library in libraries}
        assert using, library
        assert using <= OWNERS[library], library
    loader = "telemetry.wire.library"
    using = {path for path, text in SOURCES.items() if f"from {loader} import" in text}
    assert using == {f"wire/{name}.py" for name in ("endpoint", "reply", "transport")}


def test_tools_import_the_package_and_never_the_reverse() -> None:
    """Programs install the package; the tools are for people who inspect a spool."""
    allowed = ANYBODY | {"telemetry", "spool_tools", "rich", "pytest"}
    for path in sorted((REPOSITORY / "spool_tools").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        wanted = {top(name) for name in imported(tree)} - sys.stdlib_module_names
        assert wanted <= allowed | {FOR_TYPES}, path
        needed = {top(name) for name in imported(at_run_time(tree))}
        assert needed - sys.stdlib_module_names <= allowed, path
    assert len(problems("testing.py", "import spool_tools.cli\n")) == 1


BREAKING = (
    ("paths.py", "from telemetry.api import track"),
    ("paths.py", "from telemetry import api"),
    ("paths.py", "import telemetry.api as somewhere"),
    ("paths.py", "def f():\n    from telemetry.api import track"),
    ("paths.py", "if TYPE_CHECKING:\n    from telemetry.api import track"),
    ("paths.py", "from telemetry import track"),
    ("paths.py", "from . import errors"),
    ("paths.py", "import_module('telemetry.api')"),
    ("spool/reader.py", "from telemetry.wire.verdict import judge"),
    ("wire/verdict.py", "from telemetry.books.books import Books"),
    ("books/books.py", "from telemetry.delivery.drain import Drain"),
    ("delivery/drain.py", "import diskcache"),
    ("delivery/drain.py", "from urllib3.util import Timeout"),
    ("client.py", "def f():\n    import tenacity"),
    ("files.py", "import fcntl"),
    ("client.py", "import requests"),
    ("client.py", "from typing_extensions import Self"),
    ("nowhere.py", "from telemetry.errors import TelemetryError"),
    ("paths.py", "from telemetry.nowhere import something"),
)
KEEPING = (
    ("paths.py", "from telemetry.errors import ConfigError"),
    ("client.py", "import os, sys, msgspec\nfrom telemetry import errors"),
    ("books/ledger.py", "from diskcache import Cache"),
    ("build_values.py", "from telemetry import _build"),
    ("api.py", "if TYPE_CHECKING:\n    from typing_extensions import Self"),
    ("spool/writer.py", "def f():\n    from telemetry.spool.power import SharedSync"),
)


def test_each_way_to_break_the_rules_is_found() -> None:
    """A walk that overlooks one way of importing holds nothing."""
    for path, source in BREAKING:
        assert len(problems(path, source)) == 1, (path, source)


def test_what_keeps_the_rules_is_let_through() -> None:
    """A walk that refuses what is right would soon be switched off."""
    for path, source in KEEPING:
        assert problems(path, source) == [], (path, source)
