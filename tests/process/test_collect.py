"""The `collect` command as a process: what it prints, keeps, and ends with."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3

from spool_tools.commands import run


if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = str(Path(__file__).parent.parent.parent)
COMMAND = f"""
import sys
sys.path.insert(0, {ROOT!r})
from spool_tools.commands import run
sys.exit(run(["collect", *sys.argv[1:]]))
"""


class Running:
    """One collector process; its endpoint is read as a person would."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *options],
            cwd=directory,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Exit code, further output, errors."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def pool():
    with urllib3.PoolManager(retries=False) as manager:
        yield manager


def body(*ids: str) -> bytes:
    records = [
        {
            "event": "tool",
            "event_timestamp": 1,
            "source": "s",
            "properties": {"event_id": event_id},
        }
        for event_id in ids
    ]
    return json.dumps({"records": records}).encode()


def post(pool, url, content, **headers):
    return pool.request("POST", url, body=content, headers=headers, timeout=60.0)


def status_or_none(pool, url: str) -> int | None:
    try:
        return post(pool, url, body("a")).status
    except urllib3.exceptions.ProtocolError:
        return None


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_a_signal_ends_it_with_its_code_and_a_summary(tmp_path, pool, number, code):
    """A script must be able to tell a person's Ctrl-C from its own end."""
    with Running(tmp_path) as running:
        parts = urllib.parse.urlsplit(running.url)
        assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        assert parts.path == "/events/v1/track"
        post(pool, running.url, body("a", "b"))
        post(pool, running.url, body("b", " "))
        ended, out, err = running.end(getattr(signal, number))
    assert ended == code
    assert out == "", "nothing but the endpoint goes to standard output"
    assert f"TELEMETRY_ENDPOINT={running.url}" in err
    assert "2 requests: 2 new events, 1 duplicates, 1 rejected; in collected.db" in err
    with sqlite3.connect(tmp_path / "collected.db") as looking:
        assert looking.execute("SELECT count(*) FROM events").fetchone() == (2,)
    looking.close()


def test_it_ends_after_so_many_new_events(tmp_path, pool):
    """Duplicates and what the file held do not count; the last answer still leaves."""
    path = str(tmp_path / "c.db")
    with Running(tmp_path, "--database", path, "--count", "2") as running:
        post(pool, running.url, body("a", "b"))
        assert running.end()[0] == 0
    with Running(tmp_path, "--database", path, "--count", "2") as running:
        assert post(pool, running.url, body("a", "b", "c")).status == 200
        assert post(pool, running.url, body("d")).json()["accepted"] == 1
        code, _out, err = running.end()
    assert code == 0
    assert "goes on; it holds 2 events" in err
    assert "2 new events, 2 duplicates" in err


def test_time_over_is_1_only_where_events_are_missing(tmp_path):
    """`--count 1 --for 30` in a script says whether telemetry arrived at all."""
    with Running(tmp_path, "--for", "0.1") as running:
        assert running.end()[0] == 0
    with Running(tmp_path, "--for", "0.1", "--count", "1") as running:
        code, _out, err = running.end()
    assert code == 1
    assert "fewer than the 1 events" in err


def test_verbose_prints_each_request_as_a_json_line(tmp_path, pool):
    """What arrives can be watched, and piped into jq."""
    with Running(tmp_path, "--verbose", "--database", ":memory:") as running:
        post(pool, running.url, body("a"), **{"idempotency-key": "k\x85"})
        post(pool, running.url, b"[]")
        code, out, _err = running.end(signal.SIGTERM)
    first, second = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert (first["status"], first["accepted"]) == (200, 1)
    assert first["idempotency_key"] in ("k\\u0085", "k\ufffd")
    assert (second["status"], second["records"]) == (400, 0)
    assert list(tmp_path.iterdir()) == []


def test_it_outlives_the_reader_of_its_output(tmp_path, pool):
    """`collect --verbose | head -1` must not cost events, nor print a traceback."""
    with Running(tmp_path, "--verbose") as running:
        running.process.stdout.close()
        for event_id in ("a", "b"):
            assert post(pool, running.url, body(event_id)).status == 200
        running.process.send_signal(signal.SIGTERM)
        err = running.process.stderr.read()
        assert running.process.wait(timeout=60) == 0
        running.process.stdout = None
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert "2 new events" in err


def test_the_key_comes_from_the_environment_and_is_told_to_nobody(tmp_path, pool):
    """Arguments are seen by every user of the machine; files and logs are kept."""
    secret = "s3cret-k3y-of-nobody"
    options = ("--require-key", "MY_KEY", "--header", "X-Mine", "--verbose")
    with Running(tmp_path, *options, MY_KEY=secret) as running:
        assert post(pool, running.url, body("a")).status == 401
        assert post(pool, running.url, body("a"), **{"x-mine": secret}).status == 200
        kept = b"".join(found.read_bytes() for found in tmp_path.iterdir())
        code, out, err = running.end(signal.SIGTERM)
    assert code == 0
    assert secret not in out + err
    assert '"$MY_KEY"' in err
    assert secret.encode() not in kept + (tmp_path / "collected.db").read_bytes()


def test_header_and_key_default_to_the_programs_own(tmp_path, pool):
    """The same environment serves the collector and the program that it collects."""
    environment = {"TELEMETRY_API_KEY": "k", "TELEMETRY_HEADER": "x-env"}
    with Running(tmp_path, "--require-key", **environment) as running:
        assert post(pool, running.url, body("a"), **{"x-api-key": "k"}).status == 401
        assert post(pool, running.url, body("a"), **{"x-env": "k"}).status == 200


UNUSABLE = [
    ("--listen", "127.0.0.1"),
    ("--listen", ":80"),
    ("--listen", "127.0.0.1:65536"),
    ("--listen", "no.such.host.invalid:0"),
    ("--listen", "a..b:0"),
    ("--listen", "192.0.2.1:0"),
    ("--path", "x"),
    ("--path", "/x?y"),
    ("--count", "0"),
    ("--for", "nan"),
    ("--for", "-1"),
    ("--for", "soon"),
    ("--body-bytes-max", "-5"),
    ("--require-key",),
    ("--require-key", "s3cret"),
    ("--require-key", "KEY", "--header", ""),
    ("--status", "99"),
    ("--fail-rate", "2"),
    ("--slow", "0"),
    ("--times", "3"),
    ("--before-commit",),
    ("--hang", "--reset"),
    ("--html", "--before-commit", "--after-commit"),
    ("--retry-after", "\n"),
    ("--database", "no/such/directory/c.db"),
    ("--database", "."),
]


@pytest.mark.parametrize("options", UNUSABLE, ids=" ".join)
def test_wrong_usage_is_2_says_why_and_leaves_nothing(
    tmp_path, monkeypatch, options, capsys
):
    """Nothing is listened on, nothing is created, no secret is repeated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", "k")
    monkeypatch.delenv("TELEMETRY_API_KEY", raising=False)
    try:
        # Where it did listen after all, it ends at once, with another code.
        code = run(["collect", "--for", "0.01", *options])
    except SystemExit as exc:
        code = exc.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "collect: " in err
    assert "Traceback" not in err
    assert "s3cret" not in err


MISBEHAVING = [
    (("--status", "503", "--times", "1"), [503, 200]),
    (("--retry-after", "9", "--times", "1"), [503, 200]),
    (("--fail-rate", "1", "--seed", "3"), [503, 503]),
    (("--html",), [200, 200]),
    (("--reset", "--times", "1"), [None, 200]),
    (("--truncate", "--times", "1"), [None, 200]),
    (("--reject", "other", "--reject", "tool"), [200, 200]),
    (("--slow", "100000"), [200, 200]),
    (("--body-bytes-max", "10"), [413, 413]),
    (("--path", "/elsewhere", "--listen", "localhost:0"), [200, 200]),
]


@pytest.mark.parametrize(("options", "expected"), MISBEHAVING, ids=str)
def test_the_command_misbehaves_as_it_is_told(tmp_path, pool, options, expected):
    """Each option reaches the fault of its name."""
    with Running(tmp_path, *options) as running:
        statuses = [status_or_none(pool, running.url) for _ in expected]
        code, _out, err = running.end(signal.SIGTERM)
    assert statuses == expected
    assert code == 0
    counts = {"--reject": "2 rejected", "--reset": "1 duplicates", "--seed": "0 new"}
    for option, said in counts.items():
        assert option not in options or said in err
    if "--fail-rate" in options:
        assert "--seed 3 repeats" in err


def test_hanging_until_it_is_ended(tmp_path, pool):
    """`--hang` holds the client; SIGTERM lets it go, with the event stored."""
    with Running(tmp_path, "--hang", "--verbose") as running:
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            pool.request("POST", running.url, body=body("a"), timeout=0.3)
        line = running.process.stdout.readline()
        code, _out, err = running.end(signal.SIGTERM)
    assert code == 0
    assert json.loads(line)["fault"] == "hang"
    assert "1 new events" in err


def test_two_at_once_share_a_file(tmp_path, pool):
    """Two collectors on one file deduplicate between them."""
    with Running(tmp_path) as first, Running(tmp_path) as second:
        assert post(pool, first.url, body("a", "b")).json()["accepted"] == 2
        told = post(pool, second.url, body("b", "c")).json()
        assert (told["accepted"], told["duplicates"]) == (1, 1)
        assert first.end(signal.SIGTERM)[0] == second.end(signal.SIGTERM)[0] == 0


def test_beyond_loopback_it_says_so(tmp_path):
    """Listening on every address is a person's choice, and not a silent one."""
    with Running(tmp_path, "--listen", "0.0.0.0:0") as running:
        assert running.url.startswith("http://127.0.0.1:")
        assert "other machines" in running.end(signal.SIGTERM)[2]
    with Running(tmp_path) as running:
        assert "other machines" not in running.end(signal.SIGTERM)[2]
