"""Where a program keeps its events: the rules of each system, and no other place."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import ConfigError, HomeError
from telemetry.paths import (
    Home,
    home_of,
    is_segment,
    segment_created_ns,
    segment_name,
    state_directory,
)
from tests.support.surroundings import bare_environment, only_environment, run_python


platformdirs = pytest.importorskip("platformdirs")
SYSTEMS = ["linux", "darwin", "win32", "freebsd14"]

UNIX_ENVIRONMENTS = [
    {"HOME": "/home/u"},
    {"HOME": "/home/u/"},
    {"HOME": "/"},
    {"HOME": "/home/a user"},
    {"HOME": "/home/u", "XDG_STATE_HOME": ""},
    {"HOME": "/home/u", "XDG_STATE_HOME": "/var/state"},
    {"HOME": "/home/u", "XDG_STATE_HOME": "relative/state"},
    {"HOME": "/home/u", "XDG_STATE_HOME": "~/state"},
    {"HOME": "/home/u", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d"},
    {"XDG_STATE_HOME": "/var/state"},
    {"HOME": "relative", "XDG_STATE_HOME": "/var/state"},
]


def unix_directory() -> str:
    from platformdirs.unix import Unix

    return str(Unix("app").user_state_dir)


def macos_directory() -> str:
    from platformdirs.macos import MacOS

    return str(MacOS("app").user_state_dir)


@pytest.mark.parametrize("environment", UNIX_ENVIRONMENTS, ids=repr)
@pytest.mark.parametrize(
    ("platform", "theirs"),
    [
        ("linux", unix_directory),
        ("freebsd14", unix_directory),
        ("darwin", macos_directory),
    ],
)
def test_state_is_kept_where_other_programs_keep_it(
    platform: str, theirs: Callable[[], str], environment: dict[str, str]
) -> None:
    """Backup, clean-up and the user's own search go by the rules of the system."""
    with only_environment(environment):
        assert f"{state_directory(environment, platform)}/app" == theirs()


def test_a_state_directory_is_trimmed_as_every_text_is() -> None:
    """An env-file with CRLF ends must not make a directory with a line end."""
    for text in ("/var/state\r", " /var/state", '"/var/state" '):
        environment = {"HOME": "/home/u", "XDG_STATE_HOME": text}
        assert state_directory(environment, "linux") == "/var/state"


@pytest.mark.parametrize("local", [r"C:\Users\u\AppData\Local", r"D:\Profiles\u"])
def test_windows_keeps_state_in_the_local_profile(local: str) -> None:
    """A roaming profile would copy the spool to a server at each logout."""
    from platformdirs.windows import Windows

    with only_environment({"WIN_PD_OVERRIDE_LOCAL_APPDATA": local}):
        theirs = Windows().user_state_dir
    assert state_directory({"LOCALAPPDATA": local}, "win32") == theirs
    profile = {"USERPROFILE": r"C:\Users\u"}
    assert state_directory(profile, "win32") == r"C:\Users\u\AppData\Local"


@pytest.mark.parametrize("platform", SYSTEMS)
@pytest.mark.parametrize(
    "environment", [{}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "~"}], ids=repr
)
def test_no_home_is_no_shared_directory(
    environment: dict[str, str], platform: str
) -> None:
    """In a shared directory anybody could read the events, or plant a segment."""
    with pytest.raises(HomeError):
        home_of("app", home=None, environment=environment, platform=platform)


def test_the_home_is_what_was_named_most_exactly(tmp_path: Path) -> None:
    """An exact directory wins over the variable, the variable over the system."""
    environment = {"HOME": "/home/u", "TELEMETRY_HOME": str(tmp_path / "all")}
    exact = str(tmp_path / "exact")

    def root(home: str | None, variables: dict[str, str]) -> str:
        return home_of("app", home=home, environment=variables, platform="linux").root

    assert root(exact, environment) == exact
    assert root(None, environment) == f"{tmp_path}/all/app"
    assert root(None, {"HOME": "/home/u"}) == "/home/u/.local/state/app/telemetry"
    assert root(None, {"TELEMETRY_HOME": str(tmp_path)}) == f"{tmp_path}/app"
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_users_home_in_every_path_that_a_person_sets() -> None:
    """No shell has read an env-file, nor a program's default."""
    environment = {"HOME": "/home/u"}
    for named, root in (
        ("~", "/home/u"),
        ("~/x", "/home/u/x"),
        ("./~", f"{os.getcwd()}/~"),
        ("/x/~", "/x/~"),
        ("~nobody-at-all/x", f"{os.getcwd()}/~nobody-at-all/x"),
    ):
        home = home_of("app", home=named, environment=environment, platform="linux")
        assert home.root == root
        for ends in ("{}", ' "{}"\r', "{}\n"):
            variables = {**environment, "TELEMETRY_HOME": ends.format(named)}
            home = home_of("app", home=None, environment=variables, platform="linux")
            assert home.root == os.path.join(root, "app")


@pytest.mark.parametrize("home", ["a\0b", "\ud800", 5, ["a"], 3.5], ids=ascii)
def test_a_home_that_is_no_path_is_refused(home: str) -> None:
    """Kept elsewhere than was named, events would be found by nobody."""
    environment = {"HOME": "/home/u"}
    with pytest.raises(HomeError):
        home_of("app", home=home, environment=environment, platform="linux")


def test_a_relative_home_needs_a_working_directory(tmp_path: Path) -> None:
    """A daemon's may have been deleted long ago."""
    gone = tmp_path / "gone"
    gone.mkdir()
    source = """
import os, sys, telemetry
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
client = telemetry.Client(telemetry.Config(app="app", home="relative", flush="manual"))
assert client.decision().on
print(client.track(telemetry.CommandEvent(action="run")))
"""
    child = run_python(source, str(gone), environment=bare_environment(tmp_path))
    assert (child.returncode, child.stdout, child.stderr) == (0, "False\n", "")


@pytest.mark.parametrize(
    "app",
    ["", ".", "..", "a/b", "/a", "-a", ".a", "a b", "a\n", "a\0", "é", "~", "a" * 101],
    ids=ascii,
)
def test_an_app_that_is_no_directory_is_refused(app: str) -> None:
    """A name with a slash or a dot would lead out of the state directory."""
    with pytest.raises(ConfigError) as caught:
        home_of(app, home=None, environment={"HOME": "/h"}, platform="linux")
    assert caught.value.field == "app"


@given(st.text(alphabet=string.printable + "é\0", max_size=110))
def test_an_app_stays_below_its_base(app: str) -> None:
    """Whatever a program calls itself, its files are in a directory of its own."""
    environment = {"TELEMETRY_HOME": "/base"}
    try:
        home = home_of(app, home=None, environment=environment, platform="linux")
    except ConfigError:
        return
    assert home.root == f"/base/{app}"
    assert Path(home.root).parts[1:] == ("base", app)


def test_every_file_is_directly_below_the_root() -> None:
    """What checks the root has then checked everything."""
    home = Home("/h")
    names = [name for name in vars(home) if name != "root"]
    paths = {getattr(home, name) for name in names}
    assert len(paths) == len(names)
    assert {str(Path(path).parent) for path in paths} == {"/h"}
    assert home.segment("name") == "/h/spool/name"
    assert repr(home) == "Home('/h')"


@given(
    st.integers(0, 10**20 - 1),
    st.integers(0, 10**20 - 1),
    st.binary(min_size=4, max_size=4),
)
def test_segments_sort_by_their_time(one: int, other: int, random: bytes) -> None:
    """The flusher reads in the order of names and so in the order of time."""
    first, second = segment_name(one, random), segment_name(other, random)
    assert is_segment(first)
    assert segment_created_ns(first) == one
    assert (first < second) == (one < other)


@pytest.mark.parametrize(
    "name",
    [
        "1" * 20 + "-0123abcd.v2.jseq",
        "1" * 19 + "-0123abcd.v1.jseq",
        "1" * 20 + "-0123ABCD.v1.jseq",
        "1" * 20 + "-0123abcd.v1.jseq.tmp-1-2",
        "1" * 20 + "-0123abcd.v1.jseq\n",
        "x" + "1" * 20 + "-0123abcd.v1.jseq",
        "٣" * 20 + "-0123abcd.v1.jseq",
    ],
    ids=ascii,
)
def test_what_is_no_segment_is_left_alone(name: str) -> None:
    """Files of another version or of another program are not ours to read or delete."""
    assert not is_segment(name)
