"""Scrubbing costs a launch next to nothing."""

from __future__ import annotations

import subprocess
import sys

from telemetry.privacy import Scrubber
from tests.support.canaries import HOMES, USERS


# What the events of an ordinary session say.
TYPICAL = (
    *("shell", "root", "call", "run", "gpt-4o", "config.yaml", "1.2.3", "start", "end"),
    *("connection refused", "exit status 1", "read_multiple_files", "v0.4.1-rc.1"),
    *("11111111-2222-4333-8444-555555555555", "claude-3-5-sonnet-20241022", "linux"),
    *("docker/cagent:latest", "agents/dev.yaml", "10:30", "en_US.UTF-8", "cagent"),
)
PLAIN = ("build", "compose up", "--no-cache")
COLD = """
import sys
import msgspec, telemetry
before = set(sys.modules)
from telemetry.privacy import Scrubber
scrubber = Scrubber(homes=("/home/alice",), users=("alice",))
for text in {typical!r}:
    assert scrubber.text(text) is text
    scrubber.names_secret(text)
print(*sorted(set(sys.modules) - before))
"""
LAZY = """
from telemetry import privacy
scrubber = privacy.Scrubber(homes=("/home/alice",), users=("alice",))
assert scrubber.text("open /srv/x") == "open <path>"
from telemetry.privacy import scrub
print(*scrub._compiled)
"""
PIECE = """
import sys
from telemetry.privacy.own_key import OwnKey
own_key = OwnKey("0123456789abcdefghij")
before = set(sys.modules)
text = "1aaaaaaa-0123-4333-8444-555555555555"
assert own_key._may_be_in(text)
assert own_key.without(text) is text
print(*sorted(set(sys.modules) - before))
"""


def _fresh(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_a_typical_session_loads_no_pattern() -> None:
    """A launch pays for the words of its events, not for secrets it does not have."""
    plain = {f"telemetry.privacy.{name}" for name in ("own_key", "plain")}
    shared = {"telemetry.privacy"}
    assert set(_fresh(COLD.format(typical=PLAIN))) == shared | plain
    typical = set(_fresh(COLD.format(typical=TYPICAL)))
    assert typical == shared | plain | {"telemetry.privacy.rules"}


def test_a_random_id_with_a_piece_of_the_key_loads_nothing() -> None:
    """Of four characters, a piece stands in the id of about one user in twenty."""
    assert _fresh(PIECE) == []


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
        scrubber.text("x" * (number % 200))
        scrubber.names_secret(f"key {number}")
    for remembered in (scrubber.clean, scrubber.clean_free, scrubber._secret_names):
        assert 0 < len(remembered) <= 1024
        assert all(len(text) <= 128 and "/home" not in text for text in remembered)
    # What is clean in a field may not be in an error.
    assert scrubber.text("1.2.3.4") == "1.2.3.4"
    assert scrubber.free_text("1.2.3.4") == "<ip>"
