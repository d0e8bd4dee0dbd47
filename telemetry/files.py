"""Files of the home: read whole, written whole, made private, locked, synced.

Rules: no symlink is followed at the last step; directories are 0700 and files
0600 whatever the umask; a file that readers may meet is written under another
name first and appears under its own in one step, so a crash leaves either the
old content or the new, and at worst a file whose name contains `.tmp-`.

The directories above the home are the user's own affair. The home itself must be a
real directory of ours that no other user can write to. Then no other user can have
planted anything below it, so the checks end there.

What systems do differently has one name here and a file for each: `files_posix.py`
and `files_windows.py`. All of these raise OSError unless they say otherwise, and none
waits but `move_over`.
"""

from __future__ import annotations

import errno
import os
import sys

from telemetry.errors import HomeError, raise_the_hosts


if sys.platform == "win32":
    import telemetry.files_windows as _system
else:
    import telemetry.files_posix as _system

TEMPORARY = ".tmp-"
_SHORT_BYTES = 4096
# What a file system says that has no room, or none for this user.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

# (path, flags): a descriptor of the regular file; a link, FIFO or directory is an
# OSError. One that is made is 0600, whatever the umask.
open_regular = _system.open_regular
# (path, *, is_new): a descriptor that appends, each write in one step. Killed after
# the open, an empty file stays.
open_segment = _system.open_segment
# (descriptor, its fstat): the owner may read and write a new file.
give_file_to_owner = _system.give_file_to_owner
# Called as `lseek(descriptor, 0, SEEK_CUR)`: where the next write of the only writer
# lands. Another number than it expects says that the file is not its own any more.
end_of_ours = _system.end_of_ours
# `pread` and `pwrite`, for one thread at a time.
read_at = _system.read_at
# (descriptor, length): the beginning of a small file, as it was at one moment.
read_beginning = _system.read_beginning
write_at = _system.write_at

# (descriptor): whether the lock of an open file is ours now; False if another open
# file holds it. Raises OSError where the file system cannot lock at all. It ends with
# its last owner, however that ends.
try_lock = _system.try_lock
# (descriptor): give it up, also if another process has a copy of the descriptor.
unlock = _system.unlock
# (path, descriptor): another descriptor, or the same, that keeps writers out as long
# as it is open; None where a writer has the segment.
shut_out_writers = _system.shut_out_writers

# (descriptor): the content is on the medium on return; OSError says it may not be.
sync = _system.sync
# (path): the names in a directory survive a power loss on return.
sync_directory = _system.sync_directory
# (path): a directory's own name survives a power loss on return, and those above it.
# The process that made them may have died before it synced them. What stands in a
# directory that we may not write to, or on another file system, was not made by us.
sync_way_to = _system.sync_way_to

# (source, target): rename a file over what is there.
move_over = _system.move_over
# (source, target): the same of a file shorter than a sector, where we have `target` open.
move_over_open = _system.move_over_open
# (source, target): give the file this name; FileExistsError where it is taken. The
# old name may remain.
move_if_free = _system.move_if_free
# (directory, target): the directory has moved on return, or on POSIX all that is in it.
move_directory = _system.move_directory
# (directory, target): the same; those in use have been given up by their writers. On
# Windows the files alone move.
move_files = _system.move_files
# (path): a file that could not be removed holds no event any more, where it is only
# in use. Raises nothing.
erase = _system.erase
# (descriptor): whether that was done; a write that was under way may stand behind it.
is_erased = _system.is_erased

# (path, content, time): written in place, with this time of modification in ns since
# 1970. Killed in between, its time is that of the write. A full disk may take the time
# and not the content, which raises OSError all the same.
overwrite = _system.overwrite
# (path): what its file system has left for us.
free_bytes = _system.free_bytes
# (lstat): why a directory is not safe to use; empty if it is. Raises nothing.
directory_problem = _system.directory_problem
# (path): raises HomeError where we are root and a directory above is another user's:
# whatever root makes in a user's home shuts that user's programs out.
refuse_below_others = _system.refuse_below_others


def lock_if_possible(descriptor: int) -> bool:
    """As `try_lock`, and True where the file system cannot lock at all."""
    try:
        return try_lock(descriptor)
    except OSError as error:
        raise_the_hosts(error)
        return True


def make_home(root: str) -> bool:
    """The home exists afterwards and is ours alone; True if it was made just now.

    One of ours that lacks permissions of its owner is mended. Raises HomeError where
    it cannot be made, is no directory, is a symlink, belongs to or can be written by
    another user, or is below another user's directory (see `refuse_below_others`).
    """
    made = False
    try:
        found = os.lstat(root)
    except OSError as error:
        raise_the_hosts(error)
        try:
            refuse_below_others(root)
            made = _make_with_parents(root)
            found = os.lstat(root)
        except OSError as error:
            reason = error.strerror or error
            problem = f"cannot be made: {reason}; set TELEMETRY_HOME to another place"
            raise HomeError(root, problem) from error
    problem = directory_problem(found)
    if problem:
        raise HomeError(root, problem)
    try:
        _system.give_directory_to_owner(root, found)
    except OSError as error:
        problem = f"cannot be opened by its owner: {error.strerror}"
        raise HomeError(root, problem) from error
    return made


def _make_with_parents(path: str) -> bool:
    """Whether the directory was made just now, all with 0700. Raises OSError."""
    above = os.path.dirname(path)
    if above != path and not os.path.lexists(above):
        _make_with_parents(above)
    return make_directory(path)  # False: another first launch was quicker


def make_directory(path: str, *, durable: bool = False) -> bool:
    """A directory exists afterwards, 0700; True if it was made just now. Raises OSError.

    With `durable` its name survives a power loss, also if another process made it
    and died before it was synced.
    """
    try:
        os.mkdir(path, 0o700)
        made = True
    except FileExistsError:
        made = False
    found = os.lstat(path)
    problem = directory_problem(found)
    if problem:
        raise OSError(0, problem, path)
    _system.give_directory_to_owner(path, found)
    if durable:
        sync_directory(os.path.dirname(path))
    return made


def names_in(directory: str) -> list[str]:
    """The names in a directory of the home, in no order; none where there is none.

    A link or a file in its place has no names that are ours. Raises OSError.
    """
    try:
        return [] if os.path.islink(directory) else os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def make_empty(path: str) -> None:
    """A file exists afterwards; one that exists is left alone. Raises OSError."""
    os.close(open_regular(path, os.O_WRONLY | os.O_CREAT))


def read_small(path: str, bytes_max: int) -> bytes | None:
    """The first `bytes_max` bytes of a file; None where there is none.

    Raises OSError for whatever stands there and cannot be read.
    """
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # More than it has: a short file may just be written in place, and be longer.
        size = max(os.fstat(descriptor).st_size, _SHORT_BYTES)
        return read_beginning(descriptor, min(bytes_max, size))
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Every byte is written on return. Raises OSError; some may be written then."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(
    path: str,
    content: bytes,
    *,
    first_wins: bool = False,
    durable: bool = False,
    is_open: bool = False,
) -> bool:
    """`path` holds `content`, whole or not at all, on return.

    With `first_wins`, a file that exists is left alone and the answer is False.
    With `durable`, it survives a power loss. With `is_open` the caller has it open, and
    `content` is shorter than a sector. Raises OSError; a failure leaves what was there
    before.
    """
    temporary = f"{path}{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            write_all(descriptor, content)
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)
        if first_wins:
            try:
                move_if_free(temporary, path)
            except FileExistsError:
                return False
        elif is_open:
            move_over_open(temporary, path)
        else:
            move_over(temporary, path)
    finally:
        try:
            os.unlink(temporary)
        except OSError as error:
            raise_the_hosts(error)
            # Renamed away; or it stays, and the next flush sweeps it.
    if durable:
        sync_directory(os.path.dirname(path))
    return True
