"""Events that were refused for good, one file each, with the reason.

    <home>/dead/<segment>-<offset>         a dead letter
    <home>/dead/<segment>-<offset>.retry   one that is to be sent again

A letter is a JSON object: `event` as it was posted, `status`, `reply` (an
excerpt), `reason`, `time_ms` and `attempts`. It is written whole and synced
before its event is settled. Until then its segment still holds the event, and
the letter does not count; written again after a crash, it has the same name.
"""

from __future__ import annotations

import os

import msgspec

from telemetry.files import (
    TEMPORARY,
    make_directory,
    names_in,
    read_small,
    write_whole,
)
from telemetry.paths import SEGMENT_SUFFIX


RETRY = ".retry"
# An event may be as large as the largest record that a reader takes.
_LETTER_BYTES_MAX = 32 * 1024 * 1024


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One refused event.

    event: the event as it was posted
    reason: a word for why: the status, or `rejected`
    status: the HTTP status of the last reply; 0 where there was none
    reply: an excerpt of the reply, or the reason that the server gave
    time_ms: when it was given up, milliseconds since 1970
    attempts: requests that it was given up after, counted from its first batch
    """

    event: msgspec.Raw
    reason: str
    status: int
    reply: str
    time_ms: int
    attempts: int


def name_of(segment: str, offset: int) -> str:
    """The name of the letter for the record at `offset` of a segment."""
    return f"{segment}-{offset}"


def origin_of(name: str) -> tuple[str, int] | None:
    """Segment and offset in a letter's name; None where it is no letter."""
    segment, _, digits = name.removesuffix(RETRY).rpartition("-")
    if not segment.endswith(SEGMENT_SUFFIX) or not digits.isdecimal():
        return None
    return segment, int(digits)


def names(directory: str) -> list[str]:
    """The letters there are, oldest first, those to be retried included."""
    found = names_in(directory)
    return sorted(
        (name for name in found if TEMPORARY not in name and origin_of(name)),
        key=lambda name: origin_of(name) or ("", 0),
    )


def write(directory: str, name: str, letter: DeadLetter) -> None:
    """The letter is on disk and synced on return. Raises OSError."""
    make_directory(directory)
    write_whole(f"{directory}/{name}", msgspec.json.encode(letter), durable=True)


def read(directory: str, name: str) -> DeadLetter | None:
    """The letter; None where it cannot be read or is damaged."""
    try:
        content = read_small(f"{directory}/{name}", _LETTER_BYTES_MAX)
        return msgspec.json.decode(content or b"", type=DeadLetter)
    except (OSError, ValueError, RecursionError):
        return None


def retry(directory: str, name: str) -> None:
    """The letter counts as pending again, and the next flush sends it."""
    os.rename(f"{directory}/{name}", f"{directory}/{name}{RETRY}")


def remove(directory: str, name: str) -> None:
    """The letter is gone on return. Raises OSError."""
    try:
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        pass
