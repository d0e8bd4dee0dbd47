"""Every example of the operators' README, run as it stands."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spool_tools.collector import Collector
from spool_tools.commands import COMMANDS
from tests.support.delivering import client_of, rejecting
from tests.support.loopback import Server
from tests.support.surroundings import REPOSITORY, bare_environment


TEXT = (REPOSITORY / "spool_tools" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


def test_every_command_has_an_example() -> None:
    """What is not shown is not found."""
    shown = set(re.findall(r"spool-tools (\w+)", "".join(BLOCKS)))
    assert shown == set(COMMANDS)


def test_every_reason_for_silence_is_in_the_table() -> None:
    """Whoever looks for a code has read it in the output of `status`."""
    sources = ("why.py", "status.py")
    code = "".join((REPOSITORY / "spool_tools" / name).read_text() for name in sources)
    told = set(re.findall(r'Why\(\s*"(\w+)"', code))
    table = set(re.findall(r"`(\w+)`", TEXT.partition("`why_code`:")[2]))
    assert len(told) > 8
    assert told <= table


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are a shell's")
def test_the_examples_do_what_they_say(tmp_path: Path) -> None:
    """Each block meets a spool with pending events and a dead letter."""
    made = tmp_path / "made" / "frobnicate"
    made.parent.mkdir()
    with (
        Server(choose=rejecting("tool-1")) as server,
        client_of(made, server.url, events=3) as client,
    ):
        assert client.flush(timeout_s=60).dead == 1
    with client_of(made, server.url, events=3):
        pass
    shim = tmp_path / "bin" / "spool-tools"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m spool_tools "$@"\n')
    shim.chmod(0o755)
    for number, block in enumerate(BLOCKS):
        directory = tmp_path / str(number)
        shutil.copytree(made, directory / "frobnicate")
        with Collector() as collector:
            place = f"{collector.address[0]}:{collector.address[1]}"
            here = block.replace("https://collect.example", f"http://{place}")
            environment = bare_environment(
                tmp_path, TELEMETRY_HOME=str(directory), PYTHONPATH=str(REPOSITORY)
            )
            environment["PATH"] = f"{shim.parent}:{environment['PATH']}"
            for line in here.splitlines():
                if line.startswith("spool-tools demo "):
                    continue  # `test_tools_demo.py`
                code, said = _run(line, environment, directory)
                # Nobody listens any more where the program sent last.
                expected = 1 if "flush" in line and "--endpoint" not in line else 0
                assert code == expected, (line, said)


def _run(line: str, environment: dict[str, str], directory: Path) -> tuple[int, str]:
    """The exit code of one line, and what it said; what goes on for ever is ended."""
    if "conformance" in line:
        line += " --burst 0" if "#" not in line else ""
        line = line.replace(" #", " --burst 0 #")
    if "flush" in line and "--endpoint" not in line:
        line += " --timeout 0.2"
    with subprocess.Popen(
        ["/bin/sh", "-euc", f"exec {line}" if " view " in line else line],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as running:
        assert running.stdout is not None
        if " view " in line:
            assert running.stdout.readline().startswith(b"http://127.0.0.1:")
            running.send_signal(signal.SIGINT)
        said = running.stdout.read().decode()
    return running.returncode, said
