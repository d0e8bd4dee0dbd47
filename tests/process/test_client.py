"""One client: what it records, what it refuses by name, and what it never does."""

from __future__ import annotations

import contextlib
import decimal
import math
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.files import try_lock
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names
from tests.support.loopback import Server
from tests.support.surroundings import (
    bare_environment,
    only_environment,
    quiet_config,
    run_python,
    spooled,
)


RUN = telemetry.CommandEvent(action="run", success=True)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path) -> Iterator[None]:
    with only_environment(bare_environment(tmp_path / "user")):
        yield


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def client(home: Path) -> Iterator[telemetry.Client]:
    with telemetry.Client(quiet_config(home, strict=True)) as one:
        yield one


def told(home: Path) -> list[dict[str, Any]]:
    """The properties of every event that waits."""
    return [event["properties"] for event in spooled(home)]


def refused(home: Path) -> dict[str, int]:
    return refusals.read(Home(str(home)).refused)


def test_a_client_that_records_nothing_makes_nothing(tmp_path: Path) -> None:
    """A program that never tracks must leave no trace on the disk."""
    home = tmp_path / "home"
    with telemetry.Client(quiet_config(home)) as client:
        assert client.config.app == "app"
        assert client.version == "unknown"
        assert client.decision().on
    assert list(tmp_path.iterdir()) == []


def test_true_means_that_it_is_in_the_spool(
    client: telemetry.Client, home: Path
) -> None:
    """The one promise that all others rest on."""
    for number in range(20):
        assert client.track(telemetry.CommandEvent(action=str(number)))
        assert len(spooled(home)) == number + 1
    assert [event["action"] for event in told(home)] == [str(n) for n in range(20)]
    assert refused(home) == {}


def test_a_killed_program_has_recorded_what_it_was_told(tmp_path: Path) -> None:
    """`kill -9` right after the answer: the event is there all the same."""
    source = """
import os, signal, sys, telemetry
client = telemetry.Client(
    telemetry.Config(app="app", home=sys.argv[1], flush="manual", scrub=False)
)
client.track(telemetry.CommandEvent(action="run")) and os.kill(os.getpid(), signal.SIGKILL)
"""
    child = run_python(
        source, str(tmp_path / "home"), environment=bare_environment(tmp_path)
    )
    assert child.returncode == -signal.SIGKILL
    assert len(spooled(tmp_path / "home")) == 1


def test_events_may_follow_a_close(client: telemetry.Client, home: Path) -> None:
    """Closing lets go of the segment; whoever comes late takes one again."""
    assert client.track(RUN)
    (name,) = segment_names(Home(str(home)))
    with Path(home / "spool" / name).open() as segment:
        assert not try_lock(segment.fileno())
        client.close()
        assert try_lock(segment.fileno())
    client.close()
    assert client.track(RUN)
    assert segment_names(Home(str(home))) == [name]
    assert len(spooled(home)) == 2


def test_a_client_ends_with_its_block(home: Path) -> None:
    """An exception of the program passes, and the segment is free."""
    with (
        contextlib.suppress(LookupError),
        telemetry.Client(quiet_config(home)) as client,
    ):
        client.track(RUN)
        raise LookupError
    (name,) = segment_names(Home(str(home)))
    with Path(home / "spool" / name).open() as segment:
        assert try_lock(segment.fileno())


def test_a_session_is_told_from_start_to_end(
    client: telemetry.Client, home: Path
) -> None:
    """Tool calls carry the ids they are given, tokens those of the session."""
    assert client.record_session_start("root", "s1") == "s1"
    client.record_tool_call("shell", "s2", "other", timedelta(microseconds=1999))
    client.record_tool_call("shell", "s1", "root", timedelta(seconds=1), "failed")
    client.record_tool_call(
        "shell", "s1", "root", timedelta(microseconds=-1500), LookupError("no key")
    )
    client.record_token_usage("model", 100, 50, 0.5)
    client.record_error("agent failed")
    client.record_session_end()
    client.record_session_end()
    client.record_error("too late")
    client.record_token_usage("model", 1, 1, 0.0)

    start, one, two, three, tokens, end, late = told(home)
    assert (start["action"], start["session_id"]) == ("start", "s1")
    assert (one["duration_ms"], one["is_success"]) == (1, True)
    assert (one["session_id"], one["agent_name"]) == ("s2", "other")
    assert (two["duration_ms"], two["error"]) == (1000, "failed")
    assert (three["duration_ms"], three["error"]) == (-1, "LookupError: no key")
    assert not two["is_success"]
    assert (tokens["total_tokens"], tokens["session_id"]) == (150, "s1")
    assert end["error"] == ["failed", "LookupError: no key", "agent failed"]
    assert (end["error_count"], end["tool_calls"]) == (3, 3)
    assert (end["cost"], end["is_success"]) == (0.5, False)
    assert late["session_id"] == "s1"


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("", ""),
        (Exception(), "Exception"),
        (ValueError("why"), "ValueError: why"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (MuteError(), "MuteError"),
        (Exception("\ud800"), "Exception: \ufffd"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_an_error_whatever_it_says(
    error: BaseException | str, text: str, client: telemetry.Client, home: Path
) -> None:
    """An exception without text still means that the tool failed."""
    client.record_session_start("root", "s1")
    client.record_tool_call("shell", "s1", "root", timedelta(0), error)
    client.record_session_end()
    _, tool, end = told(home)
    assert tool["is_success"] is False
    assert tool.get("error", "") == text
    assert (end["error"], end["error_count"]) == ([text], 1)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("record_token_usage", ("model", 1.5, 1, 0.5)),
        ("record_token_usage", ("model", 1, "2", 0.5)),
        ("record_token_usage", ("model", 1, None, 0.5)),
        ("record_token_usage", ("model", 1, 1, None)),
        ("record_token_usage", ("model", 1, 1, "a lot")),
        ("record_token_usage", ("model", 1, 1, 10**400)),
        ("record_tool_call", ("tool", "s1", "root", 1.5)),
        ("record_tool_call", ("tool", "s1", "root", None)),
        ("record_tool_call", (None, "s1", "root", timedelta(0))),
        ("record_token_usage", (object(), 1, 1, 0.5)),
        ("track", (None,)),
        ("track", (5,)),
        ("track", (telemetry.CommandEvent(action=5),)),  # type: ignore[arg-type]
    ],
)
def test_a_bad_argument_costs_one_event_and_is_counted(
    method: str, arguments: tuple[object, ...], home: Path
) -> None:
    """The session it happens in is still told, with sums of what was sound."""
    with telemetry.Client(quiet_config(home)) as client:
        client.record_session_start("root", "s1")
        client.record_token_usage("model", 10, 5, 0.25)
        assert not getattr(client, method)(*arguments)
        client.record_session_end()
    assert refused(home) == {"invalid": 1}
    assert [event["action"] for event in told(home)] == ["start", "usage", "end"]
    end = told(home)[-1]
    assert end["input_tokens"] in {10, 11}
    assert end["cost"] in {0.25, 0.75}

    strict = quiet_config(home, strict=True)
    with (
        telemetry.Client(strict) as client,
        pytest.raises(telemetry.InvalidEventError),
    ):
        getattr(client, method)(*arguments)


def test_numbers_of_other_libraries_are_numbers(
    client: telemetry.Client, home: Path
) -> None:
    """A price is often a Decimal, a count often out of an array."""

    class Index:
        def __index__(self) -> int:
            return 7

    client.record_session_start("root", "s1")
    client.record_token_usage("model", Index(), True, decimal.Decimal("0.25"))  # type: ignore[arg-type]
    client.record_token_usage("model", 1, 1, math.nan)
    client.record_error(LookupError("an exception, not a text"))  # type: ignore[arg-type]
    client.record_session_end()
    _, usage, unknown, end = told(home)
    assert (usage["input_tokens"], usage["total_tokens"], usage["cost"]) == (7, 8, 0.25)
    assert unknown["cost"] is None
    assert (end["cost"], end["total_tokens"]) == (None, 10)
    assert end["error"] == ["LookupError: an exception, not a text"]


def test_the_version_may_be_set_at_any_time(home: Path) -> None:
    """Programs often learn their version after they were configured."""
    with Server() as server:
        config = quiet_config(home, version="1.0", endpoint=server.url, api_key="a-key")
        with telemetry.Client(config) as client:
            client.version = "1.1"
            assert client.version == "1.1"
            client.track(RUN)
            client.flush()
            client.version = "1.2"
            client.track(RUN)
            assert client.flush().delivered == 1
            client.version = 5  # type: ignore[assignment]
            client.version = "1.3\r\nX-Evil: 1"
            assert client.track(RUN)
            assert client.flush().delivered == 1
        agents = [request.headers["user-agent"] for request in server.requests]
        assert agents == ["app/1.1", "app/1.2", "app/unknown"]
        assert not any("x-evil" in request.headers for request in server.requests)
        sent = [request.body for request in server.requests]
    assert [b'"version":"1.1"' in sent[0], b'"version":"1.2"' in sent[1]] == [True] * 2


def test_a_flush_says_what_came_of_it(client: telemetry.Client, home: Path) -> None:
    """Without an endpoint events wait; nothing is lost and nothing is raised."""
    client.track(RUN)
    report = client.flush()
    assert (report.stopped, report.delivered, report.pending) == ("off", 0, 1)
    assert len(spooled(home)) == 1


def test_a_flush_that_fails_counts_no_loss(home: Path) -> None:
    """The books say how many events were refused; a flush that cannot run refuses none."""
    with telemetry.Client(quiet_config(home)) as client:
        client.track(RUN)
        assert client.flush(timeout_s=None).stopped == "disk"  # type: ignore[arg-type]
    assert refused(home) == {}
    assert len(spooled(home)) == 1


def test_threads_record_every_event_once(home: Path) -> None:
    """A first event may come from many threads at once."""
    config = quiet_config(home)
    threads = 16
    together = threading.Barrier(threads)

    with telemetry.Client(config) as client:

        def record(number: int) -> int:
            together.wait(10)
            return sum(
                client.track(telemetry.CommandEvent(action=f"{number}/{index}"))
                for index in range(20)
            )

        with ThreadPoolExecutor(threads) as pool:
            recorded = sum(pool.map(record, range(threads)))
    assert recorded == threads * 20
    actions = [event["action"] for event in told(home)]
    assert len(set(actions)) == len(actions) == recorded
    assert len({event["event_id"] for event in told(home)}) == recorded
    assert len({event["user_uuid"] for event in told(home)}) == 1
    assert refused(home) == {}


def test_a_client_that_is_off_says_why(home: Path) -> None:
    """`status --explain` and a support question both need the rule."""
    with telemetry.Client(quiet_config(home, enabled=False)) as client:
        assert not client.track(RUN)
        assert client.record_session_start("root", "s1") == "s1"
        assert client.flush().stopped == "off"
        decision = client.decision()
        assert (decision.on, decision.rule) == (False, "program")
    assert not home.exists()
    os.environ["DO_NOT_TRACK"] = "1"
    off = telemetry.Client.off("another")
    assert off.config.app == "another"
    assert off.decision().rule == "do-not-track"
    assert not off.track(RUN)
