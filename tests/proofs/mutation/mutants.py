"""Mutants of a module: copies with one small fault each, made from its syntax tree.

A mutant's name is the function it stands in and what changes, so that it keeps its
name when lines move: `SegmentReader.take: size < bytes_max becomes size <= bytes_max`.
The same source always gives the same mutants in the same order.

Left out is what no test can or should notice: annotations, docstrings, texts for
people, log lines, `__repr__`, and what stands under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple


# A bound moves by one, an equality and a membership turn round.
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_LOG_LINES = frozenset({"debug", "info", "warning", "error"})
_FOR_PEOPLE = frozenset({"__repr__", "__str__"})


class Mutant(NamedTuple):
    """A fault: its name within the module, and what is put in place of which node.

    `function` is the outermost function in whose body the node stands, with the classes
    around it; empty for what is evaluated when the module is loaded.
    """

    name: str
    function: str
    number: int
    changed: ast.AST

    def within(self, source: str) -> str:
        """The module with this fault."""
        tree = ast.parse(source)
        target = [each.node for each in _nodes(tree)][self.number]
        return ast.unparse(
            ast.fix_missing_locations(_Replace(target, self).visit(tree))
        )


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, mutant: Mutant) -> None:
        self.target = target
        self.changed = mutant.changed

    def visit(self, node: ast.AST) -> ast.AST:
        return self.changed if node is self.target else self.generic_visit(node)


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of the source."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for number, (place, function, node) in enumerate(_nodes(ast.parse(source))):
        for changed in _changes(node):
            name = f"{place}: {_short(node)} becomes {_short(changed)}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name = f"{name} ({seen[name]})"
            found.append(Mutant(name, function, number, changed))
    return found


class _Node(NamedTuple):
    """A node that may be changed, the function that it stands in, and the outermost."""

    place: str
    function: str
    node: ast.AST


def _nodes(tree: ast.Module) -> Iterator[_Node]:
    def walk(node: ast.AST, place: str, function: str) -> Iterator[_Node]:
        inside = function
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name in _FOR_PEOPLE:
                return
            place = f"{place}.{node.name}" if place else node.name
            if isinstance(node, ast.FunctionDef):
                inside = function or place
                for default in node.args.defaults + node.args.kw_defaults:
                    if default is not None:
                        yield from walk(default, place, function)
        yield _Node(place or "module", function, node)
        for part in _parts(node):
            if not _is_text(part):
                yield from walk(part, place, inside)

    yield from walk(tree, "", "")


def _parts(node: ast.AST) -> list[ast.AST]:
    """What may be changed within a node."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return list(node.body)
    if isinstance(node, ast.AnnAssign):
        return [node.value] if node.value else []
    return list(ast.iter_child_nodes(node))


def _is_text(node: ast.AST) -> bool:
    """Whether a node is a docstring, a text for people or checkers, or a log line."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Call):
        function = node.value.func
        return isinstance(function, ast.Attribute) and function.attr in _LOG_LINES
    return isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of this node, each with one fault."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            ops = [*node.ops]
            ops[place] = _COMPARISONS[type(operator)]()
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        is_or = isinstance(node.op, ast.Or)
        yield ast.BoolOp(ast.And() if is_or else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.AugAssign)):
        if type(node.op) in _ARITHMETIC and not _is_union(node):
            changed = copy.copy(node)
            changed.op = _ARITHMETIC[type(node.op)]()
            yield changed
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    else:
        yield from _statements(node)


def _constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, (int, float)):
        yield ast.Constant(value + 1)
    elif isinstance(value, bytes) and value:
        yield ast.Constant(value[:-1] + b"~")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Return):
        if node.value and not isinstance(node.value, ast.Constant):
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.If):
        yield ast.If(ast.Constant(True), node.body, node.orelse)
        yield ast.If(ast.Constant(False), node.body, node.orelse)
    elif isinstance(node, (ast.Raise, ast.Continue, ast.Break)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()


def _is_union(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether `a | b` joins types, as in an alias."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitOr):
        return False
    return all(
        isinstance(side, ast.Name) and (side.id[0].isupper() or side.id == "int")
        for side in (node.left, node.right)
    )


def _short(node: ast.AST) -> str:
    """The first line of a node's source, short enough for a list."""
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
    line = text.splitlines()[0].removesuffix(":").replace("`", "'").replace("|", "¦")
    return line if len(line) <= 60 else line[:59] + "…"
