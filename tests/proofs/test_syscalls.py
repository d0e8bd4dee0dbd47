"""Every system call on a home may fail, and may be the last: no event is lost by it.

A sample; `python -m tests.proofs.system_calls.syscalls --long` does all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proofs.system_calls.calls import Fault
from tests.proofs.system_calls.cases import Case, cases, sample
from tests.proofs.system_calls.laboratory import SCENES, Laboratory
from tests.proofs.system_calls.tracing import can_trace


# Cases of each scene that make some seconds together.
_FEW = 15
# The same for a minute.
_MANY = 60


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    """One for all, since its scenes take longer to make than a case to run."""
    if not can_trace():
        pytest.skip("needs strace, and leave to attach it to a child")
    with Laboratory() as made:
        yield made


def assert_all_well(laboratory: Laboratory, chosen: list[Case]) -> None:
    """No case shows anything wrong, and each met the call that it was about."""
    missed = laboratory.totals["missed"]
    wrong = [
        f"{case}: {problem}" for case in chosen for problem in laboratory.check(case)
    ]
    assert wrong == []
    assert laboratory.totals["missed"] - missed <= len(chosen) // 50


def cases_of(laboratory: Laboratory, name: str) -> list[Case]:
    """All of a scene."""
    scene, calls = laboratory.scene(name)
    assert len(calls) > 4
    return list(cases(scene, calls))


@pytest.mark.parametrize("name", SCENES)
def test_a_call_that_fails_or_is_the_last_costs_no_event(
    laboratory: Laboratory, name: str
) -> None:
    """Disks, limits and kills strike between any two steps, not between functions."""
    assert_all_well(laboratory, sample(cases_of(laboratory, name), _FEW))


@pytest.mark.proof
@pytest.mark.parametrize("name", SCENES)
def test_many_calls_that_fail_or_are_the_last_cost_no_event(
    laboratory: Laboratory, name: str
) -> None:
    """The few above are a sample; what they pass over is found by the many."""
    assert_all_well(laboratory, sample(cases_of(laboratory, name), _MANY))


@pytest.mark.parametrize("name", ["record-first", "record-later", "record-power"])
def test_a_write_that_takes_less_is_not_believed(
    laboratory: Laboratory, name: str
) -> None:
    """Half a record reaches nobody: who was answered True would have lost it."""
    every = cases_of(laboratory, name)
    chosen = [case for case in every if case.kind in {"short", "length"}]
    assert len(chosen) >= 20
    cut = laboratory.totals["cut"]
    assert_all_well(laboratory, chosen)
    # Some were taken in part by the system itself, not only said to be.
    assert laboratory.totals["cut"] > cut


def test_a_read_that_fails_once_does_not_set_the_ledger_aside(
    laboratory: Laboratory,
) -> None:
    """SQLite calls a file malformed whose read failed; its counts would be gone."""
    scene, calls = laboratory.scene("flush-drain")
    reads = [
        Case(scene, Fault(call, "EIO"))
        for call in calls
        if call.name == "pread64" and "/ledger/" in call.text
    ]
    assert reads
    assert_all_well(laboratory, sample(reads, _MANY // 2))


def test_an_id_that_cannot_be_read_at_this_moment_stays(laboratory: Laboratory) -> None:
    """A program out of descriptors must not make somebody else of its user."""
    scene, calls = laboratory.scene("record-later")
    looks = [
        Case(scene, Fault(call, error))
        for call in calls
        if "/user-uuid" in call.text
        for error in ("EMFILE", "EIO")
    ]
    assert len(looks) >= 8
    assert_all_well(laboratory, looks)
