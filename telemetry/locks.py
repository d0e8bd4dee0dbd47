"""An exclusive lock on an open file, which the kernel drops with its last owner.

The lock belongs to the open file description: it lives as long as any copy of
the descriptor, in this process or in one that inherited it, and needs no
clean-up after a crash. Nothing here waits, and nothing here opens or closes a
file.
"""

from __future__ import annotations

import os
import sys


if sys.platform == "win32":
    import msvcrt

    # A byte far beyond any content, so that readers are not kept from reading.
    _LOCK_OFFSET = 0x7FFFFFFE

    def try_lock(descriptor: int) -> bool:
        """Whether the lock is ours now; False if another open file holds it.

        Raises OSError where the file system cannot lock at all.
        """
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCK_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True

    def unlock(descriptor: int) -> None:
        """Nothing: copies share no lock here."""

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Whether the lock is ours now; False if another open file holds it.

        Raises OSError where the file system cannot lock at all.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Release the lock, also if another process has a copy of the descriptor."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


if sys.platform == "darwin":

    def sync(descriptor: int) -> None:
        """Return once the content is on the medium; OSError says it may not be.

        `fsync` on macOS stops at the drive's cache; F_FULLFSYNC goes through it.
        """
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)

else:

    def sync(descriptor: int) -> None:
        """Return once the content is on the medium; OSError says it may not be."""
        getattr(os, "fdatasync", os.fsync)(descriptor)
