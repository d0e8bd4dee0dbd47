"""The tools where the surroundings are bad: directories, limits, environments."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from telemetry.delivery import schedule
from tests.support import misbehaving
from tests.support.bad_places import COMMANDS, NOBODY, all_ran_in, ended, ran_in
from tests.support.delivering import KEY, client_of
from tests.support.launching import PROGRAM, await_no_flusher, environment_of
from tests.support.loopback import Server
from tests.support.tooling import Ran, tool
from tests.support.writers import wait_until


CODES = [1 if command[0] == "flush" else 0 for command in COMMANDS]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool whose path and content are in no narrow coding."""
    home = tmp_path / "hömé-漢-\udcff"
    with client_of(home, "", events=3):
        pass
    (home / "spool" / "nöt-óurs-\udcfe").touch()
    return home


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0),
    reason="this Python cannot import `socket` where its working directory is gone",
)
def test_a_working_directory_that_is_gone_is_no_fault(
    home: Path, tmp_path: Path
) -> None:
    """Somebody else's clean-up removes it under a shell that is still open."""
    gone = tmp_path / "gone"
    gone.mkdir()
    codes, _ = all_ran_in(*COMMANDS[:10], home=home, before=_without(gone), cwd=gone)
    assert codes == CODES[:10]
    done = _without_directory(tmp_path, "status", "--home", "home")
    assert (done.code, done.out) == (3, b"")
    assert "'home'" in done.err
    done = _without_directory(tmp_path, "status", "--app", "x", TELEMETRY_HOME="here")
    assert (done.code, done.out) == (3, b"")
    done = _without_directory(tmp_path, "dump", TELEMETRY_HOME="here")
    assert (done.code, done.out) == (2, b"")
    done = _without_directory(tmp_path, "collect", "--for", "0.1")
    assert (done.code, done.out) == (2, b"")


def _without(gone: Path) -> str:
    """What is run must be found without the directory that it is run from."""
    return f"""
import os, sys
sys.path[:] = [each for each in sys.path if each]
os.rmdir({str(gone)!r})
"""


def _without_directory(tmp_path: Path, *arguments: str, **variables: str) -> Ran:
    gone = tmp_path / "gone"
    gone.mkdir()
    source = _without(gone) + "from spool_tools.cli import main\nsys.exit(main())"
    return ended(
        [sys.executable, "-c", source, *arguments], cwd=gone, variables=variables
    )


def test_few_descriptors_are_enough(home: Path) -> None:
    """A service is often given few, and a spool has many segments."""
    for number in range(40):
        with client_of(home, "", events=1, segment_bytes_max=200):
            assert number >= 0
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))"
    codes, _ = all_ran_in(*COMMANDS, home=home, before=few)
    assert codes == CODES


HUGE = "x" * 100_000
GARBAGE = ("\udcff\udc80", "\x1b[31m", "a\nb", "漢", HUGE, " ", "=", ",=,")


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: ascii(value[:9]))
def test_an_environment_of_garbage_is_no_fault(value: str, home: Path) -> None:
    """It is read by every command, and written by anybody."""
    names = [
        "ENABLED",
        "TAGS",
        "ENDPOINT",
        "API_KEY",
        "HEADER",
        "FLUSH",
        "DEBUG",
        "HOME",
    ]
    for name in names:
        variables = {"TELEMETRY_API_KEY": KEY, "TELEMETRY_ENDPOINT": NOBODY}
        variables[f"TELEMETRY_{name}"] = value
        for command in COMMANDS[:8] if name == "ENDPOINT" else COMMANDS[:2]:
            assert tool(*command, home=home, **variables).code == 0
        done = tool("flush", "--timeout", "0.1", home=home, **variables)
        assert done.code in {1, 2}
        assert KEY not in done.err
        if name != "HOME":
            continue
        done = tool("status", "--app", "x", home=None, **variables)
        assert (done.code, done.out) == (3, b"")


def test_names_of_any_length_are_answered(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that was meant for something else ends up in an option."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    for place in (HUGE, f"{home}/{HUGE}", f"{home}{'/x' * 3000}", "loop/x", "file/x"):
        for command in (("status",), ("enable",), ("purge", "--yes"), ("disable",)):
            done = tool(*command, "--home", place)
            assert done.code in {1, 3}, done
            assert done.out == b""
            assert "user it belongs to" not in done.err
    for arguments, code in (
        (("dead", "list", HUGE), 2),
        (("dead", "list", "*a" * 40_000), 2),
        (("dump", "--event", HUGE), 0),
        (("dump", "--since", HUGE), 2),
        (("dump", "--limit", "9" * 5000), 2),
        (("flush", "--timeout", "1e999"), 2),
        (("flush", "--endpoint", f"https://{HUGE}/"), 2),
        (("purge", "--wait", "1e999"), 2),
        (("purge", "--wait", "nan"), 2),
    ):
        assert tool(*arguments, home=home, TELEMETRY_API_KEY=KEY).code == code
    assert tool("status", "--app", HUGE).code == 2
    assert tool("status", "--home", "").code == 2
    assert tool(HUGE).code == 2


def test_a_strict_python_finds_nothing_to_complain_about(home: Path) -> None:
    """Files that are left open, and whatever else is only warned of."""
    strict = ("-X", "dev", "-W", "error", "-bb")
    codes, said = all_ran_in(*COMMANDS, home=home, python=strict)
    assert codes == CODES
    assert "Warning" not in said


def test_a_python_without_descriptions_says_that_they_are_missing(home: Path) -> None:
    """`-OO` drops what the catalogue is made of; nothing else needs it."""
    bare = ("-OO",)
    done = ran_in("events", home=None, python=bare)
    assert (done.code, done.out) == (1, b"")
    assert "without -OO" in done.err
    codes, _ = all_ran_in(*COMMANDS, home=home, python=bare)
    assert codes == CODES


LIMIT = "import resource; resource.setrlimit(resource.{}, ({},) * 2)"


def _status_after(
    directory: Path, endpoint: str, mode: str, limit: str = ""
) -> dict[str, Any]:
    """What `status` says after a launch, at which a flush is due, within a limit."""
    if (directory / "app").exists():
        os.utime(directory / "app" / "next-flush", (0, 0))
    settings = {"flush": mode, "exit_timeout_s": 60.0}
    command = [sys.executable, "-c", f"{limit}\n{PROGRAM}", repr(settings), "tool"]
    environment = environment_of(directory, endpoint)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    await_no_flusher(directory)  # one takes over where no program finishes
    found: dict[str, Any] = tool("status", home=directory / "app").line
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")
@pytest.mark.parametrize("mode", ["exit", "thread"])
def test_a_flush_in_the_program_that_cannot_write_is_named(
    mode: str, tmp_path: Path
) -> None:
    """A job under `ulimit -f` sends nothing, run after run, and nobody knows why."""
    with Server() as server:
        run = partial(_status_after, tmp_path, server.url, mode)
        few = LIMIT.format("RLIMIT_FSIZE", 20000)
        run(few)
        run(few)
        found = run(few)
        assert (found["pending"], found["why_code"]) == (3, "flusher_unfinished")
        found = run()
        assert (found["pending"], found["delivered"]) == (0, 4)
        assert run()["why_code"] == "nothing_pending"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")
@pytest.mark.parametrize("mode", ["exit", "thread"])
def test_a_flush_in_the_program_that_can_open_little_is_named(
    mode: str, tmp_path: Path
) -> None:
    """With each number of descriptors something else fails.

    A flush that could not read the user's choice counted as off, and as finished.
    """
    with Server() as server:
        run = partial(_status_after, tmp_path, server.url, mode)
        codes = set()
        for descriptors in range(6, 11):
            for _ in range(3):
                found = run(LIMIT.format("RLIMIT_NOFILE", descriptors))
            codes.add(found["why_code"])
        assert "flusher_unfinished" in codes
        assert not codes & {"scheduled", "due"}, codes
        assert run()["pending"] == 0


@pytest.mark.parametrize("mode", ["exit", "thread"])
def test_a_flush_that_the_programs_end_cuts_short_is_named(
    mode: str, tmp_path: Path
) -> None:
    """A slow disk, run after run: each sets the time of the next one, and sends nothing."""
    settings = repr({"flush": mode, "exit_timeout_s": 60.0})
    command = [sys.executable, "-c", PROGRAM, settings, "tool"]
    with Server(misbehaving.silent_after(b"")) as server:
        environment = environment_of(tmp_path, server.url)
        for number in range(1, 3):
            if (tmp_path / "app").exists():
                path = str(tmp_path / "app" / "next-flush")
                plan = schedule.load(path)
                plan.at, plan.waits = 0.0, {}
                schedule.store(path, plan)
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL
            ) as running:
                wait_until(lambda number=number: len(server.requests) == number)  # type: ignore[misc]
                running.kill()
    found = tool("status", home=tmp_path / "app").line
    assert (found["pending"], found["why_code"]) == (2, "flusher_unfinished")
    assert "too little time at a program's end" in found["why"]


# A filter of system calls (seccomp): `flock` fails, as on NFS or Lustre without locks.
NO_LOCKS = """
import ctypes, errno, os, struct
number = {"x86_64": 73, "aarch64": 32}.get(os.uname().machine) or os._exit(77)
program = struct.pack(
    "=HBBIHBBIHBBIHBBI",
    0x20, 0, 0, 0,  # load the number of the call
    0x15, 0, 1, number,
    0x06, 0, 0, 0x00050000 | errno.ENOLCK,
    0x06, 0, 0, 0x7FFF0000,
)
memory = ctypes.create_string_buffer(program)
filter = struct.pack("HL", 4, ctypes.addressof(memory))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
libc.prctl(22, 2, filter, 0, 0) == 0 or os._exit(77)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")
@pytest.mark.parametrize("mode", ["launch", "exit", "thread"])
def test_a_file_system_without_locks_is_named(mode: str, tmp_path: Path) -> None:
    """Nothing can be sent from there; from its first event on, everything is kept."""
    environment = environment_of(tmp_path, "http://127.0.0.1:9/")
    command = [sys.executable, "-c", NO_LOCKS + PROGRAM, repr({"flush": mode}), "tool"]
    for _ in range(3):
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False
        )
        if done.returncode == 77:
            pytest.skip("this system, or this kind of machine, has no such filter here")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"True\n", b"")
    home = tmp_path / "app"
    source = NO_LOCKS + "from spool_tools.cli import main\nmain()"
    arguments = ["status", "--home", str(home)]
    ran = ended([sys.executable, "-c", source, *arguments], variables={})
    assert (ran.line["pending"], ran.line["refused"]) == (3, {})
    assert ran.line["why_code"] == "unusable"
    assert "cannot lock files (No locks available); set TELEM" in ran.line["why"]
