"""What one event may draw, and how the others arrive all the same."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import misbehaving as bad
from tests.support.delivering import census_of, client_of, record
from tests.support.loopback import Behaviour, Received, Server


FINE = bad.reply(200)
DRAWN: dict[str, Behaviour] = {
    "a reset": bad.reset_at_once,
    "a close": bad.close_at_once,
    "a block page": bad.html(),
    "a redirect": bad.redirect(302, "http://127.0.0.1:9/"),
    **{str(status): bad.reply(status) for status in (401, 403, 409, 431, 500, 503)},
}


def _tools(request: Received) -> list[str]:
    events = json.loads(request.plain_body)["records"]
    return [event["properties"]["tool_name"] for event in events]


@pytest.mark.parametrize("drawn", DRAWN)
def test_whatever_one_event_draws_the_others_of_its_batch_arrive(
    drawn: str, tmp_path: Path
) -> None:
    """There is no other segment to compare it with: the batch itself is cut."""
    home = tmp_path / "home"

    def choose(request: Received) -> Behaviour:
        return DRAWN[drawn] if "tool-2" in _tools(request) else FINE

    with Server(choose=choose) as server, client_of(home, server.url, events=5) as it:
        for _ in range(12):
            if it.flush(timeout_s=1.0).pending == 1:
                break
    census = census_of(home)
    assert (census.delivered, census.pending + census.dead) == (4, 1)
    assert census.holds()


def test_segments_that_each_begin_with_a_bad_event_hold_back_nothing(
    tmp_path: Path,
) -> None:
    """Every batch there is has one, so none is accepted whole."""
    home = tmp_path / "home"

    def choose(request: Received) -> Behaviour:
        return bad.reply(400) if "tool-0" in _tools(request) else FINE

    with Server(choose=choose) as server:
        clients = [client_of(home, server.url, events=5) for _ in range(9)]
        opened = [client.__enter__() for client in clients]
        report = opened[0].flush(timeout_s=10)
        assert (report.delivered, report.pending) == (36, 9)
        for client in clients:
            client.__exit__(None, None, None)
    assert census_of(home).holds()


def test_a_server_that_fails_for_all_sees_four_requests_of_a_flush(
    tmp_path: Path,
) -> None:
    """One that is down is not helped by being asked; nothing is held against events."""
    home = tmp_path / "home"
    with (
        Server(bad.reply(503)) as server,
        client_of(home, server.url, events=5),
        client_of(home, server.url, events=5) as it,
    ):
        for _ in range(6):
            report = it.flush(timeout_s=6)
            assert (report.stopped, report.requests <= 4) == ("waiting", True)
    with Server() as server, client_of(home, server.url) as it:
        record(it, 1)
        assert it.flush(timeout_s=10).delivered == 11
    assert census_of(home).dead == 0


def test_what_was_posted_as_one_is_under_way_once(tmp_path: Path) -> None:
    """With smaller batches than before, the rest of a range went with the whole again.

    Its second answer found nothing left to settle, and ended every flush.
    """
    home, nowhere = tmp_path / "home", "http://127.0.0.1:9/"
    with ExitStack() as stack:
        # Programs side by side have a segment each.
        for number in range(3):
            client = stack.enter_context(client_of(home, nowhere, events=0))
            record(client, 4, first=10 * number)
    with (
        Server(bad.silent_after(b"")) as server,
        client_of(home, server.url, events=0, request_timeout_s=0.3) as client,
    ):
        assert client.flush(timeout_s=60).stopped == "waiting"
    with (
        Server() as server,
        client_of(
            home, server.url, events=0, format="ndjson", batch_events_max=1
        ) as client,
    ):
        report = client.flush(timeout_s=60)
        assert (report.stopped, report.delivered) == ("drained", 12)
        lines = [
            line for each in server.requests for line in each.plain_body.splitlines()
        ]
        ids = [json.loads(line)["properties"]["event_id"] for line in lines]
        assert len(ids) == len(set(ids)) == 12
    assert census_of(home).holds()
