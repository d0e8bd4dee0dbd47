"""What Windows does with files: sharing in place of unlinking, one lock a handle.

The same names as in `files_posix.py`. Measured with CPython for Windows:

- Appending is atomic with FILE_APPEND_DATA alone: Windows says of local files that such a
  write never overwrites what is there. The C library's O_APPEND seeks first, and loses
  lines of writers that take turns. Wine does so in either case (`tests/README.md`).
- A segment is opened without FILE_SHARE_DELETE: while its writer lives it cannot be
  removed or renamed, and neither can a directory above it. To have it abandoned, a
  purge or an opt-out appends one LF: its writer finds the end elsewhere.
- Everything else is opened so that it may be removed and renamed meanwhile.
- Replacing fails while another process has the file open, so it is tried again; a
  short file is written in place at last. A small file is read until two reads agree:
  one alone had the beginning of the old content and the end of the new.
- A directory cannot be synced, and a file has no owner that one could compare.
"""

from __future__ import annotations

import sys


assert sys.platform == "win32"

import _winapi
import errno
import msvcrt
import os
import stat
import time


_READ, _APPEND, _SYNCHRONIZE, _DELETE = _winapi.GENERIC_READ, 4, 0x100000, 0x10000
_WRITE = _winapi.GENERIC_WRITE
_SHARE_READ, _SHARE_WRITE, _SHARE_DELETE = 1, 2, 4
_SHARE_ALL = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_NORMAL, _OPEN_LINK_ITSELF = 0x80, 0x200000
# A byte far beyond any content: a locked one can be read by its owner alone.
_LOCK_OFFSET = 0x7FFFFFFE
# What says that nothing can be locked. Anything else is said of a lock that another
# handle has: EACCES, and under Wine whatever the number was before.
_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL})
# Access denied, sharing violation: another process has the file open.
_IN_USE = frozenset({5, 32})
# Readers have a file open for microseconds, virus scanners for longer. Several programs
# that read one again and again leave no moment at which nobody has it.
_PATIENCE_S, _PAUSE_S = 2.0, 0.005
_SECTOR_BYTES = 512


def _open(path: str, access: int, share: int, how: int) -> int:
    flags = _NORMAL | _OPEN_LINK_ITSELF
    handle = _winapi.CreateFile(path, access, share, 0, how, flags, 0)
    try:
        return msvcrt.open_osfhandle(handle, os.O_BINARY | os.O_NOINHERIT)
    except BaseException:
        _winapi.CloseHandle(handle)
        raise


def open_regular(path: str, flags: int) -> int:
    # Before it is open: as long as it is, nobody can replace it.
    if not stat.S_ISREG(_mode(path)):
        raise OSError(0, "is no regular file", path)
    access = _READ if not flags & (os.O_WRONLY | os.O_RDWR) else _READ | _WRITE
    how = _OPEN_EXISTING
    if flags & os.O_CREAT:
        how = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
    descriptor = _open(path, access, _SHARE_ALL, how)
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return stat.S_IFREG


def open_segment(path: str, *, is_new: bool) -> int:
    access = _READ | _APPEND | _SYNCHRONIZE
    how = _CREATE_NEW if is_new else _OPEN_EXISTING
    descriptor = _open(path, access, _SHARE_READ | _SHARE_WRITE, how)
    if not is_new and is_erased(descriptor):
        os.close(descriptor)
        raise OSError(0, "was erased", path)
    return descriptor


def give_file_to_owner(descriptor: int, found: os.stat_result) -> None:
    """Nothing: a new file has the rights of its directory."""


def end_of_ours(descriptor: int, offset: int, whence: int) -> int:
    """Where the next write lands: at the file's end, whoever wrote before."""
    found = os.fstat(descriptor)
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length)


def read_beginning(descriptor: int, length: int) -> bytes:
    found = read_at(descriptor, length, 0)
    while (again := read_at(descriptor, length, 0)) != found:
        found = again
    return found


def write_at(descriptor: int, content: bytes, offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, content)


def try_lock(descriptor: int) -> bool:
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCK_OFFSET, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise
        return False
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
    return True


def unlock(descriptor: int) -> None:
    """Nothing: the lock is the handle's, and ends when that is closed."""


def shut_out_writers(path: str, descriptor: int) -> int | None:
    try:
        return _open(path, _READ | _DELETE, _SHARE_READ | _SHARE_DELETE, _OPEN_EXISTING)
    except PermissionError:
        return None  # a writer lives


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def sync_directory(path: str) -> None:
    os.stat(path)


def sync_way_to(path: str) -> None:
    """Nothing: NTFS keeps names in a journal of its own."""


def move_over(source: str, target: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            os.replace(source, target)
        except OSError as error:
            if error.winerror not in _IN_USE or os.path.isdir(target):
                raise
            if time.monotonic() > until:
                if os.stat(source).st_size > _SECTOR_BYTES:
                    raise
                move_over_open(source, target)
                return
            time.sleep(_PAUSE_S)
        else:
            return


def move_over_open(source: str, target: str) -> None:
    """One write of less than a sector, which no kill leaves a part of.

    Line feeds take the place of what was longer: killed before the cut, they stay.
    """
    reading = open_regular(source, os.O_RDONLY)
    try:
        content = os.read(reading, _SECTOR_BYTES)
    finally:
        os.close(reading)
    writing = open_regular(target, os.O_WRONLY)
    try:
        size = os.fstat(writing).st_size
        os.write(writing, content.ljust(size, b"\n"))
        if size > len(content):
            os.ftruncate(writing, len(content))
        os.fsync(writing)
    finally:
        os.close(writing)


def move_if_free(source: str, target: str) -> None:
    os.rename(source, target)


move_directory = os.rename


def move_files(source: str, target: str) -> None:
    os.mkdir(target, 0o700)
    for name in os.listdir(source):
        path = f"{source}/{name}"
        try:
            os.rename(path, f"{target}/{name}")
        except FileNotFoundError:
            pass  # a flusher was quicker
        except PermissionError:
            _retire(path)


def _retire(path: str) -> None:
    """Its writer abandons it: nothing that follows the LF was acknowledged."""
    try:
        descriptor = _open(path, _APPEND | _SYNCHRONIZE, _SHARE_ALL, _OPEN_EXISTING)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)


def erase(path: str) -> None:
    try:
        descriptor = _open(path, _READ | _WRITE, _SHARE_ALL, _OPEN_EXISTING)
    except OSError:
        return
    try:
        # The LF first: a file of no length could be one that its writer has just made.
        os.write(descriptor, b"\n")
        os.ftruncate(descriptor, 1)
    except OSError:
        pass  # the caller reports that it is there
    finally:
        os.close(descriptor)


def is_erased(descriptor: int) -> bool:
    # A writer that had looked before may have written once more: it gave that up.
    return read_at(descriptor, 2, 0) in {b"\n", b"\n\x1e"}


def overwrite(path: str, content: bytes, mtime_ns: int) -> None:
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
    finally:
        # Closing a file that was written sets its time.
        os.utime(path, ns=(mtime_ns, mtime_ns))


def free_bytes(path: str) -> int:
    import shutil

    return shutil.disk_usage(path).free


def directory_problem(found: os.stat_result) -> str:
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory (a symbolic link is not followed)"
    return ""


def give_directory_to_owner(path: str, found: os.stat_result) -> None:
    """Nothing: a directory of ours has the rights of the user's profile."""


def refuse_below_others(root: str) -> None:
    """Nothing: no user is root here."""
