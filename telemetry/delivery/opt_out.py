"""Opting out: recording stops at once, then what was kept is removed.

    choice     `consent` says `off`, and that the removal is not finished
    rename     `spool/` is set aside in one step: every writer sees at its next event
               that its segment's path leads elsewhere, and reads the choice
    remove     under the flush lock: segments, dead letters, quarantine, ledger, and
               the user's id
    choice     `consent` says `off`, and nothing more

The first two need no lock, so a flusher that does not end holds back neither; it
reads the choice before each request. Killed before the first write, nothing has
changed. Killed anywhere behind it, recording has stopped and nothing is sent any
more: the next flusher, launch or tool finds the word in `consent` and finishes.

This module opens no ledger and counts nothing; `purge.py` counts.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from telemetry.consent import Choice, read_choice, remember_choice
from telemetry.delivery.schedule import flush_lock
from telemetry.files import TEMPORARY, make_directory, names_in, sync_directory
from telemetry.paths import Home


# A directory that was `spool/`: what is in it is removed, and never sent.
_ASIDE = "spool.removed-"
# A writer that was about to make a segment makes it in a directory that was renamed.
_PASSES = 10


def opt_out(home: Home) -> None:
    """Nothing more is recorded or sent on return, by no process; the home exists.

    What was kept is still to be removed (`finish_opt_out`). Interrupted by a signal, it
    does the second step all the same. Raises OSError where the choice cannot be
    written: then nothing has changed.
    """
    date = time.strftime("%Y-%m-%d", time.gmtime())
    choice = Choice(on=False, date=date, is_finished=False)
    try:
        try:
            remember_choice(home.consent, choice)
        except OSError:
            if not os.path.lexists(home.reserve):
                raise
            # On a full disk there is room for a choice once this is gone.
            os.unlink(home.reserve)
            remember_choice(home.consent, choice)
    finally:
        found = read_choice(home.consent)
        if found is not None and not found.is_finished:
            try:
                set_aside(home)
            except OSError:
                # A mount point cannot be renamed. `finish_opt_out` reports the rest.
                remove_files(home.spool)


def finish_opt_out(home: Home, *, lock: int | None = None) -> bool:
    """Whether no opt-out is left unfinished; one that was is finished, if it can be.

    `lock` is a descriptor that holds the flush lock; without one it is taken here,
    and where a flusher has it the answer is False. Raises OSError where something
    cannot be removed; the rest is gone then.
    """
    choice = read_choice(home.consent)
    if choice is None or choice.is_finished:
        return True
    held = lock if lock is not None else flush_lock(home)
    if held is None:
        return False
    try:
        forget(home)
        choice.is_finished = True
        remember_choice(home.consent, choice)
    finally:
        if lock is None:
            os.close(held)
    return True


def forget(home: Home) -> None:
    """Remove segments, letters, quarantine, ledger and the user's id.

    The caller holds the flush lock. Raises OSError where something of it cannot be
    removed; the rest is gone then.
    """
    left = []
    for directory in (home.spool, home.dead, home.quarantine):
        remove_files(directory)
        left += [f"{directory}/{name}" for name in names_in(directory)]
    # A writer that read the choice before it was written may make one more segment;
    # it reads the choice again before it writes to it.
    left = [path for path in left if not _is_empty_file(path)]
    for name in os.listdir(home.root):
        # A ledger that was set aside as malformed holds counts, too.
        if (
            name in {"user-uuid", "refused", "reserve", "ledger"}
            or TEMPORARY in name
            or name.startswith((_ASIDE, "ledger."))
        ):
            path = f"{home.root}/{name}"
            left += [] if _remove(path) or not os.path.lexists(path) else [path]
    for directory in (home.spool, home.dead, home.quarantine, home.root):
        if os.path.isdir(directory):
            # A power loss does not bring back what was removed.
            sync_directory(directory)
    if left:
        raise OSError(errno.EBUSY, "cannot be removed, or is not ours", left[0])


def _is_empty_file(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return True  # gone by now
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def set_aside(home: Home) -> None:
    """`spool/` is empty on return, in one step; what it held has another name.

    Raises OSError; nothing has changed then.
    """
    if os.path.islink(home.spool) or not os.path.isdir(home.spool):
        return  # nothing of ours is in it
    os.rename(home.spool, f"{home.root}/{_ASIDE}{os.urandom(4).hex()}")
    make_directory(home.spool)
    sync_directory(home.root)


def directories_set_aside(home: Home) -> list[str]:
    """The directories that `set_aside` made and that are still there."""
    return [
        f"{home.root}/{name}" for name in names_in(home.root) if name.startswith(_ASIDE)
    ]


def remove_files(directory: str) -> int:
    """Remove the files of a directory; how many there were.

    One that cannot be removed stays, with whatever is no file. Raises OSError where
    the directory cannot be read.
    """
    removed = 0
    for name in names_in(directory):
        path = f"{directory}/{name}"
        if os.path.islink(path) or not os.path.isdir(path):
            removed += _remove(path)
    return removed


def _remove(path: str) -> bool:
    """Whether a file, a link, or a directory with all that is in it is gone now."""
    try:
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
            return True
        for _ in range(_PASSES):
            for name in os.listdir(path):
                _remove(f"{path}/{name}")
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return True
    except OSError:
        pass  # `forget` reports it; or a temporary file, renamed by its writer
    return False
