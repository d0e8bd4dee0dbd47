"""The page for servers, held against what is sent and against a server that follows it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import fastjsonschema
import pytest

from tests.support.delivering import KEY, census_of, client_of
from tests.support.loopback import Server
from tests.support.receivers import wait_for
from tests.support.replay import cases
from tests.support.surroundings import REPOSITORY, bare_environment


WIRE = REPOSITORY / "telemetry" / "wire"
PAGE = (WIRE / "README.md").read_text("utf-8")
(LEAST_SERVER,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SCHEMA = json.loads((WIRE / "records.schema.json").read_text("utf-8"))
validate = fastjsonschema.compile(SCHEMA)


def test_the_schema_describes_what_is_sent(tmp_path: Path) -> None:
    """Whoever validates by it must refuse nothing that a program recorded."""
    with Server() as server, client_of(tmp_path, server.url, events=3) as client:
        client.record_session_start("agent", "session")
        client.record_tool_call("tool", "s", "a", timedelta(seconds=1), ValueError("x"))
        client.record_token_usage("model", 1, 2, 0.5)
        client.record_session_end()
        client.flush(timeout_s=60)
        bodies = [json.loads(request.plain_body) for request in server.requests]
    assert [len(body["records"]) for body in bodies] == [7]
    # Those of the Go original have no id; ours adds it.
    for case in cases().values():
        for _, event in case.requests:
            event["properties"]["event_id"] = "01900000-0000-7000-8000-000000000000"
            bodies.append({"records": [event]})
    for body in bodies:
        validate(body)
    for broken in (
        {},
        {"records": {}},
        {"records": [{}]},
        {"records": [{**bodies[0]["records"][0], "event_timestamp": "soon"}]},
        {"records": [{**bodies[0]["records"][0], "properties": {}}]},
    ):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            validate(broken)


@contextlib.contextmanager
def _least_server(database: Path) -> Iterator[str]:
    """The page's server in a process of its own; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-c", LEAST_SERVER, str(database), str(port), KEY]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}/v1/events"
        finally:
            process.kill()


def test_the_least_server_is_enough(tmp_path: Path) -> None:
    """It runs as it stands in the page, and nothing that the page asks for is missing."""
    assert len([line for line in LEAST_SERVER.splitlines() if line.strip()]) < 30
    database, home = tmp_path / "events.db", tmp_path / "home"
    with _least_server(database) as url:
        asked = subprocess.run(
            [sys.executable, "-m", "spool_tools", "conformance", url, "--burst", "0"],
            env=bare_environment(tmp_path, TELEMETRY_API_KEY=KEY),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (asked.returncode, "FAILS" in asked.stdout) == (0, False), asked
        with contextlib.closing(sqlite3.connect(database)) as store:
            (before,) = store.execute("SELECT count(*) FROM events").fetchone()
            with client_of(home, url, events=5) as client:
                assert client.flush(timeout_s=60).delivered == 5
            (after,) = store.execute("SELECT count(*) FROM events").fetchone()
    assert after - before == census_of(home).recorded == 5
