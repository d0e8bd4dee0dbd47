"""The proof of the system calls finds what is wrong: in a run, and in the code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry.paths import Home
from telemetry.spool.frame import encode
from telemetry.spool.reader import segment_names
from tests.proofs.system_calls.cases import Case, cases
from tests.proofs.system_calls.laboratory import Laboratory
from tests.proofs.system_calls.planted import BUGS, Bug, found_in
from tests.proofs.system_calls.scenes import HOME
from tests.proofs.system_calls.tracing import Ran, can_trace


@pytest.fixture(scope="module", autouse=True)
def tracer() -> None:
    """Nothing here goes without it."""
    if not can_trace():
        pytest.skip("needs strace, and leave to attach it to a child")


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    """One for all."""
    with Laboratory() as made:
        yield made


# A run is spoilt where it lies, or in what it said.
Spoil = Callable[[Home, Ran], Ran]


def as_it_is(_: Home, ran: Ran) -> Ran:
    """Nothing is spoilt."""
    return ran


def without_the_last_event(home: Home, ran: Ran) -> Ran:
    """The newest segment ends one record early, as after a cut that nobody sees."""
    path = Path(home.segment(segment_names(home)[-1]))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\x1e")])
    return ran


def with_another_event(home: Home, ran: Ran) -> Ran:
    """One more event, of nobody's, in a segment of its own."""
    name = segment_names(home)[-1]
    event = Path(home.segment(name)).read_bytes()
    found = event[event.rindex(b'"rec":') + 6 : -2]
    other = found.replace(b'"number":1004', b'"number":2004')
    other = other.replace(b'"event_id":"0', b'"event_id":"f')
    assert other != found
    made = f"{int(name[:20]) + 1:020d}{name[20:]}"
    Path(home.segment(made)).write_bytes(encode(0, other))
    return ran


def with_a_false_yes(_: Home, ran: Ran) -> Ran:
    """The host was told that an event is kept which never was."""
    return ran._replace(said=[*ran.said, "tracked 1005 True"])


def with_a_false_no(_: Home, ran: Ran) -> Ran:
    """The host was told that an event is not kept which is."""
    said = [line.replace("1002 True", "1002 False") for line in ran.said]
    return ran._replace(said=said)


def with_another_user(home: Home, ran: Ran) -> Ran:
    """The user has got another id."""
    Path(home.user_uuid).write_text("somebody else\n")
    return ran


def with_litter(home: Home, ran: Ran) -> Ran:
    """A file stays that no home has."""
    Path(home.root, "left-over").touch()
    return ran


def with_words(_: Home, ran: Ran) -> Ran:
    """Something was printed into the host's output."""
    return ran._replace(output=(ran.output[0], "a warning\n"))


def with_another_code(_: Home, ran: Ran) -> Ran:
    """The host's exit code is another one."""
    return ran._replace(status=1)


def that_hung(_: Home, ran: Ran) -> Ran:
    """The host had to be ended."""
    return ran._replace(hung=True)


@pytest.mark.parametrize(
    ("spoil", "kinds"),
    [
        (as_it_is, set()),
        (without_the_last_event, {"lost"}),
        (with_another_event, {"spurious"}),
        (with_a_false_yes, {"lost"}),
        (with_a_false_no, {"spurious"}),
        (with_another_user, {"identity"}),
        (with_litter, {"litter"}),
        (with_words, {"host"}),
        (with_another_code, {"host"}),
        (that_hung, {"hang"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_judge_says_what_is_wrong(
    laboratory: Laboratory, spoil: Spoil, kinds: set[str]
) -> None:
    """A judge that has never condemned anything has proved nothing."""
    scene, _ = laboratory.scene("record-later")

    def spoilt(directory: str, ran: Ran) -> Ran:
        return spoil(Home(f"{directory}/{HOME}"), ran)

    problems = laboratory.undisturbed(scene, spoilt)
    assert {problem.split(":")[0] for problem in problems} == kinds, problems


def test_a_judge_misses_an_event_that_a_flusher_has_lost(
    laboratory: Laboratory,
) -> None:
    """What was held before the run is compared as well, and so are the books."""
    scene, _ = laboratory.scene("flush-waiting")

    def spoilt(directory: str, ran: Ran) -> Ran:
        home = Home(f"{directory}/{HOME}")
        (name,) = segment_names(home)
        os.unlink(home.segment(name))
        return ran

    problems = laboratory.undisturbed(scene, spoilt)
    assert {"lost", "books"} <= {problem.split(":")[0] for problem in problems}


def test_a_call_that_is_not_met_again_counts_as_missed(laboratory: Laboratory) -> None:
    """Faults that never happen would pass for faults that do no harm."""
    scene, calls = laboratory.scene("record-off")
    (case,) = (
        case
        for case in cases(scene, calls)
        if case.fault and case.fault.error == "EIO" and case.fault.call.name == "openat"
        if not case.fault.onwards
    )
    assert case.fault is not None
    never = case.fault._replace(call=case.fault.call._replace(number=10_000))
    missed = laboratory.totals["missed"]
    assert laboratory.check(Case(scene, never)) == []
    assert laboratory.totals["missed"] == missed + 1


@pytest.mark.proof
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(tmp_path: Path, bug: Bug) -> None:
    """It is run for bugs that nobody planted: it must find those that were."""
    totals = found_in(bug, str(tmp_path))
    shutil.rmtree(tmp_path / "tree")
    assert totals[bug.shown_by], totals
