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


def count(path: str, waiting: list[tuple[str, int]]) -> None:
    """Count what waits in the file, made if there is none. Raises nothing.

    `waiting` has reasons and numbers; what cannot be counted now stays in it. Safe for
    threads and signal handlers that share it without a lock: each entry is put in and
    taken out by one step of the interpreter.
    """
    counts = dict[str, int]()
    try:
        while waiting:
            reason, number = waiting.pop()
            counts[reason] = counts.get(reason, 0) + number
    except IndexError:
        pass  # another thread took the last one
    try:
        for reason in tuple(counts):
            if not _add_or_make(path, {reason: counts[reason]}):
                break
            # Whatever becomes of the next one, this one is not counted again.
            del counts[reason]
    except OSError:
        pass  # no space for it: it waits
    finally:
        waiting.extend(counts.items())


def _add_or_make(path: str, counts: dict[str, int]) -> bool:
    try:
        return add(path, counts)
    except FileNotFoundError:
        make(path)
        return add(path, counts)


def make(path: str) -> None:
    """The file exists afterwards, at its full size. Raises OSError."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    try:
        # Another thread may have counted in it already: only what it lacks is
        # filled. Where the lock is taken or we are killed, the file stays short
        # and grows with its counts.
        if any(try_lock(descriptor) for _ in range(_TRIES)):
            there = os.fstat(descriptor).st_size
            os.pwrite(descriptor, b" " * (FILE_BYTES - there), there)
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
            line = content[at : at + _LINE_BYTES]
            line = _format(reason, sum(parse(line).values()) + count)
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
        ends = content[at + _LINE_BYTES - 1 : at + _LINE_BYTES] == b"\n"
        # Without its end it would count once another line stands behind it.
        if ends and reason.replace("_", "a").isalnum() and digits.isdigit():
            # A reason has two lines where damage freed one before its own: the first
            # one goes on from nothing.
            counts[reason] = counts.get(reason, 0) + int(digits)
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
