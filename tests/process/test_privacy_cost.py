"""Scrubbing costs a launch next to nothing, and no text can make it cost much."""

from __future__ import annotations

import subprocess
import sys
import time

from telemetry.privacy import Scrubber
from tests.support.canaries import HOMES, USERS


SCRUBBER = Scrubber(homes=HOMES, users=USERS, key="sesame-0123456789")

# What the events of an ordinary session say.
TYPICAL = (
    *("shell", "root", "call", "run", "gpt-4o", "config.yaml", "1.2.3", "start", "end"),
    *("connection refused", "exit status 1", "read_multiple_files", "v0.4.1-rc.1"),
    *("11111111-2222-4333-8444-555555555555", "claude-3-5-sonnet-20241022", "linux"),
    *("docker/cagent:latest", "agents/dev.yaml", "10:30", "en_US.UTF-8", "cagent"),
)
COLD = """
import sys
import msgspec, telemetry
before = set(sys.modules)
from telemetry.privacy import Scrubber
scrubber = Scrubber(homes=("/home/alice",), users=("alice",))
event = {{text: [text, 1] for text in {typical!r}}}
assert scrubber.value(event) is event
assert scrubber.free_text("connection refused") == "connection refused"
print(*sorted(set(sys.modules) - before))
"""
LAZY = """
from telemetry import privacy
scrubber = privacy.Scrubber(homes=("/home/alice",), users=("alice",))
assert scrubber.text("open /srv/x") == "open <path>"
from telemetry.privacy import scrub
print(*scrub._compiled)
"""
# Each is repeated into one long text: what some finder starts at, and what it hopes
# for or backtracks over.
# fmt: off
ADVERSE = (
    "a", "A", "0", "f", "\xe9", "e\u0301", "\uff41", "\u4f60", "\ud55c", "\U0001f600",
    "\ud800", "\u200b", "\x00", "@", "a@", "a@a.", "a@b.com", "a.", "x" * 99 + "@",
    "/", "//", "/a", "/a ", "/(", "/(a", "/[{(", ",/", "../", "..\\", "~", "~/",
    "~a/", "$HOME/", "/home/a ", "/home/alice", "/home/a b c d e", "/home/a.b c",
    "'/a ", '"/a"', "-I/", "a-I/ ", "</a>", "<user>/", "\\", "\\\\", "\\\\a\\",
    "C:\\", "C:\\a ", "c:/ ", "C:\\a b c d e f g", '\\"', "\\n", "file:/", "file:// ",
    "://", "a:// ", "a://@", "a://b:c ", "http://a?", "http://a?'", "?a=", "?", "#",
    "&sig=", "%", "%2F", "%25", "%E4%BD%A0", "\\u0041", "\x1b[", "\x1b[0m", "sk-",
    "-sk-", "sk-a1", "ghp_", "eyJ", "eyJ.", "AKIA", "SG.", "1//0", "gl-", "hvs.",
    "password", "password=", 'password="', "password='a", "password\\", "--password ",
    '\\\\"password\\\\":', "token>", "<secret>", "_KEY", "authorization: ", "cookie:",
    "bearer ", "basic a", "-u a:", "hooks.slack.com/services/", "-", "--", "-----",
    "-----BEGIN", "-----END", "-----BEGIN A-----\na-----END ", "\n", "a\n",
    "ab1\nCD2\n", "=", ":", "::", "a:", "1:", "1.", "1.1", "10.0.0.1", "deadbeef-",
    "12345678-1234-", "a1", "aB", "aB3" * 9 + " ", "A" * 39 + " ", "a" * 19 + " ",
    "alice", "alice ", "al", "sesame-", "%73esame-0", "&#47;", "&amp;", " -", "=AB",
)
# fmt: on
SIZE = 32 * 1024
# Four times the largest event that is taken, unless its bound is raised.
SIZE_LARGE = 1024 * 1024


def _fresh(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_a_typical_session_loads_no_pattern() -> None:
    """A launch pays for the words of its events, not for secrets it does not have."""
    loaded = _fresh(COLD.format(typical=TYPICAL))
    assert set(loaded) == {
        "telemetry.privacy",
        "telemetry.privacy.own_key",
        "telemetry.privacy.places",
        "telemetry.privacy.rules",
    }


def test_a_text_compiles_what_it_needs() -> None:
    """All patterns together cost a launch as much as everything else."""
    assert _fresh(LAZY) == ["path", "path", "at", "the", "root"]


def test_only_short_clean_strings_are_remembered_and_not_without_bound() -> None:
    """A program that runs for a year must not remember a year."""
    scrubber = Scrubber(homes=HOMES, users=USERS)
    for number in range(1500):
        scrubber.text(f"tool-{number}")
        scrubber.free_text(f"tool {number} not found")
        scrubber.text(f"/home/alice/{number}")
        scrubber.value({f"key {number}": "x" * (number % 200)})
    for remembered in (scrubber.clean, scrubber.clean_free, scrubber._secret_names):
        assert 0 < len(remembered) <= 1024
        assert all(len(text) <= 128 and "/home" not in text for text in remembered)
    # What is clean in a field may not be in an error.
    assert scrubber.text("1.2.3.4") == "1.2.3.4"
    assert scrubber.free_text("1.2.3.4") == "<ip>"


def test_time_is_linear() -> None:
    """An error message may be anything; the host must not wait for it."""
    for piece in ADVERSE:
        text = (piece * SIZE)[:SIZE]
        for scrubbed in (SCRUBBER.text, SCRUBBER.free_text):
            start = time.process_time()
            out = scrubbed(text)
            # Quadratic would be minutes; linear is a thousandth of this.
            assert time.process_time() - start < 10.0, piece
            assert len(out) <= 2 * len(text) + 32, piece


def test_a_megabyte_takes_a_moment() -> None:
    """For the texts that take longest; the bench says how long."""
    for piece in ("a@", "/", "sk-", "eyJ", "password=", "://", "/(", "\\n"):
        text = (piece * SIZE_LARGE)[:SIZE_LARGE]
        start = time.process_time()
        SCRUBBER.free_text(text)
        assert time.process_time() - start < 10.0, piece
