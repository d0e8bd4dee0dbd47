"""The user's id: a random UUID in a file of the home, made once.

An existing file is used as it stands, trimmed of white space, whatever it
holds. Where it is missing or empty, a new UUIDv4 is written; of several first
launches at once the first writer wins and the others take its id. Where it
cannot be written, or not be read at this moment, the id lives as long as the
caller keeps it.
"""

from __future__ import annotations

import errno
import os
import time

from telemetry.files import open_regular, read_small, write_whole
from telemetry.ids import new_uuid4
from telemetry.locks import try_lock
from telemetry.text import decode, trim


# A longer id would make every event larger than it needs to be.
_ID_BYTES_MAX = 1024
# Writing an id takes a fraction of a millisecond; a command waits 50 at most.
_TRIES = 50
# What an open says of a file that will never be read: its mode, a link, its kind.
_UNREADABLE = frozenset({0, errno.EACCES, errno.EPERM, errno.ELOOP})
_PAUSE_S = 0.001


def parse_id(content: bytes) -> str:
    """The id in a file: its text, trimmed; bytes that are no UTF-8 as U+FFFD."""
    return trim(decode(content))


def user_uuid(path: str) -> str:
    """The id of this installation, from the file `path` or new. Never raises."""
    fresh = new_uuid4(os.urandom(16))
    try:
        found = _read(path)
        if found:
            return found
        if found is None and write_whole(path, fresh.encode(), first_wins=True):
            return fresh
        return _read(path) or _replace_empty(path, fresh)
    except OSError as error:
        if os.path.lexists(path) and error.errno not in _UNREADABLE:
            return fresh  # a fault of the moment: the next launch reads it again
        return _replace_unreadable(path, fresh)


def _read(path: str) -> str | None:
    content = read_small(path, _ID_BYTES_MAX)
    return None if content is None else parse_id(content)


def _replace_unreadable(path: str, fresh: str) -> str:
    """A file that cannot be read (its mode, a link) gives way, if the home allows."""
    try:
        write_whole(path, fresh.encode())
    except OSError:
        pass  # the id lives as long as the client
    return fresh


def _replace_empty(path: str, fresh: str) -> str:
    """An empty file gets an id; of several launches the lock's holder writes it.

    Killed between the lock and the rename, the file is as empty as before.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        for _ in range(_TRIES):
            is_ours = try_lock(descriptor)
            # The holder before us may have written while we opened the old file.
            found = _read(path)
            if found:
                return found
            if is_ours:
                write_whole(path, fresh.encode())
                break
            time.sleep(_PAUSE_S)  # somebody is writing one this very moment
        return fresh
    finally:
        os.close(descriptor)
