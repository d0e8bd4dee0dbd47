"""Homes that are not as they should be: one debug line, and the program unharmed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry
from spool_tools.status import recording_problem
from telemetry.paths import Home
from tests.support.launching import ROOT
from tests.support.surroundings import spooled


PROGRAM = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")
import telemetry
telemetry.configure("app", flush="manual")
print(telemetry.track(telemetry.ToolEvent(action="call")))
sys.exit(7)
"""
# Everything that an event loads is loaded as root, then the rights are given up.
BECOME = """
import logging, os, sys, tempfile
import telemetry
with tempfile.TemporaryDirectory() as directory:
    first = telemetry.Config(app="app", home=directory + "/home", flush="manual")
    with telemetry.Client(first) as client:
        assert client.track(telemetry.ToolEvent(action="call", error="/home/x"))
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
"""
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


@pytest.mark.skipif(sys.platform == "win32", reason="what is open stays where it is")
def test_an_event_beside_a_home_that_is_moved_away_counts_once(tmp_path: Path) -> None:
    """It may stand in both: in the one that comes back, and in the one made meanwhile."""
    home, away = tmp_path / "home", tmp_path / "away"
    config = telemetry.Config(app="app", home=str(home), flush="manual")
    with telemetry.Client(config) as client:
        for moves in ([], [(home, away)], [(home, tmp_path / "new"), (away, home)]):
            for before, after in moves:
                before.rename(after)
            assert all(client.track("it", {"number": n}) for n in range(len(moves), 9))
    told = [
        (each["user_uuid"], each["event_id"])
        for place in (home, tmp_path / "new")
        for each in (event["properties"] for event in spooled(place))
    ]
    users = {
        place: (place / "user-uuid").read_text() for place in (home, tmp_path / "new")
    }
    assert len(told) == 9 + 8 + 7 + 2
    assert len({each for _, each in told}) == 9 + 8 + 7
    assert {user for user, _ in told} == set(users.values())


def _run(
    environment: dict[str, str], *, user: int | None = None, umask: int = 0o022
) -> tuple[str, list[str]]:
    """What the program answered, and its debug lines; its exit code is its own."""
    arguments = [sys.executable, "-c", PROGRAM]
    if user is not None:
        # This interpreter may lie where others cannot get: it is loaded before.
        arguments = [sys.executable, "-c", BECOME + PROGRAM, str(user)]
    with subprocess.Popen(
        arguments,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        umask=umask,
    ) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    assert "Traceback" not in err
    return out.strip(), [line for line in err.splitlines() if "[Telemetry]" in line]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can get to; pytest closes its own to others."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_no_home_directory_means_no_events(tmp_path: Path) -> None:
    """Never a shared directory in its place: others could read it, or plant in it."""
    answer, lines = _run({"TMPDIR": str(tmp_path)})
    assert (answer, len(lines)) == ("False", 1)
    assert list(tmp_path.iterdir()) == []


@as_root
def test_a_read_only_home_costs_one_line(place: Path) -> None:
    """Containers mount home directories read-only."""
    place.chmod(0o555)
    answer, lines = _run({"HOME": str(place)}, user=NOBODY)
    assert (answer, len(lines)) == ("False", 1)
    assert "cannot be made" in lines[0]
    assert list(place.iterdir()) == []


@as_root
def test_sudo_with_a_kept_home_leaves_nothing_of_roots_in_it(place: Path) -> None:
    """A segment of root's would shut the user out of their own spool."""
    os.chown(place, NOBODY, NOBODY)
    assert _run({"HOME": str(place)}, user=NOBODY)[0] == "True"
    before = sorted(str(path) for path in place.rglob("*"))
    answer, lines = _run({"HOME": str(place)})
    assert (answer, len(lines)) == ("False", 1)
    assert "belongs to user 65534" in lines[0]
    assert sorted(str(path) for path in place.rglob("*")) == before


@as_root
def test_two_users_share_nothing_but_the_name_of_the_program(place: Path) -> None:
    """Also where one TELEMETRY_HOME is set for everybody."""
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    environment = {"TELEMETRY_HOME": str(shared), "HOME": str(place)}
    assert _run(environment, user=NOBODY)[0] == "True"
    answer, lines = _run(environment)
    assert (answer, len(lines)) == ("False", 1)
    assert (shared / "app").stat().st_uid == NOBODY


@as_root
def test_sudo_before_the_first_run_leaves_nothing_of_roots(place: Path) -> None:
    """Made by root, `~/.local` would be closed to the user and all their programs."""
    os.chown(place, NOBODY, NOBODY)
    answer, lines = _run({"HOME": str(place)})
    assert (answer, len(lines)) == ("False", 1)
    assert "below" in lines[0]
    for command in (("disable",), ("enable",)):
        done = subprocess.run(
            [sys.executable, "-m", "spool_tools", *command, "--app", "app"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "HOME": str(place)},
            cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"below {place} of user 65534" in done.stderr
    # And whoever looks is not told to wait for a first event.
    looked = subprocess.run(
        [sys.executable, "-m", "spool_tools", "status", "--app", "app"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "HOME": str(place)},
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert looked.returncode == 3
    assert f"none is made, as it is below {place} of user 65534" in looked.stderr
    # A home of root's own that stands there already is used, with or without a spool.
    home = place / "app"
    home.mkdir(mode=0o700)
    assert recording_problem(Home(str(home))) == ""
    home.rmdir()
    assert "where root makes nothing" in recording_problem(Home(str(home)))
    assert list(place.iterdir()) == []
    assert _run({"HOME": str(place)}, user=NOBODY)[0] == "True"


@as_root
def test_the_root_of_a_namespace_of_users_records_in_its_home(place: Path) -> None:
    """`unshare -r`, `bwrap`: whoever owns the directories above has no name in it."""
    namespace = ["unshare", "--map-root-user"]
    if subprocess.run(
        [*namespace, "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("no namespace of users here")
    os.chown(place, 12345, 12345)
    place.chmod(0o777)
    home = place / "home"
    home.mkdir()
    done = subprocess.run(
        [*namespace, sys.executable, "-c", PROGRAM],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (7, "True\n"), done.stderr


@pytest.mark.parametrize("umask", [0o077, 0o277, 0o777])
@as_root
def test_a_closed_umask_closes_nothing_to_its_owner(umask: int, place: Path) -> None:
    """The next launch and the flusher have to get at what this one recorded."""
    os.chown(place, NOBODY, NOBODY)
    for _ in range(2):
        assert _run({"HOME": str(place)}, user=NOBODY, umask=umask)[0] == "True"
    home = place / ".local/state/app/telemetry"
    for path in (home, *home.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_an_open_umask_opens_nothing(tmp_path: Path) -> None:
    """`umask 0` is common in containers and daemons."""
    answer, _ = _run({"HOME": str(tmp_path)}, umask=0)
    assert answer == "True"
    home = tmp_path / ".local/state/app/telemetry"
    for path in (home, *home.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_home_that_others_can_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    """Whoever can write to it can plant links and events in it."""
    home = tmp_path / "app"
    home.mkdir()
    home.chmod(mode)
    answer, lines = _run({"TELEMETRY_HOME": str(tmp_path)})
    assert (answer, len(lines)) == ("False", 1)
    # A directory with the sticky bit is one that many share, as /tmp is.
    advice = "name a directory in it" if mode == 0o1777 else "chmod 700"
    assert advice in lines[0]
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in vars(Home("/")) if name != "root"])
def test_no_file_of_the_home_is_reached_through_a_link(
    name: str, tmp_path: Path
) -> None:
    """A link that was planted must not make us write, empty or delete elsewhere."""
    home = Home(str(tmp_path / "home"))
    victim = tmp_path / "victim"
    is_directory = name in {"spool", "dead", "quarantine", "ledger"}
    if is_directory:
        victim.mkdir(mode=0o700)
        (victim / "precious").write_text("precious")
    else:
        victim.write_text("precious")
    os.mkdir(home.root, 0o700)
    Path(getattr(home, name)).symlink_to(victim)
    config = telemetry.Config(
        app="app",
        home=home.root,
        endpoint="http://127.0.0.1:9/",
        api_key="key",
        flush="manual",
    )
    with telemetry.Client(config) as client:
        for _ in range(3):
            client.track(telemetry.ToolEvent(action="call"))
            client.track(telemetry.ToolEvent(action=7))  # type: ignore[arg-type]
        client.flush(timeout_s=0.3)
    if is_directory:
        assert [path.name for path in victim.iterdir()] == ["precious"]
        assert (victim / "precious").read_text() == "precious"
    else:
        assert victim.read_text() == "precious"


def test_the_home_itself_is_no_link(tmp_path: Path) -> None:
    """Its parents may be: /home often is one."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "app").symlink_to(tmp_path / "real")
    answer, lines = _run({"TELEMETRY_HOME": str(tmp_path)})
    assert (answer, len(lines)) == ("False", 1)
    assert list((tmp_path / "real").iterdir()) == []
    (tmp_path / "parent").symlink_to(tmp_path / "real")
    assert _run({"TELEMETRY_HOME": str(tmp_path / "parent")})[0] == "True"


@pytest.mark.parametrize("kind", ["a link", "a file"])
def test_a_spool_that_is_no_directory_is_counted_and_told(
    kind: str, tmp_path: Path
) -> None:
    """It was moved to another disk, say: each loss is counted, and `status` names it."""
    home = Home(str(tmp_path / "app"))
    environment = {"TELEMETRY_HOME": str(tmp_path), "HOME": str(tmp_path / "nobody")}
    assert _run(environment)[0] == "True"
    moved = Path(home.spool).rename(tmp_path / "elsewhere")
    if kind == "a link":
        Path(home.spool).symlink_to(moved)
    else:
        Path(home.spool).write_text("")
    for _ in range(2):
        answer, lines = _run(environment)
        assert (answer, len(lines)) == ("False", 1)
        assert home.spool in lines[0]
    told = subprocess.run(
        [sys.executable, "-m", "spool_tools", "status", "--home", home.root],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )
    status = json.loads(told.stdout)
    assert status["refused"] == {"disk_error": 2}
    assert status["why"].startswith(
        f"nothing is recorded: {home.spool} is no directory"
    )
