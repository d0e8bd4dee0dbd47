"""The key, looked for everywhere after a whole story."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import telemetry
from telemetry.logs import new_telemetry_logger
from tests.support import misbehaving as bad
from tests.support.launching import await_no_flusher, environment_of, flushers, run
from tests.support.loopback import Server


KEY = "sesame-0123456789abcdef-sesame"


def _files_with(directory: Path, secret: bytes) -> list[Path]:
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and secret in path.read_bytes()
    ]


def test_the_key_is_in_no_file_argument_list_or_dump(tmp_path: Path) -> None:
    """A spool is copied into bug reports, and `ps` is for everybody."""
    echoing = [
        bad.reply(status, f"no access with {KEY}".encode())
        for status in (503, 422, 400, 200)
    ]
    with Server(*echoing, bad.silent_after(b"")) as server:
        environment = environment_of(tmp_path, server.url, TELEMETRY_API_KEY=KEY)
        run(environment, "first")
        run(environment, "second")
        until = time.monotonic() + 60
        seen: list[bytes] = []
        while len(server.requests) < 4 and time.monotonic() < until:
            with contextlib.suppress(OSError):  # it has just ended
                seen += [
                    Path(f"/proc/{pid}/cmdline").read_bytes()
                    for pid in flushers(tmp_path)
                ]
            time.sleep(0.01)
        for pid in flushers(tmp_path):
            os.kill(pid, 9)
        await_no_flusher(tmp_path)
        assert server.requests[0].headers["x-api-key"] == KEY
        assert seen
        assert KEY.encode() not in b"".join(seen)
        for command in ("dump", "status", "verify", "dead list", "flush --timeout 1"):
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "spool_tools", *command.split()),
                    *("--app", "app"),
                ],
                env=environment,
                capture_output=True,
                check=False,
            )
            assert KEY.encode() not in done.stdout + done.stderr
    assert _files_with(tmp_path, KEY.encode()) == []


def test_the_key_is_in_no_log_and_no_repr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Debug logs are the first thing that anybody pastes."""
    caplog.set_level(logging.DEBUG)
    with Server(bad.reply(401, KEY.encode()), bad.reply(503)) as server:
        endpoint = server.url.replace("http://", "http://user:hunter2@")
        config = telemetry.Config(
            app="app",
            home=str(tmp_path / "home"),
            endpoint=endpoint,
            api_key=KEY,
            debug=True,
            flush="manual",
        )
        logger = new_telemetry_logger(logging.getLogger("host"))
        with telemetry.Client(config, logger=logger) as client:
            client.track(telemetry.ToolEvent(action="call"))
            client.flush(timeout_s=1)
            client.flush(timeout_s=1)
    assert server.requests
    assert caplog.text
    assert KEY not in caplog.text
    assert "hunter2" not in caplog.text
    assert KEY not in repr(config)
    assert _files_with(tmp_path, KEY.encode()) == []
    assert _files_with(tmp_path, b"hunter2") == []
