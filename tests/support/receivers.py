"""Receivers of each format, as real as can be had on this machine.

Each is a context manager of a Receiver. Where its package is not installed the test that
asks for it is skipped by name: `pip install --group receivers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import urllib3

from spool_tools import recipe
from spool_tools.collector.collector import Collector
from spool_tools.collector.misbehaviour import Faults
from tests.support import misbehaving as bad
from tests.support.clickhouse import ClickHouse, running_clickhouse
from tests.support.debian import with_libraries
from tests.support.loopback import PATIENCE_S, Behaviour, Received, Server


KEY = "a-secret-key-of-some-length"
POISON = "poison"
_TAKES_EVENT_IDS = re.compile(rb"event_id\x12&\n\$([0-9a-f-]{36})")


class Receiver(NamedTuple):
    """Where events go, and what arrived.

    ids: the `event_id` of each row that it stored, in any order
    poison: an event that it refuses, and what it says of it
    is_once: it stores an event once, however often it comes
    """

    url: str
    ids: Callable[[], list[str]]
    poison: tuple[str, dict[str, Any]]
    reason: str
    is_once: bool = True
    gzip: bool | None = None
    header: str = "x-api-key"


@contextlib.contextmanager
def collector(
    _: Path, path: str = "/", header: str = "x-api-key"
) -> Iterator[Receiver]:
    """Our own, which reads every format, and tells which by the path."""
    with Collector(faults=Faults(reject=(POISON,)), key=KEY, header=header) as server:
        yield Receiver(
            "http://{}:{}{}".format(*server.address, path),
            lambda: [each["properties"]["event_id"] for each in server.events()],
            (POISON, {}),
            "refused on request",
        )


@contextlib.contextmanager
def clickhouse(directory: Path) -> Iterator[Receiver]:
    """The engine, with the table of the recipe."""
    with running_clickhouse(directory / "clickhouse", key=KEY) as server:
        server.script(recipe.texts()["clickhouse"])
        yield Receiver(
            server.url,
            lambda: [
                row[0]
                for row in server.query(
                    "SELECT toString(event_id) FROM telemetry.events FINAL"
                )
            ],
            # The type JSON takes both for one path.
            ("twice", {"a": {"b": 1}, "a.b": 2}),
            "Code: 117",
        )


# What its HTTP does with a query, a key, a coding and an error is ClickHouse's own, of
# 2018: it knows neither the type JSON nor a token of a batch. A line is one text to it.
_OLD_SERVER = """<yandex>
<logger><level>warning</level><console>1</console></logger>
<http_port>{port}</http_port><listen_host>127.0.0.1</listen_host>
<path>{directory}/data/</path><tmp_path>{directory}/tmp/</tmp_path>
<users_config>{directory}/users.xml</users_config><timezone>UTC</timezone>
<default_profile>default</default_profile><default_database>default</default_database>
<mark_cache_size>5368709</mark_cache_size>
</yandex>"""
_OLD_USERS = """<yandex><profiles><default/></profiles><quotas><default/></quotas>
<users><default><password>{key}</password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users></yandex>"""
_OLD_TABLES = """
CREATE TABLE inbox (line String) ENGINE = Null;
CREATE TABLE events (event_id String, event Enum8('tool' = 1))
ENGINE = MergeTree ORDER BY event_id;
CREATE MATERIALIZED VIEW inbox_to_events TO events AS
SELECT visitParamExtractString(line, 'event_id') AS event_id,
    CAST(visitParamExtractString(line, 'event') AS Enum8('tool' = 1)) AS event FROM inbox
"""


@contextlib.contextmanager
def old_clickhouse(directory: Path) -> Iterator[Receiver]:
    """Debian's clickhouse-server: the whole server, not its engine alone."""
    root, port = directory / "debian", _free_port()
    environment = with_libraries("clickhouse-server", root)
    names = {"directory": directory, "port": port, "key": KEY}
    (directory / "config.xml").write_text(_OLD_SERVER.format(**names))
    (directory / "users.xml").write_text(_OLD_USERS.format(**names))
    (program,) = root.rglob("sbin/clickhouse-server")
    command = [program, f"--config-file={directory}/config.xml"]
    with (
        (directory / "clickhouse.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(port)
            server = ClickHouse(f"http://127.0.0.1:{port}/", KEY)
            server.script(_OLD_TABLES)
            query = {
                "query": "INSERT INTO inbox FORMAT TabSeparated",
                "wait_end_of_query": "1",
                "user": "default",
                "password": KEY,
            }
            yield Receiver(
                f"{server.url}?{urlencode(query)}",
                lambda: [row[0] for row in server.query("SELECT event_id FROM events")],
                (POISON, {}),
                "Unknown element 'poison'",
                is_once=False,
                gzip=True,
                header="",
            )
            server.close()
        finally:
            process.kill()


@contextlib.contextmanager
def oteltap(_: Path) -> Iterator[Receiver]:
    """An OTLP receiver for tests; of protobuf, without gzip."""
    if importlib.util.find_spec("oteltap") is None:
        pytest.skip("pip install --group receivers: oteltap is not here")
    taken: list[str] = []
    with _tapped(taken) as url, _refusing_poison(url) as front:
        yield Receiver(
            f"{front}/v1/logs",
            lambda: list(taken),
            (POISON, {}),
            "no such event",
            is_once=False,
            gzip=False,
        )


@contextlib.contextmanager
def _tapped(taken: list[str]) -> Iterator[str]:
    """A running oteltap; `taken` gets the `event_id` of each log record."""
    module = importlib.import_module("oteltap")
    port = _free_port()
    started, ending = threading.Event(), threading.Event()

    async def serve() -> None:
        settings = module.OtelTapHttpProtobufReceiverSettings(http_port=port)
        async with module.OtelTapHttpProtobufReceiver(settings) as tap:

            async def read() -> None:
                async for log in tap.stream_logs():
                    taken.extend(
                        each.value.string_value
                        for each in log.attributes
                        if each.key == "event_id"
                    )

            reading = asyncio.create_task(read())
            started.set()
            await asyncio.to_thread(ending.wait)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(PATIENCE_S)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        ending.set()
        thread.join(PATIENCE_S)


@contextlib.contextmanager
def rotel(directory: Path) -> Iterator[Receiver]:
    """A collector in Rust that is strict with OTLP's JSON, and hands on what it took."""
    if importlib.util.find_spec("rotel") is None:
        pytest.skip("pip install --group receivers: rotel is not here")
    program = Path(str(importlib.import_module("rotel").__file__)).parent
    port = _free_port()
    with Server() as sink:
        command = [str(program / "rotel-agent"), "start", "--exporter", "otlp"]
        options = {
            "otlp-http-endpoint": f"127.0.0.1:{port}",
            "otlp-grpc-endpoint": f"127.0.0.1:{_free_port()}",
            "otlp-exporter-protocol": "http",
            "otlp-exporter-endpoint": f"http://127.0.0.1:{sink.port}",
        }
        told = [
            part for name, value in options.items() for part in (f"--{name}", value)
        ]
        with (
            (directory / "rotel.log").open("wb") as log,
            subprocess.Popen([*command, *told], stdout=log, stderr=log) as process,
            _refusing_poison(f"http://127.0.0.1:{port}") as front,
        ):
            try:
                wait_for(port)
                yield Receiver(
                    f"{front}/v1/logs",
                    lambda: [
                        each.decode()
                        for request in sink.requests
                        for each in _TAKES_EVENT_IDS.findall(request.plain_body)
                    ],
                    (POISON, {}),
                    "no such event",
                    is_once=False,
                )
            finally:
                process.kill()


@contextlib.contextmanager
def _refusing_poison(url: str) -> Iterator[str]:
    """What stands behind an OTLP receiver may refuse what the receiver itself takes."""
    refused = json.dumps({"code": 3, "message": "no such event"}).encode()
    with urllib3.PoolManager(retries=False, maxsize=8) as pool:

        def choose(request: Received) -> Behaviour:
            if POISON.encode() in request.plain_body:
                return bad.reply(400, refused)
            return forwarded(pool, url, request)

        with Server(choose=choose) as server:
            yield f"http://127.0.0.1:{server.port}"


def forwarded(pool: urllib3.PoolManager, url: str, request: Received) -> Behaviour:
    """The answer that a server behind this one gave; none if that gave none."""
    headers = {k: v for k, v in request.headers.items() if k != "host"}
    try:
        answer = pool.request(
            "POST",
            url + request.target,
            body=request.body,
            headers=headers,
            timeout=20.0,
        )
    except urllib3.exceptions.HTTPError:
        return bad.close_at_once
    named = {
        name: value
        for name, value in answer.headers.items()
        if name.lower() in {"content-type", "x-clickhouse-exception-code"}
    }
    return bad.reply(answer.status, answer.data, named)


@contextlib.contextmanager
def posthog(_: Path) -> Iterator[Receiver]:
    """A stand-in as strict as PostHog's own library is with what it sends."""
    taken: dict[str, None] = {}

    def choose(request: Received) -> Behaviour:
        problem, ids = captured(request)
        if problem:
            told = {"type": "validation_error", "code": "invalid", "detail": problem}
            status = 401 if "api_key" in problem else 400
            return bad.reply(status, json.dumps(told).encode())
        taken.update(dict.fromkeys(ids))
        return bad.reply(200, b'{"status":"Ok"}')

    with Server(choose=choose) as server:
        yield Receiver(
            f"http://127.0.0.1:{server.port}/batch/",
            lambda: list(taken),
            (POISON * 40, {}),
            "a name of 1 to 200",
        )


def captured(request: Received) -> tuple[str, list[str]]:
    """What is wrong with a request to PostHog, or the ids of its events."""
    head = request.method, request.target, request.headers.get("content-type")
    if head != ("POST", "/batch/", "application/json"):
        return f"not like this: {head}", []
    try:
        body = json.loads(request.plain_body)
    except ValueError as error:
        return f"no JSON: {error}", []
    if set(body) - {"api_key", "batch", "historical_migration", "sent_at"}:
        return f"unknown fields: {sorted(body)}", []
    if body.get("api_key") != KEY:
        return "api_key is not valid", []
    try:
        return "", [_captured(each) for each in body["batch"]]
    except (KeyError, TypeError, ValueError) as error:
        return str(error), []


def _captured(event: dict[str, Any]) -> str:
    if set(event) != {"event", "distinct_id", "uuid", "timestamp", "properties"}:
        raise ValueError(f"the fields of an event are {sorted(event)}")
    if not 1 <= len(event["event"]) <= 200:
        raise ValueError("an event has a name of 1 to 200 characters")
    if not 1 <= len(event["distinct_id"]) <= 200:
        raise ValueError("distinct_id is not an id")
    if datetime.strptime(event["timestamp"], "%Y-%m-%dT%H:%M:%S.%f%z").year < 2020:
        raise ValueError("timestamp is long ago")
    if event["properties"]["$process_person_profile"] is not False:
        raise ValueError("a person's profile would be made")
    return str(uuid.UUID(event["uuid"]))


def pause() -> None:
    """A moment for a receiver that hands on what it took."""
    time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Returns once something listens there."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        pause()
    raise AssertionError("it does not listen")
