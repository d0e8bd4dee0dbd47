"""The recorded runs of the Go original, through the public interface, over a socket.

Equal as JSON after dropping `event_id`, request by request, except where the
original is wrong: each of those cases is named with what is wrong about it,
is run all the same (`recorded_differences.py`), and is held against what is right here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.loopback import Received, Server
from tests.support.recorded_differences import DIFFERENT, OFF_WORDS, Different
from tests.support.replay import Case, Replay, cases
from tests.support.surroundings import PATIENCE_S, REPOSITORY, bare_environment


CASES = cases()
# Nobody: a user whose permissions the kernel really checks.
NOBODY = 65534
UUID4 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
UUID7 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
# `{"event": …, "event_timestamp": …, "source": …, "properties": …}`, in that order.
EVENT = re.compile(
    rb'\{"event":"(?:command|tool|token|session)","event_timestamp":[0-9]{13},'
    rb'"source":"cagent","properties":(\{.*\})\}',
    re.DOTALL,
)

# These need a user whom the modes of files keep out.
AS_NOBODY = {
    "uuid/unwritable_dir_nonroot",
    "uuid/writeonly_file_nonroot_is_overwritten",
}
HERE = [name for name in CASES if name not in AS_NOBODY]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


def test_every_case_is_compared_but_the_named_ones() -> None:
    """A case that is skipped in silence could hide the one difference that matters."""
    assert len(CASES) == 187
    assert sum(len(case.requests) for case in CASES.values()) == 231
    assert set(DIFFERENT) < set(CASES)
    assert len(DIFFERENT) == 30
    # 157 cases with 182 events leave as they were recorded.
    equal = [case for name, case in CASES.items() if name not in DIFFERENT]
    assert (len(equal), sum(len(case.requests) for case in equal)) == (157, 182)


@pytest.mark.parametrize("name", HERE)
def test_requests_leave_as_recorded(name: str, server: Server, tmp_path: Path) -> None:
    """Collectors that took the original's events must not notice the difference."""
    case = CASES[name]
    requests, answers = replayed(case, server, tmp_path, flush_each=True)
    assert_answered(case, answers)
    # One event was recorded between two flushes, so one was sent in each request.
    expected = expected_requests(case)
    assert [len(records(request.body)) for request in requests] == [1] * len(expected)
    for request, (headers, _) in zip(requests, expected, strict=True):
        assert {key: request.headers.get(key) for key in headers} == headers


@pytest.mark.parametrize("name", [n for n in HERE if len(CASES[n].requests) > 1])
def test_events_keep_their_order_in_a_batch(
    name: str, server: Server, tmp_path: Path
) -> None:
    """What was one request each in the original leaves in one, in the same order."""
    requests, _ = replayed(CASES[name], server, tmp_path, flush_each=False)
    assert len(requests) == (0 if DIFFERENT.get(name, Different()).silent else 1)


def replayed(
    case: Case, server: Server, directory: Path, *, flush_each: bool
) -> tuple[list[Received], list[Any]]:
    """The case after its run: what arrived was held against what was recorded."""
    replay = Replay(case, directory, server.url)
    replay.arrange()
    if case.name == "uuid/config_dir_is_a_file":
        Path(replay.home().root).parent.mkdir(parents=True)
        Path(replay.home().root).write_text("in the way")
    first = len(server.requests)
    begun_ms = time.time_ns() // 1_000_000
    answers = replay.run(flush_each=flush_each)
    ended_ms = time.time_ns() // 1_000_000
    requests = server.requests[first:]
    events = [event for request in requests for event in records(request.body)]
    assert_sent(case, replay, events, begun_ms, ended_ms)
    return requests, answers


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users as on POSIX systems")
@pytest.mark.parametrize("name", sorted(AS_NOBODY))
def test_permissions_are_met_as_an_ordinary_user(name: str, server: Server) -> None:
    """The superuser may read and write everything, so it would prove nothing here."""
    case = CASES[name]
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        replay = Replay(case, directory, server.url)
        (directory / "home").mkdir()
        home = Path(replay.home().root)
        home.mkdir(parents=True)
        if name == "uuid/unwritable_dir_nonroot":
            home.chmod(0o500)
        else:
            (home / "user-uuid").write_text("not to be read")
            (home / "user-uuid").chmod(0o222)
        if user != os.geteuid():
            for path in (directory, *directory.rglob("*")):
                os.chown(path, user, user)

        first = len(server.requests)
        begun_ms = time.time_ns() // 1_000_000
        child = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.support.replay",
                name,
                made,
                server.url,
                str(user),
            ],
            env=bare_environment(directory / "home"),
            cwd=REPOSITORY,
            capture_output=True,
            timeout=PATIENCE_S,
            check=True,
        )
        ended_ms = time.time_ns() // 1_000_000
        answers = msgspec.json.decode(child.stdout)

        sent = [e for request in server.requests[first:] for e in records(request.body)]
        assert_sent(case, replay, sent, begun_ms, ended_ms)
        calls = [method for method, _ in case.calls]
        assert [
            answer
            for method, answer in zip(calls, answers, strict=True)
            if method == "Track"
        ] == [True] * calls.count("Track")
        assert (home / "user-uuid").stat().st_mode & 0o777 == 0o600


def test_a_long_session_is_told_in_milliseconds(server: Server, tmp_path: Path) -> None:
    """The recording lifted durations out; that they are right is shown here."""
    for name, rewound_us in (
        ("record/session_duration_rewind_us_999", 999),
        ("record/session_duration_rewind_us_1999", 1999),
        ("record/session_duration_rewind_us_3600000000", 3_600_000_000),
        ("record/session_full", 90_061_000),
    ):
        replay = Replay(CASES[name], tmp_path / name, server.url)
        replay.arrange()
        first = len(server.requests)
        begun = time.monotonic()
        replay.run(flush_each=False)
        took_ms = (time.monotonic() - begun) * 1000
        sent = [e for request in server.requests[first:] for e in records(request.body)]
        duration_ms = msgspec.json.decode(sent[-1])["properties"]["duration_ms"]
        assert rewound_us // 1000 <= duration_ms <= rewound_us / 1000 + took_ms


def records(body: bytes) -> list[bytes]:
    """The events of a request's body, byte for byte."""
    assert body.startswith(b'{"records":[')
    assert body.endswith(b"]}")
    decoded = msgspec.json.decode(body, type=dict[str, list[msgspec.Raw]])
    assert list(decoded) == ["records"]
    return [bytes(raw) for raw in decoded["records"]]


def assert_form(event: bytes) -> None:
    """The bytes themselves: the order of the fields; the payload's are by name, then
    the event's id, then by name what all events have in common."""
    found = EVENT.fullmatch(event)
    assert found is not None, event[:200]
    names = list(msgspec.json.decode(found[1]))
    at = names.index("event_id")
    for part in (names[:at], names[at + 1 :]):
        assert part == sorted(part, key=str.encode)


def assert_sent(
    case: Case, replay: Replay, events: list[bytes], begun_ms: int, ended_ms: int
) -> None:
    expected = [event for _, event in expected_requests(case)]
    assert len(events) == len(expected)
    id_file = Path(replay.home().user_uuid)
    last_ms = begun_ms
    for raw, wanted in zip(events, expected, strict=True):
        assert_form(raw)
        event = msgspec.json.decode(raw)
        properties = event["properties"]
        assert UUID7.fullmatch(properties.pop("event_id"))
        assert last_ms <= event["event_timestamp"] <= ended_ms
        last_ms = event["event_timestamp"]
        event["event_timestamp"] = 0
        if is_lifted(case, wanted):
            assert properties["duration_ms"] >= 0
            properties["duration_ms"] = wanted["properties"]["duration_ms"] = 0
        if wanted["properties"]["user_uuid"] not in known_ids(case):
            # Drawn at random, in the recording as here; it is the one in the file.
            assert UUID4.fullmatch(properties["user_uuid"])
            assert id_file.read_bytes() == properties["user_uuid"].encode()
            wanted["properties"]["user_uuid"] = properties["user_uuid"]
        assert_same(event, wanted)


def expected_requests(case: Case) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """The recorded requests, with what is right here in place of what was wrong."""
    different = DIFFERENT.get(case.name, Different())
    requests = [] if different.silent else list(case.requests)
    for number, event in different.added.items():
        headers = {
            "user-agent": f"cagent/{event['properties']['version']}",
            "content-type": "application/json",
            "x-api-key": case.client["override"]["api_key"],
        }
        requests.insert(number, (headers, event))
    expected = []
    for number, (headers, event) in enumerate(requests):
        instead = {
            **different.properties.get(number, {}),
            "os": {"darwin": "darwin"}.get(sys.platform, "linux"),
        }
        key = {"x-api-key": different.header} if different.header else {}
        properties = {**event["properties"], **instead}
        told = {**event, "event_timestamp": 0, "properties": properties}
        expected.append(({**headers, **key}, told))
    return expected


def is_lifted(case: Case, event: dict[str, Any]) -> bool:
    """Whether it is a session's end whose duration was measured, not given."""
    given = case.name.startswith(("track/", "numbers/", "strings/"))
    return not given and event["properties"]["action"] == "end"


def known_ids(case: Case) -> set[str]:
    """The ids that the case's file gives; none where a new one has to be drawn."""
    text = (case.uuid_file or b"").decode("utf-8", "surrogateescape")
    text = re.sub("[\ud800-\udfff]", "\ufffd", text.strip(" \t\r\n\xa0\u3000"))
    return {text} - {""}


def assert_same(ours: object, recorded: object, at: str = "") -> None:
    """Equal as JSON: a number is its value, whether or not it is written with `.0`."""
    if isinstance(ours, dict) and isinstance(recorded, dict):
        assert ours.keys() == recorded.keys(), at
        for name in ours:
            assert_same(ours[name], recorded[name], f"{at}/{name}")
    elif isinstance(ours, list) and isinstance(recorded, list):
        assert len(ours) == len(recorded), at
        for number, pair in enumerate(zip(ours, recorded, strict=True)):
            assert_same(*pair, f"{at}/{number}")
    elif isinstance(ours, float) and type(recorded) is int:
        assert ours == float(recorded), at
    else:
        assert (type(ours), ours) == (type(recorded), recorded), at


def assert_answered(case: Case, answers: list[Any]) -> None:
    """What the calls answered, where the original answered anything."""
    different = DIFFERENT.get(case.name, Different())
    is_on = case.client["enabled"] and different.row != OFF_WORDS
    # A home that cannot be used is no choice: telemetry is on and nothing is kept.
    is_kept = is_on and not different.silent
    is_used = False
    for (name, _), answer, told in zip(case.calls, answers, case.returns, strict=True):
        if name == "Track":
            assert answer is is_kept
        elif name == "GetTelemetryEnabled":
            assert answer is is_on
        elif name in {"clientInfo", "GetGlobalTelemetryClient"}:
            assert answer["enabled"] is is_on
            if is_on:
                wanted = {key: told[key] for key in answer} | {"enabled": True}
                if different.header:
                    wanted["api_key_len"] = len(different.header)
                assert answer == wanted
        elif name == "uuidFile":
            assert_id_file(case, answer, is_used=is_used)
        elif name == "getUserUUID":
            assert UUID4.fullmatch(answer)
        elif told is not None:
            assert answer == told
        is_used |= name.startswith("Track") and is_kept


def assert_id_file(
    case: Case, found: tuple[bytes, int] | None, *, is_used: bool
) -> None:
    """The id's file: kept as it stands where it holds one, else new once it is used."""
    if known_ids(case):
        assert found == (case.uuid_file, 0o600)
    elif is_used:
        assert found is not None
        content, mode = found
        assert mode == 0o600
        assert UUID4.fullmatch(content.decode())
    else:
        assert found == (None if case.uuid_file is None else (case.uuid_file, 0o600))
