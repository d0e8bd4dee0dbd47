"""What Linux and macOS do with files: flags, permissions, locks, syncs.

`files_windows.py` has the same names for Windows; `files.py` chooses one and says
what the functions promise. Nothing here waits or knows what a file is for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from telemetry.errors import HomeError, raise_the_hosts


# Opening a FIFO that was planted for us must not wait for its other end.
_COMMON = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SEGMENT = os.O_RDWR | os.O_APPEND | _COMMON
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# macOS: `fsync` stops at the drive's cache, and this goes through it.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
# What a file system says that has no such call.
_NO_FULL_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOTTY})
# The same of hard links: exFAT, Android, some mounts of other systems.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# The same of times, or a sandbox: the time is that of the write then.
_NO_TIMES = _NO_LINKS | {errno.EACCES}
# Files and directories that a file system must still take for its room to be of use.
_FILES_MIN = 3

read_at = os.pread
write_at = os.pwrite
end_of_ours = os.lseek


def read_beginning(descriptor: int, length: int) -> bytes:
    return os.read(descriptor, length)


def open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | _COMMON, 0o600)
    try:
        found = os.fstat(descriptor)
        is_regular = stat.S_ISREG(found.st_mode)
        if is_regular and flags & os.O_CREAT:
            give_file_to_owner(descriptor, found)
    except OSError:
        os.close(descriptor)
        raise
    if not is_regular:
        os.close(descriptor)
        raise OSError(0, "is no regular file", path)
    return descriptor


def open_segment(path: str, *, is_new: bool) -> int:
    return os.open(path, _SEGMENT | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o600)


def give_file_to_owner(descriptor: int, found: os.stat_result) -> None:
    """The owner may read and write it, whatever the umask."""
    if found.st_mode & 0o600 != 0o600:
        os.fchmod(descriptor, 0o600)


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def shut_out_writers(path: str, descriptor: int) -> int | None:
    return descriptor if try_lock(descriptor) else None


def sync(descriptor: int, full: int | None = _FULL_SYNC) -> None:
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
        else:
            return
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_directory(path: str) -> None:
    # What stands in its place, a FIFO for example, would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_way_to(path: str) -> None:
    above, device = os.path.dirname(path), os.stat(path).st_dev
    while above != path and os.access(above, os.W_OK):
        if os.stat(above).st_dev != device:
            break
        try:
            sync_directory(above)
        except PermissionError:
            os.sync()  # it may be written to and not read, as drop boxes are
        path, above = above, os.path.dirname(above)


def move_over(source: str, target: str) -> None:
    os.replace(source, target)


move_over_open = move_over


def move_if_free(source: str, target: str) -> None:
    # A hard link, unlike a rename, fails where the name is taken.
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Of two at the same instant the later one wins here.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", target) from error
        os.rename(source, target)


def move_directory(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV or not os.path.isdir(source):
            raise
        # overlayfs renames no directory of an image's layer, but the files in it. Killed
        # in between, the next call moves the others, to a name of its own.
        os.mkdir(target, 0o700)
        # A database before its journal, or it could be read without that.
        for name in sorted(os.listdir(source)):
            if not os.path.isdir(f"{source}/{name}"):  # that is none of ours
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{source}/{name}", f"{target}/{name}")


move_files = move_directory  # no file is kept from moving by who has it open


def erase(path: str) -> None:
    """Nothing: what cannot be removed here is not in use, but protected."""


def is_erased(descriptor: int) -> bool:
    # A home may have been copied from Windows.
    return os.pread(descriptor, 2, 0) == b"\n"


def overwrite(path: str, content: bytes, mtime_ns: int) -> None:
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        try:
            os.pwrite(descriptor, content, 0)
        finally:
            try:
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            except OSError as error:
                if error.errno not in _NO_TIMES:
                    raise
    finally:
        os.close(descriptor)


def free_bytes(path: str) -> int:
    found = os.statvfs(path)
    # A file system that counts its files (f_files) may run out of them first. One that
    # does not know how many are left says -1.
    is_without = found.f_files and 0 <= found.f_favail < _FILES_MIN
    return 0 if is_without else found.f_bavail * found.f_frsize


def directory_problem(found: os.stat_result) -> str:
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory (a symbolic link is not followed)"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, not to user {os.geteuid()}"
    if found.st_mode & _WRITABLE_BY_OTHERS:
        if found.st_mode & stat.S_ISVTX:
            return "is shared with others; name a directory in it that is yours"
        return "can be written by others; run `chmod 700` on it"
    return ""


def give_directory_to_owner(path: str, found: os.stat_result) -> None:
    """The owner may read, write and enter it, whatever the umask."""
    if found.st_mode & stat.S_IRWXU == stat.S_IRWXU:
        return
    if not hasattr(os, "O_PATH"):
        os.chmod(path, 0o700, follow_symlinks=False)
        return
    # A descriptor that needs no permission, so that nothing can be put in its place.
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        problem = directory_problem(os.fstat(descriptor))
        if problem:
            raise OSError(0, problem, path)
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


# What Linux calls every user that a namespace of users does not have.
_UNMAPPED = 65534


def _is_unmapped(owner: int) -> bool:
    """Whether this namespace of users does not have an owner, as the machine's root.

    Its own root is a user whose home is below directories of that one.
    """
    if owner != _UNMAPPED:
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            for line in file:
                first, _, count = map(int, line.split())
                if first <= owner < first + count:
                    return False
    except (OSError, ValueError) as error:
        raise_the_hosts(error)
        return False
    return True


def refuse_below_others(root: str) -> None:
    if os.geteuid() != 0:
        return
    place = root
    while place != (above := os.path.dirname(place)):
        place = above
        try:
            owner = os.stat(place).st_uid
        except OSError as error:
            raise_the_hosts(error)
            continue  # not there yet
        if owner != 0 and not _is_unmapped(owner):
            problem = f"is below {place} of user {owner}, where root makes nothing"
            raise HomeError(root, problem)
