"""The key, looked for everywhere after a whole story."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support import misbehaving as bad
from tests.support.canaries import OWN_KEY, OWN_KEY_WRITTEN, own_key_leaks
from tests.support.launching import await_no_flusher, environment_of, flushers, run
from tests.support.loopback import Received, Server
from tests.support.patience import PATIENCE_S
from tests.support.tooling import tool


TOLD = tuple(write(OWN_KEY) for write in OWN_KEY_WRITTEN.values())


# Each answer repeats the key in another spelling, in body and headers.
STATUSES = (503, 422, 200, 401, 302, 400, 200, 500, 413, 403, 404)


def _repeat(request: Received) -> bad.Behaviour:
    """An answer that holds the key; one in four refuses events by name."""
    told = TOLD[request.number % len(TOLD)]
    if request.number % 4 == 2:
        events = json.loads(request.plain_body)["records"]
        body = {
            "rejected": [
                {"event_id": e["properties"]["event_id"], "reason": f"no: {told}"}
                for e in events[:2]
            ]
        }
        return bad.reply(200, json.dumps(body).encode())
    return bad.reply(
        STATUSES[request.number % len(STATUSES)],
        told.encode("utf-16" if request.number % 3 else "utf-8"),
        headers={"Location": f"/{quote(told)}", "X-Told": quote(told)},
    )


@pytest.mark.parametrize("scrub", [True, False])
def test_the_key_is_in_no_file_argument_list_log_or_dump(
    tmp_path: Path, scrub: bool
) -> None:
    """A spool is copied into bug reports, and `ps` is for everybody."""
    is_planted = threading.Event()

    def choose(request: Received) -> bad.Behaviour:
        return bad.silent_after(b"") if is_planted.is_set() else _repeat(request)

    with Server(choose=choose) as server:
        environment = environment_of(
            tmp_path,
            server.url.replace("://", f"://collector:{quote(OWN_KEY, safe='')}@"),
            TELEMETRY_API_KEY=OWN_KEY,
            PLANTING_LOG=str(tmp_path / "log"),
            PLANTING_FLUSHES="6",
            PLANTING_SETTINGS=json.dumps({"scrub": scrub, "source": f"a {OWN_KEY}"}),
        )
        planting = [sys.executable, "-m", "tests.support.planting_program"]
        done = subprocess.run(
            [*planting, "own_key"],
            env={**environment, "TELEMETRY_FLUSH": "manual"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["recorded True"] == 8 * len(TOLD)
        assert server.requests[0].headers["x-api-key"] == OWN_KEY
        (tmp_path / "app" / "next-flush").unlink()
        shown = [done.stderr.encode()]
        is_planted.set()
        sent = len(server.requests)
        run(environment, OWN_KEY, scrub=scrub)
        until = time.monotonic() + PATIENCE_S
        while len(server.requests) == sent and time.monotonic() < until:
            time.sleep(0.01)
        (flusher,) = flushers(tmp_path)
        shown.append(Path(f"/proc/{flusher}/cmdline").read_bytes())
        os.kill(flusher, 9)
        await_no_flusher(tmp_path)
    for command in (
        *("dump --state all", "status --json", "status --explain", "verify"),
        *("dead list", "flush --timeout 1", "dump --as-sent"),
    ):
        told = tool(*command.split(), "--app", "app", **environment)
        shown.append(told.out + told.err.encode())
    letters = list((tmp_path / "app" / "dead").iterdir())
    assert letters
    assert (tmp_path / "log").read_bytes().count(b"[Telemetry]") >= 8
    for content in shown:
        assert own_key_leaks(content.decode("utf-8", "replace")) == set()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for text in (content.decode("utf-8", "replace"), content.decode("latin-1")):
                assert own_key_leaks(text) == set(), path
            assert own_key_leaks(str(path)) == set()
