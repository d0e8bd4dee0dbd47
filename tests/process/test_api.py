"""The one client of a process, and what a host can count on whatever it does."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry import api
from telemetry.files import try_lock
from telemetry.spool.reader import segment_names
from tests.support.surroundings import (
    REPOSITORY,
    bare_environment,
    fresh_process,
    home_in,
    only_environment,
    run_python,
    spooled,
)


RUN = telemetry.CommandEvent(action="run", success=True)
THREADS = 32
ROUNDS = 10


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


def is_locked(user: Path, app: str) -> bool:
    home = home_in(user, app)
    (name,) = segment_names(home)
    with Path(home.segment(name)).open() as segment:
        return not try_lock(segment.fileno())


def test_settings_that_were_refused_are_those_of_no_later_client() -> None:
    """`strict` raises where it was asked for, and nowhere else."""
    with pytest.raises(telemetry.ConfigError):
        telemetry.configure("app", strict=True, spool_bytes_max=-1)
    assert telemetry.track("later")


def test_a_client_forgets_the_version_of_the_one_before() -> None:
    """The default client is made of what is said by then."""
    for version in ("1.0", "2.0"):
        telemetry.set_global_telemetry_version(version)
        assert telemetry.get_global_telemetry_client().version == version
        api.forget_client()


def test_every_public_name_is_there() -> None:
    """What is in `__all__` is a promise, loaded on first use or not."""
    for name in telemetry.__all__:
        assert getattr(telemetry, name) is not None
    assert set(telemetry.__all__) <= set(dir(telemetry))
    assert len(set(telemetry.__all__)) == len(telemetry.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        telemetry.nothing_like_it  # noqa: B018
    with pytest.raises(ImportError):
        from telemetry import nothing_like_it  # noqa: F401


@pytest.fixture
def _threads_that_switch_often() -> Iterator[None]:
    """Within, a thread is interrupted after microseconds instead of milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_that_switch_often")
@pytest.mark.parametrize("first", ["get", "ensure", "track", "track_command"])
def test_the_client_is_made_exactly_once(first: str, user: Path) -> None:
    """Two clients would be two segments, two ids and two flushers."""
    together = threading.Barrier(THREADS)
    calls: dict[str, Callable[[], object]] = {
        "get": telemetry.get_global_telemetry_client,
        "ensure": telemetry.ensure_global_telemetry_initialized,
        "track": lambda: telemetry.track(RUN),
        "track_command": lambda: telemetry.track_command("run", []),
    }

    def use(_: int) -> telemetry.Client:
        together.wait(10)
        calls[first]()
        return telemetry.get_global_telemetry_client()

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(ROUNDS):
            with fresh_process():
                clients = list(pool.map(use, range(THREADS)))
            assert len(set(map(id, clients))) == 1
    if first.startswith("track"):
        events = told(user, "telemetry")
        assert len(events) == THREADS * ROUNDS
        assert len({event["user_uuid"] for event in events}) == 1
        assert len(segment_names(home_in(user, "telemetry"))) == 1
    else:
        assert list(user.iterdir()) == []


def test_nobody_named_is_called_telemetry(user: Path) -> None:
    """Without `configure` events are recorded all the same, under a name of their own."""
    telemetry.track_command("run", [])
    (event,) = spooled(home_in(user, "telemetry"))
    assert event["source"] == "telemetry"
    assert event["properties"]["version"] == "unknown"
    assert event["properties"]["is_success"] is True


def test_configure_replaces_and_closes_the_client_before(user: Path) -> None:
    """What came before lets go of its segment; nothing of it is lost."""
    first = telemetry.configure("first")
    assert telemetry.get_global_telemetry_client() is first
    telemetry.track(RUN)
    assert is_locked(user, "first")
    second = telemetry.configure("second", version="2")
    assert telemetry.get_global_telemetry_client() is second
    assert not is_locked(user, "first")
    telemetry.track(RUN)
    assert is_locked(user, "second")
    assert [len(told(user, app)) for app in ("first", "second")] == [1, 1]
    # The same program again goes on where it was.
    telemetry.configure("first")
    telemetry.track(RUN)
    assert len(segment_names(home_in(user, "first"))) == 1
    assert len(told(user, "first")) == 2


def test_configure_beside_threads_that_track_loses_nothing(user: Path) -> None:
    """A program may be configured late, while its threads are at work."""
    together = threading.Barrier(9)

    def work() -> int:
        together.wait(10)
        return sum(telemetry.track(RUN) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(work) for _ in range(8)]
        together.wait(10)
        for _ in range(20):
            telemetry.configure("app")
        recorded = sum(future.result() for future in working)
    apps = ("app", "telemetry")
    assert recorded == 8 * 50 == sum(len(told(user, app)) for app in apps)


def test_the_version_is_known_sooner_or_later(user: Path) -> None:
    """Set before there is a client, or after, or named: the last word counts."""
    telemetry.set_global_telemetry_version("1")
    telemetry.configure("app")
    telemetry.track(RUN)
    telemetry.set_global_telemetry_version("2")
    telemetry.track(RUN)
    telemetry.configure("app", version="3")
    telemetry.track(RUN)
    telemetry.configure("app")
    telemetry.track(RUN)
    assert [event["version"] for event in told(user)] == ["1", "2", "3", "2"]


def test_debug_is_for_clients_made_from_then_on(
    user: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs, and changes nothing else."""
    caplog.set_level(logging.DEBUG)
    assert not telemetry.configure("app").config.debug
    telemetry.set_global_telemetry_debug_mode(True)
    assert not telemetry.get_global_telemetry_client().config.debug
    assert telemetry.configure("app").config.debug
    assert not telemetry.configure("app", debug=False).config.debug
    telemetry.set_global_telemetry_debug_mode(False)
    os.environ["TELEMETRY_DEBUG"] = "1"
    assert not telemetry.configure("app").config.debug
    with fresh_process():
        assert telemetry.configure("app").config.debug
    assert list(user.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, True),
        ({"TELEMETRY_ENABLED": "true"}, True),
        ({"TELEMETRY_ENABLED": "FALSE"}, False),
        ({"TELEMETRY_ENABLED": "0"}, False),
        ({"DO_NOT_TRACK": "1"}, False),
        ({"DO_NOT_TRACK": "0"}, True),
        ({"DO_NOT_TRACK": "1", "TELEMETRY_ENABLED": "true"}, False),
    ],
    ids=str,
)
def test_enabled_says_what_the_environment_leaves(
    variables: dict[str, str], *, on: bool, user: Path
) -> None:
    """A program may ask before it does what only telemetry needs."""
    os.environ.update(variables)
    assert telemetry.get_telemetry_enabled() is on
    telemetry.configure("app")
    assert telemetry.track(RUN) is on
    assert list(user.iterdir()) != [] if on else list(user.iterdir()) == []


LAYERS = """
import sys, telemetry
named = dict(argument.split("=", 1) for argument in sys.argv[1:])
client = telemetry.configure("app", **named)
config = client.config
print(config.endpoint, config.api_key, config.header, client.decision().rule, sep="|")
"""


def with_build(directory: Path, **values: str) -> Path:
    """A copy of the package as a wheel built with values has it."""
    shutil.copytree(
        REPOSITORY / "telemetry",
        directory / "telemetry",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (directory / "telemetry" / "_build.py").write_text(f"VALUES = {values!r}\n")
    return directory


def test_what_is_not_named_comes_from_environment_and_build(tmp_path: Path) -> None:
    """Whoever builds a program knows its endpoint; who runs it may know better."""
    package = with_build(
        tmp_path / "built",
        endpoint="https://built.example/",
        api_key="built",
        header="x-built",
    )

    def heard(*named: str, **variables: str) -> list[str]:
        environment = bare_environment(tmp_path, PYTHONPATH=str(package), **variables)
        child = run_python(LAYERS, *named, environment=environment, directory=tmp_path)
        assert child.returncode == 0, child.stderr
        return child.stdout.strip().split("|")

    assert heard() == ["https://built.example/", "built", "x-built", "default"]
    assert heard(
        TELEMETRY_ENDPOINT="https://said.example/",
        TELEMETRY_API_KEY="said",
        TELEMETRY_HEADER="",
    ) == ["https://said.example/", "said", "", "default"]
    assert heard(
        "endpoint=https://named.example/",
        "api_key=named",
        "header=x-named",
        TELEMETRY_ENDPOINT="https://said.example/",
        TELEMETRY_API_KEY="said",
        TELEMETRY_HEADER="x-said",
    ) == ["https://named.example/", "named", "x-named", "default"]


def test_a_program_can_be_built_with_telemetry_off(tmp_path: Path) -> None:
    """A distribution may turn it off; its users may turn it on again."""
    source = (
        "import telemetry\nprint(telemetry.get_telemetry_enabled(), telemetry.track("
    )
    source += "telemetry.CommandEvent(action='run')), telemetry.TELEMETRY_ENABLED)"
    for built, expected in (("false", "False False"), ("true", "True True")):
        package = with_build(tmp_path / built, enabled=built)
        home = tmp_path / f"home-{built}"
        home.mkdir()
        variables = {"PYTHONPATH": str(package), "TELEMETRY_FLUSH": "manual"}
        environment = bare_environment(home, **variables)
        child = run_python(source, environment=environment, directory=tmp_path)
        assert (child.stdout, child.stderr) == (f"{expected} {built}\n", "")
        assert (list(home.iterdir()) == []) == (built == "false")


def test_a_forked_child_has_the_client_and_a_lock_of_its_own(user: Path) -> None:
    """A fork while another thread configures must not leave a lock that nobody holds."""
    source = """
import os, threading, telemetry
from telemetry import api
telemetry.configure("app")
held, done = threading.Event(), threading.Event()
def hold():
    with api._process.lock:
        held.set()
        done.wait(30)
thread = threading.Thread(target=hold)
thread.start()
held.wait(30)
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    telemetry.set_global_telemetry_version("of the child")
    os._exit(0 if telemetry.track(telemetry.CommandEvent(action="run")) else 1)
_, status = os.waitpid(child, 0)
done.set()
thread.join()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    environment = bare_environment(user, TELEMETRY_FLUSH="manual")
    child = run_python(source, environment=environment)
    assert child.returncode == 0, child.stderr
    assert [event["version"] for event in told(user)] == ["of the child"]


def test_a_command_is_recorded_without_what_its_user_typed(tmp_path: Path) -> None:
    """Arguments and values of flags are prompts, paths and passwords."""
    argv = ["my prompt", "--model", "gpt", "--password=hunter", "-v"]
    said = []
    for policy in (
        telemetry.NAMES_ONLY,
        telemetry.CommandPolicy(arguments_of=("run",)),
    ):
        home = tmp_path / str(len(said))
        with only_environment(bare_environment(tmp_path)):
            client = telemetry.configure(
                "app", home=str(home), policy=policy, flush="manual"
            )
            telemetry.track_command("run", argv)
            client.close()
        properties = spooled(home)[0]["properties"]
        said.append((properties.get("args"), properties["flags"]))
    flags = ["--model", "--password", "-v"]
    assert said == [(None, flags), (["my prompt"], flags)]


def test_the_version_is_the_one_that_is_built() -> None:
    """It stands in two files, so that asking for it loads nothing."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f'\nversion = "{telemetry.__version__}"\n' in project


def test_an_event_is_a_name_and_properties(user: Path) -> None:
    """Most programs have one event of their own, and no wish for a class."""
    telemetry.configure("app")
    assert telemetry.track("deployed", {"region": "eu"})
    assert not telemetry.track("deployed", 5)  # type: ignore[arg-type]
    assert not telemetry.track(5, {})  # type: ignore[arg-type]
    (event,) = spooled(home_in(user, "app"))
    assert event["event"] == "deployed"
    assert told(user)[0]["region"] == "eu"


CONTEXT_FIELDS = {"arch", "ci", "container", "install", "invocation_id"} | {
    "os_version",
    "python",
    "sdk",
}


def test_an_event_says_where_it_comes_from(user: Path) -> None:
    """What every owner asks next: which system, which Python, was it a pipeline."""
    telemetry.configure("app")
    telemetry.track(RUN)
    telemetry.track(RUN)
    first, second = told(user)
    assert first.keys() >= CONTEXT_FIELDS
    assert first["invocation_id"] == second["invocation_id"] == first["event_id"]
    assert first["ci"] is False
    os.environ["CI"] = "true"
    telemetry.configure("in-ci", context="none")
    telemetry.track(RUN)
    (bare,) = told(user, "in-ci")
    assert not bare.keys() & CONTEXT_FIELDS
    assert bare["user_uuid"].startswith("c1000000-")


def test_every_event_has_the_tags(user: Path) -> None:
    """Those of the program, then those of who runs it, then what nobody overrides."""
    tags = {"channel": "beta", "ring": 2, "version": "9", "me": str(user)}
    telemetry.configure("app", version="1", tags=tags)
    telemetry.track("opened", {"channel": "its own", "left": True})
    os.environ["TELEMETRY_TAGS"] = "ring=3"
    telemetry.track("opened")
    first, second = told(user)
    assert (first["channel"], first["ring"], first["left"]) == ("beta", 2, True)
    assert (second["channel"], second["ring"]) == ("beta", "3")
    assert first["version"] == "1"
    assert str(user) not in first["me"]
