"""Being forgotten: off at once, and one request that a server delete what it has."""

from __future__ import annotations

import json
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from telemetry.consent import consent, read_choice
from telemetry.delivery import schedule
from telemetry.delivery.opt_out import finish_opt_out, opt_out, requests_waiting
from telemetry.paths import Home
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, client_of, record
from tests.support.launching import await_no_flusher, environment_of, launch
from tests.support.loopback import Received, Server
from tests.support.patience import PATIENCE_S
from tests.support.tooling import process, tool
from tests.support.writers import spooled_events, wait_until


def addresses(server: Server) -> dict[str, str]:
    """What the environment of a tool says."""
    return {
        "TELEMETRY_ENDPOINT": server.url,
        "TELEMETRY_DELETION_ENDPOINT": f"{server.url}/delete",
        "TELEMETRY_API_KEY": KEY,
    }


def kept_home(directory: Path, server: Server) -> tuple[Home, str]:
    """A home that has delivered events and keeps more; and its id."""
    home = Home(str(directory / "home"))
    asking = f"{server.url}/delete"
    with client_of(
        Path(home.root), server.url, events=2, deletion_endpoint=asking
    ) as client:
        assert client.flush(timeout_s=PATIENCE_S).stopped == "drained"
        record(client, 3)
    return home, Path(home.user_uuid).read_text()


def wishes(server: Server) -> list[dict[str, Any]]:
    """The events of the requests that came for a deletion, with who sent them."""
    return [
        event
        for request in server.requests
        if request.target.endswith("/delete")
        for event in json.loads(request.plain_body)["records"]
    ]


def others_since(server: Server, before: int) -> list[Received]:
    return [r for r in server.requests[before:] if not r.target.endswith("/delete")]


def holds(home: Home, text: str) -> list[str]:
    """The files in which a text stands."""
    return [
        str(path)
        for path in Path(home.root).rglob("*")
        if path.is_file() and (text in path.name or text.encode() in path.read_bytes())
    ]


def test_a_tool_that_knows_the_address_asks_at_once(tmp_path: Path) -> None:
    """One request under the old id; then nothing of it stays here."""
    with Server() as server:
        home, user_uuid = kept_home(tmp_path, server)
        sent = len(server.requests)
        done = tool("forget", home=Path(home.root), **addresses(server))
        assert (done.code, done.err) == (0, "")
        assert done.line["server"] == "deleted"
        (wish,) = wishes(server)
        assert wish["event"] == "deletion_request"
        assert wish["properties"].keys() == {"event_id", "user_uuid"}
        assert wish["properties"]["user_uuid"] == user_uuid
        assert server.requests[-1].headers["x-api-key"] == KEY
        assert others_since(server, sent) == []
        assert holds(home, user_uuid) == []
        assert requests_waiting(home) == []
        assert (
            tool("status", "--explain", home=Path(home.root)).line["reason"]
            == (
                Path(home.consent)
                .read_text()
                .replace("off", "the user turned it off", 1)
            ).strip()
        )
        # Said twice, there is nothing left to ask for.
        again = tool("forget", home=Path(home.root), **addresses(server))
        assert (again.code, again.line["server"]) == (0, "not asked")
        assert len(server.requests) == sent + 1


@pytest.mark.parametrize("named", ["TELEMETRY_DELETION_ENDPOINT", "TELEMETRY_ENDPOINT"])
def test_an_address_that_the_environment_names_is_completed_by_what_is_known(
    named: str, tmp_path: Path
) -> None:
    """The rest is what the program's last flush knew."""
    with Server() as server:
        home, _ = kept_home(tmp_path, server)
        environment = addresses(server)
        where = {name: environment[name] for name in (named, "TELEMETRY_API_KEY")}
        done = tool("forget", home=Path(home.root), **where)
        assert (done.code, done.line["server"]) == (0, "deleted")
        assert len(wishes(server)) == 1


def test_a_program_that_runs_takes_the_new_id_with_its_next_event(
    tmp_path: Path,
) -> None:
    """The server has deleted the old one, and nobody would ask it to do so again."""
    for command in ("forget", "disable"):
        for durability in ("process", "power"):
            home = Home(str(tmp_path / f"{command}-{durability}"))
            nowhere = "http://127.0.0.1:9/"
            with client_of(
                Path(home.root), nowhere, events=1, durability=durability
            ) as client:
                old = Path(home.user_uuid).read_text()
                for done in (command, "enable"):
                    assert tool(done, home=Path(home.root)).code == 0
                record(client, 2)
                told = [json.loads(each)["properties"] for each in spooled_events(home)]
            assert [each["user_uuid"] for each in told] == [
                Path(home.user_uuid).read_text()
            ] * 2
            assert old not in {each["user_uuid"] for each in told}


def test_where_no_id_is_left_that_is_why_nothing_is_asked(tmp_path: Path) -> None:
    """After `disable` it said that the program named no address, which it did."""
    with Server() as server:
        home, _ = kept_home(tmp_path, server)
        sent = len(server.requests)
        assert tool("disable", home=Path(home.root)).code == 0
        done = tool("forget", home=Path(home.root))
        assert (done.code, done.line["server"]) == (0, "not asked")
        assert done.line["why"].startswith("no id was kept under which")
        assert len(server.requests) == sent


def test_an_opt_out_beside_a_request_that_waits_asks_for_nothing_more(
    tmp_path: Path,
) -> None:
    """The id since is another one, and nobody has asked a server to delete that."""
    home = Home(str(tmp_path))
    nowhere = "http://127.0.0.1:9/"
    with client_of(tmp_path, nowhere, events=1):
        assert opt_out(home, asks=True)
    assert finish_opt_out(home)
    (waiting,) = requests_waiting(home)
    assert tool("enable", home=tmp_path).code == 0
    with client_of(tmp_path, nowhere, events=1):
        assert Path(home.user_uuid).exists()
        opt_out(home)
    assert finish_opt_out(home)
    assert requests_waiting(home) == [waiting]
    decision = consent(home, {})
    assert (decision.on, decision.asks) == (False, True)


def test_without_an_address_nothing_is_sent(tmp_path: Path) -> None:
    """It is an opt-out then, and the tool says so."""
    with Server() as server:
        home = Path(tmp_path / "home")
        with client_of(home, server.url, events=2) as client:
            client.flush(timeout_s=PATIENCE_S)
        sent = len(server.requests)
        done = tool("forget", home=home, TELEMETRY_ENDPOINT=server.url)
        assert (done.code, done.line["server"]) == (0, "not asked")
        assert not (home / "user-uuid").exists()
        assert len(server.requests) == sent


def test_it_is_kept_until_a_server_accepts_and_nothing_else_is_sent(
    tmp_path: Path,
) -> None:
    """A launch that is due asks again; the opt-out is in force all the while."""
    answers = {"/delete": [bad.reply(503), bad.reply(404), bad.html(), bad.reply(204)]}

    def choose(request: Received) -> Any:
        left = answers.get(request.target.removeprefix("/events"), [])
        return left.pop(0) if left else bad.reply(200)

    with Server(choose=choose) as server:
        home, user_uuid = kept_home(tmp_path, server)
        sent = len(server.requests)
        # The tool has no key: the program's last flush said that it has an address.
        done = tool("forget", home=Path(home.root))
        assert (done.code, done.line["server"]) == (1, "waiting")
        (waiting,) = requests_waiting(home)
        assert Path(waiting).read_text() == user_uuid
        assert os.stat(waiting).st_mode & 0o777 == 0o600
        assert not Path(home.user_uuid).exists()
        status = tool("status", home=Path(home.root)).line
        assert "still to be asked to delete" in status["reason"]
        environment = environment_of(
            tmp_path, server.url, TELEMETRY_API_KEY=KEY, TELEMETRY_FLUSH="exit"
        )
        settings: dict[str, Any] = {
            "home": home.root,
            "deletion_endpoint": f"{server.url}/delete",
            "exit_timeout_s": 30.0,
            "retry_first_s": 3600.0,
            "request_timeout_s": 5.0,
        }

        def run(**more: str) -> None:
            with launch({**environment, **more}, "late", **settings) as process:
                assert process.communicate(timeout=PATIENCE_S) == ("False\n", "")

        # What holds back events holds it back as well.
        run(DO_NOT_TRACK="1")
        run(TELEMETRY_ENABLED="0")
        run(TELEMETRY_FLUSH="manual")
        assert len(server.requests) == sent
        run()
        assert 0 < len(wishes(server)) < 4
        tried = len(server.requests)
        run()  # not due before an hour
        assert len(server.requests) == tried
        # `disable` withdraws nothing, and `enable` begins with another id.
        assert tool("disable", home=Path(home.root)).code == 0
        assert len(requests_waiting(home)) == 1
        while answers["/delete"]:
            os.utime(home.next_flush, (0, 0))
            Path(home.next_flush).write_bytes(b"")
            run()
        assert requests_waiting(home) == []
        assert others_since(server, sent) == []
        assert {e["properties"]["user_uuid"] for e in wishes(server)} == {user_uuid}
        assert len({json.dumps(event) for event in wishes(server)}) == 1
        assert len({r.headers["idempotency-key"] for r in server.requests[sent:]}) == 1
        choice = read_choice(home.consent)
        assert choice is not None
        assert (choice.on, choice.is_finished, choice.asks) == (False, True, False)
        assert holds(home, user_uuid) == []


def test_a_flusher_at_work_asks_and_the_tool_says_so(tmp_path: Path) -> None:
    """It notices the choice before the tool has the lock: nothing is left to ask for."""
    asked = threading.Event()

    def choose(request: Received) -> Any:
        if not request.target.endswith("/delete"):
            begun.set()
            assert asked.wait(PATIENCE_S)
        return bad.reply(200)

    begun = threading.Event()
    with Server(choose=choose) as server:
        home = Home(str(tmp_path / "home"))
        asking = f"{server.url}/delete"
        with (
            client_of(
                Path(home.root),
                server.url,
                events=9,
                batch_events_max=2,
                deletion_endpoint=asking,
            ) as client,
            ThreadPoolExecutor() as pool,
        ):
            flushing = pool.submit(client.flush, timeout_s=PATIENCE_S)
            assert begun.wait(PATIENCE_S)
            forgetting = process("forget", home=Path(home.root), **addresses(server))
            wait_until(lambda: read_choice(home.consent) is not None)
            asked.set()
            out, _ = forgetting.communicate(timeout=PATIENCE_S)
            assert flushing.result().stopped == "off"
        assert json.loads(out)["server"] == "deleted"
        # Both may ask: they say the same.
        assert len({json.dumps(each) for each in wishes(server)}) == 1
        assert requests_waiting(home) == []


def test_a_request_that_is_refused_is_told_and_holds_back_no_event(
    tmp_path: Path,
) -> None:
    """Nobody set up that address: the tool said "waiting", and events waited for it."""

    def choose(request: Received) -> Any:
        return bad.reply(404 if request.target.endswith("/delete") else 200)

    with Server(choose=choose) as server:
        home, _ = kept_home(tmp_path, server)
        # The addresses are those that the program's last flush knew.
        done = tool("forget", home=Path(home.root), TELEMETRY_API_KEY=KEY)
        assert (done.code, done.line["server"]) == (1, "waiting")
        assert "has not accepted to delete what it has: HTTP 404" in done.line["why"]
        assert len(wishes(server)) == 1
        (waiting,) = requests_waiting(home)
        made_ns = os.stat(waiting).st_mtime_ns
        # Nor does the tool forget them, when the ledger that had them is gone.
        done = tool("forget", home=Path(home.root), TELEMETRY_API_KEY=KEY)
        assert (done.code, done.line["server"]) == (1, "waiting")
        assert len(wishes(server)) == 2
        for command in ("status", "enable", "status"):
            done = tool(command, home=Path(home.root))
            if command == "status":
                assert done.line["deletion_answer"] == "HTTP 404"
                assert "came to nothing (HTTP 404)" in done.line["why"]
        # Nor is it forgotten where another id waits, for which nobody was asked yet.
        others = [Path(home.root) / f"forgotten-{end}" for end in ("0" * 8, "f" * 8)]
        for other in others:
            other.write_text(str(uuid.uuid4()))
        done = tool("status", home=Path(home.root))
        assert done.line["deletion_answer"] == "HTTP 404"
        for other in others:
            other.unlink()
        sent = len(server.requests)
        asking = f"{server.url}/delete"
        with client_of(
            Path(home.root), server.url, events=1, deletion_endpoint=asking
        ) as client:
            assert client.flush(timeout_s=PATIENCE_S).delivered == 1
        # A power loss leaves zeros, or the beginning, of what was noted.
        whole = Path(waiting).read_bytes()
        for torn in (whole[:60], whole[:36] + bytes(400), whole[:60] + bytes(400)):
            Path(waiting).write_bytes(torn)
            answer = tool("status", home=Path(home.root)).line["deletion_answer"]
            assert answer == ("what came of it cannot be read" if torn[37] else None)
        Path(waiting).write_bytes(whole)
        os.utime(waiting, ns=(made_ns, made_ns))
        # Its own wait holds for the request alone.
        assert len(server.requests) == sent + 1
        assert os.stat(waiting).st_mtime_ns == made_ns
        plan = schedule.load(home.next_flush)
        assert plan.at - plan.last < 2 * 3600
        # Nor is the request made at each flush that begins by itself.
        environment = environment_of(
            tmp_path, server.url, TELEMETRY_API_KEY=KEY, TELEMETRY_FLUSH="exit"
        )
        sent = len(server.requests)
        os.utime(home.next_flush, (0, 0))
        with launch(
            environment, home=home.root, deletion_endpoint=asking, exit_timeout_s=30.0
        ) as process:
            assert process.communicate(timeout=PATIENCE_S) == ("True\n", "")
        assert len(others_since(server, sent)) == 1
        assert len(server.requests) == sent + 1


def test_a_request_that_is_rejected_by_name_is_told_with_its_reason(
    tmp_path: Path,
) -> None:
    """The tool said "200", as the answer accepts all but what it names."""

    def choose(request: Received) -> Any:
        if not request.target.endswith("/delete"):
            return bad.reply(200)
        (event,) = json.loads(request.plain_body)["records"]
        named = {"event_id": event["properties"]["event_id"], "reason": "no such user"}
        return bad.reply(200, json.dumps({"rejected": [named]}).encode())

    with Server(choose=choose) as server:
        home, _ = kept_home(tmp_path, server)
        done = tool("forget", home=Path(home.root), TELEMETRY_API_KEY=KEY)
    assert done.code == 1
    assert "no such user" in done.line["why"]


def test_a_server_that_fails_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    """What was delivered in the same flush says nothing of the deletion."""

    # Longer than any flush, or each would try four times.
    later = {"Retry-After": "600"}

    def choose(request: Received) -> Any:
        is_asked = request.target.endswith("/delete")
        return bad.reply(503, headers=later) if is_asked else bad.reply(200)

    with Server(choose=choose) as server:
        home, user_uuid = kept_home(tmp_path, server)
        assert tool("forget", home=Path(home.root)).code == 1
        assert tool("enable", home=Path(home.root)).code == 0
        asking = f"{server.url}/delete"
        with client_of(
            Path(home.root), server.url, deletion_endpoint=asking, request_timeout_s=5.0
        ) as client:
            destination = schedule.destination_of(client.config, asks=True)
            for failures in (1, 2, 3):
                record(client, 1)
                assert client.flush(timeout_s=PATIENCE_S).delivered == 1
                plan = schedule.load(home.next_flush)
                assert plan.waits[destination][0] == failures
                plan.waits[destination] = failures, plan.last - 1
                schedule.store(home.next_flush, plan)
        (waiting,) = requests_waiting(home)
        # A power loss kept the size of the note, and none of it.
        Path(waiting).write_bytes(user_uuid.encode() + b"\0" * 401)
        asked = len(wishes(server))
        done = tool("forget", home=Path(home.root), **addresses(server))
        assert done.code == 1
        assert len(wishes(server)) > asked
        # Turned on again, it had another id: that is to be deleted as well.
        assert user_uuid in {e["properties"]["user_uuid"] for e in wishes(server)}
        assert all(len(e["properties"]["user_uuid"]) == 36 for e in wishes(server))


def test_it_is_kept_where_no_flush_has_told_of_the_address(tmp_path: Path) -> None:
    """Killed in its first flush, the program may well have been heard."""
    with Server() as server:
        home = Home(str(tmp_path / "home"))
        asking = f"{server.url}/delete"
        with client_of(Path(home.root), server.url, events=1, deletion_endpoint=asking):
            user_uuid = Path(home.user_uuid).read_text()
        done = tool("forget", home=Path(home.root), TELEMETRY_API_KEY=KEY)
        assert (done.code, done.line["server"]) == (1, "waiting")
        (waiting,) = requests_waiting(home)
        assert Path(waiting).read_text() == user_uuid
        assert not os.path.lexists(home.deletes)


def test_the_tool_asks_at_no_other_address(tmp_path: Path) -> None:
    """The ledger knows the address without its query: that is another one."""
    with Server() as server:
        home = Home(str(tmp_path / "home"))
        asking = f"{server.url}/delete?project=42"
        with client_of(
            Path(home.root), server.url, events=1, deletion_endpoint=asking
        ) as client:
            client.flush(timeout_s=PATIENCE_S)
        sent = len(server.requests)
        done = tool("forget", home=Path(home.root), TELEMETRY_API_KEY=KEY)
        assert (done.code, done.line["server"]) == (1, "waiting")
        assert "TELEMETRY_DELETION_ENDPOINT" in done.line["why"]
        assert len(server.requests) == sent


def test_a_detached_flusher_asks(tmp_path: Path) -> None:
    """In `launch` mode the program opens no socket for that either."""
    with Server() as server:
        home, user_uuid = kept_home(tmp_path, server)
        assert tool("forget", home=Path(home.root)).code == 1
        Path(home.next_flush).unlink()
        environment = environment_of(tmp_path, server.url, TELEMETRY_API_KEY=KEY)
        asking = f"{server.url}/delete"
        with launch(environment, home=home.root, deletion_endpoint=asking) as process:
            assert process.communicate(timeout=PATIENCE_S) == ("False\n", "")
        await_no_flusher(tmp_path, PATIENCE_S)
        assert [e["properties"]["user_uuid"] for e in wishes(server)] == [user_uuid]
        assert requests_waiting(home) == []


def test_turned_on_again_the_request_goes_out_beside_events(tmp_path: Path) -> None:
    """A user who comes back is another one to the server."""
    with Server() as server:
        home, user_uuid = kept_home(tmp_path, server)
        assert tool("forget", home=Path(home.root)).code == 1
        assert tool("enable", home=Path(home.root)).code == 0
        assert tool("status", home=Path(home.root)).line["deletions_waiting"] == 1
        asking = f"{server.url}/delete"
        with client_of(
            Path(home.root), server.url, events=1, deletion_endpoint=asking
        ) as client:
            assert client.flush(timeout_s=PATIENCE_S).stopped == "drained"
        assert [e["properties"]["user_uuid"] for e in wishes(server)] == [user_uuid]
        new = json.loads(server.requests[-2].plain_body)["records"][0]["properties"]
        assert new["user_uuid"] == Path(home.user_uuid).read_text() != user_uuid
        assert requests_waiting(home) == []


def test_the_key_goes_to_no_other_origin(tmp_path: Path) -> None:
    """An address elsewhere is a mistake, and asks nobody."""
    with Server() as server, Server() as elsewhere:
        home, _ = kept_home(tmp_path, server)
        told = {**addresses(server), "TELEMETRY_DELETION_ENDPOINT": elsewhere.url}
        done = tool("forget", home=Path(home.root), **told)
        assert (done.code, done.line["server"]) == (1, "waiting")
        assert elsewhere.requests == []
        assert wishes(server) == []
