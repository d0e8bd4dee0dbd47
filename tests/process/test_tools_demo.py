"""`demo`: the whole story, told with real processes, a real kill and a real server."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.terminals import at_terminal
from tests.support.tooling import process, ran, tool


def test_the_story_ends_well_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """It is the first thing that anybody runs."""
    told = ran("demo", TMPDIR=str(tmp_path))
    text = told.out.decode()
    assert (told.code, told.err) == (0, ""), text
    assert "killed (SIGKILL) in the middle" in text
    assert "acknowledged and lost: 0; arrived twice: 0" in text
    assert "The books balance." in text
    assert list(tmp_path.iterdir()) == []


def test_it_tells_the_same_whatever_the_environment_says(tmp_path: Path) -> None:
    """Whoever has opted out may still look at how it works; it is all on loopback."""
    told = ran(
        "demo",
        "--keep",
        TMPDIR=str(tmp_path),
        DO_NOT_TRACK="1",
        TELEMETRY_ENDPOINT="https://nowhere.example/",
        TELEMETRY_FLUSH="manual",
        TELEMETRY_HOME=str(tmp_path / "elsewhere"),
        CI="1",
    )
    assert told.code == 0, told.out.decode()
    (kept,) = tmp_path.iterdir()
    assert f"spool-tools status --home {kept}/demo" in told.out.decode()
    status = tool("status", home=kept / "demo").line
    assert (status["pending"], status["balanced"]) == (0, True)
    assert status["delivered"] == status["recorded"] > 150


def test_ctrl_c_ends_the_story_without_a_mess(tmp_path: Path) -> None:
    """Its programs end with it, and say nothing about it."""
    with process("demo", TMPDIR=str(tmp_path)) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, b""), out
    seen = at_terminal(
        "demo", interrupt_at=b"2. It runs", variables={"TMPDIR": str(tmp_path)}
    )
    assert seen.code == 130
    assert b"Traceback" not in seen.raw
