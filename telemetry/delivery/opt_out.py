"""Opting out: recording stops at once, then what was kept is removed.

    choice     `consent` says `off`, and that the removal is not finished
    rename     `spool/` is set aside, in one step where that can be: every writer sees
               at its next event that its segment's path leads elsewhere, and reads the
               choice
    remove     under the flush lock: segments, dead letters, quarantine, ledger, and
               the user's id
    choice     `consent` says `off`, and nothing more

Who wants to be forgotten (`asks`) is, where the program has an address for that, also
removed from the server. The id is written to `forgotten-<its CRC-32>` before it is
removed as above, and stays there until the server has accepted (`forgetting.py`);
`consent` says from the first write on that this is to be done.

The first two need no lock, so a flusher that does not end holds back neither; it
reads the choice before each request. Killed before the first write, nothing has
changed. Killed anywhere behind it, nothing is sent any more, and the next flusher,
launch or tool finds the word in `consent` and finishes. Recording has stopped as well,
but for one case: killed right between the two, a program that has a segment open goes on
for some seconds. None of it leaves.

This module opens no ledger and counts nothing; `purge.py` counts.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from zlib import crc32

from telemetry.consent import (
    Choice,
    format_choice,
    read_choice,
    remember_choice,
    stored_choice,
)
from telemetry.delivery.schedule import flush_lock
from telemetry.files import (
    FULL,
    TEMPORARY,
    erase,
    is_erased,
    make_directory,
    move_files,
    names_in,
    open_regular,
    sync_directory,
    write_all,
    write_whole,
)
from telemetry.identity import known_uuid
from telemetry.paths import Home


# A directory that was `spool/`: what is in it is removed, and never sent.
_ASIDE = "spool.removed-"
# A file that holds an id which a server is still to delete.
_FORGOTTEN = "forgotten-"
# What goes with the events, by name.
_KEPT = {"refused", "reserve", "ledger", "mistakes", "deletes", "spool-summary"}
# A writer that was about to make a segment makes it in a directory that was renamed.
_PASSES = 10


def opt_out(home: Home, *, asks: bool = False) -> bool:
    """Nothing more is recorded or sent on return, by no process; the home exists.

    What was kept is still to be removed (`finish_opt_out`). With `asks` the server is then
    to be asked to delete what it has: whether the id for that is in a file of its own,
    which goes once a server has accepted. Interrupted by a signal, it does the second step
    all the same; killed in between, a program that has a segment open reads the choice
    some seconds later (`SpoolWriter`). Raises OSError where the choice cannot be written:
    then nothing has changed.
    """
    with _signals_blocked():
        return _opt_out(home, asks=asks)


def _opt_out(home: Home, *, asks: bool) -> bool:
    date = time.strftime("%Y-%m-%d", time.gmtime())
    before = read_choice(home.consent)
    # A request that was interrupted before it kept the id goes on. One that has kept it
    # needs nothing more, and an id that was made since belongs to no request.
    asks = asks or bool(before and before.asks and not before.on)
    choice = Choice(on=False, date=date, is_finished=False, asks=asks)
    # Known before a flusher can remove it. Where one asks at once, it is asked twice.
    user_uuid = known_uuid(home.user_uuid) if asks else ""
    try:
        try:
            remember_choice(home.consent, choice)
        except OSError as error:
            if error.errno not in FULL:
                raise
            _remember_on_full_disk(home, choice)
    finally:
        found = read_choice(home.consent)
        if found is not None and not found.is_finished:
            try:
                if os.path.islink(home.spool):
                    # A program that found a directory here goes on recording into it.
                    os.rename(home.spool, _name_aside(home))
                else:
                    set_aside(home)
            except OSError:
                # A mount point cannot be renamed. `finish_opt_out` reports the rest.
                remove_files(home.spool)
    with suppress(OSError):  # `finish_opt_out` tries again, when the rest is removed
        return bool(user_uuid) and _keep_request(home, choice, user_uuid)
    return False


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Those that end a program are delivered behind it, where it has no other thread.

    Windows has none to block.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    # To ask first: a signal's handler may run, and raise, as soon as one is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_request(home: Home, choice: Choice, user_uuid: str) -> bool:
    """The id stands in its file on return, and the choice says so. Raises OSError."""
    _note_id(home, user_uuid)
    found = read_choice(home.consent)
    is_lost = found is not None and not (found.on or found.asks)
    if is_lost and requests_waiting(home):
        # A flusher that was finishing an earlier opt-out wrote over this choice.
        remember_choice(home.consent, choice)
    return True


def _remember_on_full_disk(home: Home, choice: Choice) -> None:
    """The choice takes the place of a file that is to be removed anyway.

    Whoever counts a refusal in it meanwhile damages the choice, which means off as well.
    Killed before the rename, counts of refusals are lost.
    """
    if os.path.lexists(home.reserve):
        os.unlink(home.reserve)
        remember_choice(home.consent, choice)
        return
    content = format_choice(choice)
    descriptor = open_regular(home.refused, os.O_WRONLY)
    try:
        write_all(descriptor, content)
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(home.refused, home.consent)
    sync_directory(home.root)


def finish_opt_out(home: Home, *, lock: int | None = None) -> bool:
    """Whether no opt-out is left unfinished; one that was is finished, if it can be.

    `lock` is a descriptor that holds the flush lock; without one it is taken here,
    and where a flusher has it the answer is False. Raises OSError where the choice
    cannot be read, and where something cannot be removed; the rest is gone then.
    """
    if _unfinished(home) is None:
        return True
    held = lock if lock is not None else flush_lock(home)
    if held is None:
        return False
    try:
        # Read again: who held the lock may have finished, and the user turned it on, or
        # does so now, which waits for no lock where nothing is left to finish.
        choice = _unfinished(home)
        if choice is None:
            return True
        if choice.asks:
            _give_up_id(home)
        remove_kept(home)
        choice.is_finished = True
        choice.asks = bool(requests_waiting(home))
        remember_choice(home.consent, choice)
        if not choice.asks and requests_waiting(home):
            choice.asks = True  # `opt_out` wrote it meanwhile, and looked before this
            remember_choice(home.consent, choice)
        # A launch that read the choice before it was written may have made an id since;
        # from here on it finds that the opt-out is finished, and removes it itself.
        if os.path.lexists(home.user_uuid):
            remove(home.user_uuid)
    finally:
        if lock is None:
            os.close(held)
    return True


def _unfinished(home: Home) -> Choice | None:
    """The choice of an opt-out that has left something; raises OSError."""
    choice = stored_choice(home.consent)
    if choice is None or choice.on:
        return None
    # A flusher may have finished between the choice and the rename of an opt-out.
    return None if choice.is_finished and not directories_set_aside(home) else choice


def _give_up_id(home: Home) -> None:
    """The id, if there is one, stands in a file of its own on return, for good.

    Killed before it is removed under its old name, the next call writes the same file.
    On a full disk there is room for it once the rest is removed.
    """
    user_uuid = known_uuid(home.user_uuid)
    if not user_uuid:
        return
    try:
        _note_id(home, user_uuid)
    except OSError:
        remove_kept(home, with_id=False)
        _note_id(home, user_uuid)


def _note_id(home: Home, user_uuid: str) -> None:
    content = user_uuid.encode()
    path = f"{home.root}/{_FORGOTTEN}{crc32(content):08x}"
    try:
        write_whole(path, content, first_wins=True, durable=True)
    except FileNotFoundError:
        # A flusher that removes what is kept sweeps temporary files away: once.
        write_whole(path, content, first_wins=True, durable=True)


def requests_waiting(home: Home) -> list[str]:
    """The files that hold an id which a server is still to delete."""
    return [
        f"{home.root}/{name}"
        for name in names_in(home.root)
        if name.startswith(_FORGOTTEN) and TEMPORARY not in name
    ]


def is_owed(home: Home) -> bool:
    """Whether an opt-out has left something to do, here or at a server."""
    choice = read_choice(home.consent)
    return choice is not None and (choice.asks or not choice.is_finished)


def note_asked(home: Home) -> None:
    """The server has accepted all requests: the choice says nothing more of them."""
    choice = read_choice(home.consent)
    if choice is not None and choice.asks and choice.is_finished:
        choice.asks = False
        remember_choice(home.consent, choice)


def remove_kept(home: Home, *, with_id: bool = True) -> None:
    """Remove segments, letters, quarantine, ledger and, `with_id`, the user's id.

    The caller holds the flush lock. Raises OSError where something of it cannot be
    removed; the rest is gone then.
    """
    left = []
    for directory in (home.spool, home.dead, home.quarantine):
        remove_files(directory)
        left += [f"{directory}/{name}" for name in names_in(directory)]
    # A writer that read the choice before it was written may make one more segment;
    # it reads the choice again before it writes to it.
    left = [path for path in left if not is_empty_file(path)]
    for name in os.listdir(home.root):
        path = f"{home.root}/{name}"
        is_link = os.path.islink(path)
        # A ledger that was set aside as malformed holds counts, too.
        if (
            name in _KEPT
            or (with_id and name == "user-uuid")
            or (is_link and name in {"spool", "dead", "quarantine"})
            or TEMPORARY in name
            or name.startswith((_ASIDE, "ledger."))
        ):
            if is_link and os.path.isdir(path):
                left.append(os.path.realpath(path))  # not ours; it is named once
            left += [] if remove(path) or not os.path.lexists(path) else [path]
    sync_directories(home)
    if left:
        raise OSError(errno.EBUSY, "cannot be removed, or is not ours", left[0])


def sync_directories(home: Home) -> None:
    """A power loss does not bring back what was removed."""
    for directory in (home.spool, home.dead, home.quarantine, home.root):
        if os.path.isdir(directory):
            sync_directory(directory)


def is_empty_file(path: str) -> bool:
    """Whether it holds no event, or is gone."""
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except OSError:
        return not os.path.lexists(path)
    try:
        return os.fstat(descriptor).st_size == 0 or is_erased(descriptor)
    finally:
        os.close(descriptor)


def set_aside(home: Home) -> None:
    """`spool/` is empty, or gone, on return; what it held has another name.

    In one step; or file by file in a layer of an image, and on Windows, where a live
    segment stays, which its writer abandons. Raises OSError: some files may have moved
    then, which the next flush removes.
    """
    if os.path.islink(home.spool) or not os.path.isdir(home.spool):
        return  # nothing of ours is in it
    move_files(home.spool, _name_aside(home))
    # Without room for it now, what was moved makes some, and writers make the directory.
    with suppress(OSError):
        make_directory(home.spool)
    sync_directory(home.root)


def _name_aside(home: Home) -> str:
    return f"{home.root}/{_ASIDE}{os.urandom(4).hex()}"


def directories_set_aside(home: Home) -> list[str]:
    """The directories that `set_aside` made and that are still there."""
    paths = [
        f"{home.root}/{name}" for name in names_in(home.root) if name.startswith(_ASIDE)
    ]
    return [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]


def remove_files(directory: str) -> int:
    """Remove the files of a directory; how many there were.

    One that cannot be removed stays, with whatever is no file. Raises OSError where
    the directory cannot be read.
    """
    removed = 0
    for name in names_in(directory):
        path = f"{directory}/{name}"
        if os.path.islink(path) or not os.path.isdir(path):
            removed += remove(path)
    return removed


def remove(path: str) -> bool:
    """Whether a file, a link, or a directory with all that is in it is gone now.

    A file that is in use, on Windows, is erased: no event is in it any more.
    """
    try:
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
            return True
        for _ in range(_PASSES):
            for name in os.listdir(path):
                remove(f"{path}/{name}")
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return True
    except OSError:
        # `remove_kept` reports it; or a temporary file, renamed by its writer.
        erase(path)
    return False
