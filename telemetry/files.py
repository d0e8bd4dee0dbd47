"""Small files of the home: read whole, written whole, made private.

Rules: no symlink is followed at the last step; directories are 0700 and files
0600 whatever the umask; a file that readers may meet is written under another
name first and appears under its own in one step, so a crash leaves either the
old content or the new, and at worst a file whose name contains `.tmp-`.

The directories above the home are the user's own affair. The home itself must be a
real directory of ours that no other user can write to. Then no other user can have
planted anything below it, so the checks end there.
"""

from __future__ import annotations

import os
import stat

from telemetry.errors import HomeError
from telemetry.locks import sync


# Where the system lacks a flag, its absence cannot be made up for.
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
CLOEXEC = getattr(os, "O_CLOEXEC", 0)
# Opening a FIFO that was planted for us must not wait for its other end.
NONBLOCK = getattr(os, "O_NONBLOCK", 0)
BINARY = getattr(os, "O_BINARY", 0)
COMMON = NOFOLLOW | CLOEXEC | NONBLOCK | BINARY

TEMPORARY = ".tmp-"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def make_home(root: str) -> bool:
    """The home exists afterwards and is ours alone; True if it was made just now.

    One of ours that lacks permissions of its owner is mended. Raises HomeError where
    it cannot be made, is no directory, is a symlink, belongs to or can be written by
    another user, or would be made by root below another user's directory (`sudo`
    with a kept HOME): that user's programs would be shut out.
    """
    made = False
    try:
        found = os.lstat(root)
    except OSError:
        try:
            refuse_below_others(root)
            made = _make_with_parents(root)
            found = os.lstat(root)
        except OSError as error:
            problem = f"cannot be made: {error.strerror or error}"
            raise HomeError(root, problem) from error
    problem = directory_problem(found)
    if problem:
        raise HomeError(root, problem)
    if _lacks_owner_bits(found):
        try:
            _give_owner_bits(root)
        except OSError as error:
            problem = f"cannot be opened by its owner: {error.strerror}"
            raise HomeError(root, problem) from error
    return made


def refuse_below_others(root: str) -> None:
    """Raise HomeError where we are root and a directory above is another user's.

    In a user's home whatever root makes shuts that user's programs out.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    place = root
    while place != (above := os.path.dirname(place)):
        place = above
        try:
            owner = os.stat(place).st_uid
        except OSError:
            continue  # not there yet
        if owner != 0:
            problem = f"is below {place} of user {owner}, where root makes nothing"
            raise HomeError(root, problem)


def _make_with_parents(path: str) -> bool:
    """Whether the directory was made just now, all with 0700. Raises OSError."""
    above = os.path.dirname(path)
    if above != path and not os.path.isdir(above):
        _make_with_parents(above)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False  # another first launch was quicker
    if _lacks_owner_bits(os.lstat(path)):
        _give_owner_bits(path)
    return True


def _lacks_owner_bits(found: os.stat_result) -> bool:
    """Whether an unusual umask, or a person, took permissions from the owner."""
    return os.name == "posix" and found.st_mode & stat.S_IRWXU != stat.S_IRWXU


def _give_owner_bits(path: str) -> None:
    """A directory of ours is 0700 afterwards. Follows no link. Raises OSError."""
    if not hasattr(os, "O_PATH"):
        os.chmod(path, 0o700, follow_symlinks=False)
        return
    # A descriptor that needs no permission, so that nothing can be put in its place.
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | NOFOLLOW | CLOEXEC)
    try:
        problem = directory_problem(os.fstat(descriptor))
        if problem:
            raise OSError(0, problem, path)
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


def directory_problem(found: os.stat_result) -> str:
    """Why a directory with this `lstat` is not safe to use; empty if it is."""
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory (a symbolic link is not followed)"
    if not hasattr(os, "geteuid"):
        return ""
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, not to user {os.geteuid()}"
    if found.st_mode & _WRITABLE_BY_OTHERS:
        return "can be written by others; run `chmod 700` on it"
    return ""


def make_directory(path: str, *, durable: bool = False) -> None:
    """A directory of the home exists afterwards, 0700. Raises OSError.

    With `durable` its name survives a power loss, also if another process made it
    and died before it was synced.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    problem = directory_problem(found)
    if problem:
        raise OSError(0, problem, path)
    if _lacks_owner_bits(found):
        _give_owner_bits(path)
    if durable:
        sync_directory(os.path.dirname(path))


def names_in(directory: str) -> list[str]:
    """The names in a directory of the home, in no order; none where there is none.

    A link or a file in its place has no names that are ours. Raises OSError.
    """
    try:
        return [] if os.path.islink(directory) else os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def open_regular(path: str, flags: int, mode: int = 0o600) -> int:
    """A descriptor of the regular file `path`; a link, FIFO or directory is OSError."""
    descriptor = os.open(path, flags | COMMON, mode)
    try:
        found = os.fstat(descriptor)
        is_regular = stat.S_ISREG(found.st_mode)
        if is_regular and flags & os.O_CREAT:
            give_owner(descriptor, found)
    except OSError:
        os.close(descriptor)
        raise
    if not is_regular:
        os.close(descriptor)
        raise OSError(0, "is no regular file", path)
    return descriptor


def give_owner(descriptor: int, found: os.stat_result) -> None:
    """The owner may read and write a new file, whatever the umask. Raises OSError."""
    if os.name == "posix" and found.st_mode & 0o600 != 0o600:
        os.fchmod(descriptor, 0o600)


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
        return os.read(descriptor, min(bytes_max, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Every byte is written on return. Raises OSError; some may be written then."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(
    path: str, content: bytes, *, first_wins: bool = False, durable: bool = False
) -> bool:
    """`path` holds `content`, whole or not at all, on return.

    With `first_wins`, a file that exists is left alone and the answer is False.
    With `durable`, it survives a power loss. Raises OSError; a failure leaves
    what was there before.
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
                # A hard link, unlike a rename, fails where the name is taken.
                os.link(temporary, path)
            except FileExistsError:
                return False
        else:
            os.replace(temporary, path)
    finally:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # renamed away; or it stays, and the next flush sweeps it
    if durable:
        sync_directory(os.path.dirname(path))
    return True


def sync_directory(path: str) -> None:
    """The names in a directory survive a power loss on return. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_way_to(path: str) -> None:
    """A directory's own name survives a power loss on return, and those above it.

    The process that made them may have died before it synced them. What stands in a
    directory that we may not write to, or on another file system, was not made by us.
    Raises OSError.
    """
    above, device = os.path.dirname(path), os.stat(path).st_dev
    while above != path and os.access(above, os.W_OK):
        if os.stat(above).st_dev != device:
            break
        try:
            sync_directory(above)
        except PermissionError:
            os.sync()  # it may be written to and not read, as drop boxes are
        path, above = above, os.path.dirname(above)
