"""The client that a context carries: where it reaches, and where it does not."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

import telemetry
from tests.support.surroundings import (
    bare_environment,
    fresh_process,
    only_environment,
    quiet_config,
    spooled,
)


Make = Callable[[str], telemetry.Client]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes clients, each with a home of its own named after it."""
    made: list[telemetry.Client] = []

    def one(name: str) -> telemetry.Client:
        made.append(telemetry.Client(quiet_config(tmp_path / name, app=name)))
        return made[-1]

    with only_environment(bare_environment(tmp_path / "user")), fresh_process():
        yield one
    for client in made:
        client.close()


def test_without_a_client_nothing_happens(tmp_path: Path) -> None:
    """A library may record what it does, whether or not its host wants to know."""
    with only_environment(bare_environment(tmp_path)), fresh_process():
        assert telemetry.from_context() is None
        assert telemetry.record_session_start("agent", "id") == "id"
        telemetry.record_tool_call("tool", "id", "agent", timedelta(seconds=1), "bad")
        telemetry.record_token_usage("model", 1, 2, 0.5)
        telemetry.record_error("it failed")
        telemetry.record_session_end()
    assert list(tmp_path.iterdir()) == []


def test_functions_speak_to_the_client_that_is_carried(
    make: Make, tmp_path: Path
) -> None:
    """A function deep inside a program needs no argument to find the client."""
    client = make("one")
    with telemetry.with_client(client) as carried:
        assert carried is client is telemetry.from_context()
        assert telemetry.record_session_start("agent", "s1") == "s1"
        telemetry.record_tool_call("tool", "s1", "agent", timedelta(milliseconds=5))
        telemetry.record_token_usage("model", 1, 2, 0.5)
        telemetry.record_error("it failed")
        telemetry.record_session_end()
    assert telemetry.from_context() is None
    telemetry.record_error("nobody hears this")

    start, tool, token, end = (
        event["properties"] for event in spooled(tmp_path / "one")
    )
    assert (start["action"], start["agent_name"]) == ("start", "agent")
    assert (tool["tool_name"], tool["duration_ms"]) == ("tool", 5)
    assert (token["session_id"], token["total_tokens"]) == ("s1", 3)
    assert (end["error"], end["error_count"], end["cost"]) == (["it failed"], 1, 0.5)


def test_the_inner_client_hides_the_outer_one(make: Make) -> None:
    """What is nested belongs to whoever nested it."""
    outer, inner = make("outer"), make("inner")
    with telemetry.with_client(outer):
        with telemetry.with_client(inner):
            assert telemetry.from_context() is inner
            with telemetry.with_client(None):
                assert telemetry.from_context() is None
            assert telemetry.from_context() is inner
        assert telemetry.from_context() is outer
    assert telemetry.from_context() is None


def test_one_context_manager_may_be_entered_again(make: Make) -> None:
    """A decorator or a recursion enters the same object more than once."""
    client = make("one")
    manager = telemetry.with_client(client)
    with manager, manager:
        assert telemetry.from_context() is client
    with manager:
        assert telemetry.from_context() is client
    assert telemetry.from_context() is None


def test_an_exception_ends_it_and_passes(make: Make) -> None:
    """Telemetry must not swallow what the program throws."""
    with pytest.raises(LookupError), telemetry.with_client(make("one")):
        raise LookupError
    assert telemetry.from_context() is None


def test_it_follows_await(make: Make) -> None:
    """A coroutine runs in pieces, with others in between."""
    client = make("one")

    async def inner() -> telemetry.Client | None:
        await asyncio.sleep(0)
        return telemetry.from_context()

    async def outer() -> None:
        with telemetry.with_client(client):
            assert await inner() is client
            assert await asyncio.ensure_future(inner()) is client
        assert await inner() is None

    asyncio.run(outer())


def test_tasks_do_not_see_each_others_client(make: Make, tmp_path: Path) -> None:
    """A server handles many requests at once, each with a client of its own."""
    clients = [make(f"task-{number}") for number in range(8)]

    async def handle(client: telemetry.Client) -> None:
        with telemetry.with_client(client):
            telemetry.record_session_start("agent", client.config.app)
            for _ in range(5):
                await asyncio.sleep(0)
                assert telemetry.from_context() is client
                telemetry.record_error("it failed")
            telemetry.record_session_end()

    async def serve() -> None:
        await asyncio.gather(*map(handle, clients))

    asyncio.run(serve())
    for client in clients:
        start, end = spooled(tmp_path / client.config.app)
        assert start["properties"]["session_id"] == client.config.app
        assert end["properties"]["session_id"] == client.config.app
        assert end["properties"]["error_count"] == 5


def test_a_task_keeps_the_client_it_was_started_with(make: Make) -> None:
    """Work that outlives the block that began it still knows whose it is."""
    client = make("one")

    async def begin() -> telemetry.Client | None:
        started = asyncio.Event()

        async def later() -> telemetry.Client | None:
            await started.wait()
            return telemetry.from_context()

        with telemetry.with_client(client):
            task = asyncio.ensure_future(later())
        assert telemetry.from_context() is None
        started.set()
        return await task

    assert asyncio.run(begin()) is client


def test_a_copied_context_carries_it(make: Make) -> None:
    """`copy_context` is how callbacks and executors take it along."""
    client = make("one")
    with telemetry.with_client(client):
        context = contextvars.copy_context()
    assert telemetry.from_context() is None
    assert context.run(telemetry.from_context) is client
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(context.run, telemetry.from_context).result() is client

    async def in_thread() -> telemetry.Client | None:
        with telemetry.with_client(client):
            return await asyncio.to_thread(telemetry.from_context)

    assert asyncio.run(in_thread()) is client


def test_a_plain_thread_begins_without_one(make: Make) -> None:
    """Context variables do not follow a thread by themselves."""
    found: list[telemetry.Client | None] = []
    with telemetry.with_client(make("one")):
        context = contextvars.Context()
        thread = threading.Thread(
            target=context.run, args=(lambda: found.append(telemetry.from_context()),)
        )
        thread.start()
        thread.join(10)
    assert found == [None]


def test_threads_carry_clients_of_their_own(make: Make, tmp_path: Path) -> None:
    """What one thread enters, no other one sees."""
    clients = [make(f"thread-{number}") for number in range(6)]
    together = threading.Barrier(len(clients))

    def work(client: telemetry.Client) -> bool:
        with telemetry.with_client(client):
            together.wait(10)
            telemetry.record_session_start("agent", client.config.app)
            together.wait(10)
            telemetry.record_session_end()
            return telemetry.from_context() is client

    with ThreadPoolExecutor(len(clients)) as pool:
        assert all(pool.map(work, clients))
    for client in clients:
        ids = [
            event["properties"]["session_id"]
            for event in spooled(tmp_path / client.config.app)
        ]
        assert ids == [client.config.app] * 2


@pytest.mark.usefixtures("make")
def test_the_client_of_the_process_is_not_carried(tmp_path: Path) -> None:
    """`from_context` answers what was put there, not whatever there is."""
    telemetry.configure("app", home=str(tmp_path / "global"), flush="manual")
    assert telemetry.from_context() is None
    with telemetry.with_client(telemetry.get_global_telemetry_client()) as client:
        assert telemetry.from_context() is client
