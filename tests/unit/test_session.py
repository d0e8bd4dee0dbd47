"""Counting a session: what happened between its start and its end, told once."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.session import ERRORS_MAX, SessionState, SessionTokenUsage, start


def call(session: SessionState, error: str | None = None) -> None:
    session.count_tool_call("tool", "s", "a", timedelta(seconds=1), error)


def test_an_end_tells_what_happened() -> None:
    """One event in place of hundreds: it must add up."""
    session = start("s1", "root", 100.0)
    call(session)
    call(session, "it failed")
    session.count_tokens("m", 100, 50, 0.5)
    session.count_tokens("m", 10, 5, 0.25)
    session.count_error("agent failed")
    event = session.end(101.5)
    assert event is not None
    assert (event.action, event.session_id, event.agent_name) == ("end", "s1", "root")
    assert event.duration_ms == 1500
    assert event.tool_calls == 2
    assert (event.input_tokens, event.output_tokens, event.total_tokens) == (
        110,
        55,
        165,
    )
    assert event.cost == 0.75
    assert event.error == ["it failed", "agent failed"]
    assert (event.error_count, event.is_success) == (2, False)


def test_an_end_is_told_once() -> None:
    """A session that ended twice would count twice."""
    session = start("s1", "root", 0.0)
    assert session.end(1.0) is not None
    assert session.end(2.0) is None
    assert not session.is_open()


@pytest.mark.parametrize(
    ("session_id", "agent_name"), [("", ""), ("s1", ""), ("", "root")]
)
def test_without_both_ids_there_is_no_session(session_id: str, agent_name: str) -> None:
    """An end that belongs to nobody cannot be matched with its start."""
    session = start(session_id, agent_name, 0.0)
    session.count_error("lost")
    call(session, "counted")
    assert session.end(1.0) is None
    assert session.error == ["counted"]


def test_before_the_first_start_there_is_no_end() -> None:
    """A program may end what it never began."""
    session = SessionState()
    session.count_error("early")
    assert session.error_count == 0
    assert session.end(1.0) is None


def test_an_error_counts_while_the_session_is_open() -> None:
    """What fails after the end is another session's affair; a tool call counts always."""
    session = start("s1", "root", 0.0)
    session.count_error("during")
    session.end(1.0)
    session.count_error("after")
    assert session.error_count == 1
    call(session, "a tool after the end")
    assert (session.error_count, session.tool_calls) == (2, 1)


def test_an_error_without_text_is_an_error() -> None:
    """Some exceptions say nothing; they still mean that something failed."""
    session = start("s1", "root", 0.0)
    session.count_error("")
    call(session, "")
    event = session.end(1.0)
    assert event is not None
    assert (event.error, event.error_count, event.is_success) == (["", ""], 2, False)


def test_a_session_without_errors_tells_an_empty_list() -> None:
    """Null would mean that nobody looked."""
    event = start("s1", "root", 0.0).end(1.0)
    assert event is not None
    assert (event.error, event.error_count, event.is_success) == ([], 0, True)


def test_a_thousand_errors_do_not_cost_the_end() -> None:
    """The list is bounded, so that the event stays below its bound; the count goes on."""
    session = start("s1", "root", 0.0)
    for number in range(1000):
        session.count_error(f"error {number}")
    event = session.end(1.0)
    assert event is not None
    assert event.error == [f"error {number}" for number in range(ERRORS_MAX)]
    assert event.error_count == 1000


def test_a_start_without_an_end_begins_anew() -> None:
    """Nothing of one session may be told as another's."""
    first = start("s1", "a1", 0.0)
    call(first, "failed")
    first.count_tokens("m", 1, 2, 3.0)
    second = start("s2", "a2", 5.0)
    assert (second.tool_calls, second.error_count, second.error) == (0, 0, [])
    assert second.token_usage == SessionTokenUsage()
    assert first.token_usage == SessionTokenUsage(1, 2, 3.0)


@pytest.mark.parametrize(
    ("begun", "ended", "duration_ms"),
    [
        (0.0, 0.0, 0),
        (0.0, 0.0009, 0),
        (0.0, 0.001, 1),
        (0.5, 2.0, 1500),
        (0.0, 3600.0, 3_600_000),
        (0.0, -0.0015, -1),
    ],
)
def test_a_duration_is_cut_toward_zero(
    begun: float, ended: float, duration_ms: int
) -> None:
    """As in the original: 1999 microseconds are one millisecond."""
    event = start("s", "a", begun).end(ended)
    assert event is not None
    assert event.duration_ms == duration_ms


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-1000, 1000).map(lambda cents: cents / 4),
        ),
        max_size=20,
    )
)
def test_sums_are_exact(usages: list[tuple[int, int, float]]) -> None:
    """Integers of 64 bits wrap and floats round; a sum of tokens does neither."""
    session = start("s", "a", 0.0)
    for usage in usages:
        session.count_tokens("m", *usage)
    event = session.end(1.0)
    assert event is not None
    assert event.input_tokens == sum(usage[0] for usage in usages)
    assert event.output_tokens == sum(usage[1] for usage in usages)
    assert event.total_tokens == event.input_tokens + event.output_tokens
    assert event.cost == sum(usage[2] for usage in usages)


def test_a_cost_that_is_no_number_makes_the_sum_none() -> None:
    """A sum without the part that nobody knows would look like the whole."""
    session = start("s", "a", 0.0)
    session.count_tokens("m", 1, 1, math.nan)
    session.count_tokens("m", 2, 2, 1.0)
    event = session.end(1.0)
    assert event is not None
    assert math.isnan(event.cost)
    assert (event.input_tokens, event.output_tokens) == (3, 3)
