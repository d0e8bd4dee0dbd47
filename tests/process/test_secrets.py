"""The key is in no log, no `repr` and no file, also where it cannot be used.

After a whole story it is looked for everywhere by `proofs/test_own_key.py`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import telemetry
from telemetry.logs import new_telemetry_logger
from tests.support import misbehaving as bad
from tests.support.canaries import windows
from tests.support.loopback import Server


KEY = "sesame-0123456789abcdef-sesame"


def _files_with(directory: Path, secret: bytes) -> list[Path]:
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and secret in path.read_bytes()
    ]


def test_a_key_that_cannot_be_used_is_one_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key in two lines, in bytes, or in the place of something else."""
    caplog.set_level(logging.DEBUG)
    for number, settings in enumerate(
        (
            {"api_key": f"{KEY[:12]}\x01{KEY[12:]}"},
            {"api_key": KEY.encode()},
            {"api_key": KEY, "flush": KEY, "durability": KEY},
            {"api_key": KEY, "endpoint": KEY},
            {"api_key": KEY, "endpoint": f"https://collect.example/{KEY}/\x7f"},
            {"api_key": KEY, "notice_version": [KEY], "header": f"x {KEY}"},
        )
    ):
        config = telemetry.Config(
            app="app",
            home=str(tmp_path / str(number)),
            debug=True,
            scrub=False,
            **{"flush": "manual", **settings},  # type: ignore[arg-type]
        )
        with telemetry.Client(config) as client:
            assert client.track(telemetry.ToolEvent(action=f"call {KEY}"))
            client.flush(timeout_s=1)
    assert "[Telemetry]" in caplog.text
    for part in windows(KEY, 8):
        assert part not in caplog.text
        assert _files_with(tmp_path, part.encode()) == []


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
