"""The place of a ledger: how one comes to stand there, and how it is put out of it.

Rules:
- a ledger is born whole. It is built in a directory of its own inside the place, and
  the rename of the database is its birth; a kill before that leaves nothing that
  counts, and the next birth clears it away;
- directories are 0700 and files 0600 whatever the umask, also those that somebody
  copied back in;
- the journal has its size from birth, for a commit on a full disk has no other room;
- what is malformed is renamed to a sibling, `<ledger>.malformed-<ns>`, never removed
  at once. The newest two are kept: they hold no event, and nobody asks for more.

Opens no database: what it is given to build with does that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from telemetry.delivery.ledger_file import DB_NAME, JOURNAL_SUFFIX, opened


if TYPE_CHECKING:
    from collections.abc import Callable

# 31 pages of 4 KiB with their headers, while a commit changes about six.
JOURNAL_BYTES = 128 * 1024

ASIDE_INFIX = ".malformed-"
_ASIDE_MAX = 2

_BIRTH_NAME = "birth"


def bear(directory: str, build: Callable[[str], None]) -> None:
    """Put what `build` makes in an empty directory in place, durably.

    A database that stands there already is replaced. Raises OSError or what `build`
    raises; then none stands there that was not there before.
    """
    with contextlib.suppress(FileExistsError):
        _make_directory(directory)
    birth = os.path.join(directory, _BIRTH_NAME)
    _remove(birth)
    _make_directory(birth)
    try:
        built = os.path.join(birth, DB_NAME)
        # Made here, because SQLite would make it with what the umask leaves.
        with opened(built, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
            os.fchmod(descriptor, 0o600)
        build(birth)
        reserve_journal(built)
        with opened(built, os.O_RDWR) as descriptor:
            os.fsync(descriptor)
        # The journal first: one that an older database left there could be hot, and
        # would be rolled back into this one.
        for name in (DB_NAME + JOURNAL_SUFFIX, DB_NAME):
            os.replace(os.path.join(birth, name), os.path.join(directory, name))
    finally:
        _remove(birth)
    _sync_directory(directory)
    _sync_directory(os.path.dirname(directory))


def reserve_journal(path: str) -> None:
    """Give the journal beside `path` its size, while nothing is in it.

    Raises OSError where there is no space; what could be had is kept.
    """
    with opened(path + JOURNAL_SUFFIX, os.O_RDWR | os.O_CREAT) as descriptor:
        os.fchmod(descriptor, 0o600)
        end = os.fstat(descriptor).st_size
        if end < JOURNAL_BYTES:
            while end < JOURNAL_BYTES:
                end += os.pwrite(descriptor, bytes(JOURNAL_BYTES - end), end)
            os.fsync(descriptor)


def make_private(directory: str) -> None:
    """Take from others whatever access they have to a standing ledger.

    Call it once none of it is known to be a symlink. A file system without modes is
    no reason to stop.
    """
    path = os.path.join(directory, DB_NAME)
    modes = ((directory, 0o700), (path, 0o600), (path + JOURNAL_SUFFIX, 0o600))
    for name, mode in modes:
        with contextlib.suppress(OSError):
            if os.lstat(name).st_mode & 0o077:
                os.chmod(name, mode)


def set_aside(directory: str) -> str:
    """Rename whatever stands at `directory`, a symlink itself too; its new name.

    Raises OSError; then it stands where it stood.
    """
    parent, name = os.path.split(directory)
    moment_ns = time.time_ns()
    while os.path.lexists(f"{directory}{ASIDE_INFIX}{moment_ns}"):
        moment_ns += 1
    aside = f"{name}{ASIDE_INFIX}{moment_ns}"
    os.rename(directory, os.path.join(parent, aside))
    _sync_directory(parent)
    others = sorted(n for n in os.listdir(parent) if n.startswith(name + ASIDE_INFIX))
    for older in others[:-_ASIDE_MAX]:
        _remove(os.path.join(parent, older))
    return aside


def _make_directory(path: str) -> None:
    os.mkdir(path, 0o700)
    os.chmod(path, 0o700)


def _remove(path: str) -> None:
    """Remove a tree, or what stands in its place, as far as one may."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _sync_directory(path: str) -> None:
    # A file system that cannot sync a directory says so; its renames are its own.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
