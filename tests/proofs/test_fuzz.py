"""The fuzz targets: their corpora hold, each of them can fail, and so can their run."""

from __future__ import annotations

import http.client
import importlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from fuzz import engine, run
from telemetry.books.entries import SegmentEntry, Snapshot
from telemetry.delivery.report import FlushReport
from telemetry.spool.frame import Record
from telemetry.spool.frame import scan as sound_scan
from telemetry.spool.reader import SegmentReader
from telemetry.wire.verdict import Action, Reply, Verdict, judge
from tests.support.misbehaving import Server, raw
from tests.support.posting import post, transport
from tests.support.surroundings import REPOSITORY


SEEDS = [(target, path) for target in run.TARGETS for path in engine.seeds(target)]
# A run of one target that searches for a second, on a busy machine.
PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def _memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Homes are made in memory where there is some: a disk would sync each."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    ) as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield


def target(name: str) -> ModuleType:
    return importlib.import_module(f"fuzz.fuzz_{name}")


@pytest.mark.parametrize(
    ("name", "path"), SEEDS, ids=[f"{name}-{path.name}" for name, path in SEEDS]
)
def test_the_corpus_holds(name: str, path: Path) -> None:
    """What a fuzzer once found, or starts from, stays found."""
    target(name).one(path.read_bytes())


@pytest.mark.parametrize("name", run.TARGETS)
def test_a_target_says_its_invariant_and_has_a_corpus(name: str) -> None:
    """Who adds a target finds the others alike; one without seeds starts from nothing."""
    assert (target(name).__doc__ or "").startswith("Invariant tested: ")
    names = [path.name for path in engine.seeds(name)]
    assert len(names) >= 10
    assert not [each for each in names if re.search("[0-9a-f]{12}", each)], (
        "a name says"
    )


def test_every_corpus_has_its_target() -> None:
    """A corpus that nobody runs proves nothing."""
    assert sorted(path.name for path in engine.CORPUS.iterdir()) == run.TARGETS


def forgetful_scan(content: bytes, *, at: int, answered: int) -> Any:
    found = sound_scan(content, at=at, answered=answered)
    kept = [item for item in found.items if isinstance(item, Record)]
    return msgspec.structs.replace(found, items=kept)


def credulous_snapshot(_place: str, **_: object) -> Snapshot:
    return Snapshot(segments={"a": SegmentEntry(offset=150)})


class BlindScrubber:
    def __init__(self, **_: object) -> None:
        pass

    def text(self, text: str) -> str:
        return text

    free_text = text


def gullible_judge(outcome: Any, **_: object) -> Verdict:
    """Every 2xx is an acceptance."""
    if isinstance(outcome, Reply) and 200 <= outcome.status <= 299:
        return Verdict(Action.ACCEPTED, str(outcome.status))
    return judge(outcome, now=0.0)


def without_damage(check: Callable[[SegmentReader], Any]) -> Callable[..., Any]:
    return lambda reader: msgspec.structs.replace(check(reader), damage=[])


def without_the_last(take: Callable[..., Any]) -> Callable[..., Any]:
    return lambda reader, *args, **named: take(reader, *args, **named)[:-1]


def writing(inspect: Callable[..., Any]) -> Callable[..., Any]:
    """A tool that leaves something behind."""

    def inspecting(args: Any) -> Any:
        Path(args.home, "seen").touch()
        return inspect(args)

    return inspecting


def raw_say(_screen: object, *parts: Any, **_: object) -> None:
    print(*(part if isinstance(part, str) else part[0] for part in parts))


def lazy_flush(*_: object, **__: object) -> FlushReport:
    """Says that all is sent, and sends nothing."""
    return FlushReport()


def last_of_each(content: bytes) -> dict[str, int]:
    """Counts as they stand, the last of a reason: one that damage doubled stays."""
    lines = re.findall(rb"(?s)([a-z_]{1,15}) *(\d{15})\n", content)
    return {reason.decode(): int(count) for reason, count in lines}


def naive_tags(text: str) -> dict[str, str]:
    """`strip` takes what is no white space for it."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def double(made: Any) -> Callable[[Any], Any]:
    return lambda _sound: made


def formats_that_accept_all(sound: Any) -> Any:
    return {name: form._replace(refusals=lambda *_: ()) for name, form in sound.items()}


# What is broken, where, and how: each has to be found by a seed.
TEETH: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("frame", "fuzz.fuzz_frame.scan", double(forgetful_scan)),
    ("frame", "fuzz.fuzz_frame.last_record", double(lambda _content, **_: None)),
    ("ledger", "fuzz.fuzz_ledger.read_snapshot", double(credulous_snapshot)),
    ("privacy", "fuzz.fuzz_privacy.Scrubber", double(BlindScrubber)),
    ("reply", "fuzz.fuzz_reply.judge", double(gullible_judge)),
    ("reply", "telemetry.wire.verdict.RETRY_AFTER_MAX_S", double(1e9)),
    ("reply", "fuzz.fuzz_reply.tells_key", double(lambda _text: False)),
    ("reply", "fuzz.fuzz_reply.FORMATS", formats_that_accept_all),
    (
        "wire",
        "telemetry.wire.transport.BoundedResponse.begin",
        double(http.client.HTTPResponse.begin),
    ),
    (
        "wire",
        "telemetry.wire.reply._framing_problem",
        double(lambda _headers: ""),
    ),
    ("spool", "telemetry.spool.reader.SegmentReader.check", without_damage),
    ("spool", "telemetry.spool.reader.SegmentReader.take", without_the_last),
    ("spool", "spool_tools.status.run", writing),
    ("spool", "spool_tools.screen.Screen.say", double(raw_say)),
    ("spool", "fuzz.fuzz_spool.flush", double(lazy_flush)),
    (
        "small_files",
        "telemetry.consent.read_choice",
        double(
            lambda _path: importlib.import_module("telemetry.consent").Choice(on=True)
        ),
    ),
    ("small_files", "telemetry.identity.user_uuid", double(lambda _path: "an-id")),
    ("small_files", "telemetry.delivery.schedule.HORIZON_S", double(1e9)),
    (
        "small_files",
        "telemetry.delivery.schedule.Schedule.is_ahead",
        double(lambda _plan, _now: False),
    ),
    ("small_files", "telemetry.spool.refusals.parse", double(last_of_each)),
    ("tags", "fuzz.fuzz_tags.parse_tags", double(naive_tags)),
    ("tags", "telemetry.envelope.sound", double(lambda text: text)),
]


@pytest.mark.parametrize(
    ("name", "place", "broken"),
    TEETH,
    ids=[f"{name}-{place.rpartition('.')[2]}" for name, place, _ in TEETH],
)
def test_a_target_finds_what_is_broken(
    name: str,
    place: str,
    broken: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A target that nothing can fail is a target that looks at nothing."""
    one = target(name).one
    monkeypatch.setattr(place, broken(_at(place)))

    def look() -> None:
        for path in engine.seeds(name):
            one(path.read_bytes())

    with pytest.raises((AssertionError, UnicodeEncodeError)):
        look()


def _at(place: str) -> Any:
    """What stands at a dotted path."""
    names = place.split(".")
    for length in range(len(names) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(names[:length]))
        except ModuleNotFoundError:
            continue
        for name in names[length:]:
            found = getattr(found, name)
        return found
    raise LookupError(place)


def test_every_target_has_teeth() -> None:
    """The next one must have some as well."""
    assert sorted({name for name, _, _ in TEETH}) == run.TARGETS


def fuzzed(*arguments: str, start: str, directory: Path) -> tuple[int, Any, str]:
    """A run in a Python that has executed `start`: its code, its JSON, what it said."""
    (directory / "sitecustomize.py").write_text(start)
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--keep", str(directory / "kept"), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


def test_a_finding_is_kept_and_ends_the_run_with_1(tmp_path: Path) -> None:
    """A finding whose input is gone cannot be looked into."""
    start = "import telemetry.wire.verdict as broken\nbroken.RETRY_AFTER_MAX_S = 1e9\n"
    arguments = ("--plain", "--seconds", "1", "tags", "reply")
    code, told, said = fuzzed(*arguments, start=start, directory=tmp_path)
    assert code == 1
    assert list(told["findings"]) == ["reply"]
    kept = Path(told["findings"]["reply"])
    assert kept.parent == tmp_path / "kept"
    seeds = [path.read_bytes() for path in engine.seeds("reply")]
    assert kept.read_bytes() in seeds, "the corpus is looked at first"
    assert str(kept) in said
    # The others are run all the same.
    assert told["executions"]["tags"] > len(engine.seeds("tags"))


def test_without_atheris_the_corpus_is_mutated_and_it_says_so(tmp_path: Path) -> None:
    """Half of the Pythons have no wheel; a run there must not pass by doing nothing."""
    start = "import sys\nsys.modules['atheris'] = None\n"
    arguments = ("--seconds", "1", "--seed", "7", "tags")
    code, told, said = fuzzed(*arguments, start=start, directory=tmp_path)
    assert code == 0, said
    assert "no atheris for this Python" in said
    assert told["engine"] == "mutation"
    assert told["seed"] == 7
    assert told["total"] == told["executions"]["tags"] > len(engine.seeds("tags"))


def test_a_target_that_searches_nothing_is_a_finding(tmp_path: Path) -> None:
    """Its corpus alone has nothing new to say."""
    ended = run.run("tags", seconds=0, seed=1, engine="mutation", keep=tmp_path)
    assert ended.executions == len(engine.seeds("tags"))
    assert ended.finding == "it looked at nothing but its corpus"


def test_a_target_that_cannot_start_is_a_finding(tmp_path: Path) -> None:
    """A broken import must not look like a target without findings."""
    ended = run.run("of_nobody", seconds=1, seed=1, engine="mutation", keep=tmp_path)
    assert (ended.executions, ended.finding) == (0, "it cannot start")


def test_the_same_seed_gives_the_same_inputs() -> None:
    """A finding of the fallback is found again by its seed."""
    corpus = [path.read_bytes() for path in engine.seeds("frame")]

    def inputs(seed: str) -> list[bytes]:
        dice = random.Random(seed)
        return list(itertools.islice(engine.mutated(corpus, dice, 4096), 500))

    assert inputs("frame 1") == inputs("frame 1") != inputs("frame 2")
    assert len(set(inputs("frame 1"))) > 400
    assert max(map(len, inputs("frame 1"))) <= 4096


JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n",
        JSON_HEAD,
        JSON_HEAD + b"Content-Len",
        JSON_HEAD + b"Content-Length: 17\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + JSON_HEAD,
    ],
)
def test_a_header_block_that_breaks_off_accepts_nothing(sent: bytes) -> None:
    """A server that dies in it was not asked yet how much was to follow: events that
    it never took would be settled as delivered."""
    with Server(raw(sent)) as server, transport(server.url) as to:
        assert judge(post(to), now=0.0).action is Action.WAIT


@pytest.mark.parametrize(
    "header",
    [
        b"Transfer-Encoding: chunked ",
        b"Transfer-Encoding:\x1fchunked",
        b"Content-Type: multipart/mixed; boundary=x\r\n--x\r\nContent-Length: 99",
        b"Content-Type: message/rfc822\r\nwhat is this\r\nContent-Length: 99",
    ],
)
def test_a_length_that_was_not_understood_accepts_nothing(header: bytes) -> None:
    """The reply is cut, and its reader believes that it ends with the connection."""
    sent = b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n8\r\n{}"
    with Server(raw(sent)) as server, transport(server.url) as to:
        assert judge(post(to), now=0.0).action is Action.WAIT
