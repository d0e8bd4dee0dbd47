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
from collections.abc import Iterable

import msgspec

from telemetry.files import (
    TEMPORARY,
    make_directory,
    names_in,
    read_small,
    sync_directory,
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
    """The letters there are, oldest first, those to be retried included.

    A directory with a letter's name is none: it holds no event, and nobody of ours
    made it.
    """
    found = (name for name in names_in(directory) if TEMPORARY not in name)
    return sorted(
        (
            name
            for name in found
            if origin_of(name) and not os.path.isdir(f"{directory}/{name}")
        ),
        key=lambda name: origin_of(name) or ("", 0),
    )


def write(directory: str, name: str, letter: DeadLetter) -> None:
    """The letter is on disk and synced on return. Raises OSError."""
    make_directory(directory, durable=True)
    write_whole(f"{directory}/{name}", msgspec.json.encode(letter), durable=True)


def read(directory: str, name: str) -> DeadLetter | None:
    """The letter; None where it cannot be read or is damaged."""
    try:
        content = read_small(f"{directory}/{name}", _LETTER_BYTES_MAX)
        letter = msgspec.json.decode(content or b"", type=DeadLetter)
        # JSON is UTF-8 (RFC 8259 §8.1), which nobody has looked at inside the event.
        bytes(letter.event).decode("utf-8")
        return letter
    except (OSError, ValueError, RecursionError):
        return None


def retry(directory: str, name: str) -> None:
    """The letter counts as pending again, and the next flush sends it."""
    os.rename(f"{directory}/{name}", f"{directory}/{name}{RETRY}")


def remove_for_good(directory: str, letters: Iterable[str]) -> None:
    """The letters are gone for good on return, after a power loss too. Raises OSError."""
    for name in letters:
        remove(directory, name)
    if os.path.isdir(directory):
        sync_directory(directory)


def remove(directory: str, name: str) -> None:
    """The letter is gone on return; a directory in its place stays. Raises OSError."""
    path = f"{directory}/{name}"
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        # It is not ours to remove, and must not hold up every flush.
        if not os.path.isdir(path):
            raise
