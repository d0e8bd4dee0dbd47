"""Counting what was refused, by reason, in one small file of fixed size.

    <reason, 15 characters> <count, 15 digits>\\n      32 bytes a line, 4 KiB in all

The file is made with the home, so that it can be written on a full disk too:
a count is overwritten in place. Counts only grow; the flusher remembers how far
it has counted and never sets one back, so a crash counts nothing twice.

Several processes count at once, under the file's lock, which is never waited
for: what cannot be counted now is counted with the next refusal.
"""

from __future__ import annotations

import os

from telemetry.files import open_regular, read_small
from telemetry.locks import try_lock


FILE_BYTES = 4096
_LINE_BYTES = 32
_REASON_BYTES = 15
# How often a lock that is held for microseconds is tried.
_TRIES = 20


def make(path: str) -> None:
    """The file exists afterwards, at its full size. Raises OSError."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    try:
        os.write(descriptor, b" " * FILE_BYTES)
    finally:
        os.close(descriptor)


def add(path: str, counts: dict[str, int]) -> bool:
    """Whether `counts` were added to those in the file. Raises OSError."""
    descriptor = open_regular(path, os.O_RDWR)
    try:
        if not any(try_lock(descriptor) for _ in range(_TRIES)):
            return False
        content = os.pread(descriptor, FILE_BYTES, 0)
        for reason, count in counts.items():
            at = _line_of(content, reason)
            if at is None:
                continue  # 128 reasons are in it; more are not made here
            line = _format(reason, parse(content).get(reason, 0) + count)
            os.pwrite(descriptor, line, at)
            content = content[:at] + line + content[at + _LINE_BYTES :]
        return True
    finally:
        os.close(descriptor)


def read(path: str) -> dict[str, int]:
    """The counts by reason; empty where there is no file or it cannot be read."""
    try:
        content = read_small(path, FILE_BYTES)
    except OSError:
        return {}
    return parse(content or b"")


def parse(content: bytes) -> dict[str, int]:
    """The counts in a file's content; a line that is damaged counts nothing."""
    counts: dict[str, int] = {}
    for at in range(0, len(content) - _LINE_BYTES + 1, _LINE_BYTES):
        reason = content[at : at + _REASON_BYTES].decode("ascii", "replace").strip()
        digits = content[at + _REASON_BYTES + 1 : at + _LINE_BYTES - 1]
        if reason.replace("_", "a").isalnum() and digits.isdigit():
            counts[reason] = int(digits)
    return counts


def _line_of(content: bytes, reason: str) -> int | None:
    """Where the line of a reason stands, or the first free one."""
    name = reason.encode()[:_REASON_BYTES].ljust(_REASON_BYTES)
    for at in range(0, FILE_BYTES, _LINE_BYTES):
        there = content[at : at + _REASON_BYTES]
        if there == name or not there.strip(b" \0"):
            return at
    return None


def _format(reason: str, count: int) -> bytes:
    name = reason.encode()[:_REASON_BYTES].ljust(_REASON_BYTES)
    return b"%b %015d\n" % (name, min(count, 10**15 - 1))
