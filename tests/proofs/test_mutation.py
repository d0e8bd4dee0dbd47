"""Mutants: the list is the same each time, and each is one fault that compiles.

`python -m tests.proofs.mutation` tries them; that takes too long for a test.
"""

from __future__ import annotations

import ast
from collections import Counter

from tests.proofs.mutation.__main__ import all_mutants, listed
from tests.proofs.mutation.mutants import mutants_of
from tests.proofs.mutation.trying import REPOSITORY


SOURCE = '''
"""A docstring with 1 number."""
BOUND = 4
def f(a: int, b: int | None = 2) -> bool:
    """Another, 2 < 3."""
    if TYPE_CHECKING:
        import x
    log.debug("never", 7)
    if a < b and g(not a):
        return a + b
    a += 1
    raise ValueError(f"{a + 1} is bad")
'''
EXPECTED = """
module: 4 becomes 5
f: 2 becomes 3
f: if a < b and g(not a) becomes if True
f: if a < b and g(not a) becomes if False
f: a < b and g(not a) becomes a < b or g(not a)
f: a < b becomes a <= b
f: not a becomes a
f: return a + b becomes return None
f: a + b becomes a - b
f: a += 1 becomes a -= 1
f: 1 becomes 2
f: raise ValueError(f'{a + 1} is bad') becomes pass
"""


def test_each_kind_of_fault_is_made_and_texts_are_left_alone() -> None:
    """A mutant of a docstring would survive, and hide those that matter."""
    assert [each.name for each in mutants_of(SOURCE)] == EXPECTED.strip().splitlines()


def test_names_are_unique_and_stay() -> None:
    """A survivor is listed by its name, with the reason why no test can kill it."""
    names = Counter((module, mutant.name) for module, mutant in all_mutants([]))
    assert len(names) >= 200
    assert max(names.values()) == 1
    assert list(names) == [(module, it.name) for module, it in all_mutants([])]


def test_what_is_listed_as_a_survivor_is_a_mutant() -> None:
    """A reason outlives the line that it is about."""
    names = {f"{module}: {mutant.name}" for module, mutant in all_mutants([])}
    assert len(listed()) > 20
    assert [name for name in listed() if name not in names] == []


def test_each_mutant_differs_from_the_module_and_compiles() -> None:
    """One that does not compile would count as killed without any test."""
    source = (REPOSITORY / "telemetry/spool/frame.py").read_text("utf-8")
    plain = ast.unparse(ast.parse(source))
    for mutant in mutants_of(source):
        mutated = mutant.within(source)
        compile(mutated, mutant.name, "exec")
        assert mutated != plain, mutant.name
