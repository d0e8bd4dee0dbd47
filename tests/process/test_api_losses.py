"""What a host can count on whatever it does: no error, no noise, and every loss counted."""

from __future__ import annotations

import collections
import itertools
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names
from tests.support.disks import memory_disk
from tests.support.loopback import Server
from tests.support.surroundings import (
    bare_environment,
    fresh_process,
    home_in,
    only_environment,
    run_python,
    spooled,
)


RUN = telemetry.CommandEvent(action="run", success=True)


@pytest.fixture(autouse=True)
def user(tmp_path: Path) -> Iterator[Path]:
    """The user's home; the process has no client yet, and events start nothing."""
    home = tmp_path / "user"
    home.mkdir()
    variables = bare_environment(home, TELEMETRY_FLUSH="manual")
    with only_environment(variables), fresh_process():
        yield home


def told(user: Path, app: str = "app") -> list[dict[str, Any]]:
    """The properties of every event that waits for an app."""
    return [event["properties"] for event in spooled(home_in(user, app))]


def refused(user: Path, app: str = "app") -> dict[str, int]:
    return refusals.read(home_in(user, app).refused)


# The last is longer than any event may be.
BAD = [None, 5, b"bytes", "\ud800", "\0", "a\nb", object(), [], "x" * 1_000_000]


@pytest.mark.parametrize("bad", BAD, ids=lambda value: ascii(value)[:12])
def test_nothing_is_raised_whatever_is_handed_over(
    bad: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telemetry is never the reason why a program fails."""
    monkeypatch.chdir(tmp_path)  # a home may be relative
    settings = ("version", "endpoint", "api_key", "header", "source", "home", "flush")
    for name in (*settings, "debug", "enabled", "notice", "spool_bytes_max", "logger"):
        telemetry.configure("app", **{name: bad})
        telemetry.track_command("run", [])
        telemetry.flush(timeout_s=1)
    telemetry.configure(bad)
    assert not telemetry.track(bad)
    telemetry.track_command(bad, bad)
    telemetry.set_global_telemetry_version(bad)
    telemetry.set_global_telemetry_debug_mode(bad)
    telemetry.configure("app")
    telemetry.track_command("run", [])
    telemetry.set_global_telemetry_version(bad)
    telemetry.track_command(bad, bad)
    telemetry.get_global_telemetry_client().decision()
    with telemetry.with_client(telemetry.get_global_telemetry_client()):
        telemetry.record_session_start(bad, bad)
        telemetry.record_tool_call(bad, bad, bad, bad, bad)
        telemetry.record_token_usage(bad, bad, bad, bad)
        telemetry.record_error(bad)
        telemetry.record_session_end()
    assert telemetry.flush(timeout_s=5).stopped in {"off", "disk"}


@pytest.mark.parametrize(
    ("event", "error", "reason"),
    [
        (telemetry.CommandEvent(action=5), telemetry.InvalidEventError, "invalid"),  # type: ignore[arg-type]
        (telemetry.TokenEvent(cost="free"), telemetry.InvalidEventError, "invalid"),  # type: ignore[arg-type]
        (None, telemetry.InvalidEventError, "invalid"),
        (
            telemetry.CommandEvent(args=["x"] * 100_000),
            telemetry.EventTooBigError,
            "too_big",
        ),
    ],
    ids=["type", "cost", "none", "100,000 arguments"],
)
def test_a_refusal_is_counted_or_raised(
    event: Any, error: type[telemetry.RefusedError], reason: str, user: Path
) -> None:
    """In a program the loss is counted under its reason; in a test it is an error."""
    telemetry.configure("app")
    assert telemetry.track(RUN)
    for counted in (1, 1, 3):
        assert telemetry.track(event) is False
        assert refused(user) == {reason: counted}
    assert len(told(user)) == 1

    telemetry.configure("app", strict=True)
    with pytest.raises(error) as caught:
        telemetry.track(event)
    assert caught.value.reason == reason
    assert refused(user) == {reason: 4}
    assert telemetry.track(RUN)
    assert len(told(user)) == 2


@pytest.mark.parametrize(
    ("ending", "counted"),
    [("os._exit(0)", 3), ("", 4), ("client.close(); os._exit(0)", 4)],
    ids=["killed", "exit", "closed"],
)
def test_refusals_are_all_counted_but_for_one_by_a_kill(
    ending: str, counted: int, user: Path
) -> None:
    """Counting each by itself would make a full spool dearer than an empty one."""
    source = f"""
import os, telemetry
client = telemetry.configure("app")
for _ in range(4):
    assert client.track(None) is False
{ending}
"""
    child = run_python(source, environment=bare_environment(user))
    assert (child.returncode, child.stderr) == (0, "")
    assert refused(user) == {"invalid": counted}


def test_a_full_spool_refuses_the_newest_and_counts_it(user: Path) -> None:
    """What is there is kept: the user's disk is bounded, and the loss is known."""
    bounds = {"spool_bytes_max": 4000, "segment_bytes_max": 2000}
    telemetry.configure("app", **bounds)
    answers = [telemetry.track(RUN) for _ in range(40)]
    recorded = sum(answers)
    assert 0 < recorded < 40
    assert answers == [True] * recorded + [False] * (40 - recorded)
    telemetry.get_global_telemetry_client().close()
    assert refused(user) == {"spool_full": 40 - recorded}
    assert len(told(user)) == recorded
    telemetry.configure("app", strict=True, **bounds)
    with pytest.raises(telemetry.SpoolFullError) as caught:
        telemetry.track(RUN)
    assert caught.value.bound_bytes == 4000
    # Once a flusher has made room, at once.
    home = home_in(user)
    os.unlink(home.segment(segment_names(home)[0]))
    assert telemetry.track(RUN)


def test_an_endpoint_that_is_none_is_an_error_in_tests_only(user: Path) -> None:
    """Events wait until it is corrected."""
    telemetry.configure("app", endpoint="no url", api_key="k")
    assert telemetry.track(RUN)
    assert telemetry.flush().stopped == "off"
    assert len(told(user)) == 1
    with pytest.raises(telemetry.EndpointError):
        telemetry.configure("app", endpoint="no url", api_key="k", strict=True)
    with Server() as server:
        telemetry.configure("app", endpoint=server.url, api_key="k")
        assert telemetry.flush().delivered == 1


@pytest.mark.parametrize("kind", ["below a file", "a file", "a link", "open to all"])
def test_a_home_that_cannot_be_used_is_refused(kind: str, tmp_path: Path) -> None:
    """Where others could write, or nobody can, no event is put."""
    place = tmp_path / "place"
    if kind in {"below a file", "a file"}:
        place.write_text("")
    else:
        (tmp_path / "target").mkdir()
        place.symlink_to(tmp_path / "target") if kind == "a link" else place.mkdir()
    if kind == "open to all":
        place.chmod(0o777)
    home = str(place / "home" if kind == "below a file" else place)

    telemetry.configure("app", home=home)
    assert telemetry.track(RUN) is False
    assert telemetry.flush().stopped == "disk"
    telemetry.configure("app", home=home, strict=True)
    for _ in range(2):
        with pytest.raises(telemetry.HomeError) as caught:
            telemetry.track(RUN)
        assert caught.value.reason == "no_home"
        assert str(place) in str(caught.value)
    if not place.is_file():
        assert list(place.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    with memory_disk(tmp_path / "disk", size_kib=256) as place:
        yield place
        telemetry.get_global_telemetry_client().close()


def test_a_full_disk_refuses_and_counts(small_disk: Path) -> None:
    """The count was born with the home, so that it can be kept now."""
    home = Home(str(small_disk / "home"))
    telemetry.configure("app", home=home.root)
    assert telemetry.track(RUN)
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        with pytest.raises(OSError, match="No space left"):
            filler.writelines(itertools.repeat(b"x" * 4096))
        with pytest.raises(OSError, match="No space left"):
            filler.writelines(itertools.repeat(b"x"))
    answers = [telemetry.track(RUN) for _ in range(60)]
    lost = answers.count(False)
    assert lost > 0
    assert refusals.read(home.refused) == {"disk_error": lost}
    whole = len(spooled_whole(home))
    assert whole == 1 + answers.count(True)

    telemetry.configure("app", home=home.root, strict=True)
    with pytest.raises(telemetry.DiskError) as caught:
        collections.deque((telemetry.track(RUN) for _ in range(60)), maxlen=0)
    assert caught.value.reason == "disk_error"
    os.unlink(small_disk / "filler")
    assert telemetry.track(RUN)


def spooled_whole(home: Home) -> list[bytes]:
    """The whole records of a home in which some are torn."""
    from telemetry.spool.frame import Record, scan

    contents = [Path(home.segment(name)).read_bytes() for name in segment_names(home)]
    items = [scan(content, at=0, answered=0).items for content in contents]
    return [item.event for found in items for item in found if isinstance(item, Record)]


def test_a_file_that_may_not_grow_is_a_disk_that_says_no(user: Path) -> None:
    """A limit on file sizes needs no superuser; what fails is the same write."""
    source = """
import os, resource, sys, telemetry
telemetry.configure("app", strict=len(sys.argv) > 1)
run = telemetry.CommandEvent(action="run")
assert telemetry.track(run)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    print(telemetry.track(run))
except telemetry.DiskError as error:
    print(error.reason)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(telemetry.track(run))"""
    environment = bare_environment(user, TELEMETRY_FLUSH="manual")
    for arguments, answer in (((), "False"), (("strict",), "disk_error")):
        child = run_python(source, *arguments, environment=environment)
        assert (child.stdout, child.stderr) == (f"{answer}\nTrue\n", "")
    assert len(told(user)) == 4
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY


def test_what_is_no_number_or_no_text_is_kept(user: Path) -> None:
    """A cost of NaN is null, a byte that is no text is U+FFFD: the event is there."""
    telemetry.configure("app", strict=True, scrub=False)
    assert telemetry.track(telemetry.TokenEvent(cost=math.nan))
    argument = b"na\xefve".decode("utf-8", "surrogateescape")
    assert telemetry.track(telemetry.CommandEvent("run", [argument]))
    token, command = told(user)
    assert token["cost"] is None
    assert command["args"] == ["na\ufffdve"]


HOST = """
import sys, telemetry
telemetry.configure("app", home=sys.argv[1], endpoint="no url", api_key="k", flush="exit")
telemetry.track_command("run", [])
telemetry.track(None)
print("what the host prints")
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(0)", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('a message')", 1),
        ("raise KeyError('of the host')", 1),
        ("import os; os._exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
@pytest.mark.parametrize("home", ["good", "/dev/null/home"])
def test_the_hosts_exit_code_is_its_own(
    end: str, code: int, home: str, tmp_path: Path
) -> None:
    """A script checks the code of a command; telemetry has no say in it."""
    where = str(tmp_path / home) if home == "good" else home
    environment = bare_environment(tmp_path, PYTHONUNBUFFERED="1")
    child = run_python(HOST.format(end=end), where, environment=environment)
    assert child.returncode == code
    assert child.stdout == "what the host prints\n"
    assert "telemetry" not in child.stderr


CHROOT = """
import os, sys, telemetry
client = telemetry.configure("app", home=sys.argv[1], flush="manual")
told = [telemetry.track(telemetry.ToolEvent("call"))]
os.chroot(sys.argv[2])
told += [telemetry.track(telemetry.ToolEvent("call")) for _ in range(2)]
print(told, os.listdir("/"))
"""


def test_what_a_daemon_would_record_in_its_jail_is_refused(tmp_path: Path) -> None:
    """It made a second home in there, which no launch and no tool ever looked at."""
    if not hasattr(os, "chroot") or os.geteuid() != 0:
        pytest.skip("only the superuser changes the root of a process")
    (tmp_path / "jail").mkdir()
    home = str(tmp_path / "home")
    done = run_python(
        CHROOT, home, str(tmp_path / "jail"), environment=bare_environment(tmp_path)
    )
    assert done.stdout == "[True, False, False] []\n", done.stderr
    # The second one was written before its segment's name was missed.
    assert len(spooled(Home(home))) == 2
