"""Each recipe runs on the server that it is written for, and holds what it promises."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import urllib3

from spool_tools.collector import Collector
from spool_tools.conformance import Asker
from spool_tools.recipe import texts
from telemetry.wire.formats import FORMATS, RECORDS
from tests.support.certificates import make_certificate
from tests.support.clickhouse import (
    ClickHouse,
    running_clickhouse,
    statements,
    user_and_key,
)
from tests.support.debian import program_of
from tests.support.patience import PATIENCE_S
from tests.support.tooling import tool
from tests.support.writers import wait_until


DAY_MS = 86_400_000
MONDAY_MS = 1_795_996_800_000  # 2026-11-30
ROWS = (
    # user, day, version, action, succeeded, milliseconds
    ("ann", 0, "1.0", "build", False, 900),
    ("ann", 1, "1.0", "build", True, 500),
    ("ann", 8, "1.1", "run", True, 100),
    ("bob", 2, "1.0", "build", True, 700),
    ("cem", 9, "1.1", "run", False, 200),
)


def recorded() -> list[dict[str, object]]:
    return [
        {
            "event": "command",
            "event_timestamp": MONDAY_MS + day * DAY_MS,
            "source": "frob",
            "properties": {
                "action": action,
                "is_success": succeeded,
                "duration_ms": took_ms,
                **({} if succeeded else {"error": f"{action} broke"}),
                "user_uuid": user,
                "version": version,
                "os": "linux",
                "event_id": f"01a21faa-ef0f-72f6-bb1f-2f460a44{number:04x}",
            },
        }
        for number, (user, day, version, action, succeeded, took_ms) in enumerate(ROWS)
    ]


def post(server: ClickHouse, target: str, body: bytes) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(
            "POST",
            server.url + target,
            body=body,
            headers=user_and_key("k"),
            timeout=60.0,
        )


def test_clickhouse_takes_both_ways_in_and_answers_ten_questions(
    tmp_path: Path,
) -> None:
    """The schema refuses what it cannot store, and counts an event once."""
    into_events = "?query=INSERT+INTO+telemetry.events+FORMAT+JSONEachRow"
    into_inbox = "?query=INSERT+INTO+telemetry.inbox+FORMAT+JSONAsString"
    events = recorded()
    whole = json.dumps({"records": events[:3]}).encode()
    rows = "".join(f"{json.dumps(each)}\n" for each in events[2:]).encode()
    with running_clickhouse(tmp_path / "db", key="k") as server:
        server.script(texts()["clickhouse"])
        for _ in range(2):
            assert post(server, into_inbox, whole).status == 200
            assert post(server, into_events, rows).status == 200
        token = "&insert_deduplication_token=t"
        for _ in range(2):
            assert post(server, into_events + token, rows).status == 200
        assert server.query("SELECT count() FROM telemetry.once") == [[len(events)]]
        refused = (
            (into_inbox, b"{}"),
            (into_inbox, b'{"records":{}}'),
            (into_inbox, b"not now, says a proxy"),
            (into_events, b'{"event":"x","event_timestamp":1,"properties":{}}'),
            (into_events, b'{"event":"x","event_timestamp":"soon","properties":{}}'),
            (into_events, b"<html>"),
            (into_inbox, b'{"records":[{"event":"x","properties":{}}]}'),
        )
        for target, body in refused:
            reply = post(server, target, body)
            assert reply.status == 400, body
            assert reply.headers["x-clickhouse-exception-code"], body
        assert server.query("SELECT count() FROM telemetry.once") == [[len(events)]]
        answers = server.script(texts()["clickhouse-queries"])
    users, failing, versions, first_success, retention, *_, late = answers
    assert [row[1:] for row in users] == [[2, 3], [2, 2]]
    assert [row[0] for row in failing] == ["run", "build"]
    assert [row[3] for row in failing] == [0.5, 0.333]
    assert versions == [["1.1", 2], ["1.0", 1]]
    assert first_success == [[3, 2, 43200]]
    assert [row[1:] for row in retention] == [[0, 2], [1, 1], [0, 1]]
    assert len(answers) == 10
    assert late[0][2] is not None
    assert all(answers), "each question has an answer"


def test_a_cluster_of_clickhouse_counts_an_event_once(tmp_path: Path) -> None:
    """A retry may reach another replica, which has not seen its token yet.

    The engine alone has neither Keeper nor a port for its own kind: what is written for
    ClickHouse is read whole by its parser, and run with one shard and one replica.
    """
    told = texts()["clickhouse-cluster"]
    shard = "<shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard>"
    servers = f"<remote_servers><telemetry>{shard}</telemetry></remote_servers>"
    rows = "".join(json.dumps(each) for each in recorded())
    with running_clickhouse(
        tmp_path / "db", configuration=f"<tcp_port>9000</tcp_port>{servers}"
    ) as server:
        for statement in statements(told):
            assert server.query(f"EXPLAIN AST {statement}")
        told = told.replace(" ON CLUSTER telemetry", "")
        told = told.replace("replicated_dedup", "non_replicated_dedup")
        told = re.sub(
            r"ENGINE = Replicated(\w+)\('[^']*', '[^']*', ", r"ENGINE = \1(", told
        )
        server.script(told)
        for copy in range(2):
            into = "INSERT INTO telemetry.events SETTINGS distributed_foreground_insert = 1"
            token = f"insert_deduplication_token = 'replica-{copy}'"
            server.query(f"{into}, {token} FORMAT JSONEachRow\n{rows}")
        counted = server.query(
            "SELECT count(), (SELECT count() FROM telemetry.events FINAL), "
            "(SELECT count() FROM telemetry.events_local) FROM telemetry.events"
        )
    assert counted == [[2 * len(ROWS), len(ROWS), 2 * len(ROWS)]]


def test_nginx_lets_whole_batches_through_and_says_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS in front changes no answer, and a crowd is told when to come again."""
    program = program_of("nginx", "nginx", tmp_path / "nginx")
    pem = make_certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with Collector(key="k") as collector:
        url = f"https://127.0.0.1:{(port := free_port())}/in"
        told = texts()["nginx"]
        for ours, here in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/nginx/telemetry.pem", str(pem)),
            ("/etc/nginx/telemetry.key", str(pem)),
            ("127.0.0.1:8080", f"127.0.0.1:{collector.address[1]}"),
            ("/run/nginx.pid", str(tmp_path / "nginx.pid")),
            # However slow the machine is, a hundred in a row are too many.
            ("rate=10r/s", "rate=1r/s"),
            ("http {", "http {\n" + places_below(tmp_path)),
        ):
            assert told.count(ours) == 1, ours
            told = told.replace(ours, here)
        with running_nginx(program, tmp_path, told, port):
            with closing(Asker(url, RECORDS, "x-api-key", "k")) as asker:
                lines = {each.question: each for each in asker.ask(burst=200)}
            assert [each for each in lines.values() if each.holds is not True] == []
            assert lines["not now"].said == "429, Retry-After 30"
            assert "413" in lines["a batch too big"].said
            collector.close()
            with urllib3.PoolManager(ca_certs=str(pem), retries=False) as pool:
                gone = pool.request("POST", url, body=b"{}", timeout=60.0)
    assert gone.status in {429, 502}
    assert gone.headers["retry-after"] in {"30", "60"}


@pytest.mark.parametrize("name", ["otlp-json", "otlp-protobuf"])
def test_an_opentelemetry_collector_answers_once_its_exporter_has_the_events(
    tmp_path: Path, name: str
) -> None:
    """A queue in it would say 200 to what the next restart loses."""
    program = shutil.which("otelcol") or shutil.which("otelcol-contrib")
    if program is None:
        pytest.skip("no otelcol here")
    port = free_port()
    with Collector() as behind:
        told = texts()["otel-collector"]
        for ours, here in (
            ("127.0.0.1:4318", f"127.0.0.1:{port}"),
            ("127.0.0.1:14331", f"127.0.0.1:{behind.address[1]}"),
            # Its own metrics would listen on a port that every collector wants.
            ("service:", "service:\n  telemetry: {metrics: {level: none}}"),
        ):
            assert told.count(ours) == 1, ours
            told = told.replace(ours, here)
        configuration = tmp_path / "otel-collector.yaml"
        configuration.write_text(told)
        with subprocess.Popen([program, "--config", configuration]) as process:
            try:
                wait_until(lambda: listens(port) or process.poll() is not None)
                url = f"http://127.0.0.1:{port}/v1/logs"
                with closing(Asker(url, FORMATS[name], "x-api-key", "")) as asker:
                    lines = list(asker.ask(burst=1))
                    assert [each for each in lines if each.holds is False] == []
                    assert behind.count() >= 500
                    behind.close()
                    gone = next(asker.ask(burst=0))
            finally:
                process.terminate()
    assert gone.said.startswith("HTTP 503"), gone


def test_every_recipe_is_listed_and_printed_as_it_stands() -> None:
    """They stand in the package; whoever installed it has no other copy."""
    listed = tool("recipe").out.decode().splitlines()
    names = [line.split()[0] for line in listed]
    assert {"clickhouse", "nginx", "otel-collector"} < set(names)
    for name, line in zip(names, listed, strict=True):
        assert line.endswith(".")
        assert tool("recipe", name).out.decode() == texts()[name]
    wrong = tool("recipe", "kafka")
    assert (wrong.code, wrong.out) == (2, b"")
    assert "clickhouse" in wrong.err


def free_port() -> int:
    """A port that nobody has, out of reach of those that the kernel gives to clients."""
    while True:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
        return True
    return False


def places_below(directory: Path) -> str:
    """Directives for what nginx writes, so that it needs no rights."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "access_log off;\n" + "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds
    )


@contextlib.contextmanager
def running_nginx(
    program: str, directory: Path, told: str, port: int
) -> Iterator[None]:
    configuration = directory / "nginx.conf"
    # Below root's own directory only root can write.
    user = "user root;\n" if os.geteuid() == 0 else ""
    configuration.write_text(user + told)
    command = [program, "-p", str(directory), "-c", str(configuration), "-e", "stderr"]
    subprocess.run([*command, "-t"], check=True)
    with subprocess.Popen([*command, "-g", "daemon off;"]) as process:
        try:
            wait_until(lambda: listens(port))
            yield
        finally:
            process.terminate()
