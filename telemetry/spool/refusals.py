"""Counting what was refused, by reason, in one small file of fixed size.

    <reason, 15 characters> <count, 15 digits>\\n      32 bytes a line, 4 KiB in all

The file is made with the home, so a full disk can be written to: a count is overwritten
in place. Counts only grow, and the flusher remembers how far it has folded them, so a
crash counts nothing twice. The file's lock is never waited for: what cannot be counted
now is counted with the next refusal.
"""

from __future__ import annotations

import os

from telemetry.files import (
    lock_if_possible,
    open_regular,
    read_at,
    read_small,
    write_at,
)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILE_BYTES = 4096
_LINE_BYTES = 32
_REASON_BYTES = 15
_COUNT_MAX = 10**15 - 1
# How often a lock that is held for microseconds is tried.
_TRIES = 20


def count(
    path: str,
    waiting: list[tuple[str, int]],
    may_make: Callable[[], bool] = lambda: True,
) -> None:
    """Add reasons and numbers to the file; what cannot be added now stays in `waiting`.

    A file that is gone is made again where `may_make` says so.
    Threads and signal handlers may share `waiting` without a lock: each entry is put in
    and taken out by one step of the interpreter. Raises nothing.
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
            try:
                is_added = add(path, {reason: counts[reason]})
            except FileNotFoundError:
                if not may_make():
                    break
                make(path)
                is_added = add(path, {reason: counts[reason]})
            if not is_added:
                break
            # Whatever becomes of the next one, this one is not counted again.
            del counts[reason]
    except OSError:
        pass  # no space for it: it waits
    finally:
        waiting.extend(counts.items())


def make(path: str) -> None:
    """The file exists afterwards, at its full size. Raises OSError."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    try:
        # Another thread may have counted in it already: only the rest is filled. If
        # the lock is taken, the file stays short and grows with its counts.
        if lock_if_possible(descriptor) or _is_locked_soon(descriptor):
            there = os.fstat(descriptor).st_size
            write_at(descriptor, b" " * (FILE_BYTES - there), there)
    finally:
        os.close(descriptor)


def add(path: str, counts: dict[str, int]) -> bool:
    """Whether `counts` were added to those in the file. Raises OSError."""
    descriptor = open_regular(path, os.O_RDWR)
    try:
        if not (lock_if_possible(descriptor) or _is_locked_soon(descriptor)):
            return False
        for reason, count in counts.items():
            name = _padded(reason)
            content = read_at(descriptor, FILE_BYTES, 0)
            at = _line_of(content, name)
            if at is None:
                continue  # 128 reasons are in it; more are not made here
            # What stands in a line without a name is no count of this reason.
            known = (content.startswith(name, at) and _count_in(content, at)) or 0
            total = min(known + count, _COUNT_MAX)
            write_at(descriptor, b"%b %015d\n" % (name, total), at)
        return True
    finally:
        os.close(descriptor)


def _is_locked_soon(descriptor: int) -> bool:
    """Tried again: the lock is held for microseconds."""
    return any(lock_if_possible(descriptor) for _ in range(_TRIES - 1))


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
        number = _count_in(content, at)
        if number is not None and reason.replace("_", "a").isalnum():
            # A reason has two lines if damage freed one before its own.
            counts[reason] = counts.get(reason, 0) + number
    return counts


def _count_in(content: bytes, at: int) -> int | None:
    """The count in the line that begins there; None where it is free or damaged."""
    digits = content[at + _REASON_BYTES + 1 : at + _LINE_BYTES - 1]
    # Short, or without its end, it would count once another line stands behind it.
    is_whole = content[at + _LINE_BYTES - 1 : at + _LINE_BYTES] == b"\n"
    return int(digits) if is_whole and digits.isdigit() else None


def _line_of(content: bytes, name: bytes) -> int | None:
    """Where the line of a reason stands, or the first free one."""
    for at in range(0, FILE_BYTES, _LINE_BYTES):
        if content.startswith(name, at):
            return at
        if not content[at : at + _REASON_BYTES].strip(b" \0"):
            return at
    return None


def _padded(reason: str) -> bytes:
    return reason.encode()[:_REASON_BYTES].ljust(_REASON_BYTES)
