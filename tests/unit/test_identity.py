"""The id of an installation: one, whoever comes first, and used as it stands."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.identity import parse_id, user_uuid
from tests.support.surroundings import PATIENCE_S, REPOSITORY, bare_environment, spooled


UUID4 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
# As many at once as made two ids in 33 of 150 tries where the file was written in
# place; and enough rounds for that to show up many times over. Under Wine each takes long.
RACERS = 4
ROUNDS = 50 if sys.platform == "win32" else 200

# Each line that is read is a directory; what is answered is the id found in it.
ASK_FOR_ID = """
import sys
from telemetry.identity import user_uuid
print("ready", flush=True)
for line in sys.stdin:
    print(user_uuid(line.rstrip() + "/user-uuid"), flush=True)
"""
# The whole of a first run: home, id and first event.
FIRST_RUN = """
import sys
import telemetry
print("ready", flush=True)
for line in sys.stdin:
    with telemetry.Client(telemetry.Config(
        app="app", home=line.rstrip() + "/home", flush="manual", scrub=False
    )) as client:
        print(client.track(telemetry.CommandEvent(action="run")), flush=True)
"""


class Racers:
    """Processes that wait for a line each, and then run at once."""

    def __init__(self, source: str, home: Path) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", source],
                env={"PYTHONPATH": str(REPOSITORY), **bare_environment(home)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(RACERS)
        ]
        assert self.answers() == ["ready"] * RACERS

    def run(self, directory: Path) -> list[str]:
        """What each of them answers for `directory`."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{directory}\n")
            process.stdin.flush()
        return self.answers()

    def answers(self) -> list[str]:
        found = []
        for process in self._processes:
            assert process.stdout is not None
            found.append(process.stdout.readline().rstrip())
        return found

    def close(self) -> None:
        for process in self._processes:
            process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0


@pytest.fixture
def racers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Racers]:
    started = Racers(request.param, tmp_path)
    yield started
    started.close()


@pytest.mark.parametrize("racers", [ASK_FOR_ID], indirect=True, ids=["id"])
@pytest.mark.parametrize("content", [None, b"", b" \n"], ids=["none", "empty", "blank"])
def test_first_runs_at_once_agree_on_one_id(
    content: bytes | None, racers: Racers, tmp_path: Path
) -> None:
    """Two ids of one installation would count it twice for ever."""
    disagreements = []
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        directory.mkdir()
        file = directory / "user-uuid"
        if content is not None:
            file.write_bytes(content)
        answers = set(racers.run(directory))
        if answers != {file.read_text()} or os.listdir(directory) != ["user-uuid"]:
            disagreements.append(answers)
    assert disagreements == []


@pytest.mark.parametrize("racers", [FIRST_RUN], indirect=True, ids=["client"])
def test_first_launches_at_once_record_one_id_and_every_event(
    racers: Racers, tmp_path: Path
) -> None:
    """The first launches of a program often come together: a script, a test run."""
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert racers.run(directory) == ["True"] * RACERS
        events = spooled(directory / "home")
        assert len(events) == RACERS
        ids = {event["properties"]["user_uuid"] for event in events}
        assert ids == {(directory / "home/user-uuid").read_text()}
        assert len({event["properties"]["event_id"] for event in events}) == RACERS


def test_a_new_id_is_random_private_and_without_line_end(tmp_path: Path) -> None:
    """Nothing of the machine or the user may be told by it."""
    ids = {user_uuid(str(tmp_path / str(number))) for number in range(100)}
    assert len(ids) == 100
    assert all(UUID4.fullmatch(text) for text in ids)
    file = tmp_path / "0"
    assert file.read_text() in ids
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_the_file_is_private_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    """A host's umask is set for its own files, not for these."""
    before = os.umask(umask)
    try:
        text = user_uuid(str(tmp_path / "user-uuid"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "user-uuid").stat().st_mode) == 0o600
    assert (tmp_path / "user-uuid").read_text() == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b"11111111-2222-4333-8444-555555555555",
            "11111111-2222-4333-8444-555555555555",
        ),
        (b"  \t an id \r\n", "an id"),
        ("\u3000\xa0\x85id\u2028".encode(), "id"),
        (b"\x1c\x1d", "\x1c\x1d"),
        (b"a\0b", "a\0b"),
        (b"u\xffid", "u\ufffdid"),
        (b"\xf0\x9f\x9a", "\ufffd\ufffd\ufffd"),
        (b"first\nsecond\n", "first\nsecond"),
        (b"x" * 2000, "x" * 1024),
    ],
    ids=ascii,
)
def test_an_id_that_is_there_is_used_as_it_stands(
    content: bytes, text: str, tmp_path: Path
) -> None:
    """Whoever wrote it may know the installation by it already."""
    file = tmp_path / "user-uuid"
    file.write_bytes(content)
    assert user_uuid(str(file)) == text == parse_id(content[:1024])
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b" \t\r\n", "\xa0\u3000\n".encode()])
def test_an_empty_file_gets_an_id_that_stays(content: bytes, tmp_path: Path) -> None:
    """A crash may have left a file without content."""
    file = tmp_path / "user-uuid"
    file.write_bytes(content)
    text = user_uuid(str(file))
    assert UUID4.fullmatch(text)
    assert file.read_text() == text == user_uuid(str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_no_file_is_replaced_or_done_without(tmp_path: Path) -> None:
    """A link could make us read, or overwrite, a file of somebody else's."""
    target = tmp_path / "target"
    target.write_text("somebody's")
    link = tmp_path / "link"
    link.symlink_to(target)
    text = user_uuid(str(link))
    assert UUID4.fullmatch(text)
    assert target.read_text() == "somebody's"
    assert not link.is_symlink()
    assert link.read_text() == text

    os.mkfifo(tmp_path / "fifo")
    assert UUID4.fullmatch(user_uuid(str(tmp_path / "fifo")))

    directory = tmp_path / "directory"
    directory.mkdir()
    assert UUID4.fullmatch(user_uuid(str(directory)))
    assert directory.is_dir()


def test_an_id_that_cannot_be_written_is_still_an_id(tmp_path: Path) -> None:
    """An event without an id could not be counted by installation at all."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "user-uuid", tmp_path / "no" / "user-uuid"):
        assert UUID4.fullmatch(user_uuid(str(path)))
    assert os.listdir(tmp_path) == ["file"]


def test_an_id_of_continuous_integration_says_so(tmp_path: Path) -> None:
    """Each run may have a home of its own: counted as users, they would be thousands."""
    made = user_uuid(str(tmp_path / "in-ci"), is_ci=True)
    assert uuid.UUID(made).version == 8
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert made.startswith("c1000000-")
    assert user_uuid(str(tmp_path / "in-ci")) == made
    elsewhere = user_uuid(str(tmp_path / "elsewhere"))
    assert uuid.UUID(elsewhere).version == 4
    assert user_uuid(str(tmp_path / "elsewhere"), is_ci=True) == elsewhere
