"""The tools where something is forbidden, where the disk is full, and beside others."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry.paths import Home
from telemetry.spool.reader import segment_names
from tests.support import misbehaving as bad
from tests.support.delivering import KEY, census_of, client_of
from tests.support.disks import memory_disk
from tests.support.loopback import Server
from tests.support.tooling import Ran, fingerprint, process, tool
from tests.support.writers import within


# Loaded before the forks, or each of them would do it again.
importlib.import_module("telemetry.delivery.flush")

# A user that nobody is, for where the tests are run by root, who may do anything.
NOBODY = 54321
INSPECTING = (
    ("dump", "--state", "all"),
    ("dump", "--as-sent"),
    ("status",),
    ("status", "--explain"),
    ("verify",),
    ("dead", "list"),
)
CHANGING = (
    ("dead", "retry", "--all"),
    ("dead", "drop", "--all"),
    ("flush", "--timeout", "2"),
    ("enable",),
    ("purge", "--yes"),
    ("disable",),
)


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """A spool with pending and dead events, where any user may come."""
    place = Path(tempfile.mkdtemp(prefix="spool-rights-"))
    place.chmod(0o711)
    home = place / "home"
    with Server(bad.reply(422)) as server:
        for number in range(5):
            with client_of(home, server.url, events=0 if number else 1) as client:
                client.flush(timeout_s=60)
    with client_of(home, "", events=5):
        pass
    (home / "quarantine").mkdir(mode=0o700)
    (home / "quarantine" / f"{segment_names(Home(str(home)))[0]}-0").write_bytes(b"?")
    assert tool("enable", home=home).code == 0
    try:
        yield home
    finally:
        shutil.rmtree(place)


@pytest.fixture
def home(sound: Path) -> Iterator[Path]:
    """A copy that belongs to a user who is not root."""
    place = Path(tempfile.mkdtemp(dir=sound.parent))
    place.chmod(0o755)
    home = place / "home"
    shutil.copytree(sound, home)
    if os.geteuid() == 0:
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    yield home
    for path in (home, *home.rglob("*")):
        path.chmod(0o700)
    shutil.rmtree(place)


def as_nobody(work: Callable[[], None]) -> None:
    """Do it in a child, as a user who may not do anything."""

    def become() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work()

    within(60, become)


def is_sensible(command: tuple[str, ...], done: Ran) -> None:
    told = (command, done)
    assert done.code in {0, 1, 3}, told
    assert done.code == 0 or done.err or done.out, told
    name = f"spool-tools {command[0]}: "
    assert all(line.startswith(name) for line in done.err.splitlines()), told
    assert done.code == 3 or done.lines or not done.out


DIRECTORIES = (".", "spool", "dead", "quarantine", "ledger")
FILES = (
    "ledger/cache.db",
    "ledger/cache.db-journal",
    "consent",
    "next-flush",
    "flush.lock",
    "refused",
    "user-uuid",
    "a segment",
    "a letter",
)
# The right to execute is a directory's: a file with 0o500 is one with 0o400.
FORBIDDEN = [
    *((name, mode) for name in DIRECTORIES for mode in (0o000, 0o400, 0o500)),
    *((name, mode) for name in FILES for mode in (0o000, 0o400)),
]


@pytest.mark.parametrize(("name", "mode"), FORBIDDEN)
def test_what_is_forbidden_is_told(name: str, mode: int, home: Path) -> None:
    """A `sudo` long ago, a restored backup, a careless `chmod -R`."""
    path = home / name
    if name in {"a segment", "a letter"}:
        directory = home / ("spool" if name == "a segment" else "dead")
        path = next(directory.iterdir())
    path.chmod(mode)

    def work() -> None:
        with Server() as server:
            secrets = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
            for command in (*INSPECTING, *CHANGING):
                is_sensible(command, tool(*command, home=home, **secrets))

    as_nobody(work)


def test_a_forbidden_home_names_its_owner_as_who_to_ask(home: Path) -> None:
    """Sooner or later somebody helps somebody else."""
    home.chmod(0o000)

    def work() -> None:
        for command in (*INSPECTING, *CHANGING):
            done = tool(*command, home=home)
            if command == ("status", "--explain"):
                continue
            assert (done.code, done.out) == (3, b""), (command, done)
            assert "run this as the user it belongs to" in done.err

    as_nobody(work)


@pytest.mark.parametrize("is_used", [True, False])
def test_a_home_that_others_may_write_in_is_told(
    is_used: bool, home: Path, tmp_path: Path
) -> None:
    """A volume of a container: programs refuse it, and nothing else says why."""
    place = home if is_used else tmp_path / "volume"
    place.mkdir(exist_ok=True)
    place.chmod(0o777)

    def work() -> None:
        done = tool("status", home=place)
        assert done.code == (0 if is_used else 3), done
        said = done.out.decode() + done.err
        assert "nothing is recorded" in said
        assert "run `chmod 700` on it" in said

    as_nobody(work) if is_used else work()


@pytest.mark.parametrize("name", ["flush.lock", "next-flush"])
def test_what_stands_in_the_place_of_the_lock_is_told(
    name: str, tmp_path: Path
) -> None:
    """No flush begins, and events were said to wait for the next run."""
    home = tmp_path / "home"
    with client_of(home, "", events=1):
        pass
    (home / name).unlink()
    (home / name).mkdir()
    found = json.loads(tool("status", home=home).out)
    assert found["why_code"] == "unusable"
    assert f"{home}/{name} cannot be used" in found["why"]
    if name == "next-flush":
        (home / "flush.lock").unlink()  # it hides nothing
        assert json.loads(tool("status", home=home).out)["why_code"] == "unusable"


def test_nothing_of_somebody_else_is_changed(home: Path) -> None:
    """Not even by root: the owner's programs would refuse what root leaves."""
    if os.geteuid() != 0:
        pytest.skip("only root may try")
    before = fingerprint(home)
    with Server() as server:
        secrets = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        for command in CHANGING:
            done = tool(*command, home=home, **secrets)
            assert (done.code, done.out) == (2, b"")
            assert f"belongs to user {NOBODY}" in done.err
    assert fingerprint(home) == before


def test_who_finds_a_home_of_somebody_else_is_told_that_nothing_is_recorded(
    home: Path,
) -> None:
    """A container's volume, or `sudo`: its programs refuse it, and nothing counts that."""
    if os.geteuid() != 0:
        pytest.skip("only root may give it away")
    os.chown(home, 0, 0)
    home.chmod(0o755)

    def look() -> None:
        line = json.loads(tool("status", home=home).out)
        assert line["why_code"] == "home"
        assert "belongs to user 0, not to user" in line["why"]
        assert "give it back with `chown`" in line["why"]

    as_nobody(look)
    os.chown(home, NOBODY, NOBODY)
    line = json.loads(tool("status", home=home).out)
    assert line["why_code"] != "home", "root looks at somebody's"


@pytest.mark.parametrize("name", ["dead", "quarantine"])
def test_a_directory_of_somebody_else_is_named(home: Path, name: str) -> None:
    """All else of the spool is told: nothing of ours is in it."""
    if os.geteuid() != 0:
        pytest.skip("only root may give it away")
    os.chown(home / name, 0, 0)

    def look() -> None:
        done = tool("status", home=home)
        assert (done.code, done.line["balanced"]) == (1, name != "dead"), done
        assert done.line["unreadable"] == [f"{name}: cannot be read"]
        assert "what `unreadable` names" in done.line["why"]

    as_nobody(look)


def test_a_program_that_is_root_again_leaves_nothing_in_a_users_home(
    home: Path,
) -> None:
    """Its flush made a ledger there that the user can neither write nor move away."""
    if os.geteuid() != 0:
        pytest.skip("only root may be another user for a while")
    shutil.rmtree(home / "ledger")
    (home / "flush.lock").unlink()
    with Server() as server:

        def work_for_a_user() -> None:
            os.seteuid(NOBODY)
            with client_of(home, server.url, events=1) as client:
                os.seteuid(0)
                assert client.flush(timeout_s=60).delivered == 0

        within(60, work_for_a_user)
        assert {path.stat().st_uid for path in home.rglob("*")} == {NOBODY}

        def flush_as_a_user() -> None:
            with client_of(home, server.url) as client:
                assert client.flush(timeout_s=60).stopped == "drained"

        as_nobody(flush_as_a_user)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("ledger", 0o700),
        ("ledger/cache.db", 0o644),
        ("ledger/cache.db-journal", 0o644),
        ("next-flush", 0o666),
    ],
)
def test_a_file_of_somebody_else_is_named(home: Path, name: str, mode: int) -> None:
    """No flush can write what came of it, so nothing is sent; and nobody else says so."""
    if os.geteuid() != 0:
        pytest.skip("only root may give it away")
    path = home / name
    os.chown(path, 0, 0)
    path.chmod(mode)

    def look() -> None:
        line = json.loads(tool("status", home=home).out)
        assert line["why_code"] == "unusable"
        assert f"{path} belongs to another user; give it back" in line["why"]

    as_nobody(look)
    assert json.loads(tool("status", home=home).out)["why_code"] != "unusable"


@pytest.mark.parametrize(
    ("name", "attribute", "code"),
    [
        ("ledger/cache.db", "i", "unusable"),
        ("ledger/cache.db", "a", "unusable"),
        ("spool", "i", "home"),
    ],
)
def test_what_is_protected_is_named(
    home: Path, name: str, attribute: str, code: str
) -> None:
    """By `chattr`, as tools that harden a machine do."""
    if shutil.which("chattr") is None:
        pytest.skip("there is no chattr")
    path = home / name
    for each in (home, *home.rglob("*")):
        os.chown(each, os.geteuid(), os.getegid())
    set_it = subprocess.run(["chattr", f"+{attribute}", path], check=False)
    if set_it.returncode:
        pytest.skip("the file system has no such attribute, or only root may set it")
    try:
        line = json.loads(tool("status", home=home).out)
    finally:
        subprocess.run(["chattr", f"-{attribute}", path], check=True)
    assert line["why_code"] == code
    assert f"{path} " in line["why"]


@pytest.mark.parametrize("command", ["disable", "enable", "purge"])
def test_a_directory_that_is_no_home_is_left_as_it_is(
    command: str, tmp_path: Path
) -> None:
    """`--home ~` is an easy mistake, and a `ledger` of one's own is not ours."""
    (tmp_path / "ledger").mkdir()
    for name in ("ledger/2026.dat", "ledger.dat", "notes", "dead.letter"):
        (tmp_path / name).write_text("mine")
    for name in ("spool", "dead", "quarantine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    before = fingerprint(tmp_path)
    yes = ("--yes",) if command == "purge" else ()
    done = tool(command, *yes, home=tmp_path)
    assert (done.code, done.out) == (3, b"")
    assert str(tmp_path) in done.err
    assert fingerprint(tmp_path) == before


def test_purges_at_once_count_everything_once(tmp_path: Path) -> None:
    """One waits for the other; neither takes the other's work for damage."""
    home = tmp_path / "home"
    with client_of(home, "", events=300, segment_bytes_max=2000):
        pass
    purges = [process("purge", "--yes", home=home) for _ in range(3)]
    done = [purge.communicate(timeout=60) for purge in purges]
    assert [purge.returncode for purge in purges] == [0, 0, 0], done
    # Whoever waits for more than a second says what for.
    assert all(b"waiting" in err or err == b"" for _, err in done), done
    census = census_of(home)
    assert (census.recorded, census.purged, census.holds()) == (300, 300, True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without a free byte, and a spool on it."""
    with memory_disk(tmp_path / "disk", size_kib=2048) as place:
        home = place / "home"
        with Server(bad.reply(422)) as server:
            for number in range(5):
                with client_of(home, server.url, events=0 if number else 1) as client:
                    client.flush(timeout_s=60)
        with client_of(home, "", events=500):
            pass
        filler = os.open(place / "filler", os.O_WRONLY | os.O_CREAT)
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while os.write(filler, b"x" * size) == size:
                    pass
        os.close(filler)
        yield home


@pytest.mark.parametrize("command", [*INSPECTING, *CHANGING], ids=" ".join)
def test_a_full_disk_is_looked_at_and_mended(
    command: tuple[str, ...], full_disk: Path
) -> None:
    """`purge` is what somebody with a full disk types."""
    with Server() as server:
        secrets = {"TELEMETRY_ENDPOINT": server.url, "TELEMETRY_API_KEY": KEY}
        done = tool(*command, home=full_disk, **secrets)
    is_sensible(command, done)
    if command in INSPECTING or command[0] in {"flush", "purge"}:
        assert done.code == 0, done
    assert census_of(full_disk).holds()
